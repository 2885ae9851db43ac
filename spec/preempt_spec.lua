-- Processes that run on and on give way to others; where they cannot, they end.
-- timeout: 300
local phub = require "phub"
local process = require "phub.process"
local gen_server = require "phub.gen_server"
local cluster = require "spec.support.cluster"
local os_process = require "spec.support.os_process"

-- A thread under TSan takes signals only where it calls libc: there the loops allocate.
local TSAN = os.getenv "SAN" == "thread"
local pass = TSAN and function() return {} end or function() end
local forever = TSAN and function() while true do local _ = {} end end
  or function() while true do end end

-- Others wait for a slice of 5 to 10 ms, or two, on a machine that has nothing else to do.
local SOON = TSAN and 3000 or 500

local function inside(fn)
  return function() return phub.run(fn) end
end

-- A process that wakes up every millisecond; worst() is the longest that it was kept waiting since
-- it was last asked.
local function ticker()
  local longest, beats, last = 0, 0, process.now()
  local pid = process.spawn(function()
    while true do
      process.sleep(1)
      local now = process.now()
      longest, beats, last = math.max(longest, now - last), beats + 1, now
    end
  end)
  local t = { pid = pid }
  function t.worst()
    local worst = math.max(longest, process.now() - last)
    longest = 0
    return worst
  end
  function t.beats() return beats end
  function t.stop() process.kill(pid, "kill") end
  return t
end

-- Runs fn as a process until a ticker beside it has gone on for a while; it is still alive then.
local function gives_way(fn)
  local t = ticker()
  local pid, ref = process.spawn_monitor(fn)
  local start = process.now()
  repeat
    local down = process.receive(function(m) return m[2] == ref end, 10)
    assert.is_nil(down)
  until t.beats() >= 15
  assert.is_true(process.alive(pid))
  local worst = t.worst()
  assert(worst < SOON, ("another process waited for %.1f ms"):format(worst))
  assert(process.now() - start > 50, "it has not run")
  process.kill(pid, "kill")
  local _, _, _, reason = table.unpack(process.receive(function(m) return m[2] == ref end, 2000))
  assert.equal("killed", reason)
  t.stop()
end

-- Runs fn as a process: its exit reason, and how long it took.
local function outcome(fn, ms)
  local start = process.now()
  local _, ref = process.spawn_monitor(fn)
  local down = process.receive(function(m) return m[2] == ref end, ms or 20000)
  assert(down, "it has not ended")
  return down[4], process.now() - start
end

local function ends(fn)
  local reason, ms = outcome(fn)
  assert.equal("unyieldable", reason)
  assert(ms > 900, ("it had only %.0f ms"):format(ms))
  assert(ms < 6000, ("it took %.0f ms"):format(ms))
end

local function work(ms)
  local until_ = process.now() + ms
  while process.now() < until_ do end
end

