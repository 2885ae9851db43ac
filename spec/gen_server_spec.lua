local phub = require "phub"
local process = require "phub.process"
local gen_server = require "phub.gen_server"

local function inside(fn)
  return function() return phub.run(fn) end
end

local function eventually(fn, ms)
  local deadline = process.now() + (ms or 2000)
  while true do
    local value = fn()
    if value then return value end
    assert(process.now() < deadline, "not in time")
    process.sleep(1)
  end
end

-- A module that does what it is told: state, calls and casts are functions to run.
local function module(callbacks)
  local M = { init = function(args) return args or {} end }
  for name, fn in pairs(callbacks or {}) do M[name] = fn end
  return M
end

local Counter = module {
  init = function(n) return { n = n } end,
  handle_call = function(s, msg)
    if msg == "get" then return s.n end
    s.n = s.n + msg
    return s.n
  end,
  handle_cast = function(s, msg) s.n = s.n + msg end,
}

describe("gen_server.start", function()
  it("runs init with a copy of the arguments before it returns", inside(function()
    local args, seen = { 1 }, nil
    local pid = gen_server.start(module { init = function(a) seen = a return a end }, args)
    assert.is_true(process.alive(pid))
    assert.same(args, seen)
    assert.not_equal(args, seen)
  end))

  it("takes any state but nil", inside(function()
    for _, state in ipairs { 5, "s", true, false, print } do
      local pid = assert(gen_server.start {
        init = function() return state end, handle_call = function(s) return type(s) end,
      })
      assert.equal(type(state), gen_server.call(pid, "x"))
    end
  end))

  it("is refused by init with a reason", inside(function()
    local pid, reason = gen_server.start { init = function() return nil, { "no", 1 } end }
    assert.is_nil(pid)
    assert.same({ "no", 1 }, reason)
    assert.equal("bad_start_result", select(2, gen_server.start { init = function() end }))
    assert.equal("why", select(2, gen_server.start { init = function() return gen_server.stopping("why") end }))
    assert.equal("out", select(2, gen_server.start { init = function() process.exit("out") end }))
  end))

  it("reports an init that raises with message and traceback", inside(function()
    local pid, reason = gen_server.start { init = function() error("boom") end }
    assert.is_nil(pid)
    assert.equal("error", reason[1])
    assert.matches("boom$", reason[2])
    assert.matches("traceback", reason[3])
  end))

  it("waits for an init that waits", inside(function()
    local pid = gen_server.start(module { init = function() process.sleep(10) return { 1 } end,
      handle_call = function(s) return s[1] end })
    assert.equal(1, gen_server.call(pid, "x"))
    local _, reason = gen_server.start { init = function() process.sleep(5) return nil, "late no" end }
    assert.equal("late no", reason)
    _, reason = gen_server.start { init = function() process.sleep(5) error("late", 0) end }
    assert.equal("late", reason[2])
    _, reason = gen_server.start { init = function() process.sleep(5) process.exit("x") end }
    assert.equal("x", reason)
    _, reason = gen_server.start { init = function() process.kill(process.self(), "kill") process.sleep(50) end }
    assert.equal("killed", reason)
  end))

  it("nests: an init may start servers, as deep as it likes", inside(function()
    local Nested = {}
    function Nested.init(depth)
      if depth == 0 then return { 0 } end
      local pid = assert(gen_server.start(Nested, depth - 1))
      return { gen_server.call(pid, "sum") + 1 }
    end

    function Nested.handle_call(s) return s[1] end

    assert.equal(30, gen_server.call(assert(gen_server.start(Nested, 30)), "sum"))
  end))

  it("registers a name before init runs", inside(function()
    local named
    local pid = gen_server.start({ init = function() named = process.whereis("spec_server") return {} end }, nil,
      { name = "spec_server" })
    assert.equal(pid, named)
    local again, err = gen_server.start(Counter, 1, { name = "spec_server" })
    assert.is_nil(again)
    assert.equal("already_registered", err.code)
    assert.equal(pid, err.pid)
    gen_server.stop(pid)
    assert.is_nil(process.whereis("spec_server"))
  end))

  it("refuses wrong modules, arguments and options", inside(function()
    assert.has_error(function() gen_server.start("x") end,
      "bad argument #1 to 'start' (table expected, got string)")
    assert.has_error(function() gen_server.start {} end,
      "bad argument #1 to 'start' (the module has no function init)")
    local pid, err = gen_server.start(Counter, { f = print })
    assert.is_nil(pid)
    assert.equal("args.f: function", err.message)
    pid, err = gen_server.start(Counter, 1, { nmae = "x" })
    assert.is_nil(pid)
    assert.equal("invalid_option", err.code)
    assert.equal("nmae", err.key)
    err = select(2, gen_server.start(Counter, 1, { name = 5 }))
    assert.equal("name", err.key)
    assert.has_error(function() gen_server.start(Counter, 1, "x") end)
  end))

  it("works from the main chunk too", function()
    local pid = assert(gen_server.start_link(Counter, 1))
    assert.equal(3, gen_server.call(pid, 2))
    process.kill(pid, "kill")
    process.sleep(1)
    assert.is_true(process.alive(process.self()))
  end)
end)

