-- What the sections of a run share: its sizes, its clusters, what the machine can do, and the report.
local cluster = require "spec.support.cluster"
local tally = require "spec.support.tally"
local child = require "spec.bench.child"
local report = require "spec.bench.report"

---@class bench
---@field sizes integer[]  numbers of children: 1,000 and tenfold, up to the largest
---@field largest integer
---@field full boolean  otherwise measures are short
---@field seconds number  for a measure of so many a second
---@field nodes integer[]
---@field machine table  see spec.bench.machine
local Bench = {}
Bench.__index = Bench

local LIMIT_MS = 300000
local POLL_MS = "50" -- commands may be slow; what is measured must not be disturbed by reading them

--- Starts n nodes and waits until their hubs know each other.
---@param options? cluster.options
function Bench.cluster(_, n, options)
  options = options or {}
  options.env = { SPEC_POLL_MS = POLL_MS }
  local c = cluster.start(n, options)
  tally.hubs(c, LIMIT_MS)
  return c
end

--- Calls a function of spec.bench.work on a node: `b:on(node, "bulk.rates", 1000, 5)`.
function Bench.on(_, node, work, ...)
  local module, name = work:match "^(%w+)%.([%w_]+)$"
  return node:eval_within(LIMIT_MS,
    ("return require 'spec.bench.work.%s'.%s(...)"):format(module, name), ...)
end

--- Ends a cluster, and before it the children 1 to n.
function Bench:close(c, n)
  if n then self:on(c[1], "bulk.stop", child.ids(1, n)) end
  c:stop()
end

--- A size up to a bound, for what is not measured at all sizes.
function Bench:at_most(n)
  return math.min(n, self.largest)
end

function Bench:row(row) return self.report:row(row) end

function Bench:check(...) return self.report:check(...) end

local bench = {}

---@param largest integer
function bench.new(largest)
  local sizes = {}
  local n = 1000
  while n < largest do
    sizes[#sizes + 1] = n
    n = n * 10
  end
  sizes[#sizes + 1] = largest
  local full = largest > 1000
  return setmetatable({
    sizes = sizes, largest = largest, full = full, seconds = full and 1 or 0.3, nodes = { 1, 3 },
    report = report.new(), machine = {},
  }, Bench)
end

return bench
