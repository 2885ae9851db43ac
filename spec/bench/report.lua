-- Rows and checks: printed as they come, and kept for build/bench.json.
--
-- A ratio says how many times better phub is than what it stands beside, whether more or less is
-- better: 2.00 is twice as fast, or half the memory.
local json = require "spec.bench.json"
local original = require "spec.bench.original"

local report = {}
local Report = {}
Report.__index = Report

local FORMAT = "%-34s %5s %8s %16s %11s | %-27s %7s | %10s %7s"

local function grouped(v)
  local s = ("%.0f"):format(v)
  return (s:reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", ""))
end

local function short(v, unit)
  if v == nil then return "" end
  if type(v) == "string" then return v end
  if unit == "s" then
    if v >= 1 then return ("%.2f s"):format(v) end
    return v >= 1e-3 and ("%.2f ms"):format(v * 1e3) or ("%.2f us"):format(v * 1e6)
  end
  if unit == "%" then return ("%.2f %%"):format(v) end
  return grouped(v) .. (unit == "bytes" and " B" or unit == "bytes/s" and " B/s" or unit)
end

local function ratio(value, reference, unit)
  if type(value) ~= "number" or type(reference) ~= "number" then return nil end
  return unit == "/s" and value / reference or reference / value
end

local function figure(v)
  if not v then return "" end
  return v >= 100 and grouped(v) or ("%.2f"):format(v)
end

local function known(key, nodes, n)
  local by_nodes = original[key]
  local by_n = by_nodes and (by_nodes[nodes] or by_nodes.any)
  return by_n and (by_n[n] or by_n.any)
end

---@class bench.row
---@field key string  names the measure; the original's figures are found by it
---@field what string
---@field nodes integer
---@field n? integer  children
---@field value number
---@field unit "/s"|"s"|"bytes"|"bytes/s"|"%"
---@field p99? number
---@field max? number
---@field runs? number[]  what value is the median of
---@field limit? { what: string, value: number, unit?: string }  what the machine can do
---@field floor? number  slower than the original down to this is as meant
---@field load? number  the machine's load average when it was measured

---@param r bench.row
function Report:row(r)
  r.load = require "luv".loadavg()
  r.original = known(r.key, r.nodes, r.n)
  r.to_limit = r.limit and ratio(r.value, r.limit.value, r.unit)
  r.to_original = ratio(r.value, r.original, r.unit)
  self.rows[#self.rows + 1] = r
  local limit = r.limit and ("%s %s"):format(short(r.limit.value, r.unit), r.limit.what) or ""
  self:print(FORMAT:format(r.what, r.nodes, r.n and grouped(r.n) or "", short(r.value, r.unit),
    short(r.p99, r.unit), limit, figure(r.to_limit), short(r.original, r.unit), figure(r.to_original)))
  return r
end

function Report.print(_, line)
  print((line:gsub("%s+$", "")))
  io.stdout:flush()
end

function Report:header()
  self:print(FORMAT:format("", "nodes", "children", "phub", "p99", "the machine", "ratio",
    "original", "ratio"))
end

--- A comparison that should hold; a miss is told and fails nothing.
---@param ok boolean
function Report:check(name, ok, detail)
  self.checks[#self.checks + 1] = { name = name, ok = ok, detail = detail }
end

--- The row with this key.
function Report:find(key, nodes, n)
  for _, r in ipairs(self.rows) do
    if r.key == key and (not nodes or r.nodes == nodes) and (not n or r.n == n) then return r end
  end
end

local function slower_than_original(rows)
  local slow = {}
  for _, r in ipairs(rows) do
    local enough = r.floor and r.value >= r.floor
    if r.to_original and r.to_original < 1 and not enough then
      slow[#slow + 1] = ("%s, %d nodes%s"):format(r.what, r.nodes, r.n and ", " .. grouped(r.n) or "")
    end
  end
  return slow
end

function Report:print_checks()
  local slow = slower_than_original(self.rows)
  self:check("no row is slower than the original's figure", #slow == 0, table.concat(slow, "; "))
  self:print("")
  for _, c in ipairs(self.checks) do
    self:print(("%-6s  %s: %s"):format(c.ok and "holds" or "MISSED", c.name, c.detail))
  end
end

--- Writes rows and checks, with what is known of the run.
function Report:write(path, about)
  local file <close> = assert(io.open(path, "w"))
  assert(file:write(json.encode { about = about, rows = self.rows, checks = self.checks }))
end

function report.new()
  return setmetatable({ rows = {}, checks = {} }, Report)
end

return report
