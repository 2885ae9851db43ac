-- On a node: how late calls are answered while one process loops without end.
local process = require "phub.process"
local probe = require "spec.bench.work.probe"

local preempt = {}

local function forever() while true do end end

local loops = {
  nothing = function() process.receive() end,
  bare = forever,
  pcall = function() while true do pcall(forever) end end,
  coroutine = function() coroutine.wrap(forever)() end,
}

--- Of calls each millisecond, for so many seconds, beside the loop of that name.
function preempt.late(name, seconds)
  local looping = process.spawn(loops[name])
  probe.start()
  process.sleep(seconds * 1000)
  local summary = probe.stop()
  process.kill(looping, "kill")
  return summary
end

return preempt