describe("preemption", function()
  after_each(os_process.finish)

  describe("takes the turn from an endless loop", function()
    it("that is bare", inside(function()
      gives_way(forever)
    end))

    it("under pcall, which catches nothing", inside(function()
      gives_way(function()
        pcall(forever)
        error "not reached"
      end)
      gives_way(function() xpcall(forever, print) end)
    end))

    it("in coroutines, by resume and by wrap, nested too", inside(function()
      gives_way(function() coroutine.resume(coroutine.create(forever)) end)
      gives_way(coroutine.wrap(forever))
      gives_way(function()
        coroutine.wrap(function()
          coroutine.resume(coroutine.create(function() coroutine.wrap(forever)() end))
        end)()
      end)
    end))

    it("under pcall in a coroutine under pcall", inside(function()
      gives_way(function()
        pcall(coroutine.wrap(function() pcall(function() coroutine.wrap(forever)() end) end))
      end)
    end))

    it("in metamethods written in Lua, and in iterators", inside(function()
      local t = setmetatable({}, { __index = forever, __add = forever, __lt = forever })
      gives_way(function() return t.x end)
      gives_way(function() return t + 1 end)
      gives_way(function() return t < t end)
      gives_way(function() for _ in forever do end end)
      gives_way(function()
        for _ in coroutine.wrap(function() while true do coroutine.yield(1) end end) do pass() end
      end)
    end))

    it("in a <close> variable at the end of a block", inside(function()
      gives_way(function()
        do local _ <close> = setmetatable({}, { __close = forever }) end
      end)
    end))

    it("in a coroutine that has waited, and whoever started that goes on", inside(function()
      local went_on = 0
      gives_way(function()
        coroutine.wrap(function()
          process.sleep(1)
          forever()
        end)()
        while true do
          process.sleep(1)
          went_on = went_on + 1
        end
      end)
      assert(went_on > 2)
    end))

    it("that calls phub, which waits for nothing", inside(function()
      gives_way(function()
        local future = phub.future.new()
        while not future:is_done() do pass() end
      end)
    end))

    it("in many processes at once", inside(function()
      local hogs, turns = {}, {}
      for i = 1, 5 do
        turns[i] = 0
        hogs[i] = process.spawn(function()
          while true do
            work(1)
            turns[i] = turns[i] + 1
          end
        end)
      end
      local t = ticker()
      process.sleep(600)
      assert(t.worst() < 6 * SOON)
      for i = 1, 5 do
        assert(turns[i] > 5, ("process %d had %d turns"):format(i, turns[i]))
        process.kill(hogs[i], "kill")
      end
      t.stop()
    end))
  end)

  describe("of a gen_server", function()
    local Server = {}
    function Server.init(state)
      if type(state) == "number" then work(state) end
      return { state }
    end

    function Server.handle_call(state, msg)
      if msg == "get" then return state[1] end
      forever()
    end

    function Server.handle_cast(_, msg)
      if msg == "loop" then forever() end
      if msg == "sort" then table.sort({ 3, 2, 1 }, forever) end
      return { msg }
    end

    Server.handle_info = Server.handle_cast

    it("stops its callbacks only", inside(function()
      local hog, other = gen_server.start(Server, "hog"), gen_server.start(Server, "other")
      for _, way in ipairs { gen_server.cast, process.send } do
        way(hog, "loop")
        for _ = 1, 50 do
          local start = process.now()
          assert.equal("other", gen_server.call(other, "get"))
          assert(process.now() - start < SOON)
          process.sleep(1)
        end
        process.kill(hog, "kill")
        hog = gen_server.start(Server, "hog")
      end
      assert.equal("timeout", select(2, gen_server.call(hog, "loop", 50)).code)
      process.kill(hog, "kill")
      gen_server.stop(other)
    end))

    it("lets its supervisor start it again when it cannot give way", inside(function()
      local sup = assert(phub.supervisor.start_link {
        strategy = "one_for_one",
        children = { { id = "a", start = function() return gen_server.start_link(Server, "a", { name = "a" }) end } },
      })
      local first = process.whereis "a"
      local t = ticker()
      gen_server.cast("a", "sort")
      local deadline = process.now() + 10000
      while process.whereis "a" == first or not process.whereis "a" do
        assert(process.now() < deadline, "it was not started again")
        process.sleep(5)
      end
      assert.equal("a", gen_server.call("a", "get"))
      t.stop()
      process.kill(sup, "shutdown")
    end))

    it("stops init, and whoever started it waits", inside(function()
      local t = ticker()
      local Outer = { init = function()
        local pid = assert(gen_server.start_link(Server, 80))
        return { pid }
      end, handle_call = function(state) return gen_server.call(state[1], "get") end }
      local pid = assert(gen_server.start_link(Outer))
      assert.equal(80, gen_server.call(pid, "get"))
      assert(t.worst() < SOON)
      assert(t.beats() > 0)
      t.stop()
    end))

    it("leaves init alone where whoever started it cannot wait", inside(function()
      local t, pid = ticker(), nil
      table.sort({ 2, 1 }, function(a, b)
        pid = pid or assert(gen_server.start(Server, 80))
        return a < b
      end)
      assert.equal(80, gen_server.call(pid, "get"))
      t.stop()
    end))

    it("waits for init at the top level too", function()
      local beats = 0
      local beat = process.spawn(function()
        while true do
          process.sleep(1)
          beats = beats + 1
        end
      end)
      local pid = assert(gen_server.start(Server, 80))
      assert.equal(80, gen_server.call(pid, "get"))
      assert(beats > 0)
      process.kill(beat, "kill")
    end)
  end)

  describe("where Lua cannot yield", function()
    it("ends a sort comparator after a second, and what runs with it", inside(function()
      ends(function() table.sort({ 3, 2, 1 }, forever) end)
    end))

    it("ends a gsub callback and a metamethod called by C", inside(function()
      ends(function() return (("x"):gsub("x", forever)) end)
      ends(function() return tostring(setmetatable({}, { __tostring = forever })) end)
    end))

    it("ends a loop that catches the error, and one in a coroutine inside", inside(function()
      ends(function()
        table.sort({ 3, 2, 1 }, function() while true do pcall(forever) end end)
      end)
      ends(function()
        table.sort({ 3, 2, 1 }, function()
          while true do pcall(function() while true do pcall(forever) end end) end
        end)
      end)
      ends(function()
        table.sort({ 3, 2, 1 }, function() while true do coroutine.resume(coroutine.create(forever)) end end)
      end)
    end))

    it("raises an error that pcall can catch, outside", inside(function()
      local reason = outcome(function()
        local ok, err = pcall(table.sort, { 3, 2, 1 }, forever)
        assert.is_false(ok)
        assert.equal("unyieldable", err.code)
        assert.matches("^unyieldable: ", tostring(err))
        local co = coroutine.create(function() table.sort({ 3, 2, 1 }, forever) end)
        ok, err = coroutine.resume(co)
        assert.is_false(ok)
        assert.equal("unyieldable", err.code)
        assert.equal("dead", coroutine.status(co))
        process.exit("caught")
      end)
      assert.equal("caught", reason)
    end))

    it("raises it when nobody waits, too", function()
      local ok, err = pcall(phub.run, function() table.sort({ 3, 2, 1 }, forever) end)
      assert.is_false(ok)
      assert.equal("unyieldable", err.code)
    end)

    it("lets pass what takes less, however often", inside(function()
      local t = ticker()
      local reason = outcome(function()
        local list, stop = {}, os.clock() + 2.5
        repeat
          for i = 1, 10000 do list[i] = i * 7919 % 10007 end
          table.sort(list, function(a, b)
            pass()
            return a < b
          end)
        until os.clock() > stop
      end, 60000)
      assert.equal("normal", reason)
      assert(t.beats() > 2) -- each stretch may take half a second before it is told from the next
      t.stop()
    end))

    it("stops the <close> variables of a process that is killed", inside(function()
      local order = {}
      local function closing(name, fn)
        return setmetatable({}, { __close = function()
          order[#order + 1] = name
          if fn then fn() end
        end })
      end
      local pid, ref = process.spawn_monitor(function()
        local _ <close> = closing "outer"
        coroutine.wrap(function()
          local _ <close> = closing("middle", forever)
          coroutine.resume(coroutine.create(function()
            local _ <close> = closing "inner"
            forever()
          end))
        end)()
      end)
      process.sleep(50)
      local start = process.now()
      process.kill(pid, "kill")
      assert.same({ "DOWN", ref, pid, "killed" }, process.receive(20000))
      assert.same({ "inner", "middle", "outer" }, order)
      assert(process.now() - start > 900)
    end))
  end)

  it("cannot stop a finalizer: that is logged, and others wait", function()
    local p = os_process.lua [[
      local phub = require "phub" local process = phub.process
      local loops = os.getenv "SAN" == "thread" and function() local _ = {} end or function() end
      phub.run(function()
        local worst, last, done = 0, process.now(), false
        process.spawn(function()
          setmetatable({}, { __gc = function()
            local stop = os.clock() + 3.5
            while os.clock() < stop do loops() end
            done = true
          end })
          collectgarbage()
        end)
        while not done do
          process.sleep(1)
          worst, last = math.max(worst, process.now() - last), process.now()
        end
        print(worst > 2000)
      end)
    ]]
    p:close_stdin()
    assert.same({ code = 0 }, p:wait(30000))
    assert.equal("true\n", p.out)
    assert.matches("does not give way", p.errors)
  end)

  describe("leaves unharmed", function()
    -- all permutations of 1..n by recursive generators
    local function permutations(n)
      local function generate(list, i)
        if i == 0 then
          coroutine.yield(list)
          return
        end
        for k = 1, i do
          list[k], list[i] = list[i], list[k]
          for l in coroutine.wrap(function() generate(list, i - 1) end) do coroutine.yield(l) end
          list[k], list[i] = list[i], list[k]
        end
      end
      local list = {}
      for i = 1, n do list[i] = i end
      local count, sum = 0, 0
      for l in coroutine.wrap(function() generate(list, n) end) do
        count = count + 1
        for i, v in ipairs(l) do sum = (sum * 31 + i * v) % 1000003 end
      end
      return { count, sum }
    end

    it("coroutines that make much use of each other", inside(function()
      local expected = permutations(5)
      local me, t, busy = process.self(), ticker(), true
      for i = 1, 4 do
        process.spawn(function()
          local same = true
          while busy do
            local got = permutations(5)
            same = same and got[1] == expected[1] and got[2] == expected[2]
          end
          process.send(me, { i, same })
        end)
      end
      while t.beats() < 30 do process.sleep(5) end
      busy = false
      for _ = 1, 4 do assert.is_true(assert(process.receive(60000))[2]) end
      t.stop()
    end))

    it("futures and mailboxes of processes that never wait", inside(function()
      local me, hogs = process.self(), {}
      for i = 1, 3 do hogs[i] = process.spawn(forever) end
      for i = 1, 4 do
        process.spawn(function()
          local sum = 0
          for k = 1, 25 do
            local f = phub.future.new()
            process.spawn(function() f:resolve(k) end)
            work(k % 3)
            sum = sum + f:await()
          end
          process.send(me, { i, sum })
        end)
      end
      for _ = 1, 4 do assert.equal(325, assert(process.receive(60000))[2]) end
      for _, hog in ipairs(hogs) do process.kill(hog, "kill") end
    end))

    it("a coroutine that another process wants to resume or close meanwhile", inside(function()
      local co = coroutine.create(forever)
      local outer = coroutine.create(function() coroutine.resume(co) end)
      local pid = process.spawn(function() coroutine.resume(outer) end)
      process.sleep(50)
      for _, c in ipairs { co, outer } do
        assert.equal("normal", coroutine.status(c))
        assert.same({ false, "cannot resume non-suspended coroutine" }, { coroutine.resume(c) })
        assert.has_error(function() coroutine.close(c) end, "cannot close a normal coroutine")
      end
      process.kill(pid, "kill")
      process.sleep(1)
      assert.equal("dead", coroutine.status(co))
      assert.equal("dead", coroutine.status(outer))
    end))

    it("the user's own hook", inside(function()
      local lines, seen = 0, nil
      local function hook() lines = lines + 1 end
      local pid = process.spawn(function()
        debug.sethook(hook, "l")
        while true do
          seen = { debug.gethook() }
          work(0)
        end
      end)
      local t = ticker()
      for _ = 1, 5 do
        local before = lines
        process.sleep(40)
        assert(lines > before + 10)
        assert.same({ hook, "l", 0 }, seen)
      end
      assert(t.worst() < SOON)
      process.kill(pid, "kill")
      t.stop()
    end))

    it("a hook that counts, whose coroutine is not preempted", inside(function()
      local counted, ended = 0, false
      process.spawn(function()
        debug.sethook(function() counted = counted + 1 end, "", 1000)
        work(100)
        local hook, mask, count = debug.gethook()
        debug.sethook()
        ended = { hook ~= nil, mask, count }
      end)
      local before = process.now()
      process.yield()
      assert.same({ true, "", 1000 }, ended)
      assert(process.now() - before >= 100)
      assert(counted > 10)
    end))

    it("the main chunk", function()
      local co = coroutine.wrap(function() work(30) return "whole" end)
      process.spawn(function() end)
      assert.equal("whole", co())
    end)

    it("a process that nobody waits for", inside(function()
      local before = process.now()
      local sum = 0
      for i = 1, 3e6 do sum = sum + i % 7 end
      assert.equal(8999997, sum)
      assert(process.now() - before < 30000)
    end))
  end)

  it("takes the turn from a sender that is far ahead of a receiver", inside(function()
    local me, most = process.self(), 0
    local receiver = process.spawn(function()
      for _ = 1, 50000 do process.receive() end
      process.send(me, "all")
    end)
    process.spawn(function()
      for i = 1, 50000 do
        process.send(receiver, i)
        if i % 100 == 0 then most = math.max(most, (process.info(receiver) or { mailbox = 0 }).mailbox) end
      end
    end)
    assert.equal("all", process.receive(30000))
    assert(most < 3000, most)
  end))

  it("keeps to the time slice that was asked for", function()
    local p = os_process.lua [[
      local phub = require "phub" local process = phub.process
      assert(phub.node.start { name = "slice-" .. require "luv".os_getpid() .. "@127.0.0.1", time_slice = 200 })
      phub.run(function()
        local loops = os.getenv "SAN" == "thread" and function() local _ = {} end or function() end
        local hog = process.spawn(function() while true do loops() end end)
        process.yield()
        local start, turns = process.now(), 0
        while process.now() - start < 1000 do
          process.yield()
          turns = turns + 1
        end
        print(turns >= 2 and turns <= 6, turns)
        process.kill(hog, "kill")
      end)
    ]]
    p:close_stdin()
    assert.same({ code = 0 }, p:wait(30000))
    assert.matches("^true", p.out)
  end)

  it("lets SIGTERM end a program that loops", function()
    local p = os_process.lua [[
      local phub = require "phub"
      phub.run(function()
        print "ready"
        io.stdout:flush()
        while true do local _ = {} end
      end)
    ]]
    p:expect "ready"
    p:signal "term"
    assert.same({ code = 143 }, p:wait(10000))
  end)

  it("keeps a node that is busy in the cluster, and what runs there answers", function()
    local c = cluster.start(2, { node = "{ heartbeat_interval = 200, heartbeat_timeout = 1600 }" })
    finally(function() c:stop() end)
    c:settle()
    c[1]:eval([[
      events = {}
      phub.node.monitor(function(event, name) events[#events + 1] = event .. " " .. name end)
    ]])
    c[2]:eval [[
      local process, gen_server = phub.process, phub.gen_server
      local loops = os.getenv "SAN" == "thread" and function() local _ = {} end or function() end
      gen_server.start({ init = function() return {} end, handle_call = function(_, m) return m end },
        nil, { name = "echo" })
      for i = 1, 3 do process.spawn(function() while true do loops() end end) end
    ]]
    local worst = c[1]:eval([[
      local name = ...
      local worst = 0
      for i = 1, 100 do
        local start = phub.process.now()
        assert(phub.gen_server.call({ "echo", name }, i) == i)
        worst = math.max(worst, phub.process.now() - start)
        phub.process.sleep(20)
      end
      return worst
    ]], c[2].name)
    assert(worst < 8 * SOON, worst)
    assert.equal("", c[1]:eval [[ return table.concat(events, ", ") ]])
  end)
end)