describe("gen_server.start_link", function()
  it("links server and starter both ways", inside(function()
    process.trap_exit(true)
    local pid = gen_server.start_link(Counter, 1)
    process.kill(pid, "x")
    assert.same({ "EXIT", pid, "x" }, process.receive(1000))
    local server
    local starter = process.spawn(function()
      server = gen_server.start_link(Counter, 1)
      process.exit("gone")
    end)
    eventually(function() return not process.alive(starter) end)
    eventually(function() return not process.alive(server) end)
  end))

  it("that fails sends no exit signal", inside(function()
    assert.is_nil((gen_server.start_link { init = function() return nil, "x" end }))
    assert.is_nil((gen_server.start_link { init = function() error("x") end }))
    assert.is_nil((gen_server.start_link { init = function() process.sleep(1) return nil, "x" end }))
    process.sleep(2)
  end))
end)

describe("gen_server.call", function()
  it("gives the reply and keeps the state", inside(function()
    local pid = gen_server.start(Counter, 1)
    assert.equal(3, gen_server.call(pid, 2))
    assert.equal(6, gen_server.call(pid, 3))
  end))

  it("may reply nil, false, or tables that are copies", inside(function()
    local kept = { 1 }
    local pid = gen_server.start(module { handle_call = function(_, m)
      if m == "nil" then return nil end
      if m == "false" then return false end
      return kept
    end })
    local r, err = gen_server.call(pid, "nil")
    assert.is_nil(r)
    assert.is_nil(err)
    assert.is_false(gen_server.call(pid, "false"))
    local got = gen_server.call(pid, "t")
    assert.same(kept, got)
    assert.not_equal(kept, got)
  end))

  it("replaces the state with a second result that is not nil", inside(function()
    local pid = gen_server.start(module { handle_call = function(s, m)
      if m == "keep" then return s end
      return s, m
    end }, 1)
    assert.equal(1, gen_server.call(pid, 2))
    assert.equal(2, gen_server.call(pid, "keep"))
    assert.equal(2, gen_server.call(pid, false))
    assert.is_false(gen_server.call(pid, "keep"))
  end))

  it("times out, and drops the late reply", inside(function()
    local pid = gen_server.start(module { handle_call = function(_, m) process.sleep(m) return m end })
    local r, err = gen_server.call(pid, 20, 5)
    assert.is_nil(r)
    assert.equal("timeout", err.code)
    assert.equal(0, gen_server.call(pid, 0))
    assert.is_nil((process.receive(0)))
  end))

  it("says how the server ended", inside(function()
    local pid = gen_server.start(module { handle_call = function() error("boom", 0) end })
    local r, err = gen_server.call(pid, "x")
    assert.is_nil(r)
    assert.equal("exit", err.code)
    assert.equal("boom", err.reason[2])
    r, err = gen_server.call(pid, "x")
    assert.is_nil(r)
    assert.equal("noproc", err.code)
    err = select(2, gen_server.call("spec_nobody", "x"))
    assert.equal("noproc", err.code)
    err = select(2, gen_server.call({ "x", "no@where" }, "x"))
    assert.equal("noconnection", err.code)
  end))

  it("is answered later by reply, from any process", inside(function()
    local pid = gen_server.start(module { handle_call = function(_, m, from)
      process.spawn(function()
        process.sleep(2)
        assert(gen_server.reply(from, { "later", m }))
        assert(gen_server.reply(from, "second"))
      end)
      return gen_server.noreply
    end })
    assert.same({ "later", 1 }, gen_server.call(pid, 1))
    assert.same({ "later", 2 }, gen_server.call(pid, 2))
  end))

  it("serves others while one callback waits only after it", inside(function()
    local pid = gen_server.start(module { handle_call = function(_, m) process.sleep(m) return m end })
    local me, order = process.self(), {}
    for _, ms in ipairs { 10, 1 } do
      process.spawn(function()
        local reply = gen_server.call(pid, ms)
        order[#order + 1] = reply
        process.send(me, "done")
      end)
    end
    process.receive(1000)
    process.receive(1000)
    assert.same({ 10, 1 }, order)
  end))

  it("to a plain process arrives as a message that reply answers", inside(function()
    local pid = process.spawn(function()
      local tag, from, msg = table.unpack(process.receive())
      gen_server.reply(from, { tag, msg })
      process.sleep(100)
    end)
    assert.same({ "$gen_call", "hello" }, gen_server.call(pid, "hello"))
  end))

  it("ends a server whose reply cannot travel", inside(function()
    local pid = gen_server.start(module { handle_call = function() return { f = print } end })
    local _, err = gen_server.call(pid, "x")
    assert.equal("exit", err.code)
    assert.equal("handle_call: reply.f: function", err.reason[2])
  end))

  it("refuses wrong arguments", inside(function()
    local pid = gen_server.start(Counter, 1)
    local r, err = gen_server.call(pid, { f = print })
    assert.is_nil(r)
    assert.equal("message.f: function", err.message)
    assert.has_error(function() gen_server.call(pid) end, "bad argument #2 to 'call' (a message cannot be nil)")
    assert.has_error(function() gen_server.call(5, 1) end)
    assert.has_error(function() gen_server.call(pid, 1, "x") end)
    assert.has_error(function() gen_server.reply(pid, 1) end)
    assert.equal(1, gen_server.call(pid, "get"))
  end))

  it("works from any coroutine and from the main chunk", function()
    local pid = gen_server.start(Counter, 1)
    assert.equal(2, gen_server.call(pid, 1))
    local got
    local co = coroutine.create(function() got = gen_server.call(pid, 1) end)
    assert.same({ true, phub.future.waiting }, { coroutine.resume(co) })
    eventually(function() return got end)
    assert.equal(3, got)
    assert.equal("dead", coroutine.status(co))
  end)
end)

describe("gen_server.cast", function()
  it("changes the state in order", inside(function()
    local pid = gen_server.start(module { handle_cast = function(s, m) s[#s + 1] = m end,
      handle_call = function(s) return s end })
    for i = 1, 1000 do assert.is_true(gen_server.cast(pid, i)) end
    local list = gen_server.call(pid, "x")
    assert.equal(1000, #list)
    for i = 1, 1000 do assert.equal(i, list[i]) end
  end))

  it("returns as send does", inside(function()
    local pid = gen_server.start(Counter, 1)
    gen_server.stop(pid)
    assert.is_true(gen_server.cast(pid, 1))
    assert.equal("noproc", select(2, gen_server.cast("spec_nobody", 1)).code)
    assert.equal("message: function", select(2, gen_server.cast(pid, print)).message)
  end))

  it("may replace the state", inside(function()
    local pid = gen_server.start(module { handle_cast = function(_, m) return m end,
      handle_call = function(s) return s end })
    gen_server.cast(pid, "new")
    assert.equal("new", gen_server.call(pid, "x"))
  end))
end)

describe("handle_info", function()
  it("gets messages, and DOWN and EXIT as arrays", inside(function()
    local me = process.self()
    local pid = gen_server.start(module {
      init = function() process.trap_exit(true) return {} end,
      handle_info = function(_, msg) process.send(me, msg) end,
      handle_call = function(_, m) return m == "monitor" and process.monitor(me) or process.link(m) end,
    })
    process.send(pid, { "hello" })
    assert.same({ "hello" }, process.receive(1000))
    local other = process.spawn(function() process.sleep(5) process.exit("x") end)
    gen_server.call(pid, other)
    assert.same({ "EXIT", other, "x" }, process.receive(1000))
  end))

  it("may be missing", inside(function()
    local pid = gen_server.start(Counter, 1)
    process.send(pid, "x")
    assert.equal(1, gen_server.call(pid, "get"))
  end))
end)

describe("the end of a gen_server", function()
  local ended
  local function server(callbacks)
    ended = nil
    callbacks.terminate = callbacks.terminate or function(s, reason) ended = { s, reason } end
    return assert(gen_server.start(module(callbacks), "state"))
  end

  it("by an error comes after terminate, and concerns it alone", inside(function()
    local pid = server { handle_cast = function() error("boom", 0) end }
    local ref = process.monitor(pid)
    gen_server.cast(pid, 1)
    local down = process.receive(1000)
    assert.equal("DOWN", down[1])
    assert.equal(ref, down[2])
    assert.equal("boom", down[4][2])
    assert.equal("state", ended[1])
    assert.same(down[4], ended[2])
  end))

  it("comes by stopping, from every callback", inside(function()
    local stop = gen_server.stopping
    local cases = {
      { handle_call = function() return stop("a", "bye") end, "a", call = { "bye" } },
      { handle_call = function() return "bye", stop("b") end, "b", call = { "bye" } },
      { handle_cast = function() return stop("c") end, "c", cast = true },
      { handle_info = function() return stop({ "d" }) end, { "d" }, info = true },
    }
    for _, case in ipairs(cases) do
      local pid = server(case)
      local ref = process.monitor(pid)
      if case.call then assert.equal(case.call[1], gen_server.call(pid, 1)) end
      if case.cast then gen_server.cast(pid, 1) end
      if case.info then process.send(pid, 1) end
      assert.same({ "DOWN", ref, pid, case[1] }, process.receive(1000))
      assert.same({ "state", case[1] }, ended)
    end
  end))

  it("by stopping without a reply sends none", inside(function()
    local pid = server { handle_call = function() return gen_server.stopping("gone") end }
    local r, err = gen_server.call(pid, 1)
    assert.is_nil(r)
    assert.equal("exit", err.code)
    assert.equal("gone", err.reason)
    pid = server { handle_call = function() return gen_server.stopping("gone", nil) end }
    r, err = gen_server.call(pid, 1)
    assert.is_nil(r)
    assert.is_nil(err)
  end))

  it("by exit in a callback comes after terminate", inside(function()
    local pid = server { handle_cast = function() pcall(process.exit, "out") end }
    local ref = process.monitor(pid)
    gen_server.cast(pid, 1)
    assert.same({ "DOWN", ref, pid, "out" }, process.receive(1000))
    assert.same({ "state", "out" }, ended)
  end))

  it("by a signal not trapped comes without terminate", inside(function()
    local pid = server {}
    local ref = process.monitor(pid)
    process.kill(pid, "x")
    assert.same({ "DOWN", ref, pid, "x" }, process.receive(1000))
    assert.is_nil(ended)
  end))

  it("comes with its parent's, when it traps exits, after terminate", inside(function()
    local pid
    process.spawn(function()
      pid = gen_server.start_link(module {
        init = function() process.trap_exit(true) return "state" end,
        terminate = function(s, reason) ended = { s, reason } end,
      })
      process.exit("parent")
    end)
    eventually(function() return pid and not process.alive(pid) end)
    assert.same({ "state", "parent" }, ended)
  end))

  it("is asked for by stop, which waits", inside(function()
    local pid = server {}
    assert.is_true(gen_server.stop(pid))
    assert.is_false(process.alive(pid))
    assert.same({ "state", "normal" }, ended)
    pid = server {}
    assert.is_true(gen_server.stop(pid, { "why" }))
    assert.same({ "state", { "why" } }, ended)
    local ok, err = gen_server.stop(pid)
    assert.is_nil(ok)
    assert.equal("noproc", err.code)
    pid = server { terminate = function() error("in terminate", 0) end }
    ok, err = gen_server.stop(pid, "x")
    assert.is_nil(ok)
    assert.equal("exit", err.code)
    assert.equal("in terminate", err.reason[2])
    assert.equal("reason.f: function", select(2, gen_server.stop(server {}, { f = print })).message)
  end))

  it("handles what came before a stop first", inside(function()
    local pid = server { handle_cast = function(_, m) process.sleep(1) return m end }
    for i = 1, 3 do gen_server.cast(pid, i) end
    gen_server.stop(pid)
    assert.same({ 3, "normal" }, ended)
  end))

  it("lets terminate wait", inside(function()
    local pid = server { terminate = function() process.sleep(5) ended = "slept" end }
    gen_server.stop(pid)
    assert.equal("slept", ended)
  end))

  it("of a plain process comes by stop too", inside(function()
    local pid = process.spawn(function() process.receive(function() return false end) end)
    assert.is_true(gen_server.stop(pid, "x"))
  end))

  it("for a missing callback is an error", inside(function()
    local pid = gen_server.start(module())
    local _, err = gen_server.call(pid, 1)
    assert.matches("the module has no function handle_call", err.reason[2])
    pid = gen_server.start(module())
    local ref = process.monitor(pid)
    gen_server.cast(pid, 1)
    assert.matches("no function handle_cast", process.receive(1000)[4][2])
    process.demonitor(ref)
  end))
end)

describe("callbacks", function()
  it("may wait, call others and receive", inside(function()
    local counter = gen_server.start(Counter, 1)
    local pid = gen_server.start(module { handle_call = function(_, m)
      process.sleep(1)
      local n = gen_server.call(counter, m)
      local me = process.self()
      process.send(me, "to myself")
      assert(process.receive(function(x) return x == "to myself" end) == "to myself")
      return n
    end })
    assert.equal(6, gen_server.call(pid, 5))
  end))

  it("are looked up at each message, along metatables too", inside(function()
    local Base = { handle_call = function() return "base" end }
    local M = setmetatable({ init = function() return {} end }, { __index = Base })
    local pid = gen_server.start(M)
    assert.equal("base", gen_server.call(pid, 1))
    M.handle_call = function() return "own" end
    assert.equal("own", gen_server.call(pid, 1))
  end))

  it("hold no coroutine between messages", inside(function()
    local pids = {}
    collectgarbage()
    local before = collectgarbage("count")
    for i = 1, 2000 do pids[i] = gen_server.start(Counter, i) end
    collectgarbage()
    local per_server = (collectgarbage("count") - before) * 1024 / #pids
    assert.is_true(per_server < 400, per_server .. " bytes a server")
    for _, pid in ipairs(pids) do gen_server.stop(pid) end
  end))
end)
