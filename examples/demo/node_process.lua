-- The OS processes of the demo's nodes, as the driver sees them.
local gen_server = require "phub.gen_server"
local node = require "phub.node"

local node_process = {}
local Node = {}
Node.__index = Node

local LUA = os.getenv("LUA") or "lua5.4"
local HERE = arg[0]:match("^(.-)[^/]*$")
local CALL_MS = 120000

local function quote(s)
  return "'" .. s:gsub("'", "'\\''") .. "'"
end

--- Starts a node and waits until it is ready. What it logs goes to a file of its own, so that it
--- does not tear the table.
---@param short string  "node1"
---@param suffix string  makes names of this run unlike those of another
---@param driver_address string
function node_process.start(short, suffix, driver_address)
  local self = setmetatable({ short = short, state = "starting" }, Node)
  self.name = ("%s-%s@127.0.0.1"):format(short, suffix)
  self.log = os.tmpname()
  self.pipe = assert(io.popen(("echo $$; exec %s %s %s %s </dev/null 2>%s"):format(quote(LUA),
    quote(HERE .. "node.lua"), quote(self.name), quote(driver_address), quote(self.log)), "r"))
  self.pid = self.pipe:read("n", "l")
  if self.pipe:read("l") ~= "ready" then
    local err = self:logged()
    self:close()
    error(("%s did not start:\n%s"):format(short, err), 0)
  end
  -- it connected to us; this waits until we have noticed
  assert(node.connect(self.name))
  self.state = "up"
  return self
end

--- Asks the node's control process; raises when it does not answer or answers an error.
---@param request string
function Node:ask(request, argument)
  local answer, err = gen_server.call({ "control", self.name }, { request, argument }, CALL_MS)
  if err then error(("%s: %s: %s"):format(self.short, request, tostring(err)), 0) end
  if type(answer) == "table" and answer.error then
    error(("%s: %s"):format(self.short, answer.error), 0)
  end
  return answer
end

function Node:kill()
  os.execute("kill -9 " .. self.pid)
  self.state, self.children = "killed", nil
end

--- What it logged so far.
function Node:logged()
  local file <close> = io.open(self.log, "rb")
  return file and file:read("a") or ""
end

--- Waits for its end; true when it ended by itself with code 0.
function Node:close()
  local ok = self.pipe:close()
  os.remove(self.log)
  return ok == true
end

return node_process
