-- A process that was stopped so long that another one took its node's name: it learns so, and gives up.
-- timeout: 120
local cluster = require "spec.support.cluster"
local eventually = require "spec.support.eventually"
local os_process = require "spec.support.os_process"

local FAST = "heartbeat_interval = 200, heartbeat_timeout = 1600"

local CHILDREN = [[
  local children = require "spec.support.children"
  local specs = {}
  for i = 1, 60 do specs[i] = children.spec("c" .. i) end
  return phub.start_children("h", specs, { awaitable = true }):await().status
]]

local RUNS = [[
  local n = 0
  for _ in pairs(phub.process_list("h", "local") or {}) do n = n + 1 end
  return n
]]

describe("a node whose name another process has taken", function()
  after_each(function() os_process.finish() end)

  it("ends its hubs and is no node any more", function()
    local c = cluster.start(3, { node = "{ " .. FAST .. " }" })
    c:settle()
    assert.equal("ok", c[1]:eval(CHILDREN))
    local old = c[3]
    eventually(function() return old:eval(RUNS) > 0 end)
    old:pause()
    eventually(function() return #c[1]:sees() == 1 end, 10000)
    local new = c:add { node = ("{ name = %q, %s }"):format(old.name, FAST) }
    eventually(function() return #c[1]:sees() == 2 end, 10000)
    old:resume()
    eventually(function() -- the hub is gone and the node has stopped
      return old:eval [[ return phub.is_alive("h") == false and phub.node.address() == nil ]]
    end, 15000)
    eventually(function()
      local all = c[1]:eval(RUNS) + c[2]:eval(RUNS) + new:eval(RUNS)
      return all == 60 and new:eval(RUNS) > 0
    end)
    c:stop()
  end)
end)
