-- Measures phub: prints a table and writes it as JSON. See doc/bench.md.
--
--   make bench [N=1000] [ONLY="start reads"]
--
-- Ends with 1 when something did not work; a slow figure is told and fails nothing.
local os_process = require "spec.support.os_process"
local bench = require "spec.bench.bench"
local measure = require "spec.bench.measure"

local SECTIONS = { "start", "single", "reads", "change", "memory", "messages", "preempt", "idle" }

local largest = math.tointeger(tonumber(os.getenv "N" or 100000))
local only = os.getenv "ONLY" or ""
local path = os.getenv "BENCH_JSON" or "build/bench.json"

local function wanted(name)
  return only == "" or (" " .. only .. " "):find(" " .. name .. " ", 1, true) ~= nil
end

local function read(file)
  local f <close> = io.open(file)
  return f and f:read "a" or ""
end

local function load_average()
  return (require "luv".loadavg())
end

-- Runs a section; what it leaves behind when it fails is ended.
local function run(b, name)
  b.report:print(("-- %s (load %.2f)"):format(name, load_average()))
  local ok, err = xpcall(require("spec.bench." .. name), debug.traceback, b)
  local ended, left = pcall(os_process.finish)
  if ok and ended then return true end
  b.report:print(("FAILED  %s: %s"):format(name, ok and left or err))
  return false
end

if not largest or largest < 1000 then
  io.stderr:write("bench: N is the largest number of children, 1000 or more\n")
  os.exit(2)
end

local b = bench.new(largest)
local began, load_before, failed = measure.now(), load_average(), {}
b.report:header()
for _, name in ipairs { "machine", table.unpack(SECTIONS) } do
  if name == "machine" or wanted(name) then
    if not run(b, name) then failed[#failed + 1] = name end
    if name == "machine" and #failed > 0 then break end
  end
end
b.report:print_checks()
local seconds = measure.now() - began
b.report:write(path, {
  date = os.date "!%Y-%m-%dT%H:%M:%SZ", seconds = seconds, largest = largest, lua = _VERSION,
  cpu = read "/proc/cpuinfo":match "model name%s*:%s*([^\n]+)",
  cores = select(2, read "/proc/cpuinfo":gsub("processor%s*:", "")),
  load = { before = load_before, after = load_average() }, failed = failed,
})
b.report:print(("\n%.0f s, load %.2f before and %.2f after; %s"):format(seconds, load_before,
  load_average(), path))
for _, name in ipairs(failed) do b.report:print("FAILED  " .. name) end
os.exit(#failed == 0)
