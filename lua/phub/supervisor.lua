-- Supervisors of one's own, apart from hubs: they start children in order, restart them when they
-- end, and stop them in reverse order, as OTP's supervisors do.
--
-- A supervisor does one thing at a time: a start function that waits, or a child that takes its time
-- to end, makes the others' requests wait. A supervisor is meant by its pid or registered name.
local core = require "phub.core"
require "phub.error"
local schema = require "phub.schema"

local ID_BYTES = 1024

---@class phub.child_spec
---@field id string  1 to 1,024 bytes
---@field start table|function  { "module", "function", {args...} }, a function, or { function, args... };
---  it runs in the supervisor's name (start_link links to that) and returns a pid, a hub, or `nil, reason`
---@field restart? "permanent"|"transient"|"temporary"  default "permanent"
---@field shutdown? number|"brutal_kill"|"infinity"  ms; default 5000, of a supervisor "infinity"
---@field type? "worker"|"supervisor"  default "worker"
---@field modules? string[]  default { start[1] }, of a function {}

---@class phub.supervisor
local supervisor = {
  --- Stops a child; its spec stays unless it is temporary. `nil, err`: `not_found`, `noproc`.
  ---@type fun(sup: phub.dest, id: string): true?, phub.error?
  terminate_child = core.sup_terminate_child,
  --- Starts a child that does not run. `nil, err`: `not_found`, `running`, `restarting`,
  --- `start_failed` (err.reason).
  ---@type fun(sup: phub.dest, id: string): phub.pid?, phub.error?
  restart_child = core.sup_restart_child,
  --- Forgets a child that does not run. `nil, err`: `not_found`, `running`, `restarting`.
  ---@type fun(sup: phub.dest, id: string): true?, phub.error?
  delete_child = core.sup_delete_child,
  --- The children in the order of their start: { { id =, pid =, type =, modules = } ... }; pid is
  --- absent when a child does not run, "restarting" while its restart failed and is tried again.
  ---@type fun(sup: phub.dest): table[]?, phub.error?
  which_children = core.sup_which_children,
  --- { specs =, active =, supervisors =, workers = }; active: those that run.
  ---@type fun(sup: phub.dest): table?, phub.error?
  count_children = core.sup_count_children,
}

-- ---- specs -------------------------------------------------------------------------------------

local START = "{ \"module\", \"function\", {args...} }, a function, or { function, args... }"

-- A list with nothing beside it, or a table whose field `n` says how many items it has.
local function list_length(t)
  local n, pairs_ = rawget(t, "n"), 0
  for _ in next, t do pairs_ = pairs_ + 1 end
  if n == nil then return pairs_ == #t and #t or nil end
  if math.type(n) ~= "integer" or n < 0 or n > 250 then return nil end
  for key in next, t do
    if key ~= "n" and not (math.type(key) == "integer" and key >= 1 and key <= n) then return nil end
  end
  return n
end

local function args_of(t, first, n)
  return { n = n - first + 1, table.unpack(t, first, n) }
end

-- { module =, func =, args = } or { fn =, args = }; nil and what is wrong
local function read_start(start)
  if type(start) == "function" then return { fn = start, args = { n = 0 } } end
  local n = type(start) == "table" and list_length(start)
  if not n or n == 0 then return nil, START .. " expected" end
  if type(start[1]) == "function" then return { fn = start[1], args = args_of(start, 2, n) } end
  local module, func, args = start[1], start[2], start[3]
  local named = not schema.string(ID_BYTES)(module) and not schema.string(ID_BYTES)(func)
  if not named or n > 3 or (args ~= nil and type(args) ~= "table") then return nil, START .. " expected" end
  if not core.start_module(module) then return nil, ("the module %s cannot start children"):format(module) end
  local count = args and list_length(args) or 0
  if args and not list_length(args) then return nil, "the arguments must be a list" end
  return { module = module, func = func, args = args_of(args or {}, 1, count) }
end

local function strings(value)
  local n = type(value) == "table" and list_length(value)
  for i = 1, n or 0 do
    if type(value[i]) ~= "string" then n = nil break end
  end
  if not n then return "a list of module names" end
end


local rules = {
  id = schema.string(ID_BYTES),
  restart = schema.one_of("permanent", "transient", "temporary"),
  shutdown = schema.either(schema.ms, schema.one_of("brutal_kill", "infinity")),
  type = schema.one_of("worker", "supervisor"),
  modules = strings,
  start = function() end, -- says more than what it expected: see below
}

