-- A peer that a spec plays by itself, byte by byte: connects, proves the cookie if it is told to, and
-- says whatever it wants (spec/core/fuzz/messages.def has the messages and their fields).
--
--   local c = hostile.connect("127.0.0.1:4711")
--   c:prove { name = "evil@127.0.0.1", incarnation = 1, cookie = "..." }
--   c:say(hostile.shapes.GRANT, 1, hostile.WRONG[3])      -- its first field wrong
--   hostile.wait(function() return c.closed_at end, 5000)
local uv = require "luv"
local sha256 = require "spec.support.sha256"

local hostile = {}
local Conn = {}
Conn.__index = Conn

local CONTROL, DATA = 0, 1
local HELLO, PROOF, WELCOME, HEARTBEAT, PROBE, PROBE_ACK, GRANT, FIRST_DATA, HUB_HELLO =
  1, 2, 3, 5, 9, 10, 7, 32, 64

-- ---- msgpack -----------------------------------------------------------------------------------

local pack = {}
hostile.pack = pack

function pack.uint(n)
  if n >= 0 and n < 128 then return string.char(n) end
  return "\xcf" .. (">I8"):pack(n) -- a negative n is one above 2^63
end

function pack.str(s) return "\xda" .. (">s2"):pack(s) end

function pack.bin(s) return "\xc6" .. (">s4"):pack(s) end

function pack.bool(b) return b and "\xc3" or "\xc2" end

function pack.array(...)
  return "\xdc" .. (">I2"):pack(select("#", ...)) .. table.concat { ... }
end

