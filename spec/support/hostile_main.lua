-- An enemy of spec/cluster/hostile_spec.lua: hostile_main.lua ATTACK ADDRESS COOKIE SETTINGS
--
-- Attacks, prints `ready` once it holds what it wants to hold (where the spec looks meanwhile), and at
-- the end `done {what came of it}`. Ends when stdin does, if it holds something.
local uv = require "luv"
local hostile = require "spec.support.hostile"
local values = require "spec.support.values"

local attack, address, cookie = arg[1], arg[2], arg[3]
local settings = assert(load("return " .. (arg[4] or "{}")))()
local shapes, pack, now = hostile.shapes, hostile.pack, hostile.now
local me = { name = settings.name or "evil@127.0.0.1", incarnation = settings.incarnation or 1000, cookie = cookie }

local function say(line)
  io.stdout:write(line, "\n")
  io.stdout:flush()
end

local attacks = {}

-- ---- strangers ---------------------------------------------------------------------------------

local function open_count(conns)
  local n = 0
  for _, c in ipairs(conns) do n = n + (c.closed_at and 0 or 1) end
  return n
end

-- Opens connections, lets `begin` have each, calls `tick` of each every second; answers for how long
-- each lived.
local function hold(begin, tick, ms)
  local conns, ended = {}, 0
  for i = 1, settings.connections do
    conns[i] = hostile.connect(address)
    begin(conns[i])
  end
  say "ready"
  local due = now() + 1000
  hostile.wait(function()
    if tick and now() >= due then
      due = due + 1000
      for _, c in ipairs(conns) do tick(c) end
    end
    ended = #conns - open_count(conns)
    return ended == #conns
  end, ms or 20000)
  local lived = {}
  for i, c in ipairs(conns) do lived[i] = c.closed_at and c.closed_at - c.began or -1 end
  return { lived = lived }
end

function attacks.half()
  return hold(function(c) c:write(hostile.frame(0, hostile.hello(me))) end)
end

function attacks.silent() return hold(function() end) end

function attacks.trickle()
  local bytes = hostile.frame(0, hostile.hello(me))
  local at = {}
  return hold(function(c) at[c] = 0 end, function(c)
    at[c] = at[c] + 1
    c:write(bytes:sub(at[c], at[c]))
  end)
end

-- as much as one may send before it is cut off, in a frame that does not end
function attacks.full()
  return hold(function(c)
    c:write(hostile.frame(0, hostile.hello(me)))
    c:write((">I4B"):pack(4097, 0) .. ("\x91"):rep(4000))
  end)
end

