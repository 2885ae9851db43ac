-- Clusters of real OS processes for specs: each node runs phub and evaluates Lua sent to it.
--
--   local cluster = require "spec.support.cluster"
--   local c = cluster.start(3, { hub = [[{ hub_id = "h" }]] })
--   c:settle()                                   -- every node sees every other
--   c[1]:eval [[ return phub.start_children("h", ..., { awaitable = true }):await() ]]
--   c[2]:kill()
--   c:add()
--   after_each(function() c:stop() end)          -- graceful; raises when a node does not end
--
-- A node's chunk runs in a phub process of its own, may wait, and gets the arguments as `...`;
-- values travel as Lua source (tables, strings, numbers, booleans; anything else by tostring).
-- Nodes are fed by pipes, not by phub: a node that phub cut off still answers.
local os_process = require "spec.support.os_process"
local eventually = require "spec.support.eventually"
local values = require "spec.support.values"

local cluster = {}
local Cluster = {}
Cluster.__index = Cluster
local Node = {}
Node.__index = Node

local DEFAULT_MS = 15000
local next_cluster = 0

--- Sends a chunk without waiting for its answer; returns a function that waits for it.
---@param chunk string
---@return fun(ms?: number): any
function Node:send(chunk, ...)
  self.asked = self.asked + 1
  local id = self.asked
  self.process:write(values.line({ id, chunk, table.pack(...) }) .. "\n")
  return function(ms)
    local answer = self:answer(id, ms)
    self.answers[id] = nil
    if not answer.ok then
      error(("%s: %s\n--- stderr\n%s"):format(self.name, answer.error, self.process.errors), 2)
    end
    return table.unpack(answer, 1, answer.n)
  end
end

--- Evaluates a chunk on the node and returns what it returns.
---@param chunk string
function Node:eval(chunk, ...)
  return self:send(chunk, ...)()
end

--- The same, with another limit than 15 s.
---@param ms number
---@param chunk string
function Node:eval_within(ms, chunk, ...)
  return self:send(chunk, ...)(ms)
end

function Node:answer(id, ms)
  local deadline = ms or DEFAULT_MS
  while not self.answers[id] do
    local got, answer = self.process:expect("^@(%d+) (.*)$", deadline)
    self.answers[math.tointeger(got)] = values.parse(answer)
  end
  return self.answers[id]
end

function Node:kill()
  self.dead = true
  return self.process:kill()
end

--- SIGSTOP; `resume` goes on.
function Node:pause() self.process:signal("stop") end

function Node:resume() self.process:signal("cont") end

--- Graceful: node.stop, then the process ends by itself with code 0.
---@param ms? number
function Node:stop(ms)
  self.dead = true
  self.process:close_stdin()
  local result = self.process:wait(ms)
  if result.code ~= 0 then
    error(("%s ended with %s %d\n%s"):format(self.name, next(result), select(2, next(result)),
      self.process.errors), 2)
  end
end

--- Names of the other nodes that it sees.
---@return string[]
function Node:sees()
  return self:eval [[ return phub.node.list() ]]
end

---@class cluster.options
---@field node? string  Lua source of a table: more fields for node.start
---@field hub? string|false  Lua source of the hub's config; default { hub_id = "h" }; false: none
---@field join? boolean  default true: each new node joins the first live one
---@field name? string  nodes are called name1@127.0.0.1, ...
---@field env? table<string, string|false>

--- Starts one more node and returns it, without waiting for it: see `Node:ready`.
---@param options? cluster.options  over the cluster's own
function Cluster:launch(options)
  local o = setmetatable(options or {}, { __index = self.options })
  self.count = self.count + 1
  local name = ("%s%d@127.0.0.1"):format(self.prefix, self.count)
  local join = {}
  for _, other in ipairs(self) do
    if o.join ~= false and not other.dead then join[1] = join[1] or other.address end
  end
  local config = ("{ name = %q, cookie = %q, join = %s }"):format(name, "spec-cookie",
    values.line(join))
  local process = os_process.script("spec/support/node_main.lua", {
    args = { config, o.node or "{}", o.hub or (o.hub == false and "" or '{ hub_id = "h" }') },
    env = o.env, name = name,
  })
  local node = setmetatable({ name = name, process = process, asked = 0, answers = {} }, Node)
  self[#self + 1] = node
  return node
end

--- Waits until a node that was launched listens and runs its hub.
function Node:ready()
  self.address = self.process:expect("^ready (%S+)$", DEFAULT_MS)
  return self
end

--- Starts one more node, waits until it is ready and returns it.
---@param options? cluster.options  over the cluster's own
function Cluster:add(options)
  return self:launch(options):ready()
end

--- Nodes that were neither killed nor stopped.
function Cluster:live()
  local list = {}
  for _, node in ipairs(self) do
    if not node.dead then list[#list + 1] = node end
  end
  return list
end

--- Waits until each live node sees exactly the other live ones.
---@param ms? number
function Cluster:settle(ms)
  local live = self:live()
  eventually(function()
    for _, node in ipairs(live) do
      local seen = node:sees()
      if #seen ~= #live - 1 then
        return nil, ("%s sees %s"):format(node.name, table.concat(seen, " "))
      end
    end
    return true
  end, ms or DEFAULT_MS)
  return self
end

--- Stops all that live, the last first, and raises if one does not end well.
function Cluster:stop()
  local live = self:live()
  for i = #live, 1, -1 do
    live[i]:stop()
  end
  os_process.finish()
end

--- Starts n nodes, one after the other.
---@param n integer
---@param options? cluster.options
function cluster.start(n, options)
  next_cluster = next_cluster + 1
  local self = setmetatable({ options = options or {}, count = 0 }, Cluster)
  self.prefix = self.options.name or ("c%d-%d-"):format(require "luv".os_getpid(), next_cluster)
  for _ = 1, n do
    self:add()
  end
  return self
end

return cluster
