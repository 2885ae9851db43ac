-- Runs C test programs and spec files, JOBS at a time (default: a core each), and closes with the
-- line `N passed, N failed`.
--
--   lua5.4 .ci/test.lua LOGDIR FILE...        a *_spec.lua goes to busted, anything else is run
--
-- Both kinds speak TAP (cmocka and busted by themselves), and the sums are made of those lines. A
-- program that prints no plan, fewer results than planned, ends with another code than its results
-- say, outlives its time, trips a sanitizer or leaves a process behind counts as one failure more.
-- A skipped test is printed; with CI=true it is a failure.
--
-- Each gets SPEC_TIMEOUT seconds (180); a file may ask for more with a line `-- timeout: 400`.
-- SAN=address or SAN=thread: core.so of that flavour is loaded into the stock interpreter, with the
-- compiler's runtime preloaded (and PRELOAD). VALGRIND=1: all runs under memcheck, interpreters that specs start
-- too. Either way there is more time, and specs wait longer (SPEC_SLOWER) for what they wait for.

local LUA = os.getenv("LUA") or "lua5.4"
local SAN = os.getenv("SAN") or ""
local CC = os.getenv("CC") or "gcc"
local IN_CI = os.getenv("CI") == "true"
local PRELOAD = os.getenv("PRELOAD") ~= "" and os.getenv("PRELOAD") or nil
local VALGRIND = (os.getenv("VALGRIND") or "") ~= ""
local TIMEOUT = tonumber(os.getenv("SPEC_TIMEOUT")) or 180
local SLOWER = VALGRIND and 10 or SAN == "" and 1 or 3

local function quote(s)
  return "'" .. s:gsub("'", "'\\''") .. "'"
end

local function capture(command)
  local pipe <close> = assert(io.popen(command, "r"))
  return (pipe:read("a"):gsub("%s+$", ""))
end

local function read(path)
  local file <close> = io.open(path, "rb")
  return file and file:read("a") or ""
end

local JOBS = math.tointeger(tonumber(os.getenv("JOBS")) or tonumber(capture("nproc")))
local WRAPPER = capture("pwd") .. "/.ci/valgrind"

