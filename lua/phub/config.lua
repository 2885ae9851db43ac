-- The configuration of a hub: what `phub.start_link` accepts, its defaults, and what reaches the core.
local core = require "phub.core"
local schema = require "phub.schema"
local builtin = require "phub.strategy.builtin"
local strategy = require "phub.strategy"

local config = {}

local ID_BYTES = 1024

local rules = {
  hub_id = schema.string(ID_BYTES),
  child_specs = schema.table,
  hooks = schema.table,
  redundancy_strategy = schema.table,
  migration_strategy = schema.table,
  synchronization_strategy = schema.table,
  partition_tolerance_strategy = schema.table,
  distribution_strategy = schema.table,
  hubs_discover_interval = schema.ms,
  deadlock_recovery_timeout = schema.ms,
  storage_purge_interval = schema.ms,
  migr_base_timeout = schema.ms,
  dsup_max_restarts = schema.integer(0),
  dsup_max_seconds = schema.number(0, math.huge),
  dsup_limit_action = schema.one_of("backoff", "restart_all"),
  dsup_shutdown_timeout = schema.ms,
  max_concurrent_starts = schema.integer(1),
}

local defaults = {
  hubs_discover_interval = 10000,
  deadlock_recovery_timeout = 60000,
  storage_purge_interval = 15000,
  migr_base_timeout = 15000,
  dsup_max_restarts = 100,
  dsup_max_seconds = 4,
  dsup_limit_action = "backoff",
  dsup_shutdown_timeout = 60000,
  max_concurrent_starts = 1000,
}

-- In the order in which they are checked and written down.
local kinds = {
  { kind = "redundancy", field = "redundancy_strategy", default = strategy.redundancy.singularity },
  { kind = "migration", field = "migration_strategy", default = strategy.migration.cold_swap },
  { kind = "synchronization", field = "synchronization_strategy", default = strategy.synchronization.pubsub },
  { kind = "partition_tolerance", field = "partition_tolerance_strategy",
    default = strategy.partition_tolerance.divergence },
  { kind = "distribution", field = "distribution_strategy",
    default = strategy.distribution.consistent_hashing },
}

local function refuse(key, message)
  return core.refuse("invalid_config", tostring(key), message)
end

-- The options of one of phub's own strategies: nil when they are right.
local function check_options(field, definition, options)
  if type(options) ~= "table" then
    return refuse(field, "options are a table, got " .. schema.show(options))
  end
  local key, message = schema.check(options, definition.rules)
  if key ~= nil then return refuse(field .. "." .. tostring(key), message) end
  for _, name in ipairs(definition.required) do
    if options[name] == nil then return refuse(field .. "." .. name, "missing") end
  end
end

local function check_strategy(entry, given)
  local definition = builtin.definition(given)
  if not definition then
    if type(given.name) == "string" then
      return core.refuse("not_supported", entry.field, "strategies of one's own are not supported yet")
    end
    return refuse(entry.field, "a strategy expected")
  end
  if definition.kind ~= entry.kind then
    return refuse(entry.field, ("%s is a %s strategy"):format(definition.name, definition.kind))
  end
  local failed, err = check_options(entry.field, definition, given.options)
  if err then return failed, err end
  if definition.built == false then
    return core.refuse("not_supported", entry.field, definition.name .. " is not supported yet")
  end
end

-- One line that two hubs have in common exactly when their strategies are the same.
local function describe(chosen)
  local text = {}
  for _, entry in ipairs(kinds) do
    local s = chosen[entry.kind]
    local options = {}
    for name, value in pairs(s.options) do
      options[#options + 1] = ("%s=%s"):format(name, tostring(value))
    end
    table.sort(options)
    text[#text + 1] = ("%s/%d{%s}"):format(s.name, s.version, table.concat(options, ","))
  end
  return table.concat(text, " ")
end

local function choose(given)
  local chosen = {}
  for _, entry in ipairs(kinds) do
    local s = given[entry.field]
    if s == nil then s = entry.default end
    local failed, err = check_strategy(entry, s)
    if err then return failed, err end
    chosen[entry.kind] = s
  end
  return chosen
end

-- Hooks are a table of lists; there are none yet that would be called.
local function check_hooks(hooks)
  if hooks ~= nil and next(hooks) ~= nil then
    return core.refuse("not_supported", "hooks", "hooks are not supported yet")
  end
end

local function check_list(specs)
  local n = 0
  for _ in next, specs do n = n + 1 end
  if n ~= #specs then return refuse("child_specs", "a list expected") end
end

--- Checks a configuration and completes it.
---@param given table  see `phub.start_link`
---@return table? config  for the core
---@return table child_specs_or_err
function config.check(given)
  local key, message = schema.check(given, rules)
  if key ~= nil then return refuse(key, message) end
  if given.hub_id == nil then return refuse("hub_id", "missing") end
  local failed, err = check_hooks(given.hooks)
  if err then return failed, err end
  local specs = given.child_specs or {}
  failed, err = check_list(specs)
  if err then return failed, err end
  local chosen
  chosen, err = choose(given)
  if not chosen then return nil, err end
  local checked = { hub_id = given.hub_id, strategies = describe(chosen),
    sync_interval = chosen.synchronization.options.sync_interval }
  for name, value in pairs(defaults) do
    checked[name] = given[name] == nil and value or given[name]
  end
  checked.restart_all = checked.dsup_limit_action == "restart_all"
  return checked, specs
end

return config
