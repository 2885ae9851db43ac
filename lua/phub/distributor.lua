-- The service under the functions of `phub` that start and stop children.
local core = require "phub.core"
local schema = require "phub.schema"
local builtin = require "phub.strategy.builtin"
local which = require "phub.which"

local distributor = {}

local defaults = {
  timeout = 10000,
  awaitable = false,
  async_wait = false,
  check_existing = true,
  on_failure = "continue",
  await_timeout = 60000,
}

local stop_rules = {
  timeout = schema.ms,
  await_timeout = schema.ms,
  awaitable = schema.boolean,
  async_wait = schema.boolean,
}

local which_rules = { timeout = schema.ms }

local function check_options(options, rules)
  local key, message = schema.check(options or {}, rules)
  if key ~= nil then return core.refuse("invalid_option", tostring(key), message) end
end

local function check_optional_table(n, name, value)
  if value ~= nil and type(value) ~= "table" then schema.argerror(n, name, "table", value, 4) end
end

--- A new table of start options: what is missing has its default, what is there stays.
---@param opts? table
---@return table
function distributor.default_init_opts(opts)
  check_optional_table(1, "default_init_opts", opts)
  local complete = { metadata = {}, init_cids = {} }
  for name, value in pairs(defaults) do
    complete[name] = value
  end
  for name, value in next, opts or {} do
    complete[name] = value
  end
  return complete
end

--- As `phub.start_children`.
distributor.init_children = core.start_children

--- As `phub.stop_children`.
distributor.stop_children = core.stop_children

--- Starts children on behalf of a redistribution. `node` is where they are meant to go; where they do
--- go is the distribution strategy's word. A child that runs already counts as started.
---@type fun(hub: phub.hub_or_id, node: string, children_data: { spec: table, metadata?: table }[], opts?: table): "redistribution_initiated"|"no_children_to_redistribute"|phub.future.object|nil, table?
distributor.children_redist_init = core.children_redist

-- ---- children_terminate ------------------------------------------------------------------------

local function check_strategy(strategy)
  if strategy == nil then return end
  local definition = builtin.definition(strategy)
  if definition and definition.kind == "synchronization" then
    if definition.built ~= false then return end
    return core.refuse("not_supported", "sync_strategy", definition.name .. " is not supported yet")
  end
  return core.refuse("invalid_option", "sync_strategy", "a synchronization strategy expected")
end

local function check_ids(ids)
  local n = 0
  for _ in next, ids do n = n + 1 end
  for i = 1, n do
    if type(ids[i]) ~= "string" then
      local err = core.error("children_not_list", "a list of child ids expected")
      err.index = ids[i] ~= nil and i or nil
      return nil, err
    end
  end
end

-- The reason of each id that did not stop.
local function stop_here(hub, ids, options)
  local future, err = core.stop_children(hub, ids, {
    awaitable = true, timeout = options.timeout, await_timeout = options.await_timeout,
  })
  if not future then return nil, err end
  local result
  result, err = future:await(math.huge)
  if not result then return nil, err end
  local failed = {}
  for _, entry in ipairs(result.errors) do
    failed[entry.id] = entry.reason
  end
  return failed
end

--- Stops those of the children that this node holds and tells all registries; a child of which no
--- other instance is left has ended then. Waits until that is done.
---@param hub phub.hub_or_id
---@param child_ids string[]
---@param sync_strategy? table  default: the hub's own
---@param stop_opts? table  as for `phub.stop_children`
---@return { id: string, result: "ok"|"not_found"|any, node: string }[]?, table? err
function distributor.children_terminate(hub, child_ids, sync_strategy, stop_opts)
  local alive, err = schema.hub("children_terminate", hub)
  if type(child_ids) ~= "table" then schema.argerror(2, "children_terminate", "table", child_ids) end
  check_optional_table(3, "children_terminate", sync_strategy)
  check_optional_table(4, "children_terminate", stop_opts)
  if not alive then return nil, err end
  for _, check in ipairs { { check_ids, child_ids }, { check_strategy, sync_strategy },
    { check_options, stop_opts, stop_rules } } do
    err = select(2, check[1](table.unpack(check, 2, 3)))
    if err then return nil, err end
  end
  local here, held = {}, {}
  for _, id in ipairs(child_ids) do
    if not held[id] and core.child_is_here(hub, id) then
      here[#here + 1] = id
      held[id] = true
    end
  end
  local failed = {}
  if here[1] then
    failed, err = stop_here(hub, here, stop_opts or {})
    if not failed then return nil, err end
  end
  local results, node = {}, core.node_self()
  for i, id in ipairs(child_ids) do
    results[i] = { id = id, result = failed[id] or (held[id] and "ok" or "not_found"), node = node }
  end
  return results
end

-- ---- which_children ----------------------------------------------------------------------------

--- The children that run on this node, as `phub.which_children(hub, "local")`.
---@param hub phub.hub_or_id
---@param opts? { timeout?: number }  there is nothing to wait for
---@return phub.node_children?, table? err
function distributor.which_children_local(hub, opts)
  local alive, err = schema.hub("which_children_local", hub)
  check_optional_table(2, "which_children_local", opts)
  if not alive then return nil, err end
  err = select(2, check_options(opts, which_rules))
  if err then return nil, err end
  return which.here(hub)
end

--- The children that run on each node, as `phub.which_children(hub, "global")`.
---@param hub phub.hub_or_id
---@param opts? { timeout?: number }  ms, default 5000: a node silent for longer has `error = "timeout"`
---@return phub.node_children[]?, table? err
function distributor.which_children_global(hub, opts)
  local alive, err = schema.hub("which_children_global", hub)
  check_optional_table(2, "which_children_global", opts)
  if not alive then return nil, err end
  err = select(2, check_options(opts, which_rules))
  if err then return nil, err end
  return which.global(hub, opts and opts.timeout)
end

return distributor
