-- phub: supervised processes, kept running across a cluster of nodes.
--
-- Every function below that takes a hub accepts its object or its id, is a method of the object as
-- well, and answers `nil, { code = "not_alive" }` for a hub that does not run on this node. A
-- positional argument of a wrong type raises; everything else that goes wrong is `nil, err`.
local core = require "phub.core"
require "phub.error"
local schema = require "phub.schema"
local future = require "phub.future"
local config = require "phub.config"
local which = require "phub.which"

---@class phub.hub
---@field hub_id string
---@field pid lightuserdata  its supervisor's

---@alias phub.hub_or_id phub.hub|string

---@class phub
local phub = {
  _VERSION = "phub " .. core.version,
  run = core.run,
  halt = core.halt,
  handle_signals = core.handle_signals,
}

local function unsupported(name)
  return nil, core.error("not_supported", name .. " is not supported yet")
end

--- Starts a hub on this node; hubs of one id on connected nodes work together.
---@param given table  `hub_id` is required; see doc/hub.md
---@return phub.hub? hub
---@return table? err  `invalid_config` (`err.key`), `invalid_child_spec`, `already_started`, `not_supported`
function phub.start_link(given)
  if type(given) ~= "table" then schema.argerror(1, "start_link", "table", given) end
  local checked, specs = config.check(given)
  if not checked then return nil, specs end
  return core.hub_start(checked, specs)
end

--- Leaves gracefully: other nodes take the children over. Waits until the hub has ended.
---@param hub phub.hub_or_id
---@return true?, table? err
function phub.stop(hub)
  local alive, err = schema.hub("stop", hub)
  if not alive then return nil, err end
  local over
  over, err = core.hub_stop(hub)
  if not over then return nil, err end
  return over:await(math.huge)
end

--- A child spec that makes a hub the child of a `phub.supervisor`.
---@param given table  as for `phub.start_link`, which says what is wrong with it
---@return table spec
function phub.child_spec(given)
  if type(given) ~= "table" then schema.argerror(1, "child_spec", "table", given) end
  local own = {}
  for key, value in next, given do own[key] = value end
  return { id = given.hub_id, start = { "phub", "start_link", { own } }, type = "supervisor" }
end

--- Waits for a future (deprecated: `phub.future.await`). A call's `nil, err` passes through.
---@return any value, any err  `invalid_await_input` for what is no future
function phub.await(value, err)
  if future.is(value) then return value:await() end
  if value == nil and err ~= nil then return nil, err end
  return nil, core.error("invalid_await_input", "not a future")
end

--- The children that run on this node, or on every node of the hub (deprecated).
---@param hub phub.hub_or_id
---@param scope? "local"|"global"
---@return phub.node_children|phub.node_children[]|nil, table? err
function phub.which_children(hub, scope)
  local alive, err = schema.hub("which_children", hub)
  if scope ~= nil then schema.option(2, "which_children", scope, "local", "global") end
  if not alive then return nil, err end
  if scope == "global" then return which.global(hub) end
  return which.here(hub)
end

--- After a late `node.start`: the registry has the node's name. Hubs take it by themselves, pids that
--- were held stay good, so there is nothing left to do but to say so.
---@param hub phub.hub_or_id
---@param name? string  this node's name, if given
---@return true?, table? err  `node_not_started`; `invalid_argument` for another name than the node's
function phub.promote_to_node(hub, name)
  local alive, err = schema.hub("promote_to_node", hub)
  if name ~= nil and type(name) ~= "string" then schema.argerror(2, "promote_to_node", "string", name) end
  if not alive then return nil, err end
  if not core.node_started() then return nil, core.error("node_not_started", "this node is not started") end
  if name and name ~= core.node_self() then
    return nil, core.error("invalid_argument", ("this node is called %s"):format(core.node_self()))
  end
  return true
end

for _, name in ipairs {
  "start_child", "start_children", "stop_child", "stop_children", "child_lookup", "get_pid", "get_pids",
  "process_list", "tag_query", "registry_dump", "process_registry", "nodes", "is_alive", "is_locked",
  "is_partitioned",
} do
  phub[name] = core[name]
end
phub.call, phub.cast, phub.send = core.hub_call, core.hub_cast, core.hub_send

local function later(name)
  phub[name] = function(hub)
    local alive, err = schema.hub(name, hub)
    if not alive then return nil, err end
    return unsupported(name)
  end
end
later "register_hook_handlers"
later "cancel_hook_handlers"

-- Methods of a hub object: what takes a hub first.
for name, fn in pairs(phub) do
  if type(fn) == "function" then core.hub_methods[name] = fn end
end
for _, name in ipairs { "start_link", "child_spec", "await", "run", "halt", "handle_signals" } do
  core.hub_methods[name] = nil
end

--- Stops every hub of this node and waits for all of them (`node.stop` begins with this).
local function stop_hubs()
  local ends = {}
  for _, hub in ipairs(core.hubs()) do
    ends[#ends + 1] = core.hub_stop(hub, true)
  end
  for _, over in ipairs(ends) do
    over:await(math.huge)
  end
end
core.stop_hubs = stop_hubs

for _, name in ipairs {
  "node", "process", "gen_server", "supervisor", "future", "start_result", "stop_result",
  "distributor", "strategy", "hook", "hook_manager",
} do
  phub[name] = require("phub." .. name)
end

return phub
