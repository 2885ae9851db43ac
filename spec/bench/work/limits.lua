-- On a node: what Lua alone can do here.
local child = require "spec.bench.child"
local measure = require "spec.bench.measure"

local limits = {}

--- `pcall`s a second: of the child's callback, and of what starts it.
function limits.pcalls(seconds)
  local state = child.init("x")
  local N = 1000
  return {
    callback = measure.rate(seconds, N, function()
      for _ = 1, N do pcall(child.handle_call, state, 1) end
    end, measure.cpu),
    init = measure.rate(seconds, N, function()
      for _ = 1, N do pcall(child.init, "x") end
    end, measure.cpu),
  }
end

--- Bytes of a child's state as a table among others.
function limits.state_bytes()
  local N = 10000
  local list = table.move({}, 1, 0, 1)
  for i = 1, N do list[i] = false end
  collectgarbage()
  local before = collectgarbage("count")
  for i = 1, N do list[i] = child.init("x") end
  collectgarbage()
  return (collectgarbage("count") - before) * 1024 / #list
end

return limits
