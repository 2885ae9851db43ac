-- Calls and casts to one server, on the caller's node and on another; processes of one node besides.
local os_process = require "spec.support.os_process"
local measure = require "spec.bench.measure"
local round_trips = require "spec.bench.round_trips"

local HALF, LEAST, TURNS = 0.5, 30000, 3

local function rows(b, where, nodes, rates)
  local callback = { what = "pcall callback", value = b.machine.callback }
  local raw = { what = "raw round trip", value = b.machine.raw }
  local call_limit = where == "local" and callback or raw
  b:row { key = "call_" .. where, what = "calls, " .. where, nodes = nodes, unit = "/s",
    value = rates.call, limit = call_limit }
  b:row { key = "call_table_" .. where, what = "calls of a small table, " .. where, nodes = nodes,
    unit = "/s", value = rates.call_table, limit = call_limit }
  b:row { key = "cast_" .. where, what = "casts, " .. where, nodes = nodes, unit = "/s",
    value = rates.cast, limit = callback }
end

local function pin(c, cores)
  for i, node in ipairs(c) do
    local result, _, errors = os_process.sh(("taskset -acp %d %d"):format(cores[i], node.process.pid))
    assert(result.code == 0, errors)
  end
end

local function check(b, where, rate, raw)
  local share = where == "one" and HALF or 1
  b:check(("remote calls on %s: %sas many as raw round trips, and %d/s or more"):format(
    where == "one" and "one core" or "two cores", where == "one" and "half " or "", LEAST),
    rate >= share * raw and rate >= LEAST, ("%.0f/s, raw %.0f/s"):format(rate, raw))
end

-- The scheduler's choice of cores makes these differ fourfold: so they are pinned. Raw ones and
-- calls take turns, as what else the machine does falls on both.
local function pinned(b, c)
  local seconds = b.seconds / TURNS
  local raws, rates = { different = {}, one = {} }, { different = {}, one = {} }
  for i = 1, TURNS do
    local trips = round_trips(seconds)
    for where, cores in pairs { different = { 0, 1 }, one = { 0, 0 } } do
      if trips[where] then
        pin(c, cores)
        raws[where][i] = trips[where].raw
        rates[where][i] = b:on(c[1], "messages.calls", c[2].name, seconds)
      end
    end
  end
  for where, runs in pairs(rates) do
    if #runs > 0 then
      local rate, raw = measure.median(runs), measure.median(raws[where])
      b:row { key = "call_" .. where, nodes = 2, unit = "/s", value = rate, runs = runs,
        what = where == "one" and "calls, remote, on one core" or "calls, remote, on two cores",
        limit = { what = "raw round trip", value = raw, runs = raws[where] } }
      check(b, where, rate, raw)
    end
  end
end

local function alone(b, node)
  rows(b, "local", 1, b:on(node, "messages.rates", node.name, b.seconds))
  local rates = b:on(node, "messages.processes", b.seconds)
  local limit = { what = "pcall callback", value = b.machine.callback }
  for _, m in ipairs { { "send", "send and receive, there and back" }, { "spawn", "spawn to end" },
      { "server", "gen_server start and stop" } } do
    b:row { key = m[1], what = m[2], nodes = 1, unit = "/s", value = rates[m[1]], limit = limit }
  end
end

local function by_id(b, c)
  for i, where in ipairs { "local", "remote" } do
    b:row { key = "call_id_" .. where, what = "calls by child id, " .. where, nodes = #c, unit = "/s",
      value = b:on(c[1], "messages.calls_by_id", c[i].name, b.seconds),
      limit = i == 1 and { what = "pcall callback", value = b.machine.callback }
        or { what = "raw round trip", value = b.machine.raw } }
  end
end

return function(b)
  local c = b:cluster(2)
  for _, node in ipairs(c) do b:on(node, "messages.serve") end
  alone(b, c[1])
  rows(b, "remote", 2, b:on(c[1], "messages.rates", c[2].name, b.seconds))
  b:on(c[1], "bulk.fill", 100)
  by_id(b, c)
  pinned(b, c)
  b:close(c, 100)
end
