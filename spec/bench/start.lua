-- Awaited starts and stops of many children at once.
local measure = require "spec.bench.measure"

local TIMES = 5
local FROM, TO, AT_MOST = 10000, 100000, 30

local function rows(b, nodes, n, rates)
  local limit = { what = "pcall init", value = b.machine.init }
  for _, m in ipairs { { "start", "awaited bulk start", rates.starts },
      { "stop", "awaited bulk stop", rates.stops } } do
    b:row { key = m[1], what = m[2], nodes = nodes, n = n, value = measure.median(m[3]), runs = m[3],
      unit = "/s", limit = limit }
  end
end

-- How the requester's node answers others meanwhile.
local function probed(b, c, n)
  b:on(c[1], "probe.start")
  b:on(c[1], "bulk.rates", n, 1)
  local calls = b:on(c[1], "probe.stop")
  b:row { key = "probe_start", what = "a call each ms meanwhile", nodes = #c, n = n, unit = "s",
    value = calls.median, p99 = calls.p99, max = calls.max }
end

local function check_growth(b, nodes)
  local small, large = b.report:find("start", nodes, FROM), b.report:find("start", nodes, TO)
  if not small or not large then return end
  local times = (TO / large.value) / (FROM / small.value)
  b:check(("%d nodes: starting 10 times 10,000 children takes at most %d times as long"):format(nodes,
    AT_MOST), times <= AT_MOST, ("%.1f times"):format(times))
end

return function(b)
  for _, nodes in ipairs(b.nodes) do
    for _, n in ipairs(b.sizes) do
      local c = b:cluster(nodes)
      rows(b, nodes, n, b:on(c[1], "bulk.rates", n, TIMES))
      if n == b:at_most(FROM) then probed(b, c, n) end
      c:stop()
    end
    check_growth(b, nodes)
  end
end
