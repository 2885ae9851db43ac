local cluster = require "spec.support.cluster"
local uv = require "luv"

local CHILDREN = 60
local LEAVE_MS = 5000

local START = [[
  local specs = {}
  for i = 1, ... do
    specs[i] = { id = "c" .. i, start = { "spec.support.children", "start", { {} } } }
  end
  return phub.start_children("h", specs, { awaitable = true }):await().status
]]

describe("nodes that leave at once", function()
  for _, count in ipairs { 1, 2, 3 } do
    it(("do not wait for each other to take children over (%d of %d)"):format(count, count), function()
      local c = cluster.start(count)
      c:settle()
      assert.equal("ok", c[1]:eval(START, CHILDREN))
      local began = uv.hrtime()
      for _, node in ipairs(c) do
        node.process:close_stdin()
      end
      for _, node in ipairs(c) do
        node:stop(LEAVE_MS)
      end
      assert.is_true((uv.hrtime() - began) / 1e6 < LEAVE_MS)
      c:stop()
    end)
  end
end)
