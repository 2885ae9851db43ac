-- On a node: awaited starts and stops of many children.
local phub = require "phub"
local child = require "spec.bench.child"
local measure = require "spec.bench.measure"

local bulk = {}

local function options(metadata)
  return { awaitable = true, timeout = math.huge, await_timeout = math.huge, metadata = metadata }
end

local function complete(result, field, n)
  if result.status ~= "ok" or #result[field] ~= n then
    local first = result.errors[1]
    error(("%d of %d %s; first error: %s %s"):format(#result[field], n, field, first and first.id,
      first and tostring(first.reason)), 2)
  end
end

--- Starts them all and waits.
function bulk.start(specs, metadata)
  local result = assert(assert(phub.start_children("h", specs, options(metadata))):await(math.huge))
  complete(result, "started", #specs)
end

function bulk.stop(ids)
  local result = assert(assert(phub.stop_children("h", ids, options())):await(math.huge))
  complete(result, "stopped", #ids)
end

--- Children a second: `times` starts and as many stops of the children 1 to n.
function bulk.rates(n, times)
  local specs, ids = child.specs(1, n), child.ids(1, n)
  local starts, stops = {}, {}
  for i = 1, times do
    collectgarbage()
    starts[i] = n / measure.timed(bulk.start, specs)
    stops[i] = n / measure.timed(bulk.stop, ids)
  end
  return { starts = starts, stops = stops }
end

--- Leaves the children 1 to n running, the last `tagged` of them with the tag "some"; in batches,
--- so that little of what the starts themselves need is left.
function bulk.fill(n, tagged)
  local BATCH = 1000
  local plain = n - (tagged or 0)
  for first = 1, plain, BATCH do
    bulk.start(child.specs(first, math.min(first + BATCH - 1, plain)))
  end
  if plain < n then bulk.start(child.specs(plain + 1, n), { tag = "some" }) end
end

return bulk
