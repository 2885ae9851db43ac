-- What the machine can do: raw round trips over loopback, and Lua alone. Other rows stand beside it.
local round_trips = require "spec.bench.round_trips"

local function row(b, key, what, value, limit)
  b:row { key = key, what = what, nodes = 1, value = value, unit = "/s", limit = limit }
end

return function(b)
  local c = b:cluster(1)
  local pcalls = b:on(c[1], "limits.pcalls", b.seconds)
  b.machine.callback, b.machine.init = pcalls.callback, pcalls.init
  b.machine.state_bytes = b:on(c[1], "limits.state_bytes")
  c:stop()
  row(b, "pcall_callback", "pcall of the child's callback", pcalls.callback)
  row(b, "pcall_init", "pcall of the child's init", pcalls.init)
  local trips = round_trips(b.seconds)
  for where, cores in pairs { different = ", on two cores", one = ", on one core" } do
    local t = trips[where]
    if t then
      row(b, "raw_" .. where, "raw round trips" .. cores, t.raw)
      row(b, "loop_" .. where, "the loop's" .. cores, t.loop, { what = "raw", value = t.raw })
    end
  end
  b.machine.raw = (trips.different or trips.one).raw
end
