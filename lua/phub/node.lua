-- This OS process as a node of a cluster.
local core = require "phub.core"
require "phub.error"

---@class phub.node
local node = {}

local DEFAULTS = {
  listen = "127.0.0.1:0", join = {}, heartbeat_interval = 1000, heartbeat_timeout = 8000,
  stall_timeout = 60000, time_slice = 5, max_message = 64 * 1024 * 1024,
  max_queue = 256 * 1024 * 1024, max_unproven = 64, handshake_timeout = 5000,
}

local MAX_NAME, MAX_COOKIE, MAX_ADDRESS = 255, 1024, 280
local MAX_MESSAGE, MAX_QUEUE, MAX_UNPROVEN = 1 << 30, 1 << 40, 1 << 16

local function wrong(key, message)
  local err = core.error("invalid_option", ("%s: %s"):format(key, message))
  err.key = key
  return nil, err
end

local function unsupported(key)
  local err = core.error("not_supported", key .. ": not supported yet")
  err.key = key
  return nil, err
end

-- Each check answers nil, or what was expected.
local function node_name(value)
  if type(value) ~= "string" or #value > MAX_NAME or not value:find("^[^@%s%c]+@[^@%s%c]+$") then
    return 'a name like "short@host" expected'
  end
end

local function address(value)
  if type(value) ~= "string" or #value > MAX_ADDRESS then return 'an address "host:port" expected' end
  local port = value:match("^%[[%x:.]+%]:(%d+)$") or value:match("^[^%s:%[%]]+:(%d+)$")
  if not port or #port > 5 or tonumber(port) > 65535 then
    return 'an address "host:port" or "[ipv6]:port" expected'
  end
end

local function cookie(value)
  if type(value) ~= "string" or #value == 0 or #value > MAX_COOKIE then
    return ("a string of 1 to %d bytes expected"):format(MAX_COOKIE)
  end
end

local function ms(value)
  local ok = type(value) == "number" and value > 0 and value < math.huge
  if not ok then
    return "a number of milliseconds above 0 expected"
  end
end

local function integer(least, most)
  return function(value)
    local n = type(value) == "number" and math.tointeger(value)
    if not n or n < least or n > most then
      return ("an integer from %d to %d expected"):format(least, most)
    end
  end
end

local function target(value)
  return address(value) and node_name(value) and 'an address "host:port" or a node name expected'
end

local function targets(value)
  if type(value) ~= "table" then return "a list of addresses or node names expected" end
  local n = 0
  for _ in pairs(value) do n = n + 1 end
  if n ~= #value then return "a list of addresses or node names expected" end
  for i = 1, n do
    local expected = target(value[i])
    if expected then return ("item %d: %s"):format(i, expected) end
  end
end

local CHECKS = {
  name = node_name, listen = address, advertise = address, cookie = cookie, join = targets,
  heartbeat_interval = ms, heartbeat_timeout = ms, stall_timeout = ms, time_slice = ms,
  max_message = integer(1024, MAX_MESSAGE), max_queue = integer(1024 * 1024, MAX_QUEUE),
  max_unproven = integer(1, MAX_UNPROVEN), handshake_timeout = ms,
}

local function is_loopback(listen)
  local host = listen:match("^%[(.*)%]:%d+$") or listen:match("^(.*):%d+$")
  return host == "localhost" or host == "::1" or host:find("^127%.") ~= nil
end

local function is_wildcard(listen)
  local host = listen:match("^%[(.*)%]:%d+$") or listen:match("^(.*):%d+$")
  return host == "0.0.0.0" or host == "::"
end

-- What only shows once all options are known.
local function check_together(o)
  if not o.cookie and not is_loopback(o.listen) then
    return wrong("cookie", "required unless listen is loopback")
  end
  if not o.advertise and is_wildcard(o.listen) then
    return wrong("advertise", "required when listen is all interfaces")
  end
  if o.heartbeat_timeout < 4 * o.heartbeat_interval then
    return wrong("heartbeat_timeout", "at least 4 times heartbeat_interval expected")
  end
  if o.max_queue < 2 * o.max_message then
    return wrong("max_queue", "at least twice max_message expected")
  end
  return o
end

-- A table of its own with the defaults, or nil, err.
local function complete(options)
  local o = {}
  for k, v in pairs(DEFAULTS) do o[k] = v end
  for k, v in pairs(options) do
    local key = tostring(k)
    if key == "tls" then return unsupported(key) end
    if type(k) ~= "string" or not CHECKS[k] then return wrong(key, "unknown option") end
    local expected = CHECKS[k](v)
    if expected then return wrong(key, expected) end
    o[k] = v
  end
  if o.name == nil then return wrong("name", "required") end
  return check_together(o)
end

---@class phub.node.options
---@field name string  "short@host"
---@field listen? string  "host:port", default "127.0.0.1:0" (port 0: chosen by the system)
---@field advertise? string  the address told to peers
---@field cookie? string  required unless listen is loopback
---@field join? string[]  addresses or names of nodes, dialled until they answer
---@field heartbeat_interval? number  ms, default 1000
---@field heartbeat_timeout? number  ms, default 8000, at least four intervals
---@field stall_timeout? number  ms, default 60000
---@field time_slice? number  ms that a process may run on while others wait, default 5
---@field max_message? integer  bytes, default 64 MiB
---@field max_queue? integer  bytes that may wait to be sent to one node, default 256 MiB, at least 2 * max_message
---@field max_unproven? integer  connections that have not proven the cookie yet, default 64
---@field handshake_timeout? number  ms that such a one has, default 5000

