-- On a node: one awaited start and one awaited stop at a time.
local phub = require "phub"
local measure = require "spec.bench.measure"

local single = {}

local AWAITED = { awaitable = true }

local function start(spec)
  local result = assert(assert(phub.start_child("h", spec, AWAITED)):await())
  assert(result.status == "ok", "start failed")
end

local function stop(id)
  local result = assert(assert(phub.stop_child("h", id, AWAITED)):await())
  assert(result.status == "ok", "stop failed")
end

--- Seconds of `count` starts and as many stops.
function single.times(count)
  local starts, stops = {}, {}
  for i = 1, count do
    local id = "single" .. i
    starts[i] = measure.timed(start, { id = id, start = { "spec.bench.child", "start", { "x" } } })
    stops[i] = measure.timed(stop, id)
  end
  return { starts = measure.summary(starts), stops = measure.summary(stops) }
end

return single
