-- Enemies at the wire: strangers that do not know the cookie, and a peer that does and lies. Whatever
-- they do, a real peer's calls are answered, the node's memory is bounded and returns, and the cluster
-- works on. PHUB_SPEC_FULL=1: 10,000 connections, longer floods.
-- timeout: 400
local uv = require "luv"
local cluster = require "spec.support.cluster"
local eventually = require "spec.support.eventually"
local hostile = require "spec.support.hostile"
local os_process = require "spec.support.os_process"
local values = require "spec.support.values"
local SLOWER = require "spec.support.slower"

local FULL = os.getenv "PHUB_SPEC_FULL" == "1"
local COOKIE = "spec-cookie"
local KIB = 1024
local UNPROVEN, EACH = 64, 16 * KIB
local LIFE_MS, LATE_MS = 5000, 1500
local SOON_MS = 100
local RETURNS = 6 * SLOWER * 1024 * KIB -- what the allocator may keep of what was given back
local FLOOD_MS = FULL and 3000 or 800

local ECHO = [[
  local echo = {}
  function echo.init() return {} end
  function echo.handle_call(_, n) return n end
  phub.process.register("echo", phub.gen_server.start(echo, nil))
]]

-- calls on and on, and notes how long each took
local PROBE = [[
  local target, timeout = ...
  took, failed = {}, {}
  phub.process.spawn(function()
    while true do
      local began = phub.process.now()
      local n, err = phub.gen_server.call({ "echo", target }, 7, timeout)
      if n ~= 7 then failed[#failed + 1] = err and err.code or "wrong" end
      took[#took + 1] = phub.process.now() - began
      phub.process.sleep(3)
    end
  end)
]]

local TAKE = [[
  local t, f = took, failed
  took, failed = {}, {}
  table.sort(t)
  return #t, #t > 0 and t[math.ceil(#t * 0.95)] or 0, #t > 0 and t[#t] or 0, table.concat(f, " ")
]]

describe("under attack a node", function()
  local c, node, peer, calm

  local function memory()
    local file <close> = assert(io.open(("/proc/%d/status"):format(node.process.pid)))
    return math.tointeger(file:read("a"):match("VmRSS:%s+(%d+)")) * KIB
  end

  local function files()
    local n = 0
    local dir = uv.fs_scandir(("/proc/%d/fd"):format(node.process.pid))
    while uv.fs_scandir_next(dir) do n = n + 1 end
    return n
  end

  local function take()
    local count, most, worst, failed = peer:eval(TAKE)
    return { count = count, most = most, worst = worst, failed = failed }
  end

  local function rest(ms)
    local deadline = uv.hrtime() + ms * 1e6
    while uv.hrtime() < deadline do
      uv.run "nowait"
      uv.sleep(2)
    end
  end

  local function start(options)
    c = cluster.start(2, options)
    c:settle()
    node, peer = c[1], c[2]
    node:eval(ECHO)
    peer:eval(PROBE, node.name, 5000 * SLOWER)
    eventually(function() return peer:eval [[ return #took > 20 ]] end)
    take()
    rest(500)
    calm = take()
    assert.equal("", calm.failed)
  end

  -- Calls that were made since the last look: all answered, about as soon as when all was calm.
  local function answered(what)
    eventually(function() return peer:eval [[ return #took > 0 ]] end)
    local t = take()
    local text = ("%s: %d calls, 95 of 100 within %.1f ms (calm %.1f), the last after %.1f (calm %.1f) %s"):format(what,
      t.count, t.most, calm.most, t.worst, calm.worst, t.failed)
    if os.getenv "SPEC_SHOW" then print(text) end
    assert.equal("", t.failed, text)
    if SLOWER > 1 then return end -- sanitizers slow the node down, and not its enemies
    assert.is_true(t.most <= 10 * calm.most + SOON_MS, text)
    assert.is_true(t.worst <= 10 * calm.worst + 1000, text)
  end

  local function enemy(attack, settings)
    return os_process.script("spec/support/hostile_main.lua", {
      args = { attack, node.address, COOKIE, values.line(settings or {}) }, name = attack,
    })
  end

  local function result(p, ms)
    local line = p:expect("^done (.*)$", ms or 60000)
    p:close_stdin()
    assert.same({ code = 0 }, p:wait())
    return values.parse(line)
  end

  -- The two are still a cluster, and its hub works.
  local function works()
    eventually(function()
      local seen, sees = node:sees(), peer:sees()
      return #seen == 1 and seen[1] == peer.name and #sees == 1 and sees[1] == node.name
    end, 20000)
    answered "afterwards"
    assert.equal("ok", node:eval_within(60000, [[
      local specs = require "spec.support.census".specs(..., 5)
      return phub.start_children("h", specs, { awaitable = true }):await().status ]], "w" .. uv.hrtime() .. "-"))
    assert.same({}, node.process.result or {})
  end

  before_each(function() start() end)

  after_each(function()
    if c then c:stop() end
    os_process.finish()
  end)

  it("drops strangers that say nothing, half of it, or a byte a second, after five seconds", function()
    local enemies = {}
    for _, attack in ipairs { "silent", "half", "trickle" } do
      enemies[attack] = enemy(attack, { connections = 20 })
    end
    for attack, p in pairs(enemies) do
      for _, ms in ipairs(result(p).lived) do
        assert.is_true(ms >= LIFE_MS - LATE_MS and ms <= LIFE_MS + LATE_MS * SLOWER,
          ("%s: lived for %.0f ms"):format(attack, ms))
      end
    end
    answered "meanwhile"
    works()
  end)

  it("holds at most 16 KiB for each stranger, and gives it back", function()
    local before = memory()
    for _ = 1, 3 do
      local p = enemy("full", { connections = UNPROVEN })
      p:expect("^ready$", 20000)
      local most = before + UNPROVEN * EACH + RETURNS
      assert.is_true(memory() <= most, ("%d bytes, before %d"):format(memory(), before))
      for _, ms in ipairs(result(p).lived) do
        assert.is_true(ms >= 0 and ms <= LIFE_MS + LATE_MS * SLOWER, ("lived for %.0f ms"):format(ms))
      end
    end
    assert.is_true(memory() <= before + RETURNS, ("%d bytes, before %d"):format(memory(), before))
    answered "meanwhile"
    works()
  end)

  it("closes a connection that announces a giant frame at once, proven or not", function()
    local closed = result(enemy "giant").closed
    assert.equal(9, #closed)
    for i, ms in ipairs(closed) do
      assert.is_true(ms >= 0 and ms <= 1000 * SLOWER, ("number %d: after %.0f ms"):format(i, ms))
    end
    answered "meanwhile"
    works()
  end)

  it("keeps 64 strangers of thousands, and lets real ones in", function()
    local before, open = memory(), files()
    local crowds, opened, left = {}, 0, 0
    local total, processes = FULL and 10000 or 2000, FULL and 5 or 2
    for i = 1, processes do
      local settings = { connections = total // processes, ms = FULL and 20000 or 5000, once = FULL, seed = i }
      crowds[i] = enemy("crowd", settings)
    end
    local joined = c:add { hub = false } -- in the middle of it
    for _, p in ipairs(crowds) do p:expect("^ready$", 60000) end
    assert.is_true(files() <= open + UNPROVEN + 8, ("%d files, before %d"):format(files(), open))
    assert.is_true(memory() <= before + UNPROVEN * EACH + RETURNS, ("%d bytes, before %d"):format(memory(), before))
    answered "meanwhile"
    eventually(function() return #joined:sees() == 2 end)
    for _, p in ipairs(crowds) do
      p:write "\n"
      local r = result(p)
      opened, left = opened + r.opened, left + r.open
    end
    assert.is_true(opened >= total, ("%d connections were opened"):format(opened))
    assert.is_true(left <= UNPROVEN, ("%d were left"):format(left))
    joined:stop()
    works()
  end)

  it("takes no handshake twice, nor its own proof, nor another cookie", function()
    local r = result(enemy "replay")
    assert.same({ tries = 20, refused = 20, mirrored = false, guessed = false }, r)
    answered "meanwhile"
    assert.same({ peer.name }, node:sees())
    works()
  end)

  it("outlives every message with every field wrong", function()
    local r = result(enemy("wrong"), 200000)
    assert.is_true(r.sent > 48 * #hostile.WRONG and r.links > 100, values.line(r))
    answered "meanwhile"
    works()
  end)

  it("outlives floods of every kind, read or not", function()
    local before = memory()
    for _, mute in ipairs { true, false } do
      for _, what in ipairs { "heartbeat", "probe", "unknown", "summary", "state", "strangers", "relay", "send",
        "nobody", "call", "monitor", "xoff", "hub_digest", "hub_survey", "hub_ask", "hub_view", "hub_hello",
        "hub_again", "hub_buckets", "no_hub" } do
        local p = enemy("flood", { what = what, ms = FLOOD_MS, mute = mute, other = peer.name })
        result(p)
        answered(("flood of %s%s"):format(what, mute and ", unread" or ""))
      end
    end
    if SLOWER == 1 then -- sanitizers have an allocator of their own, which keeps more
      eventually(function() return memory() <= before + 2 * RETURNS end, 20000)
    end
    works()
  end)

  it("outlives a peer that contradicts itself", function()
    local r = result(enemy("contradict", { ms = FULL and 10000 or 3000 }))
    assert.is_true(r.rounds > 5, values.line(r))
    answered "meanwhile"
    works()
  end)
end)

describe("the limits of node.start", function()
  local c

  after_each(function()
    if c then c:stop() end
    os_process.finish()
  end)

  it("say how many strangers there may be, and for how long", function()
    c = cluster.start(1, { node = "{ max_unproven = 3, handshake_timeout = 1000 }", hub = false })
    local conns = {}
    for i = 1, 5 do conns[i] = hostile.connect(c[1].address) end
    hostile.wait(function() return conns[1].closed_at and conns[2].closed_at end, 3000)
    assert.is_truthy(conns[1].closed_at and conns[2].closed_at)
    hostile.wait(function() return conns[5].closed_at end, 5000 * SLOWER)
    for i = 3, 5 do
      local ms = assert(conns[i].closed_at) - conns[i].began
      assert.is_true(ms >= 700 and ms <= 1000 + LATE_MS * SLOWER, ("lived for %.0f ms"):format(ms))
    end
  end)

  it("say how large a message may be that is received", function()
    c = cluster.start(1, { node = "{ max_message = 100000 }", hub = false })
    local me = { name = "evil@127.0.0.1", incarnation = 1, cookie = COOKIE }
    local conn = hostile.connect(c[1].address)
    assert.is_true(conn:prove(me))
    conn:write(hostile.frame(0x81, ("x"):rep(60000)))
    conn:write(hostile.frame(0x01, ("x"):rep(40000)))
    assert.is_nil(hostile.wait(function() return conn.closed_at end, 300))
    conn:write(hostile.frame(0x81, ("x"):rep(60000)))
    conn:write(hostile.frame(0x01, ("x"):rep(60000))) -- what a message is wrapped in is not counted
    assert.is_truthy(hostile.wait(function() return conn.closed_at end, 3000 * SLOWER))
  end)

  it("say how much may wait for a peer that does not read", function()
    c = cluster.start(1, { node = "{ max_message = 100000, max_queue = 1 << 20 }", hub = false })
    c[1]:eval(ECHO)
    local conn = hostile.connect(c[1].address)
    local me = { name = "evil@127.0.0.1", incarnation = 1, cookie = COOKIE, mute = true }
    assert.is_true(conn:prove(me))
    local pack, big = hostile.pack, hostile.pack.str(("r"):rep(50000))
    for i = 1, 150 do -- answers of 50 KB; it grants nothing
      local from = hostile.pid(me.name, 1, 1)
      conn:send(pack.array(pack.uint(34), pack.str "echo", pack.uint(1), from, pack.uint(i), big), 34)
    end
    assert.is_truthy(hostile.wait(function() return conn.closed_at end, 5000 * SLOWER))
    eventually(function() return c[1].process.errors:find("evil@127.0.0.1 does not read", 1, true) end)
  end)
end)