local function refuse_spec(spec, key, message, index)
  local _, err = core.refuse("invalid_child_spec", key ~= nil and tostring(key) or nil, message)
  err.index = index
  if type(spec) == "table" and not rules.id(rawget(spec, "id")) then err.id = rawget(spec, "id") end
  return nil, err
end

-- A spec as the core takes it: a table of its own, complete.
local function read_spec(spec, index)
  if type(spec) ~= "table" then return refuse_spec(spec, nil, "a child spec is a table", index) end
  local key, message = schema.check(spec, rules)
  if key ~= nil then return refuse_spec(spec, key, message, index) end
  for _, name in ipairs { "id", "start" } do
    if rawget(spec, name) == nil then return refuse_spec(spec, name, "missing", index) end
  end
  local child
  child, message = read_start(rawget(spec, "start"))
  if not child then return refuse_spec(spec, "start", message, index) end
  child[1] = false -- the core's
  child.id = rawget(spec, "id")
  child.restart = rawget(spec, "restart") or "permanent"
  child.type = rawget(spec, "type") or "worker"
  child.shutdown = rawget(spec, "shutdown") or (child.type == "supervisor" and "infinity" or 5000)
  child.modules = { table.unpack(rawget(spec, "modules") or { child.module }) }
  return child
end

-- ---- configuration -----------------------------------------------------------------------------

local config_rules = {
  strategy = schema.one_of("one_for_one", "one_for_all", "rest_for_one"),
  max_restarts = schema.integer(0),
  max_seconds = schema.number(0, math.huge),
  children = schema.table,
}

local function refuse_config(key, message)
  return core.refuse("invalid_config", tostring(key), message)
end

local function read_children(specs)
  local n = list_length(specs)
  if not n then return refuse_config("children", "a list expected") end
  local children, seen = {}, {}
  for i = 1, n do
    local child, err = read_spec(specs[i], i)
    if not child then return nil, err end
    if seen[child.id] then
      err = core.error("duplicate_child_id", "two children have the id " .. schema.show(child.id))
      err.id, err.index = child.id, i
      return nil, err
    end
    seen[child.id] = true
    children[i] = child
  end
  return children
end

-- ---- the functions -----------------------------------------------------------------------------

--- Starts a supervisor and its children, in order, and links it to the caller unless that is the
--- main chunk. A child that does not start takes those before it back, and the supervisor with them.
---@param given { strategy?: string, max_restarts?: integer, max_seconds?: number, children?: phub.child_spec[] }
---@return phub.pid?
---@return phub.error?  `invalid_config` (err.key), `invalid_child_spec` (err.key, err.index, err.id),
---  `duplicate_child_id`, `start_failed` (err.id, err.reason)
function supervisor.start_link(given)
  if type(given) ~= "table" then schema.argerror(1, "start_link", "table", given) end
  local key, message = schema.check(given, config_rules)
  if key ~= nil then return refuse_config(key, message) end
  local children, err = read_children(rawget(given, "children") or {})
  if not children then return nil, err end
  return core.sup_start({
    strategy = rawget(given, "strategy") or "one_for_one",
    max_restarts = math.tointeger(rawget(given, "max_restarts") or 3),
    max_seconds = rawget(given, "max_seconds") or 5,
  }, children)
end

local function check_dest(sup, name)
  local named = type(sup) == "table" and type(sup[1]) == "string" and type(sup[2]) == "string"
  if core.is_pid(sup) or type(sup) == "string" or named then return end
  schema.argerror(1, name, "pid, name or { name, node }", sup, 4)
end

--- Starts one more child.
---@param sup phub.dest
---@param spec phub.child_spec
---@return phub.pid?
---@return phub.error?  `invalid_child_spec`, `start_failed` (err.reason; the spec is not kept),
---  `already_started` (err.pid), `already_present` (it does not run: restart_child), `noproc`
function supervisor.start_child(sup, spec)
  check_dest(sup, "start_child")
  if type(spec) ~= "table" then schema.argerror(2, "start_child", "table", spec) end
  local child, err = read_spec(spec)
  if not child then return nil, err end
  return core.sup_start_child(sup, child)
end

return supervisor
