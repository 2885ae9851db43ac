-- The service under the functions of `phub` that start and stop children.
local core = require "phub.core"
local schema = require "phub.schema"

local distributor = {}

local defaults = {
  timeout = 10000,
  awaitable = false,
  async_wait = false,
  check_existing = true,
  on_failure = "continue",
  await_timeout = 60000,
}

--- A new table of start options: what is missing has its default, what is there stays.
---@param opts? table
---@return table
function distributor.default_init_opts(opts)
  if opts ~= nil and type(opts) ~= "table" then
    schema.argerror(1, "default_init_opts", "table", opts)
  end
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

--- The children that run on this node, as `phub.which_children(hub, "local")`.
---@param hub phub.hub_or_id
---@param opts? table
function distributor.which_children_local(hub, opts)
  if opts ~= nil and type(opts) ~= "table" then
    schema.argerror(2, "which_children_local", "table", opts)
  end
  return core.which_children(hub, "local")
end

local function later(name)
  distributor[name] = function(hub)
    local alive, err = schema.hub(name, hub)
    if not alive then return nil, err end
    return nil, core.error("not_supported", ("phub.distributor.%s is not supported yet"):format(name))
  end
end
later "children_redist_init"
later "children_terminate"
later "which_children_global"

return distributor