function pack.ext(kind, s) return "\xc8" .. (">I2"):pack(#s) .. string.char(kind) .. s end

function hostile.pid(name, incarnation, serial)
  return pack.ext(1, pack.str(name) .. pack.uint(incarnation) .. pack.uint(serial))
end

local function frame(kind, payload) return (">I4B"):pack(#payload + 1, kind) .. payload end
hostile.frame = frame

-- the unsigned numbers at the head of a message: what it takes to answer one
local function numbers(payload)
  local at, list = 2, {}
  if payload:byte() == 0xdc then at = 4 end
  while at <= #payload do
    local code = payload:byte(at)
    local width = ({ [0xcc] = 1, [0xcd] = 2, [0xce] = 4, [0xcf] = 8 })[code]
    if code < 0x80 then
      list[#list + 1], at = code, at + 1
    elseif width then
      list[#list + 1], at = (">I" .. width):unpack(payload, at + 1), at + 1 + width
    else
      break
    end
  end
  return list
end

-- ---- messages ----------------------------------------------------------------------------------

--- By name, and in their order: `{ name=, type=, fields= }`.
hostile.shapes = {}
for line in io.lines("spec/core/fuzz/messages.def") do
  local name, number, fields = line:match('^MESSAGE%(([%w_]+), (%d+), "(.-)"%)')
  if name then
    local shape = { name = name, type = math.tointeger(number), fields = fields }
    hostile.shapes[name] = shape
    table.insert(hostile.shapes, shape)
  end
end

local SPEC = "\x81" .. pack.str "start" .. pack.array(pack.str "nowhere", pack.str "start")

-- what a field holds when it is right; nothing of it names another node, process or child that is
-- really there
local RIGHT = {
  u = function() return pack.uint(math.mininteger) end, -- 2^63
  b = function() return pack.bool(true) end,
  v = function() return pack.str "value" end,
  x = function() return pack.str "text" end,
  y = function() return pack.bin "\xc0" end,
  m = function(me) return pack.str(me.name) end,
  I = function(me) return pack.uint(me.incarnation) end,
  a = function() return pack.str "127.0.0.1:1" end,
  k = function() return pack.bin(("\1"):rep(8)) end,
  K = function() return pack.bin(("\1"):rep(16)) end,
  d = function() return pack.uint(999999) end,
  w = function() return pack.uint(999999) end,
  n = function(me)
    me.refs = (me.refs or 0) + 1
    return pack.uint(me.refs)
  end,
  c = function() return pack.uint(0) end,
  C = function() return pack.uint(1) end,
  g = function() return pack.uint(0) end,
  p = function(me) return hostile.pid(me.name, me.incarnation, 1) end,
  h = function() return pack.str "h" end,
  i = function() return pack.str "ghost" end,
  N = function(me) return pack.array(pack.str(me.name), pack.uint(me.incarnation)) end,
  S = function() return pack.array(pack.bin(SPEC)) end,
  t = function() return pack.uint(0) end,
  s = function() return pack.uint(0) end,
  o = function() return "\xc0" end,
  q = function() return "\xc0" end,
  f = function() return pack.uint(2) end,
  e = function() return pack.uint(0) end,
  D = function() return pack.bin(("\1"):rep(8192)) end,
}

--- What a field can hold instead, packed: other types, and its own with another content.
hostile.WRONG = {
  "\xc0", "\xc2", "\xff", pack.uint(-1), "\xcb\x3f\xe0\0\0\0\0\0\0", "\xca\x7f\xc0\0\0", pack.str "",
  pack.str(("x"):rep(3000)), pack.str "\0\xff\n", pack.bin "", pack.bin(("y"):rep(70)), "\x90", "\x80",
  ("\x91"):rep(60) .. "\xc0", ("\x91"):rep(70) .. "\xc0", "\xdd\xff\xff\xff\xff", "\xdf\x7f\xff\xff\xff",
  "\xdb\xff\xff\xff\xff", "\xc6\xff\xff\xff\x00", "\xc1", pack.ext(1, "junk"), pack.ext(1, ""),
  hostile.pid("ghost@nowhere", 1, 1), hostile.pid("", 1, 1), pack.ext(77, "z"), pack.array(pack.str "a"),
  pack.array(pack.uint(-1), pack.str "a"), "",
}

local function close_of(fields, at)
  local depth = 0
  for i = at, #fields do
    local c = fields:sub(i, i)
    if c == "[" or c == "{" then depth = depth + 1 end
    if c == "]" or c == "}" then depth = depth - 1 end
    if depth == 0 then return i end
  end
end

-- Packs fields one after the other; `w` counts them, those inside rows too, and puts the wrong value in.
local function pack_fields(fields, me, w)
  local out, at = {}, 1
  while at <= #fields do
    local kind, to = fields:sub(at, at), at
    w.at = w.at + 1
    local wrong = w.at == w.wanted and w.value
    if kind == "{" or kind == "[" then
      to = close_of(fields, at)
      local inside = table.concat(pack_fields(fields:sub(at + 1, to - 1), me, w))
      out[#out + 1] = wrong or (kind == "{" and pack.bin(inside) or pack.uint(1) .. inside)
    else
      out[#out + 1] = wrong or RIGHT[kind](me)
    end
    at = to + 1
  end
  return out
end

--- A message of this shape, with its n-th field wrong.
---@return string payload, integer fields  how many there are
function hostile.message(shape, me, n, value)
  local w = { at = 0, wanted = n, value = value }
  return pack.array(pack.uint(shape.type), table.unpack(pack_fields(shape.fields, me, w))), w.at
end

local sigpipe = uv.new_signal()
sigpipe:start("sigpipe", function() end) -- that the other side has closed is no reason to end
sigpipe:unref()

-- ---- connections -------------------------------------------------------------------------------

local function now() return uv.hrtime() / 1e6 end
hostile.now = now

--- Runs the loop until cond answers something true, or the time is over.
function hostile.wait(cond, ms)
  local deadline, timer = now() + ms, uv.new_timer()
  timer:start(1, 1, function() end)
  local value = cond()
  while not value and now() < deadline do
    uv.run "once"
    value = cond()
  end
  timer:close()
  return value
end

function Conn:ended()
  if self.closed_at then return end
  self.closed_at = now()
  if not self.tcp:is_closing() then self.tcp:close() end
end

Conn.close = Conn.ended

--- Waits until the other side has read all that was sent, and lives; true when it has closed.
function Conn:met(number)
  self.acked = nil
  self:send(pack.array(pack.uint(PROBE), pack.uint(number)), PROBE)
  hostile.wait(function() return self.closed_at or self.acked == number end, 10000)
  return self.closed_at ~= nil
end

--- Bytes as they are.
function Conn:write(bytes)
  if self.closed_at then return end
  self.sent = self.sent + #bytes
  if self.record then table.insert(self.record, bytes) end
  self.tcp:write(bytes, function(err) if err then self:ended() end end)
end

--- A message as a frame of its kind.
function Conn:send(payload, type)
  self:write(frame(type >= FIRST_DATA and DATA or CONTROL, payload))
end

function Conn:say(shape, n, value)
  self:send(hostile.message(shape, self.me, n, value), shape.type)
end

-- ---- what keeps a link up ----

local answers = {}

answers[HEARTBEAT] = function(self, payload)
  local n = numbers(payload)
  self:send(pack.array(pack.uint(HEARTBEAT), pack.uint(n[2]), pack.uint(0), pack.uint(n[4])), HEARTBEAT)
end

answers[PROBE] = function(self, payload)
  self:send(pack.array(pack.uint(PROBE_ACK), pack.uint(numbers(payload)[2])), PROBE_ACK)
end

answers[PROBE_ACK] = function(self, payload) self.acked = numbers(payload)[2] end

-- the hub's own words back: a member with the same strategies
answers[HUB_HELLO] = function(self, payload) self:send(payload, HUB_HELLO) end

function Conn:received(kind, payload)
  self.count = self.count + 1
  local type = numbers(payload)[1]
  if self.hand then return self.hand(type, payload) end
  if type == HUB_HELLO then self.me.hub_hello = payload end
  if self.mute or not self.proven then return end
  if kind ~= CONTROL then
    self:send(pack.array(pack.uint(GRANT), pack.uint(#payload + 5)), GRANT)
  end
  if answers[type] then answers[type](self, payload) end
end

function Conn:feed(bytes)
  self.input = self.input .. bytes
  while #self.input >= 5 do
    local length, kind = (">I4B"):unpack(self.input)
    if #self.input < 4 + length then return end
    local payload = self.input:sub(6, 4 + length)
    self.input = self.input:sub(5 + length)
    self:received(kind, payload)
  end
end

--- Opens a connection; waits unless `later`.
---@param address string  "127.0.0.1:port"
function hostile.connect(address, later)
  local host, port = address:match("^(.*):(%d+)$")
  local self = setmetatable({ tcp = uv.new_tcp(), input = "", count = 0, sent = 0, began = now() }, Conn)
  self.tcp:connect(host, math.tointeger(port), function(err)
    if err then return self:ended() end
    self.open = true
    self.tcp:nodelay(true)
    self.tcp:read_start(function(failure, data)
      if failure or not data then return self:ended() end
      self:feed(data)
    end)
  end)
  if not later then hostile.wait(function() return self.open or self.closed_at end, 5000) end
  return self
end

function hostile.hello(me)
  local nonce = {}
  for i = 1, 32 do nonce[i] = string.char(math.random(0, 255)) end
  return pack.array(pack.uint(HELLO), pack.str "PHUB", pack.uint(1), pack.uint(1), pack.str(me.name),
    pack.uint(me.incarnation), pack.str "127.0.0.1:1", pack.uint(0), pack.bin(table.concat(nonce)),
    pack.uint(4 * 1024 * 1024))
end

--- The handshake. True when this node is in, else nil and the number in REJECT, if one came.
---@param me { name: string, incarnation: integer, cookie: string, mute: boolean? }
function Conn:prove(me)
  local own, theirs, over, rejected = hostile.hello(me), nil, nil, nil
  self.me, self.mute = me, me.mute
  self.hand = function(type, payload)
    if type == HELLO then
      theirs = payload
    elseif type == PROOF then
      local mac = sha256.hmac(me.cookie, "phub proof of client\0" .. own .. theirs)
      self:send(pack.array(pack.uint(PROOF), pack.bin(mac), pack.uint(0), pack.bool(true)), PROOF)
    else
      self.hand, self.proven, over = nil, type == WELCOME, true
      rejected = numbers(payload)[2]
    end
  end
  self:send(own, HELLO)
  hostile.wait(function() return over or self.closed_at end, 5000)
  return self.proven or nil, rejected
end

--- Waits until the bytes written have left, or the other side has closed.
function Conn:flush(ms)
  return hostile.wait(function() return self.closed_at or self.tcp:get_write_queue_size() == 0 end, ms or 5000)
end

return hostile
