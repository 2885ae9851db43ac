local phub = require "phub"
local process = require "phub.process"
local SLOWER = require "spec.support.slower"

-- A test that runs as a process of its own.
local function inside(fn)
  return function() return phub.run(fn) end
end

-- Waits inside a process until fn answers something true.
local function eventually(fn, ms)
  local deadline = process.now() + (ms or 2000)
  while true do
    local value = fn()
    if value then return value end
    assert(process.now() < deadline, "not in time")
    process.sleep(1)
  end
end

local function ends(pid)
  return eventually(function() return not process.alive(pid) end)
end

describe("process.spawn", function()
  it("runs a function with copies of its arguments", inside(function()
    local me, given = process.self(), { list = { 1, 2 } }
    process.spawn(function(a, b, c) process.send(me, { a, b, c, same = a == given }) end, given, "s", 3)
    local got = process.receive(1000)
    assert.same({ { list = { 1, 2 } }, "s", 3, same = false }, got)
  end))

  it("keeps nils among the arguments", inside(function()
    local me = process.self()
    process.spawn(function(...) process.send(me, { n = select("#", ...), (...) == nil }) end, nil, nil)
    assert.same({ n = 2, true }, process.receive(1000))
  end))

  it("gives a pid that is new, prints and knows its node", inside(function()
    local a, b = process.spawn(function() end), process.spawn(function() end)
    assert.not_equal(a, b)
    assert.matches("^<nonode@nohost%.%d+>$", tostring(a))
    assert.equal("nonode@nohost", a.node)
    assert.is_nil(a.other)
    assert.equal(1, ({ [a] = 1 })[a])
  end))

  it("starts the process later, never inside spawn", inside(function()
    local ran = false
    process.spawn(function() ran = true end)
    assert.is_false(ran)
    process.yield()
    assert.is_true(ran)
  end))

  it("refuses what is no function by raising", function()
    assert.has_error(function() process.spawn(5) end,
      "bad argument #1 to 'spawn' (function expected, got number)")
    assert.has_error(function() process.spawn() end)
  end)

  it("refuses arguments that cannot be copied", function()
    local pid, err = process.spawn(function() end, 1, { on_done = print })
    assert.is_nil(pid)
    assert.equal("not_serialisable", err.code)
    assert.equal("args[2].on_done: function", err.message)
  end)

  it("shares globals, modules and upvalues", inside(function()
    local shared = {}
    process.spawn(function() shared.set = true end)
    process.sleep(1)
    assert.is_true(shared.set)
  end))

  it("starts many", inside(function()
    local me, n = process.self(), 20000
    for i = 1, n do process.spawn(function() process.send(me, i) end) end
    local sum = 0
    for _ = 1, n do sum = sum + process.receive(5000) end
    assert.equal(n * (n + 1) // 2, sum)
  end))
end)

describe("the end of a process", function()
  local function reason_of(fn, ...)
    local pid, ref = process.spawn_monitor(fn, ...)
    local message = process.receive(function(m) return m[1] == "DOWN" and m[2] == ref end, 2000 * SLOWER)
    assert.same({ "DOWN", ref, pid }, { table.unpack(message, 1, 3) })
    return message[4]
  end

  it("is normal when its function returns", inside(function()
    assert.equal("normal", reason_of(function() return "ignored" end))
  end))

  it("has the reason given to exit, with nil meaning normal", inside(function()
    assert.equal("normal", reason_of(function() process.exit() end))
    assert.equal("shutdown", reason_of(function() process.exit("shutdown") end))
    assert.same({ "x", 1.5, { y = true } }, reason_of(function() process.exit { "x", 1.5, { y = true } } end))
  end))

  it("is an error with message and traceback when it raises", inside(function()
    local reason = reason_of(function() error("boom") end)
    assert.equal("error", reason[1])
    assert.matches("process_spec.lua:%d+: boom$", reason[2])
    assert.matches("stack traceback:.*process_spec.lua", reason[3])
    assert.is_nil(reason[0])
  end))

  it("keeps an error value that can travel", inside(function()
    for _, value in ipairs { 42, 1.5, true, false, { code = 5, list = { "a", { b = 1.0 } } }, process.self() } do
      local reason = reason_of(error, value)
      assert.same({ "error", value }, { reason[1], reason[2] })
      assert.equal("string", type(reason[3]))
      assert.equal(math.type(value), math.type(reason[2]))
    end
    local given = { code = 5 }
    package.loaded["spec.given"] = given
    local reason = reason_of(function() error(package.loaded["spec.given"]) end)
    package.loaded["spec.given"] = nil
    assert.same(given, reason[2])
    assert.not_equal(given, reason[2])
    reason = reason_of(function() error(select(2, process.send("spec_nobody", 1))) end)
    assert.equal("noproc", reason[2].code)
    assert.equal("noproc: no process is registered as 'spec_nobody'", tostring(reason[2]))
  end))

  it("shows an error value that cannot travel as text", inside(function()
    local reason = reason_of(function() error(setmetatable({}, { __tostring = function() return "T" end })) end)
    assert.equal("T", reason[2])
    assert.equal("nil", reason_of(function() error(nil) end)[2])
    assert.matches("^function", reason_of(function() error(print) end)[2])
    reason = reason_of(function() error { 1, "x\n\1", { y = print }, ["odd key"] = true } end)
    assert.equal('{1, "x\\n\\x01", {y = function}, ["odd key"] = true}', reason[2])
    assert.matches("stack traceback:.*process_spec.lua", reason[3])
    reason = reason_of(function()
      local cycle = { code = 5 }
      cycle.cycle = { cycle }
      error(cycle)
    end)
    assert.matches("code = 5", reason[2])
    assert.matches("{%.%.%.}", reason[2])
    reason = reason_of(function()
      local big = {}
      for i = 1, 70 do big[i] = ("x"):rep(1 << 20) end
      error(big)
    end)
    assert.matches('^{"xxx', reason[2])
    assert.matches("%.%.%.$", reason[2])
    assert.is_true(#reason[2] < 2000)
  end))

  it("is shown with its content wherever it is printed", inside(function()
    local err = require "phub.error".new("exit", "it ended", { reason = { "error", { code = 5 }, "traceback" } })
    assert.equal("exit: it ended ({code = 5})", tostring(err))
    err.reason = err
    assert.matches("^exit: it ended %(exit: it ended", tostring(err))
  end))

  it("cannot be caught by pcall, xpcall or a coroutine", inside(function()
    local me = process.self()
    assert.equal("a", reason_of(function()
      pcall(process.exit, "a")
      process.send(me, "went on")
    end))
    assert.equal("b", reason_of(function()
      xpcall(function() pcall(process.exit, "b") end, function() process.send(me, "handled") end)
      process.send(me, "went on")
    end))
    assert.equal("c", reason_of(function()
      local co = coroutine.wrap(function()
        pcall(coroutine.resume, coroutine.create(function() process.exit("c") end))
        process.send(me, "went on")
      end)
      pcall(co)
      process.send(me, "went on")
    end))
    assert.is_nil((process.receive(0)))
  end))

  it("runs <close> variables, innermost first", inside(function()
    local order = {}
    local function closing(name)
      return setmetatable({}, { __close = function() order[#order + 1] = name end })
    end
    reason_of(function()
      local _ <close> = closing "outer"
      coroutine.wrap(function()
        local _ <close> = closing "middle"
        coroutine.wrap(function()
          local _ <close> = closing "inner"
          process.exit("x")
        end)()
      end)()
    end)
    assert.same({ "inner", "middle", "outer" }, order)
  end))

  it("runs <close> variables when it is killed while it waits", inside(function()
    local closed
    local pid = process.spawn(function()
      local _ <close> = setmetatable({}, { __close = function()
        closed = coroutine.wrap(function() return "with a coroutine" end)()
      end })
      process.receive()
    end)
    process.yield()
    process.kill(pid, "kill")
    ends(pid)
    assert.equal("with a coroutine", closed)
  end))

  it("unwinds what cannot yield, and is caught by no pcall around it", inside(function()
    local me = process.self()
    local function unsortable() process.exit("sorted") end
    local closed = 0
    local function closing() return setmetatable({}, { __close = function() closed = closed + 1 end }) end
    for _, fn in ipairs {
      function() pcall(table.sort, { 2, 1 }, unsortable) end,
      function() pcall(pcall, pcall, table.sort, { 2, 1 }, unsortable) end,
      function() xpcall(table.sort, function() return "handled" end, { 2, 1 }, unsortable) end,
      function() pcall(string.gsub, "x", "x", unsortable) end,
      function() table.sort({ 2, 1 }, function() pcall(unsortable) return false end) end,
      function() pcall(table.sort, { 2, 1 }, function() process.kill(process.self(), "sorted") end) end,
      function() pcall(table.sort, { 2, 1 }, coroutine.wrap(unsortable)) end,
      function() coroutine.wrap(function() pcall(table.sort, { 2, 1 }, unsortable) process.send(me, "no") end)() end,
      function() pcall(function() local _ <close> = closing() table.sort({ 2, 1 }, unsortable) end) end,
      function()
        local _ <close> = closing()
        pcall(table.sort, { 2, 1 }, function() local _ <close> = closing() unsortable() end)
      end,
    } do
      assert.equal("sorted", reason_of(function()
        fn()
        process.send(me, "went on")
      end))
    end
    assert.equal(3, closed)
    assert.is_nil((process.receive(0)))
  end))

  it("lets <close> variables catch errors of their own", inside(function()
    local order = {}
    assert.equal("x", reason_of(function()
      local _ <close> = setmetatable({}, { __close = function()
        order[#order + 1] = pcall(error, "own")
        order[#order + 1] = "after"
      end })
      table.sort({ 2, 1 }, function() process.exit("x") end)
    end))
    assert.same({ false, "after" }, order)
  end))

  it("refuses a reason that cannot travel", inside(function()
    local reason = reason_of(function() process.exit { print } end)
    assert.equal("error", reason[1])
    assert.matches("not_serialisable: reason%[1%]: function", reason[2])
  end))
end)

describe("process.send and receive", function()
  it("keep the order of one sender", inside(function()
    for i = 1, 100 do process.send(process.self(), i) end
    for i = 1, 100 do assert.equal(i, process.receive(0)) end
  end))

  it("copy tables, keep everything else as it is", inside(function()
    local me = process.self()
    local t = { 1, 2.5, "s", "\0\xff", true, false, me, { deep = { [1.5] = "f", [true] = 1 } }, math.mininteger,
      math.maxinteger, math.pi, 1 / 3, -0.0, math.huge, 2 ^ 53 }
    process.send(me, t)
    local got = process.receive(0)
    assert.not_equal(t, got)
    assert.same(t, got)
    for i, v in ipairs(t) do assert.equal(math.type(v), math.type(got[i])) end
  end))

  it("send every kind of scalar", inside(function()
    local me = process.self()
    for _, v in ipairs { 0, 1, -1, 1 << 59, 1 << 60, -(1 << 60), -(1 << 60) - 1, math.mininteger, math.maxinteger,
      0.5, 0.1, -1e300, math.huge, -math.huge, 2.0, "", "x", true, false, me } do
      assert.is_true(process.send(me, v))
      local got = process.receive(0)
      assert.equal(v, got)
      assert.equal(math.type(v), math.type(got))
    end
    process.send(me, 0 / 0)
    local nan = process.receive(0)
    assert.is_true(nan ~= nan)
  end))

  it("raise for wrong arguments", function()
    assert.has_error(function() process.send(5, 1) end,
      "bad argument #1 to 'send' (pid, name or { name, node } expected, got number)")
    assert.has_error(function() process.send(process.self(), nil) end,
      "bad argument #2 to 'send' (a message cannot be nil)")
    assert.has_error(function() process.send(process.self(), 1, -1) end)
    assert.has_error(function() process.send({ "x" }, 1) end)
    assert.has_error(function() process.receive("x") end)
    assert.has_error(function() process.receive(print, "x") end)
    assert.has_error(function() process.receive(0 / 0) end)
  end)

  it("refuse what cannot travel, with its path", inside(function()
    local me = process.self()
    local function refused(message, value)
      local ok, err = process.send(me, value)
      assert.is_nil(ok)
      assert.equal("not_serialisable", err.code)
      assert.equal(message, err.message)
    end
    refused("message: function", print)
    refused("message.args.on_done: function", { args = { on_done = print } })
    refused("message[2][\"a b\"]: thread", { 1, { ["a b"] = coroutine.create(print) } })
    refused("message.m: table with a metatable", { m = setmetatable({}, {}) })
    refused("message.u: userdata", { u = io.stdout })
    refused("message[table]: a key of this type", { [{}] = 1 })
    refused("message[userdata]: a key of this type", { [me] = 1 })
    local deep = {}
    for _ = 1, 63 do deep = { deep } end
    assert.is_true(process.send(me, deep))
    local ok, err = process.send(me, { deep })
    assert.is_nil(ok)
    assert.matches("nested deeper than 64 levels, or in a cycle$", err.message)
    local cycle = {}
    cycle.self = cycle
    ok, err = process.send(me, cycle)
    assert.is_nil(ok)
    assert.matches("^message%.self%.self.*cycle$", err.message)
  end))

  it("refuse a graph of shared tables that would unfold without end", inside(function()
    local t = { "x" }
    for _ = 1, 40 do t = { t, t } end
    local ok, err = process.send(process.self(), t)
    assert.is_nil(ok)
    assert.equal("too_large", err.code)
  end))

  it("keep errors' methods", inside(function()
    local me = process.self()
    local _, err = process.send("nobody", 1)
    process.send(me, { err })
    local got = process.receive(0)[1]
    assert.not_equal(err, got)
    assert.equal(tostring(err), tostring(got))
    assert.equal(getmetatable(err), getmetatable(got))
  end))

  it("wait for a message", inside(function()
    local me = process.self()
    process.spawn(function()
      process.sleep(10)
      process.send(me, "late")
    end)
    assert.equal("late", process.receive())
  end))

  it("time out", inside(function()
    local start = process.now()
    local msg, err = process.receive(20)
    assert.is_nil(msg)
    assert.equal("timeout", err.code)
    assert.is_true(process.now() - start >= 20)
    assert.is_nil((process.receive(0)))
    assert.is_nil((process.receive(function() return true end, 1)))
  end))

  it("take the oldest message that matches and leave the others in order", inside(function()
    local me = process.self()
    for i = 1, 5 do process.send(me, i) end
    assert.equal(4, process.receive(function(m) return m == 4 end))
    assert.equal(2, process.receive(function(m) return m % 2 == 0 end))
    local rest = {}
    for i = 1, 3 do rest[i] = process.receive(0) end
    assert.same({ 1, 3, 5 }, rest)
  end))

  it("wait for one that matches while others come", inside(function()
    local me = process.self()
    process.spawn(function()
      for i = 1, 3 do
        process.send(me, i)
        process.sleep(2)
      end
    end)
    assert.equal(3, process.receive(function(m) return m == 3 end, 1000))
    assert.equal(1, process.receive(0))
    assert.equal(2, process.receive(0))
  end))

  it("pass an error of match on, and lose no message by it", inside(function()
    local me = process.self()
    process.send(me, "kept")
    assert.has_error(function() process.receive(function() error("no", 0) end, 50) end, "no")
    assert.equal("kept", process.receive(0))
    process.sleep(60)
    assert.is_nil((process.receive(0)))
  end))

  it("let match neither wait nor receive", inside(function()
    process.send(process.self(), 1)
    local ok, err = pcall(process.receive, function() process.sleep(1) end)
    assert.is_false(ok)
    assert.equal("cannot_wait", err.code)
    ok, err = pcall(process.receive, function() process.receive(0) end)
    assert.is_false(ok)
    assert.equal("cannot_wait", err.code)
    assert.equal(1, process.receive(0))
  end))

  it("do not mind a dead receiver", inside(function()
    local pid = process.spawn(function() end)
    ends(pid)
    assert.is_true(process.send(pid, "x"))
  end))

  it("find a receiver by name, here or by { name, node }", inside(function()
    process.register("spec_receiver")
    assert.is_true(process.send("spec_receiver", 1))
    assert.is_true(process.send({ "spec_receiver", "nonode@nohost" }, 2))
    assert.equal(1, process.receive(0))
    assert.equal(2, process.receive(0))
    local ok, err = process.send("spec_nobody", 1)
    assert.is_nil(ok)
    assert.equal("noproc", err.code)
    ok, err = process.send({ "spec_receiver", "no@where" }, 1)
    assert.is_nil(ok)
    assert.equal("noconnection", err.code)
  end))
end)

describe("links", function()
  it("take the other process along", inside(function()
    local other
    local pid = process.spawn(function()
      other = process.spawn_link(function() process.receive() end)
      process.sleep(1)
      process.exit("gone")
    end)
    ends(pid)
    ends(other)
  end))

  it("do not end the other by a normal end", inside(function()
    local me = process.self()
    local pid = process.spawn(function()
      process.spawn_link(function() end)
      process.sleep(10)
      process.send(me, "alive")
    end)
    assert.equal("alive", process.receive(1000))
    ends(pid)
  end))

  it("give messages to who traps exits", inside(function()
    assert.is_false(process.trap_exit(true))
    local pid = process.spawn_link(function() process.exit { "why" } end)
    assert.same({ "EXIT", pid, { "why" } }, process.receive(1000))
    local normal = process.spawn_link(function() end)
    assert.same({ "EXIT", normal, "normal" }, process.receive(1000))
    assert.is_true(process.trap_exit(false))
  end))

  it("to a dead process come as noproc", inside(function()
    process.trap_exit(true)
    local pid = process.spawn(function() end)
    ends(pid)
    assert.is_true(process.link(pid))
    assert.same({ "EXIT", pid, "noproc" }, process.receive(1000))
  end))

  it("can be made and undone", inside(function()
    process.trap_exit(true)
    local pid = process.spawn(function() process.receive() end)
    assert.is_true(process.link(pid))
    assert.is_true(process.unlink(pid))
    process.kill(pid, "x")
    ends(pid)
    assert.is_nil((process.receive(10)))
  end))

  it("raise for what is no pid", function()
    assert.has_error(function() process.link("x") end, "bad argument #1 to 'link' (pid expected, got string)")
    for _, name in ipairs { "unlink", "kill", "alive", "info" } do
      assert.has_error(function() process[name]("x") end)
    end
    assert.has_error(function() process.trap_exit(1) end)
  end)
end)

describe("process.kill", function()
  it("ends a process that waits, with the reason", inside(function()
    local pid, ref = process.spawn_monitor(function() process.receive() end)
    assert.is_true(process.kill(pid, { code = 1 }))
    assert.same({ "DOWN", ref, pid, { code = 1 } }, process.receive(1000))
  end))

  it("can be trapped, but for kill, which becomes killed", inside(function()
    local me = process.self()
    local pid, ref = process.spawn_monitor(function()
      process.trap_exit(true)
      process.send(me, "ready")
      while true do process.send(me, process.receive()) end
    end)
    process.receive(1000)
    process.kill(pid, "please")
    assert.same({ "EXIT", me, "please" }, process.receive(1000))
    process.kill(pid, "normal")
    assert.same({ "EXIT", me, "normal" }, process.receive(1000))
    process.kill(pid, "kill")
    assert.same({ "DOWN", ref, pid, "killed" }, process.receive(1000))
  end))

  it("of oneself has come when it returns, whatever is in between", inside(function()
    local me, reached = process.self(), {}
    local function in_pcall(reason) pcall(process.kill, process.self(), reason) end
    local function in_coroutine(reason) coroutine.wrap(in_pcall)(reason) end
    local function in_sort(reason)
      pcall(table.sort, { 2, 1 }, function() process.kill(process.self(), reason) end)
    end
    for name, way in pairs { pcall = in_pcall, coroutine = in_coroutine, sort = in_sort } do
      for asked, reason in pairs { kill = "killed", normal = "normal", other = "other" } do
        local pid, ref = process.spawn_monitor(function()
          local _ <close> = setmetatable({}, { __close = function()
            coroutine.wrap(function() process.send(me, "closed") end)()
          end })
          way(asked)
          if name ~= "sort" then reached[#reached + 1] = name end
        end)
        assert.equal("closed", process.receive(1000))
        assert.same({ "DOWN", ref, pid, reason }, process.receive(1000))
      end
    end
    assert.same({}, reached)
    local pid, ref = process.spawn_monitor(function()
      process.trap_exit(true)
      process.kill(process.self(), "kept")
      process.exit { process.receive(0)[3] }
    end)
    assert.same({ "DOWN", ref, pid, { "kept" } }, process.receive(1000))
  end))

  it("with normal does nothing to who does not trap", inside(function()
    local pid = process.spawn(function() process.receive() end)
    process.kill(pid)
    process.sleep(5)
    assert.is_true(process.alive(pid))
    process.kill(pid, "kill")
    ends(pid)
  end))

  it("ends a process before it has run", inside(function()
    local ran
    local pid, ref = process.spawn_monitor(function() ran = true end)
    process.kill(pid, "early")
    assert.same({ "DOWN", ref, pid, "early" }, process.receive(1000))
    assert.is_nil(ran)
  end))

  it("ends the caller too, at its next wait", inside(function()
    local pid, ref = process.spawn_monitor(function()
      process.kill(process.self(), "me")
      process.receive()
    end)
    assert.same({ "DOWN", ref, pid, "me" }, process.receive(1000))
  end))

  it("refuses a reason that cannot travel", inside(function()
    local ok, err = process.kill(process.self(), { f = print })
    assert.is_nil(ok)
    assert.equal("reason.f: function", err.message)
  end))
end)

describe("monitors", function()
  it("of a dead process or unknown name say noproc", inside(function()
    local pid = process.spawn(function() end)
    ends(pid)
    local ref = process.monitor(pid)
    assert.same({ "DOWN", ref, pid, "noproc" }, process.receive(1000))
    ref = process.monitor("spec_nobody")
    local down = process.receive(1000)
    assert.equal("DOWN", down[1])
    assert.equal(ref, down[2])
    assert.equal("noproc", down[4])
  end))

  it("say nothing after demonitor, not even what had come", inside(function()
    local pid = process.spawn(function() process.receive() end)
    local a, b = process.monitor(pid), process.monitor(pid)
    assert.is_true(process.demonitor(a))
    process.kill(pid, "x")
    ends(pid)
    process.demonitor(b)
    assert.is_nil((process.receive(5)))
    assert.has_error(function() process.demonitor(pid) end)
  end))

  it("have refs that print as such", inside(function()
    local ref = process.monitor(process.self())
    assert.matches("^<ref nonode@nohost%.%d+>$", tostring(ref))
  end))
end)

describe("names", function()
  it("are given, found and taken back", inside(function()
    assert.is_nil(process.whereis("spec_a"))
    assert.is_true(process.register("spec_a"))
    assert.equal(process.self(), process.whereis("spec_a"))
    local ok, err = process.register("spec_a")
    assert.is_nil(ok)
    assert.equal("already_registered", err.code)
    assert.is_true(process.unregister("spec_a"))
    ok, err = process.unregister("spec_a")
    assert.is_nil(ok)
    assert.equal("noproc", err.code)
  end))

  it("go with their process", inside(function()
    local pid = process.spawn(function() process.receive() end)
    assert.is_true(process.register("spec_b", pid))
    process.kill(pid, "kill")
    ends(pid)
    assert.is_nil(process.whereis("spec_b"))
    local ok, err = process.register("spec_b", pid)
    assert.is_nil(ok)
    assert.equal("noproc", err.code)
  end))

  it("are strings of 1 to 255 bytes", function()
    assert.has_error(function() process.register("") end)
    assert.has_error(function() process.register(("x"):rep(256)) end)
    assert.has_error(function() process.register(5) end)
    assert.has_error(function() process.whereis() end)
  end)
end)

describe("timers", function()
  it("send later, in order of time", inside(function()
    local me = process.self()
    process.send_after(200, me, "b")
    process.send_after(5, me, { "a" })
    assert.same({ "a" }, process.receive(1000))
    assert.equal("b", process.receive(1000))
  end))

  it("send to a name, as it stands when the time is over", inside(function()
    process.send_after(10, "spec_timer", "x")
    process.register("spec_timer")
    assert.equal("x", process.receive(1000))
  end))

  it("can be cancelled, once", inside(function()
    local timer = process.send_after(10000, process.self(), "x")
    local left = process.cancel_timer(timer)
    assert.is_true(left > 9000 and left <= 10000)
    assert.is_false(process.cancel_timer(timer))
    timer = process.send_after(math.huge, process.self(), "x")
    assert.equal(math.huge, process.cancel_timer(timer))
    assert.has_error(function() process.cancel_timer("x") end)
  end))

  it("refuse what cannot travel and wrong arguments", inside(function()
    local timer, err = process.send_after(1, process.self(), print)
    assert.is_nil(timer)
    assert.equal("not_serialisable", err.code)
    assert.has_error(function() process.send_after(-1, process.self(), 1) end)
    assert.has_error(function() process.send_after(1, process.self()) end)
  end))

  it("let a process sleep", inside(function()
    local start = process.now()
    process.sleep(15)
    local slept = process.now() - start
    assert.is_true(slept >= 15 and slept < 1000)
    process.sleep(0)
    process.sleep(0.1)
    assert.has_error(function() process.sleep(-1) end)
    assert.has_error(function() process.sleep() end)
    assert.equal("float", math.type(process.now()))
  end))
end)

describe("process.info", function()
  it("counts messages, bytes and names the state", inside(function()
    local pid = process.spawn(function()
      process.receive(function(m) return m == "stop" end)
    end)
    assert.equal("runnable", process.info(pid).state)
    process.sleep(1)
    assert.equal("waiting", process.info(pid).state)
    local before = process.info(pid)
    assert.equal(0, before.mailbox)
    for i = 1, 10 do process.send(pid, i) end
    local after = process.info(pid)
    assert.equal(10, after.mailbox)
    assert.is_true(after.memory > before.memory)
    assert.equal("running", process.info(process.self()).state)
    process.send(pid, "stop")
    ends(pid)
    local info, err = process.info(pid)
    assert.is_nil(info)
    assert.equal("noproc", err.code)
  end))
end)

describe("process.yield", function()
  it("lets others run, also as a bare coroutine.yield", inside(function()
    local order = {}
    for name in ("ab"):gmatch(".") do
      process.spawn(function()
        for _ = 1, 2 do
          order[#order + 1] = name
          if name == "a" then process.yield() else assert(select("#", coroutine.yield(1, 2)) == 0) end
        end
      end)
    end
    eventually(function() return #order == 4 end)
    assert.same({ "a", "b", "a", "b" }, order)
  end))
end)

describe("light userdata that is not phub's", function()
  it("behaves as in plain Lua", function()
    local foreign = require "phub.gen_server".noreply
    assert.matches("^userdata: 0x%x+$", tostring(foreign))
    assert.has_error(function() return foreign.node end)
    assert.is_falsy(getmetatable(5))
    local ok, err = process.send(process.self(), foreign)
    assert.is_nil(ok)
    assert.equal("message: userdata", err.message)
  end)
end)

describe("the main chunk", function()
  it("is a process that can send to itself and receive", function()
    assert.is_true(process.alive(process.self()))
    process.send(process.self(), "x")
    assert.equal("x", process.receive())
    assert.is_nil((process.receive(5)))
    assert.equal("main@x", process.receive(function(m) return m == "main@x" end, 0) or "main@x")
  end)

  it("drives the loop while it waits", function()
    local me = process.self()
    process.spawn(function()
      process.sleep(5)
      process.send(me, { "from", process.self() })
    end)
    assert.equal("from", process.receive(1000)[1])
    process.sleep(1)
  end)

  it("hears of an exit signal at its next wait, and goes on as a new process", function()
    local me = process.self()
    process.spawn(function() process.kill(me, "why") end)
    local ok, err = pcall(process.sleep, 1000)
    assert.is_false(ok)
    assert.equal("exit", err.code)
    assert.equal("why", err.reason)
    assert.is_false(process.alive(me))
    assert.is_true(process.alive(process.self()))
    process.send(process.self(), 1)
    assert.equal(1, process.receive(0))
  end)

  it("traps exits if it wants", function()
    process.trap_exit(true)
    local pid = process.spawn_link(function() process.exit("x") end)
    assert.same({ "EXIT", pid, "x" }, process.receive(1000))
    process.trap_exit(false)
  end)
end)
