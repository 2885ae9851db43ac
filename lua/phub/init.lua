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

-- Hubs of this node, for `node.stop`; the core keeps them alive.
local running = setmetatable({}, { __mode = "v" })

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
  local hub, err = core.hub_start(checked, specs)
  if not hub then return nil, err end
  running[given.hub_id] = hub
  return hub
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
---@param given table  as for `phub.start_link`
function phub.child_spec(given)
  if type(given) ~= "table" then schema.argerror(1, "child_spec", "table", given) end
  return { id = given.hub_id, start = { "phub", "start_link", { given } }, type = "supervisor" }
end

--- Waits for a future (deprecated: `phub.future.await`).
function phub.await(value)
  if not future.is(value) then return nil, core.error("invalid_await_input", "not a future") end
  return value:await()
end

for _, name in ipairs {
  "start_child", "start_children", "stop_child", "stop_children", "child_lookup", "get_pid", "get_pids",
  "process_list", "registry_dump", "process_registry", "which_children", "nodes", "is_alive",
  "is_locked", "is_partitioned",
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
later "tag_query"
later "promote_to_node"
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
  for _, hub in pairs(running) do
    ends[#ends + 1] = core.hub_stop(hub)
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
