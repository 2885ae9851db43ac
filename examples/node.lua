-- One node of the demo: lua5.4 examples/node.lua NAME ADDRESS_OF_THE_DRIVER
--
-- Connects to the driver, learns the other nodes from it, runs the hub "demo" and takes requests
-- under the registered name "control". Leaves when the driver asks for it or is gone.
package.path = arg[0]:match("^(.-)[^/]*$") .. "?.lua;" .. package.path

local phub = require "phub"
local node = require "phub.node"
local process = require "phub.process"
local control = require "demo.control"

local name, driver_address = arg[1], arg[2]

phub.run(function()
  local main = process.self()
  assert(node.start { name = name })
  node.monitor(function(event, who)
    if event == "nodedown" and who:find("^driver") then process.send(main, "leave") end
  end)
  assert(node.connect(driver_address))
  local hub = assert(phub.start_link { hub_id = "demo" })
  process.register("control", assert(control.start(hub.hub_id, main)))

  print("ready")
  io.stdout:flush()
  process.receive(function(msg) return msg == "leave" end)
  node.stop()
end)
