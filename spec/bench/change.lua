-- A third node joins two that hold all children, and is killed: until the registry of every node says
-- where all of them run, and one child in a hundred has answered.
local measure = require "spec.bench.measure"

local ROUNDS = 3
local LIMIT_MS = 120000

-- Waits on every node, and on the first for the sample's answers too; then: when the last of it was done.
local function settle(b, nodes, held, gone)
  for i, node in ipairs(nodes) do b:on(node, "change.begin", held, gone, i == 1, LIMIT_MS) end
  return function()
    local latest = 0
    for _, node in ipairs(nodes) do latest = math.max(latest, b:on(node, "change.finish")) end
    return latest
  end
end

local function launch(c, options)
  c.count = 2 -- the name of the third again: so it is known what it should run
  return c:add(options)
end

-- Seconds of one join; leaves three nodes.
local function join(b, c, held)
  c[#c]:stop(LIMIT_MS)
  settle(b, { c[1], c[2] }, held, c[#c].name)()
  local third = launch(c, { join = false })
  b:on(c[1], "probe.start")
  local settled = settle(b, { c[1], c[2], third }, held)
  local began = b:on(third, "change.connect", c[1].address)
  local seconds = settled() - began
  return seconds, b:on(c[1], "probe.stop")
end

-- Seconds of one kill; leaves two nodes.
local function kill(b, c, held)
  local third = c[#c]
  local settled = settle(b, { c[1], c[2] }, held, third.name)
  local began = measure.now()
  third:kill()
  return settled() - began
end

-- What three nodes run: its size, how many children each, and where a sample runs.
local function fill(b, c, n)
  b:on(c[1], "bulk.fill", n)
  return { n = n, counts = b:on(c[1], "change.counts", n), places = b:on(c[1], "change.places", n) }
end

local function measured(b, n)
  local c = b:cluster(3)
  local held = fill(b, c, n)
  local joins, kills, calls = {}, {}, {}
  for i = 1, ROUNDS do
    if i > 1 then
      launch(c)
      settle(b, { c[1], c[2], c[#c] }, held)()
    end
    joins[i], calls[i] = join(b, c, held)
    kills[i] = kill(b, c, held)
  end
  b:close(c, n)
  return held.counts, joins, kills, calls
end

local function rows(b, n, moved, joins, kills, calls)
  local limit = { what = "pcall init", value = moved / b.machine.init }
  b:row { key = "join", what = "third node joins", nodes = 3, n = n, unit = "s",
    value = measure.median(joins), runs = joins, limit = limit }
  local median, p99, max = {}, {}, {}
  for i, s in ipairs(calls) do median[i], p99[i], max[i] = s.median, s.p99, s.max end
  b:row { key = "probe_join", what = "a call each ms meanwhile", nodes = 3, n = n, unit = "s",
    value = measure.median(median), p99 = measure.median(p99), max = measure.median(max) }
  b:row { key = "kill", what = "kill -9 of one of three", nodes = 3, n = n, unit = "s",
    value = measure.median(kills), runs = kills, limit = limit }
end

return function(b)
  for _, n in ipairs(b.sizes) do
    local wanted, joins, kills, calls = measured(b, n)
    local moved = 0
    for name, count in pairs(wanted) do
      if name:find "3@" then moved = count end
    end
    rows(b, n, moved, joins, kills, calls)
  end
end