--- Makes this OS process a node.
---@param options phub.node.options
---@return true?
---@return phub.error?  `invalid_option` (err.key), `not_supported`, `already_started`, `io`, ...
function node.start(options)
  if type(options) ~= "table" then
    error(("bad argument #1 to 'start' (table expected, got %s)"):format(
      options == nil and "no value" or type(options)), 2)
  end
  local o, err = complete(options)
  if not o then return nil, err end
  local ok
  ok, err = core.node_start(o)
  if not ok then return nil, err end
  for _, where in ipairs(o.join) do
    ok, err = core.node_join(where)
    if not ok then return nil, err end
  end
  return true
end

--- This node's name; "nonode@nohost" before `start`.
---@type fun(): string
node.self = core.node_self

--- "host:port" really listened on, or nil.
---@type fun(): string?
node.address = core.node_address

--- Sorted names of the other nodes in view.
---@return string[]
function node.list()
  local names = core.node_list()
  table.sort(names)
  return names
end

local function not_started()
  return nil, core.error("node_not_started", "this node is not started")
end

local function check_string(value, name)
  if type(value) ~= "string" then
    error(("bad argument #1 to '%s' (string expected, got %s)"):format(name,
      value == nil and "no value" or type(value)), 3)
  end
end

--- Connects to a node, and from there to all that it knows; waits.
---@param where string  a node's name or an address
---@param timeout? number  ms, default 5000
---@return true?
---@return phub.error?  `refused`, `timeout`, `bad_cookie`, `name_conflict`, `protocol_version`, ...
function node.connect(where, timeout)
  check_string(where, "connect")
  if not core.node_started() then return not_started() end
  local expected = target(where)
  if expected then return nil, core.error("invalid_argument", expected) end
  if timeout ~= nil and not (type(timeout) == "number" and timeout >= 0) then
    error(("bad argument #2 to 'connect' (milliseconds expected, a number of at least 0, got %s)"):format(
      type(timeout) == "number" and timeout or type(timeout)), 2)
  end
  return core.node_connect(where, timeout)
end

--- Drops the link to a node; neither side dials again until someone connects them.
---@param name string
---@return true?, phub.error?
function node.disconnect(name)
  check_string(name, "disconnect")
  if not core.node_started() then return not_started() end
  return core.node_disconnect(name)
end

-- ---- monitors ----------------------------------------------------------------------------------

local monitors = {} -- by ref

-- Calls fn for the events that wait, in a process of its own: so fn may wait, and keeps their order.
local function drain(monitor)
  while monitor.queue[1] and not monitor.ended do
    local event = table.remove(monitor.queue, 1)
    local ok, err = xpcall(monitor.fn, debug.traceback, event[1], event[2])
    if not ok then core.log("error", "node.monitor: " .. tostring(err)) end
  end
end

-- Another process runs under this node's name, and the cluster follows it: the hubs have ended already.
local function replaced(name)
  core.log("error", name .. " was replaced by another process of its name; it is no node any more")
  core.spawn(function() node.stop() end)
end

core.node_events(function(event, name)
  if event == "replaced" then return replaced(name) end
  for _, monitor in pairs(monitors) do
    table.insert(monitor.queue, { event, name })
    if not monitor.pid or not core.alive(monitor.pid) then
      monitor.pid = core.spawn(function() drain(monitor) end)
    end
  end
end)

--- Calls fn(event, name) for each "nodeup" and "nodedown", in order, in a process of its own.
---@param fn fun(event: "nodeup"|"nodedown", name: string)
---@return phub.ref
function node.monitor(fn)
  if type(fn) ~= "function" then
    error(("bad argument #1 to 'monitor' (function expected, got %s)"):format(type(fn)), 2)
  end
  local ref = core.new_ref()
  monitors[ref] = { fn = fn, queue = {} }
  return ref
end

--- Ends a monitor; fn is not called any more.
---@param ref phub.ref
---@return true
function node.demonitor(ref)
  if not core.is_ref(ref) then
    error(("bad argument #1 to 'demonitor' (ref expected, got %s)"):format(type(ref)), 2)
  end
  if monitors[ref] then monitors[ref].ended = true end
  monitors[ref] = nil
  return true
end

-- ---- stop --------------------------------------------------------------------------------------

local LEAVE_MS, LOOK_MS = 10000, 2

local stopping -- of the stop under way, for those who ask for it meanwhile

local function leave()
  if core.stop_hubs then core.stop_hubs() end
  if not core.node_started() then return true end
  local ok, err = core.node_leave()
  if not ok then return nil, err end
  local deadline = core.now() + LEAVE_MS
  while not core.node_left() and core.now() < deadline do
    core.sleep(LOOK_MS)
  end
  return core.node_end()
end

--- Leaves gracefully: hubs stop, peers are told, connections close. The process goes on, with its
--- processes, pids and name, and may start as a node again.
---@return true?, phub.error?
function node.stop()
  while stopping do core.sleep(LOOK_MS) end
  if not core.node_started() then return not_started() end
  stopping = true
  local result = table.pack(pcall(leave))
  stopping = nil
  if not result[1] then error(result[2], 0) end
  return table.unpack(result, 2, result.n)
end

core.leave_with(function()
  local ok, err = pcall(leave)
  if not ok then core.log("error", "leaving: " .. tostring(err)) end
end)

return node
