-- Promise 5: a Lua call that blocks a node for long drops no link, idle or under a flood of casts.
-- timeout: 300
local uv = require "luv"
local cluster = require "spec.support.cluster"
local eventually = require "spec.support.eventually"
local os_process = require "spec.support.os_process"
local tally = require "spec.support.tally"
local SLOWER = require "spec.support.slower"

local FULL = os.getenv "PHUB_SPEC_FULL"
local BLOCK_MS = FULL and 20000 or 4000
local NODE = not FULL and "{ heartbeat_interval = 200, heartbeat_timeout = 1600 }" or nil
-- The window of the link and what stands behind it, with room to spare; a sanitizer's own on top.
local GROWTH_MB = SLOWER == 1 and 64 or 400

-- Each node keeps the events of its monitor.
local WATCH = [[
  events = {}
  phub.node.monitor(function(event, name) events[#events + 1] = event .. " " .. name end)
]]

-- Casts rising numbers as fast as it may, by id or by pid, until told to stop; keeps how many were
-- accepted. It gives way now and then, to be told.
local FLOOD = [[
  local by, id = ...
  flood = { accepted = 0, refused = {}, longest = 0 }
  local process, cast, pid = phub.process, phub.gen_server.cast, phub.get_pid("h", id)
  local dest = by == "pid" and pid or { hub = "h", child = id }
  process.spawn(function()
    local n = 0
    while not flood.stop do
      n = n + 1
      if n % 1000 == 0 then process.yield() end
      local before = process.now()
      local ok, err = cast(dest, n)
      flood.longest = math.max(flood.longest, process.now() - before)
      if ok then
        flood.accepted, flood.last = flood.accepted + 1, n
      else
        flood.refused[err.code] = (flood.refused[err.code] or 0) + 1
        process.yield()
      end
    end
    flood.over = true
  end)
]]

-- Blocks the whole interpreter: C that does not return is what no scheduler can interrupt.
local BLOCK = [[ require "luv".sleep(...) return "woken" ]]

-- Resident memory, now and at its highest, in MB.
local function memory(node)
  local file <close> = assert(io.open("/proc/" .. node.process.pid .. "/status"))
  local text = file:read "a"
  return tonumber(text:match("VmRSS:%s+(%d+)")) / 1024, tonumber(text:match("VmHWM:%s+(%d+)")) / 1024
end

-- The TCP connections that an OS process holds: lines "local remote", sorted.
local function connections(node)
  local mine, lines = {}, {}
  local fds = "/proc/" .. node.process.pid .. "/fd"
  for name in uv.fs_scandir_next, assert(uv.fs_scandir(fds)) do
    local inode = (uv.fs_readlink(fds .. "/" .. name) or ""):match("^socket:%[(%d+)%]$")
    if inode then mine[inode] = true end
  end
  for line in io.lines "/proc/net/tcp" do
    local here, there, state, inode = line:match("^%s*%d+: (%S+) (%S+) (%x%x) %S+ %S+ %S+%s+%d+%s+%d+ (%d+)")
    if state == "01" and mine[inode] then lines[#lines + 1] = here .. " " .. there end
  end
  table.sort(lines)
  return lines
end

describe("a Lua call that blocks a node for " .. BLOCK_MS / 1000 .. " s", function()
  local c

  before_each(function()
    c = cluster.start(3, { node = NODE })
    tally.hubs(c)
    assert.equal("ok", c[1]:eval [[
      local specs = require "spec.support.census".specs("c", 30)
      return phub.start_children("h", specs, { awaitable = true }):await().status ]])
  end)

  after_each(function()
    if c then c:stop() end
    os_process.finish()
  end)

  -- Runs fn while the node is blocked, and checks that nobody took that for anything.
  local function blocked(node, fn)
    local before = {}
    for i = 1, 3 do
      c[i]:eval(WATCH)
      before[i] = connections(c[i])
      assert.equal(2, #before[i])
    end
    local running = tally.running(c)
    local began = uv.hrtime()
    local answer = node:send(BLOCK, BLOCK_MS)
    fn()
    assert.equal("woken", answer(BLOCK_MS + 15000))
    assert.is_true((uv.hrtime() - began) / 1e6 >= BLOCK_MS)
    for i = 1, 3 do
      assert.same({}, c[i]:eval "return events")
      assert.same(before[i], connections(c[i]))
    end
    assert.same(running, tally.running(c))
  end

  local function child_of(node)
    return node:eval [[ return (next(phub.process_list("h", "local"))) ]]
  end

  it("drops no link of an idle node", function()
    local id = child_of(c[2])
    blocked(c[2], function()
      -- The others work meanwhile, and a call to the blocked one only waits.
      local other = child_of(c[3])
      assert.equal(c[3].name, c[1]:eval([[ return phub.call("h", ..., "where") ]], other))
      assert.same({ false, "timeout" }, { c[1]:eval([[
        local reply, err = phub.call("h", ..., "where", 100)
        return reply or false, err.code ]], id) })
    end)
    assert.equal(c[2].name, c[1]:eval([[ return phub.call("h", ..., "where") ]], id))
  end)

  local function flooded(by)
    local id = child_of(c[2])
    local sender, receiver = memory(c[1]), memory(c[2])
    c[1]:eval(FLOOD, by, id)
    uv.sleep(200)
    blocked(c[2], function() end)
    c[1]:eval [[ flood.stop = true ]]
    local accepted, last, refused, longest = c[1]:eval_within(30000, [[
      while not flood.over do phub.process.sleep(5) end
      return flood.accepted, flood.last, flood.refused, flood.longest ]])
    local seen
    pcall(eventually, function()
      seen = c[2]:eval_within(60000, [[ return assert(phub.call("h", ..., "seen", 60000)) ]], id)
      return seen[1] >= accepted
    end, 60000)
    assert.same({ accepted, true, last }, seen)
    local _, sender_most = memory(c[1])
    local _, receiver_most = memory(c[2])
    if FULL then
      print(("  by %s: %d casts accepted, refused %s, longest wait %.0f ms; memory: sender +%.0f MB, receiver +%.0f MB")
        :format(by, accepted, next(refused) and ("%s %d"):format(next(refused)) or "none", longest,
          sender_most - sender, receiver_most - receiver))
    end
    for code in pairs(refused) do assert.equal("busy", code) end
    assert.is_true(accepted > 10000, accepted .. " casts accepted")
    assert.is_true(sender_most - sender < GROWTH_MB, ("the sender grew by %.0f MB"):format(sender_most - sender))
    assert.is_true(receiver_most - receiver < GROWTH_MB,
      ("the receiver grew by %.0f MB"):format(receiver_most - receiver))
  end

  it("drops no link, message or order while a peer casts by pid as fast as it may, in bounded memory", function()
    flooded "pid"
  end)

  it("drops none while a peer casts by id as fast as it may, either", function()
    flooded "id"
  end)

  it("drops no link when it is a script that computes at its top level", function()
    c[1]:eval(WATCH)
    local p = os_process.lua([[
      local phub = require "phub"
      assert(phub.node.start { name = "script@127.0.0.1", cookie = "spec-cookie", join = { arg[1] },
        heartbeat_interval = 200, heartbeat_timeout = 1600 })
      local lost = 0
      phub.node.monitor(function(event) if event == "nodedown" then lost = lost + 1 end end)
      while #phub.node.list() < 3 do phub.process.sleep(5) end
      local till = phub.process.now() + tonumber(arg[2])
      repeat local x = 0 for i = 1, 1000 do x = x + i end until phub.process.now() >= till
      phub.process.sleep(200)
      print(lost, #phub.node.list())
    ]], { args = { c[1].address, tostring(BLOCK_MS) } })
    assert.equal("0\t3", p:line(BLOCK_MS + 20000))
    assert.same({ "nodeup script@127.0.0.1" }, { c[1]:eval("return events")[1] })
    assert.same({ code = 0 }, p:wait())
    eventually(function() return #c[1]:sees() == 2 end)
    assert.same({ "nodeup script@127.0.0.1", "nodedown script@127.0.0.1" }, c[1]:eval "return events")
  end)
end)