-- a length of 4 GiB; one byte more than a stranger may; and after the proof
function attacks.giant()
  local result = {}
  for i, head in ipairs { "\xff\xff\xff\xff\0", "\xff\xff\xff\xff\1", "\0\0\x10\x02\0", "\0\0\0\0\0" } do
    local c = hostile.connect(address)
    c:write(head)
    hostile.wait(function() return c.closed_at end, 3000)
    result[i] = c.closed_at and c.closed_at - c.began or -1
  end
  for _, head in ipairs { "\xff\xff\xff\xff\0", "\0\1\0\2\1", "\0\1\0\2\x81", "\0\0\0\1\x81", "\0\0\0\1\7" } do
    local c = hostile.connect(address)
    assert(c:prove(me))
    local began = now()
    c:write(head .. ("z"):rep(100))
    hostile.wait(function() return c.closed_at end, 3000)
    result[#result + 1] = c.closed_at and c.closed_at - began or -1
  end
  return { closed = result }
end

-- opens as many as it may, again and again, and keeps what it is left
function attacks.crowd()
  local conns, opened = {}, 0
  local deadline = now() + settings.ms
  while now() < deadline do
    local batch = {}
    for i = 1, 50 do
      if #conns < settings.connections then
        batch[i] = hostile.connect(address, true)
        conns[#conns + 1] = batch[i]
        opened = opened + 1
      end
    end
    hostile.wait(function()
      for _, c in ipairs(batch) do
        if not c.open and not c.closed_at then return false end
      end
      return true
    end, 2000)
    for _, c in ipairs(batch) do
      if opened % 100 == 50 then c:write(hostile.frame(0, hostile.hello(me))) end
    end
    if #conns >= settings.connections then
      if settings.once then break end
      local kept = {}
      for _, c in ipairs(conns) do
        if not c.closed_at then kept[#kept + 1] = c end
      end
      conns = kept
    end
    uv.run "nowait"
  end
  say "ready"
  io.read "l"
  hostile.wait(function() return open_count(conns) == 0 end, 500) -- what has come meanwhile is read
  local open = open_count(conns)
  for _, c in ipairs(conns) do c:close() end
  return { opened = opened, open = open }
end

-- what was said once is said again: as it was, and with the node's own proof
function attacks.replay()
  local c = hostile.connect(address)
  c.record = {}
  assert(c:prove(me))
  local said = c.record
  c:close()
  uv.run "nowait"
  local result = { refused = 0, tries = 0 }
  for _ = 1, 20 do
    local again, reject = hostile.connect(address), nil
    again.hand = function(type) if type == 4 then reject = true elseif type == 3 then again.proven = true end end
    for _, bytes in ipairs(said) do again:write(bytes) end
    hostile.wait(function() return again.closed_at end, 7000)
    result.tries = result.tries + 1
    if again.closed_at and reject and not again.proven then result.refused = result.refused + 1 end
  end
  -- its own HELLO and PROOF, sent back to it by another connection
  local mirror, from = hostile.connect(address), hostile.connect(address)
  mirror.hand = function(type) mirror.proven = mirror.proven or type == 3 end
  from.hand = function(type, payload) mirror:send(payload, type) end
  from:send(hostile.hello(me), 1)
  hostile.wait(function() return mirror.closed_at and from.closed_at end, 12000)
  result.mirrored = mirror.proven or false
  result.guessed = hostile.connect(address):prove { name = me.name, incarnation = 5, cookie = cookie .. "x" } or false
  return result
end

-- ---- proven peers ------------------------------------------------------------------------------

local current

-- A link that is up: the same one, or a new one of the same incarnation.
local function link()
  for try = 1, 200 do
    if current and not current.closed_at then return current end
    current = hostile.connect(address)
    if current:prove(me) then return current end
    current:close()
    hostile.wait(function() return false end, math.min(10 * try, 200))
    current = nil
  end
  error "not let in again"
end

-- every message, each field of it wrong in every way; and cut short, and without its fields
function attacks.wrong()
  local sent, links = 0, 0
  local last
  local function send(payload, type)
    local c = link()
    if c ~= last then links = links + 1 end
    last = c
    c:send(payload, type)
    sent = sent + 1
    if not c:met(1) and type >= 64 then c:met(2) end -- a hub's answer to it takes a turn more
  end
  for _, shape in ipairs(shapes) do
    local whole, fields = hostile.message(shape, me)
    send(whole, shape.type)
    for n = 1, fields do
      for _, value in ipairs(hostile.WRONG) do send(hostile.message(shape, me, n, value), shape.type) end
    end
    for at = 0, math.min(#whole, 200), 7 do send(whole:sub(1, at), shape.type) end
    send(pack.array(pack.uint(shape.type)), shape.type)
    send(whole .. whole, shape.type)
    send(whole, shape.type < 32 and 32 or 1) -- as a frame of the other kind
  end
  for type = 0, 255 do send(pack.array(pack.uint(type), pack.uint(1), pack.str "x"), type % 2 * 40) end
  return { sent = sent, links = links }
end

local said -- by the flood of link states, the last time

-- one kind of message as fast as it goes through, without reading a word of what comes back
local floods = {
  heartbeat = function(i) return pack.array(pack.uint(5), pack.uint(i), pack.uint(0), pack.uint(i)), 5 end,
  probe = function(i) return pack.array(pack.uint(9), pack.uint(i)), 9 end,
  unknown = function(i) return pack.array(pack.uint(30), pack.uint(i)), 30 end,
  summary = function() return pack.array(pack.uint(13), pack.bool(true), pack.bin(("\7"):rep(16 * 4000))), 13 end,
  state = function(i)
    local keys = {}
    for k = 1, 2000 do keys[k] = ("<I8"):pack((i % 2 * 2000 + k) * 0x9E3779B97F4A7C15) end
    local added, removed = table.concat(keys), said or ""
    said = added
    return pack.array(pack.uint(12), pack.str(me.name), pack.uint(me.incarnation), pack.uint(i > 1 and i - 1 or 0),
      pack.uint(i), pack.uint(0), pack.str "127.0.0.1:1", pack.bin(added), pack.bin(removed)), 12
  end,
  strangers = function(i)
    return pack.array(pack.uint(12), pack.str(("s%d@nowhere"):format(i)), pack.uint(1), pack.uint(0), pack.uint(1),
      pack.uint(0), pack.str "127.0.0.1:1", pack.bin(("\1"):rep(8)), pack.bin ""), 12
  end,
  relay = function(i)
    return pack.array(pack.uint(14), pack.uint(200), pack.str(settings.other or "x@y"), pack.uint(i), pack.str(me.name),
      pack.uint(me.incarnation), pack.uint(2), pack.uint(1), pack.uint(1), pack.uint(i), pack.bin(("r"):rep(1000))), 14
  end,
  send = function() return pack.array(pack.uint(33), pack.str "echo", pack.uint(0), pack.str(("m"):rep(100))), 33 end,
  nobody = function() return pack.array(pack.uint(33), pack.str "nobody", pack.uint(0), pack.str "m"), 33 end,
  call = function(i)
    return pack.array(pack.uint(34), pack.str "nobody", pack.uint(1), hostile.pid(me.name, me.incarnation, 1),
      pack.uint(i), pack.str "m"), 34
  end,
  monitor = function(i) return pack.array(pack.uint(36), pack.uint(999999), pack.uint(1), pack.uint(i)), 36 end,
  xoff = function(i) return pack.array(pack.uint(42), pack.uint(i), pack.bool(true)), 42 end,
  hub_digest = function(i) return pack.array(pack.uint(75), pack.str "h", pack.uint(i), pack.bool(true)), 75 end,
  hub_survey = function(i) return pack.array(pack.uint(85), pack.str "h", pack.uint(i)), 85 end,
  hub_ask = function(i) return pack.array(pack.uint(79), pack.str "h", pack.str("g" .. i)), 79 end,
  hub_view = function(i) return pack.array(pack.uint(68), pack.str "h", pack.uint(i), pack.bool(i % 2 == 0)), 68 end,
  hub_hello = function(i)
    return pack.array(pack.uint(64), pack.str "h", pack.uint(i), pack.str "t", pack.uint(math.mininteger),
      pack.bool(true)), 64
  end,
  hub_again = function() return me.hub_hello or pack.array(pack.uint(78), pack.str "h"), 64 end,
  hub_buckets = function(i)
    local digests = ("%08d"):format(i):rep(1024)
    return pack.array(pack.uint(76), pack.str "h", pack.bin(digests), pack.bool(true), pack.uint(i)), 76
  end,
  no_hub = function(i) return pack.array(pack.uint(75), pack.str("other" .. i), pack.uint(i), pack.bool(true)), 75 end,
}

function attacks.flood()
  local make, sent, bytes = floods[settings.what], 0, 0
  me.mute = settings.mute
  local deadline = now() + settings.ms
  while now() < deadline do
    local c = link()
    local batch, size = {}, 0
    while size < 32768 do
      sent = sent + 1
      local payload, type = make(sent)
      batch[#batch + 1] = hostile.frame(type >= 32 and 1 or 0, payload)
      size = size + #batch[#batch]
    end
    bytes = bytes + size
    c:write(table.concat(batch))
    hostile.wait(function() return c.closed_at or c.tcp:get_write_queue_size() < 65536 or now() >= deadline end, 5000)
  end
  if current then current:close() end
  return { sent = sent, bytes = bytes }
end

-- says one thing and then its contrary, as fast as it may
function attacks.contradict()
  local deadline, rounds = now() + settings.ms, 0
  local key = ("\5"):rep(8)
  local function state(number, added, removed, flags)
    return pack.array(pack.uint(12), pack.str(me.name), pack.uint(me.incarnation), pack.uint(0), pack.uint(number),
      pack.uint(flags), pack.str "127.0.0.1:1", pack.bin(added), pack.bin(removed)), 12
  end
  local function fact(i, state_)
    local rows = pack.str("ghost" .. i % 10) .. pack.uint(state_) .. pack.uint(0) .. pack.uint(i) .. pack.uint(1 + i)
    return pack.array(pack.uint(66), pack.str "h", pack.array(pack.str(me.name), pack.uint(me.incarnation)), "\x90",
      pack.uint(i), pack.bin(rows)), 66
  end
  while now() < deadline do
    rounds = rounds + 1
    local c = link()
    local i = rounds
    c:send(state(2 * i, key, "", 0))
    c:send(state(2 * i + 1, "", key, 1))
    c:send(fact(i, 2))
    c:send(fact(i, 0))
    c:send(fact(i, 4))
    for _, leaving in ipairs { true, false } do
      c:send(pack.array(pack.uint(68), pack.str "h", pack.uint(i), pack.bool(leaving)), 68)
      c:send(pack.array(pack.uint(69), pack.str "h", pack.bool(leaving)), 69)
      c:send(pack.array(pack.uint(42), pack.str "echo", pack.bool(leaving)), 42)
    end
    for _ = 1, 2 do -- the same ref twice
      c:send(pack.array(pack.uint(34), pack.str "echo", pack.uint(1), hostile.pid(me.name, me.incarnation, 1),
        pack.uint(7), pack.str "m"), 34)
    end
    c:send(pack.array(pack.uint(78), pack.str "h"), 78)
    c:send(pack.array(pack.uint(65), pack.str "h"), 65)
    c:send(pack.array(pack.uint(77), pack.str "h", pack.uint(i)), 77)
    local twin = hostile.connect(address) -- the same incarnation, an older, a newer one
    local other = { name = me.name, incarnation = me.incarnation + rounds % 3 - 1, cookie = cookie }
    if twin:prove(other) then
      current:close()
      current, me.incarnation = twin, other.incarnation
    else
      twin:close()
    end
    uv.run "nowait"
  end
  return { rounds = rounds }
end

math.randomseed(settings.seed or 1)
local result = attacks[attack]()
say("done " .. values.line(result))
os.exit(0)