-- Environment of a program under test, as `env` arguments.
local function environment(logdir, is_spec, mark)
  local vars = { "PHUB_TEST_RUN=" .. mark, "CMOCKA_MESSAGE_OUTPUT=TAP", "SPEC_SLOWER=" .. SLOWER }
  local function add(name, value)
    vars[#vars + 1] = name .. "=" .. value
  end
  if VALGRIND then
    add("LUA", WRAPPER)
    add("VALGRIND_LUA", LUA)
    add("VALGRIND_LOG", ("%s/sanitizer.%s.%%p"):format(logdir, mark))
  end
  if SAN ~= "" then
    local preload = {}
    -- specs look at memory: what was freed may not stay for long
    local options = ("halt_on_error=1:log_path=\"%s/sanitizer.%s\""):format(logdir, mark)
    add("ASAN_OPTIONS", options .. ":detect_leaks=" .. (is_spec and "0:quarantine_size_mb=4" or "1"))
    add("UBSAN_OPTIONS", options .. ":print_stacktrace=1")
    add("TSAN_OPTIONS", options)
    if is_spec then
      local library = SAN == "thread" and "tsan" or "asan"
      local name = "lib" .. library .. ".so"
      if CC:find("clang", 1, true) then
        name = ("libclang_rt.%s-%s.so"):format(library, capture("uname -m"))
      end
      preload[1] = capture(CC .. " -print-file-name=" .. name)
    end
    preload[#preload + 1] = PRELOAD
    if #preload > 0 then add("LD_PRELOAD", table.concat(preload, ":")) end
  end
  for i, v in ipairs(vars) do
    vars[i] = quote(v)
  end
  return table.concat(vars, " ")
end

-- Pids of processes that carry the mark of a run in their environment.
local function marked(mark)
  local found = capture("grep -lsz '^PHUB_TEST_RUN=" .. mark .. "$' /proc/[0-9]*/environ")
  local pids = {}
  for pid in found:gmatch("/proc/(%d+)/") do
    pids[#pids + 1] = pid
  end
  return pids
end

local function left_behind(mark)
  local pids = marked(mark)
  for _ = 1, 10 do
    if #pids == 0 then return pids end
    os.execute("sleep 0.1")
    pids = marked(mark)
  end
  for _, pid in ipairs(pids) do
    os.execute("kill -9 " .. pid .. " 2>/dev/null")
  end
  return pids
end

-- Counts results; `planned` is nil when the output has no plan. cmocka writes a plan a group, and
-- marks a skipped test "not ok".
local function parse_tap(text)
  local r = { passed = 0, failed = 0, skipped = {} }
  for line in text:gmatch("[^\n]+") do
    local plan = line:match("^1%.%.(%d+)%s*$")
    local no, name = line:match("^(n?o?t? ?)ok %d+%s*(.*)$")
    if plan then
      r.planned = (r.planned or 0) + tonumber(plan)
    elseif no and (no == "" or no == "not ") then
      local skipped = name:match("# [Ss][Kk][Ii][Pp]%s*(.*)")
      if skipped then
        r.skipped[#r.skipped + 1] = skipped
      elseif no == "" then
        r.passed = r.passed + 1
      else
        r.failed = r.failed + 1
      end
    end
  end
  return r
end

local function command_of(file, seconds, env)
  local program = quote(file)
  if file:find("_spec%.lua$") then
    -- busted starts the interpreter it is told to use by system(), which TSan's runtime does not bear
    program = quote(VALGRIND and WRAPPER or LUA) .. ' "$(command -v busted)" --ignore-lua -v -o TAP '
      .. program
  elseif VALGRIND then
    program = quote(WRAPPER) .. " --program " .. program
  end
  return ("env %s timeout -k 5 %d %s"):format(env, seconds, program)
end

---@class job
---@field name string  the source file
---@field seconds integer  it may take

local function new_job(file, logdir, serial)
  local is_spec = file:find("_spec%.lua$") ~= nil
  local source = is_spec and file or file:gsub("^build/[^/]+/test/", "") .. ".c"
  local job = { name = source, logdir = logdir }
  job.seconds = SLOWER * (tonumber(read(source):match("%-%- timeout: (%d+)")) or TIMEOUT)
  job.mark = ("%d.%d"):format(os.time(), serial)
  job.log = logdir .. "/" .. source:gsub("/", "_") .. ".log"
  job.command = command_of(file, job.seconds, environment(logdir, is_spec, job.mark))
    .. " </dev/null >" .. quote(job.log) .. " 2>&1"
  return job
end

-- What AddressSanitizer says of a fork in a process with threads is no report.
local function reports_of(job)
  local text = capture("cat " .. quote(job.logdir) .. "/sanitizer." .. job.mark .. ".* 2>/dev/null")
  return (text:gsub("==%d+==Running thread %d+ was not suspended%. False leaks are possible%.\n?", ""))
end

local function result_of(job, code, seconds)
  local text = read(job.log)
  local r = parse_tap(text)
  r.name, r.text, r.seconds, r.problems = job.name, text, seconds, {}

  local function problem(...)
    r.problems[#r.problems + 1] = string.format(...)
  end
  local seen = r.passed + r.failed + #r.skipped
  if code == 124 or code == 137 then
    problem("did not end within %d s", job.seconds)
  elseif not r.planned then
    problem("ended with %d and without a plan of its tests", code)
  elseif seen ~= r.planned then
    problem("planned %d tests and reported %d", r.planned, seen)
  elseif code ~= 0 and r.failed == 0 then
    problem("ended with %d though no test failed", code)
  elseif seen == 0 then
    problem("holds no test")
  end
  local left = left_behind(job.mark)
  if #left > 0 then
    problem("left %d processes behind: %s", #left, table.concat(left, " "))
  end
  local reports = reports_of(job)
  if reports ~= "" then
    problem("a sanitizer reported:\n%s", reports)
  end
  return r
end

-- A shell with one loop a job at a time; tells the end of each by a line `number code seconds`.
local RUNNER = [[
xargs -P %d -I{} /bin/sh -c '
  began=$(date +%%s); . "$1/job.$2"; echo "$2 $? $(($(date +%%s) - began))"' sh %s {} ]]

local function write(path, text)
  local file <close> = assert(io.open(path, "w"))
  file:write(text)
end

--- Runs all, and calls fn with the result of each as they end.
local function run_all(jobs, logdir, fn)
  local numbers = {}
  for i, job in ipairs(jobs) do
    write(("%s/job.%d"):format(logdir, i), job.command .. "\n")
    numbers[i] = i
  end
  write(logdir .. "/jobs", table.concat(numbers, "\n") .. "\n")
  local pipe <close> = assert(io.popen(RUNNER:format(JOBS, quote(logdir)) .. "<" .. quote(logdir .. "/jobs")))
  local told = 0
  for line in pipe:lines() do
    local i, code, seconds = line:match("^(%d+) (%d+) (%d+)$")
    fn(result_of(jobs[tonumber(i)], tonumber(code), tonumber(seconds)))
    told = told + 1
  end
  assert(told == #jobs, "tests were not run")
end

local function show(r)
  local bad = r.failed > 0 or #r.problems > 0
  print(("%-6s %-52s %4d passed %3d failed %4d s")
    :format(bad and "FAILED" or "ok", r.name, r.passed, r.failed, r.seconds))
  for _, name in ipairs(r.skipped) do
    print("       skipped: " .. name)
  end
  if bad then
    for line in r.text:gmatch("[^\n]+") do
      print("       | " .. line)
    end
  end
  for _, text in ipairs(r.problems) do
    print("       " .. r.name .. " " .. text)
  end
  io.stdout:flush()
end

-- Runs may overlap: each has a folder of its own, kept when something failed.
local logs = assert(arg[1], "usage: test.lua LOGDIR FILE...")
assert(os.execute("mkdir -p " .. quote(logs)))
local logdir = capture(("mktemp -d \"$(cd %s && pwd)\"/%s.XXXX"):format(quote(logs), os.date("%H%M%S")))
local passed, failed = 0, 0
local jobs = {}
for i = 2, #arg do
  jobs[i - 1] = new_job(arg[i], logdir, i)
end
run_all(jobs, logdir, function(r)
  show(r)
  passed = passed + r.passed
  failed = failed + r.failed + #r.problems + (IN_CI and #r.skipped or 0)
end)
if passed + failed == 0 then
  print("no test ran")
elseif failed > 0 then
  print("logs: " .. logdir)
else
  os.execute("rm -rf " .. quote(logdir))
end
print(("%d passed, %d failed"):format(passed, failed))
os.exit(failed == 0 and passed > 0)
