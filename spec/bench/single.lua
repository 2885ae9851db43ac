-- One awaited start and one awaited stop at a time, whatever is registered.
local round_trips = require "spec.bench.round_trips"

local MANY, RAW_SECONDS = 10000, 0.3

local function rows(b, nodes, n, times)
  local limit = nodes == 1 and { what = "pcall init", value = 1 / b.machine.init }
    or { what = "raw round trip", value = 1 / b.machine.raw }
  for _, m in ipairs { { "start_one", "one awaited start", times.starts },
      { "stop_one", "one awaited stop", times.stops } } do
    b:row { key = m[1], what = m[2], nodes = nodes, n = n, unit = "s", value = m[3].median,
      p99 = m[3].p99, max = m[3].max, limit = limit }
  end
end

return function(b)
  local count = b.full and 2000 or 300
  for _, nodes in ipairs(b.nodes) do
    local trips = round_trips(RAW_SECONDS)
    b.machine.raw = (trips.different or trips.one).raw
    local c = b:cluster(nodes)
    rows(b, nodes, 0, b:on(c[1], "single.times", count))
    local n = b:at_most(MANY)
    b:on(c[1], "bulk.fill", n)
    rows(b, nodes, n, b:on(c[1], "single.times", count))
    b:close(c, n)
  end
end
