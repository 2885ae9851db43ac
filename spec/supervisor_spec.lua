local phub = require "phub"
local process = require "phub.process"
local gen_server = require "phub.gen_server"
local supervisor = require "phub.supervisor"
local cluster = require "spec.support.cluster"
local eventually = require "spec.support.eventually"

local function inside(fn)
  return function() return phub.run(fn) end
end

local function soon(fn, ms)
  local deadline = process.now() + (ms or 2000)
  while true do
    local value = fn()
    if value then return value end
    assert(process.now() < deadline, "not in time")
    process.sleep(1)
  end
end

-- What children do is written into one journal a test: "+a" a start, "-a shutdown" an end that ran terminate. A child
-- that outlives its test writes into that one's.
local journal = {}
local journals = setmetatable({}, { __mode = "k" }) -- by the child's state

local function said()
  local text = table.concat(journal, " ")
  for i = #journal, 1, -1 do journal[i] = nil end
  return text
end

local Child = {}

function Child.init(args)
  process.trap_exit(true)
  journal[#journal + 1] = "+" .. args.id
  if args.refuse then return nil, args.refuse end
  journals[args] = journal
  return args
end

function Child.handle_call(state, msg)
  if msg == "crash" then error("crashed on purpose", 0) end
  if type(msg) == "table" then return gen_server.stopping(msg[1], true) end
  return state.id
end

function Child.terminate(state, reason)
  if type(reason) == "table" then reason = reason[1] end
  local mine = journals[state]
  mine[#mine + 1] = "-" .. state.id .. (reason == "shutdown" and "" or ":" .. reason)
  if state.slow then process.sleep(state.slow) end
end

local function start(args) return gen_server.start_link(Child, args) end

local function spec(id, fields)
  local s = { id = id, start = { start, { id = id } } }
  for key, value in pairs(fields or {}) do s[key] = value end
  return s
end

local function specs(ids, fields)
  local list = {}
  for id in ids:gmatch(".") do list[#list + 1] = spec(id, fields) end
  return list
end

local function find(sup, id)
  for _, child in ipairs(assert(supervisor.which_children(sup))) do
    if child.id == id then return child end
  end
end

local function pid_of(sup, id)
  local child = find(sup, id)
  return child and child.pid
end

-- Ends a child from inside; the supervisor has dealt with that when it next answers.
local function crash(sup, id) gen_server.call(pid_of(sup, id), "crash") end

local function leave(sup, id, reason) gen_server.call(pid_of(sup, id), { reason }) end

local function stop(sup)
  assert(gen_server.stop(sup, "shutdown"))
end

local function refused(code, value, err, ...)
  assert.is_nil(value)
  assert.equal(0, select("#", ...))
  assert.is_truthy(err, "no error")
  assert.equal(code, err.code, tostring(err))
  return err
end

before_each(function() journal = {} end)

describe("supervisor.start_link", function()
  it("starts the children in order and stops them in reverse", inside(function()
    local sup = assert(supervisor.start_link { children = specs "abc" })
    assert.equal("+a +b +c", said())
    for _, child in ipairs(supervisor.which_children(sup)) do
      assert.equal(child.id, gen_server.call(child.pid, "id"))
    end
    stop(sup)
    assert.equal("-c -b -a", said())
    assert.is_false(process.alive(sup))
  end))

  it("works at the top level and in any coroutine", function()
    local sup = assert(supervisor.start_link { children = specs "a" })
    assert.equal("a", gen_server.call(pid_of(sup, "a"), "id"))
    local over
    local co = coroutine.wrap(function()
      stop(assert(supervisor.start_link { children = specs "b" }))
      over = true
    end)
    assert.equal(phub.future.waiting, co()) -- the loop resumes it
    soon(function() return over end)
    assert.equal("+a +b -b", said())
    stop(sup)
  end)

  it("needs no children and no options", inside(function()
    local sup = assert(supervisor.start_link {})
    assert.same({}, supervisor.which_children(sup))
    assert.same({ specs = 0, active = 0, supervisors = 0, workers = 0 }, supervisor.count_children(sup))
    stop(sup)
  end))

  it("takes back what it started when a child does not start", inside(function()
    local list = specs "abc"
    list[2].start = { start, { id = "b", refuse = { "no", 1 } } }
    local err = refused("start_failed", supervisor.start_link { children = list })
    assert.equal("b", err.id)
    assert.same({ "no", 1 }, err.reason)
    assert.equal("+a +b -a", said())
    assert.matches("child b did not start", tostring(err))
    process.sleep(5) -- and the caller, whom it was linked to, lives
  end))

  it("says why a start function failed", inside(function()
    local function reason_of(fn)
      local err = refused("start_failed", supervisor.start_link { children = { { id = "x", start = fn } } })
      return err.reason
    end
    local raised = reason_of(function() error("boom", 0) end)
    assert.same({ "error", "boom" }, { raised[1], raised[2] })
    assert.matches("traceback", raised[3])
    assert.equal("bad_start_result", reason_of(function() end))
    assert.equal("bad_start_result", reason_of(function() return 42 end))
    assert.equal("bad_start_result", reason_of(function() return process.self() end))
    assert.equal("out", reason_of(function() process.exit("out") end))
    assert.equal("late", reason_of(function() process.sleep(5) return nil, "late" end))
    assert.equal("module_not_found", reason_of({ "no.such.module", "start" }))
    assert.equal("function_not_found", reason_of({ "phub.process", "no_such" }))
    assert.same({ code = "own" }, reason_of(function() return nil, { code = "own" } end))
  end))

  it("takes start functions in every form", inside(function()
    local seen
    local function starter(...)
      seen = table.pack(...)
      return start { id = "x" }
    end
    package.loaded["spec.supervisor_starter"] = { go = starter }
    local shared = {}
    for _, case in ipairs {
      { starter, { n = 0 } },
      { { starter, shared, 2 }, { n = 2, shared, 2 } },
      { { n = 4, starter, nil, print }, { n = 3, nil, print } },
      { { "spec.supervisor_starter", "go" }, { n = 0 } },
      { { "spec.supervisor_starter", "go", { shared, "b" } }, { n = 2, shared, "b" } },
      { { "spec.supervisor_starter", "go", { n = 3, nil, 1 } }, { n = 3, nil, 1 } },
    } do
      local sup = assert(supervisor.start_link { children = { { id = "x", start = case[1] } } })
      assert.same(case[2], seen)
      if case[2][1] == shared then assert.equal(shared, seen[1]) end -- nothing is copied
      stop(sup)
    end
    package.loaded["spec.supervisor_starter"] = nil
  end))

  it("links itself to the caller, and is ended with it", inside(function()
    local sup
    local boss = process.spawn(function()
      sup = assert(supervisor.start_link { children = specs "ab" })
      process.receive()
      process.exit("tired")
    end)
    soon(function() return sup and pid_of(sup, "b") end)
    local ref = process.monitor(sup)
    process.send(boss, "go")
    assert.same({ "DOWN", ref, sup, "tired" }, process.receive())
    assert.equal("+a +b -b -a", said())
  end))

  it("waits for start functions that wait, while others run", inside(function()
    local t0 = process.now()
    local ticks = 0
    process.spawn(function()
      while ticks < 1000 do process.sleep(1) ticks = ticks + 1 end
    end)
    local function slow(args)
      process.sleep(20)
      return start(args)
    end
    local slow_one
    process.spawn(function()
      slow_one = assert(supervisor.start_link { children = {
        { id = "a", start = { slow, { id = "a" } } }, { id = "b", start = { slow, { id = "b" } } } } })
      process.sleep(1000)
    end)
    process.sleep(1)
    local quick = assert(supervisor.start_link { children = specs "c" })
    assert.is_nil(slow_one)
    soon(function() return slow_one end)
    assert.is_true(process.now() - t0 >= 40)
    assert.is_true(ticks >= 3)
    assert.equal("+c +a +b", said())
    stop(quick)
    stop(slow_one)
    ticks = 1000
  end))

  it("nests", inside(function()
    local function inner() return supervisor.start_link { children = specs "bc" } end
    local sup = assert(supervisor.start_link { strategy = "rest_for_one", children = {
      spec "a", { id = "inner", start = inner, type = "supervisor" }, spec "d" } })
    assert.equal("+a +b +c +d", said())
    local child = find(sup, "inner")
    assert.equal("supervisor", child.type)
    assert.same({ specs = 3, active = 3, supervisors = 1, workers = 2 }, supervisor.count_children(sup))
    crash(child.pid, "b")
    assert.is_truthy(pid_of(child.pid, "b"))
    assert.equal("-b:error +b", said())
    for _ = 1, 3 do
      if process.alive(child.pid) then crash(child.pid, "b") supervisor.count_children(child.pid) end
    end
    soon(function() return find(sup, "inner").pid ~= child.pid end)
    assert.equal("-b:error +b -b:error +b -b:error -c -d +b +c +d", said())
    stop(sup)
    assert.equal("-d -c -b -a", said())
  end))
end)

describe("a supervisor's restarts", function()
  for _, case in ipairs {
    { "one_for_one", "permanent", "crash", "-b:error +b" },
    { "one_for_one", "permanent", "normal", "-b:normal +b" },
    { "one_for_one", "transient", "crash", "-b:error +b" },
    { "one_for_one", "transient", "odd", "-b:odd +b" },
    { "one_for_one", "transient", "normal", "-b:normal" },
    { "one_for_one", "transient", "shutdown", "-b" },
    { "one_for_one", "transient", { "shutdown", "why" }, "-b" },
    { "one_for_one", "temporary", "crash", "-b:error" },
    { "one_for_all", "permanent", "crash", "-b:error -c -a +a +b +c" },
    { "one_for_all", "transient", "normal", "-b:normal" },
    { "one_for_all", "temporary", "crash", "-b:error" },
    { "rest_for_one", "permanent", "crash", "-b:error -c +b +c" },
    { "rest_for_one", "transient", "crash", "-b:error -c +b +c" },
    { "rest_for_one", "transient", "shutdown", "-b" },
  } do
    local strategy, restart, reason = case[1], case[2], case[3]
    local name = type(reason) == "table" and "{ shutdown, why }" or reason
    it(("%s: a %s child that ends by %s"):format(strategy, restart, name), inside(function()
      local list = specs "abc"
      list[2].restart = restart
      local sup = assert(supervisor.start_link { strategy = strategy, children = list })
      said()
      local before = pid_of(sup, "b")
      if reason == "crash" then crash(sup, "b") else leave(sup, "b", reason) end
      local child = find(sup, "b")
      local expected = case[4]
      if type(reason) == "table" then expected = "-b" end
      assert.equal(expected, said())
      if restart == "temporary" then
        assert.is_nil(child)
      elseif expected:find("+b", 1, true) then
        assert.not_equal(before, child.pid)
      else
        assert.is_nil(child.pid)
      end
      stop(sup)
    end))
  end

  it("watch a child that is not linked, and one that is killed", inside(function()
    local sup = assert(supervisor.start_link { children = {
      { id = "a", start = function() return gen_server.start(Child, { id = "a" }) end } } })
    local first = pid_of(sup, "a")
    process.kill(first, "kill")
    local second = soon(function()
      local pid = pid_of(sup, "a")
      return pid ~= first and pid
    end)
    assert.is_true(process.alive(second))
    assert.equal("+a +a", said())
    stop(sup)
    assert.is_false(process.alive(second))
  end))

  it("end it with shutdown when there are too many in its time", inside(function()
    local sup
    process.spawn(function()
      sup = assert(supervisor.start_link { max_restarts = 2, max_seconds = 0.1, children = specs "ab" })
      process.trap_exit(true)
      process.receive()
    end)
    soon(function() return sup end)
    local ref = process.monitor(sup)
    said()
    crash(sup, "a")
    crash(sup, "a")
    process.sleep(150) -- they are forgotten
    crash(sup, "a")
    crash(sup, "a")
    assert.is_truthy(pid_of(sup, "a"))
    assert.equal(("-a:error +a "):rep(4), said() .. " ")
    crash(sup, "a")
    assert.same({ "DOWN", ref, sup, "shutdown" }, process.receive())
    assert.equal("-a:error -b", said())
  end))

  it("that fail are tried again and counted", inside(function()
    local refusals = 0
    local function may()
      if refusals > 0 then
        refusals = refusals - 1
        journal[#journal + 1] = "!a"
        return nil, "not now"
      end
      return start { id = "a" }
    end
    local sup
    process.spawn(function()
      sup = assert(supervisor.start_link { children = { { id = "a", start = may } }, max_restarts = 3 })
      process.trap_exit(true)
      process.receive()
    end)
    soon(function() return sup end)
    said()
    local ref = process.monitor(sup)
    refusals = 2
    crash(sup, "a")
    soon(function() return type(pid_of(sup, "a")) == "userdata" end)
    assert.equal("-a:error !a !a +a", said())
    crash(sup, "a")
    assert.same({ "DOWN", ref, sup, "shutdown" }, process.receive())
    assert.equal("-a:error", said())
  end))

  it("show as restarting between two tries", inside(function()
    local fail = false
    local function may()
      if not fail then return start { id = "a" } end
      process.sleep(5)
      return nil, "not now"
    end
    local sup = assert(supervisor.start_link { children = { { id = "a", start = may } }, max_restarts = 1000 })
    fail = true
    crash(sup, "a")
    assert.equal("restarting", pid_of(sup, "a"))
    refused("restarting", supervisor.restart_child(sup, "a"))
    refused("restarting", supervisor.delete_child(sup, "a"))
    assert.is_nil(refused("already_started", supervisor.start_child(sup, spec "a")).pid)
    fail = false
    soon(function() return type(pid_of(sup, "a")) == "userdata" end)
    stop(sup)
  end))
end)

describe("a supervisor's shutdown", function()
  it("waits as long as the child is given, then kills it", inside(function()
    local sup = assert(supervisor.start_link { children = {
      { id = "a", start = { start, { id = "a", slow = 10 } } },
      { id = "b", start = { start, { id = "b", slow = 5000 } }, shutdown = 30 },
      { id = "c", start = { start, { id = "c", slow = 5000 } }, shutdown = "brutal_kill" },
      { id = "d", start = { start, { id = "d", slow = 50 } }, shutdown = "infinity" },
      { id = "e", start = { start, { id = "e", slow = 50 } }, shutdown = math.huge },
    } })
    said()
    local t0 = process.now()
    assert.is_true(supervisor.terminate_child(sup, "c"))
    assert.equal("", said())
    assert.is_true(supervisor.terminate_child(sup, "b"))
    local took = process.now() - t0
    assert.is_true(took >= 30 and took < 1000, took)
    assert.is_true(supervisor.terminate_child(sup, "d"))
    assert.is_true(supervisor.terminate_child(sup, "e"))
    took = process.now() - t0
    assert.is_true(took >= 130 and took < 2000, took)
    stop(sup)
    assert.equal("-b -d -e -a", said())
  end))

  it("leaves nothing that is linked when it is killed itself", inside(function()
    local sup
    process.spawn(function()
      process.trap_exit(true)
      sup = supervisor.start_link { children = specs "ab" }
      process.receive()
    end)
    soon(function() return sup end)
    local a, b = pid_of(sup, "a"), pid_of(sup, "b")
    process.kill(sup, "kill")
    soon(function() return not process.alive(a) and not process.alive(b) end)
    assert.equal("+a +b -a:killed -b:killed", said())
  end))

  it("is not begun by exit signals of others than its parent", inside(function()
    local sup = assert(supervisor.start_link { children = specs "a" })
    local pid = process.spawn(function() process.kill(sup, "shutdown") end)
    soon(function() return not process.alive(pid) end)
    assert.is_truthy(pid_of(sup, "a"))
    process.trap_exit(true)
    process.kill(sup, "by its parent")
    assert.same({ "EXIT", sup, "by its parent" }, process.receive(1000))
    assert.equal("+a -a", said():gsub(":by its parent", ""))
  end))

  it("ends a start that is under way when it is killed", inside(function()
    local closed, began, result
    process.spawn(function()
      process.trap_exit(true)
      result = table.pack(supervisor.start_link { children = { { id = "a", start = function()
        local _ <close> = setmetatable({}, { __close = function() closed = true end })
        began = process.self()
        process.sleep(math.huge)
      end } } })
    end)
    soon(function() return began end)
    process.kill(began, "kill")
    soon(function() return result end)
    assert.is_true(closed)
    assert.equal("exit", result[2].code)
    assert.equal("killed", result[2].reason)
  end))
end)

describe("supervisor.start_child", function()
  local sup

  local function with_sup(fn, ...)
    local children = table.pack(...)[1]
    return inside(function()
      sup = assert(supervisor.start_link { children = children })
      said()
      fn()
      stop(sup)
    end)
  end

  it("adds a child at the end", with_sup(function()
    local pid = assert(supervisor.start_child(sup, spec "b"))
    assert.equal(pid, pid_of(sup, "b"))
    assert.same({ "a", "b" }, { supervisor.which_children(sup)[1].id, supervisor.which_children(sup)[2].id })
    crash(sup, "b")
    assert.not_equal(pid, pid_of(sup, "b"))
  end, specs "a"))

  it("refuses an id that is there", with_sup(function()
    assert.equal(pid_of(sup, "a"), refused("already_started", supervisor.start_child(sup, spec "a")).pid)
    assert.is_true(supervisor.terminate_child(sup, "a"))
    assert.is_nil(refused("already_present", supervisor.start_child(sup, spec "a")).pid)
    assert.is_true(supervisor.delete_child(sup, "a"))
    assert.is_truthy(supervisor.start_child(sup, spec "a"))
  end, specs "a"))

  it("does not keep a child that did not start", with_sup(function()
    local err = refused("start_failed", supervisor.start_child(sup, { id = "x", start = function()
      return nil, "no"
    end }))
    assert.equal("no", err.reason)
    assert.equal("x", err.id)
    assert.same({}, supervisor.which_children(sup))
  end))

  it("takes a process that has ended already by its restart type", with_sup(function()
    local starts = 0
    local function gone(reason)
      starts = starts + 1
      local pid = process.spawn_link(function() process.exit(starts > 1 and "normal" or reason) end)
      process.sleep(5)
      return pid
    end
    assert.is_truthy(supervisor.start_child(sup, { id = "x", start = { gone, "boom" }, restart = "transient" }))
    assert.is_nil(pid_of(sup, "x"))
    assert.equal(2, starts)
    assert.is_truthy(supervisor.start_child(sup, { id = "y", start = { gone, "boom" }, restart = "temporary" }))
    assert.is_nil(find(sup, "y"))
  end))

  it("refuses a process that is somebody's child", with_sup(function()
    local err = refused("start_failed", supervisor.start_child(sup, { id = "b", start = function()
      return nil
    end }))
    assert.equal("bad_start_result", err.reason)
    local a = pid_of(sup, "a")
    err = refused("start_failed", supervisor.start_child(sup, { id = "b", start = function() return a end }))
    assert.equal("already_started", err.reason)
  end, specs "a"))

  it("serves two callers one after the other", with_sup(function()
    local function slow(args)
      process.sleep(10)
      return start(args)
    end
    local over = {}
    for _, id in ipairs { "x", "y" } do
      process.spawn(function()
        local pid = assert(supervisor.start_child(sup, { id = id, start = { slow, { id = id } } }))
        over[#over + 1] = pid
      end)
    end
    soon(function() return #over == 2 end)
    assert.same({ specs = 2, active = 2, supervisors = 0, workers = 2 }, supervisor.count_children(sup))
    assert.equal("+x +y", said())
  end))

  it("of ten thousand children is quick, and so are their ends", with_sup(function()
    local t0 = process.now()
    local function idle() return process.spawn_link(process.receive) end
    for i = 1, 10000 do
      assert(supervisor.start_child(sup, { id = "n" .. i, start = idle, restart = "temporary" }))
    end
    assert.equal(10000, supervisor.count_children(sup).active)
    for i = 1, 5000 do assert(supervisor.terminate_child(sup, "n" .. i)) end
    assert.equal(5000, #supervisor.which_children(sup))
    for _, child in ipairs(supervisor.which_children(sup)) do process.kill(child.pid, "kill") end
    soon(function() return supervisor.count_children(sup).specs == 0 end)
    assert.is_true(process.now() - t0 < 10000)
  end))
end)

describe("supervisor.terminate_child, restart_child, delete_child", function()
  it("answer as in OTP", inside(function()
    local sup = assert(supervisor.start_link { children = specs "a" })
    refused("running", supervisor.restart_child(sup, "a"))
    refused("running", supervisor.delete_child(sup, "a"))
    assert.is_true(supervisor.terminate_child(sup, "a"))
    assert.is_true(supervisor.terminate_child(sup, "a"))
    assert.same({ { id = "a", type = "worker", modules = {} } }, supervisor.which_children(sup))
    assert.equal(pid_of(sup, "a"), nil)
    local pid = assert(supervisor.restart_child(sup, "a"))
    assert.equal(pid, pid_of(sup, "a"))
    assert.is_true(supervisor.terminate_child(sup, "a"))
    assert.is_true(supervisor.delete_child(sup, "a"))
    for _, name in ipairs { "terminate_child", "restart_child", "delete_child" } do
      refused("not_found", supervisor[name](sup, "a"))
      refused("not_found", supervisor[name](sup, ""))
      refused("not_found", supervisor[name](sup, ("x"):rep(2048)))
    end
    assert.equal("+a -a +a -a", said())
    stop(sup)
  end))

  it("forget a temporary child that is terminated", inside(function()
    local sup = assert(supervisor.start_link { children = specs("a", { restart = "temporary" }) })
    assert.is_true(supervisor.terminate_child(sup, "a"))
    refused("not_found", supervisor.restart_child(sup, "a"))
    stop(sup)
  end))

  it("keep a child whose restart by hand failed", inside(function()
    local refuse = false
    local sup = assert(supervisor.start_link { children = { { id = "a", start = function()
      if refuse then return nil, "no" end
      return start { id = "a" }
    end } } })
    assert.is_true(supervisor.terminate_child(sup, "a"))
    refuse = true
    assert.equal("no", refused("start_failed", supervisor.restart_child(sup, "a")).reason)
    assert.is_truthy(find(sup, "a"))
    refuse = false
    assert.is_truthy(supervisor.restart_child(sup, "a"))
    stop(sup)
  end))

  it("take ids with zero bytes and invalid UTF-8", inside(function()
    local sup = assert(supervisor.start_link {})
    for _, id in ipairs { "a\0b", "\xff\xfe", ("x"):rep(1024) } do
      assert(supervisor.start_child(sup, spec(id)))
      assert.is_truthy(pid_of(sup, id))
      assert.is_true(supervisor.terminate_child(sup, id))
      assert.is_true(supervisor.delete_child(sup, id))
    end
    stop(sup)
  end))
end)

describe("supervisor.which_children", function()
  it("hands out copies of modules and their defaults", inside(function()
    local modules = { "m", "n" }
    local sup = assert(supervisor.start_link { children = {
      spec("a", { modules = modules }),
      { id = "b", start = { "spec.support.children", "start" } },
      spec("c", { type = "supervisor" }),
    } })
    modules[1] = "changed"
    local list = supervisor.which_children(sup)
    assert.same({ { "m", "n" }, { "spec.support.children" }, {} },
      { list[1].modules, list[2].modules, list[3].modules })
    assert.same({ "worker", "worker", "supervisor" }, { list[1].type, list[2].type, list[3].type })
    list[1].modules[1] = "mine"
    assert.equal("m", supervisor.which_children(sup)[1].modules[1])
    stop(sup)
  end))
end)

describe("a supervisor is meant", function()
  it("by pid, name, or name and node", inside(function()
    local sup = assert(supervisor.start_link { children = specs "a" })
    process.register("the sup", sup)
    for _, dest in ipairs { sup, "the sup", { "the sup", phub.node.self() } } do
      assert.equal(1, supervisor.count_children(dest).specs)
    end
    refused("noproc", supervisor.count_children("nobody"))
    refused("noconnection", supervisor.count_children({ "the sup", "no@where" }))
    refused("invalid_argument", supervisor.count_children(process.self()))
    refused("invalid_argument", supervisor.start_child(pid_of(sup, "a"), spec "b"))
    stop(sup)
    refused("noproc", supervisor.which_children(sup))
    refused("noproc", supervisor.start_child(sup, spec "a"))
  end))

  it("not by its own start functions, who would wait for ever", inside(function()
    local name = "own sup"
    local raised
    local sup = assert(supervisor.start_link {})
    process.register(name, sup)
    assert(supervisor.start_child(sup, { id = "a", start = function()
      raised = select(2, pcall(supervisor.count_children, name))
      return start { id = "a" }
    end }))
    assert.equal("cannot_wait", raised.code)
    stop(sup)
  end))
end)

describe("a supervisor's arguments", function()
  local function fn() end

  local wrong_specs = {
    { "an empty table", {}, key = "id" },
    { "no id", { start = fn }, key = "id" },
    { "a number as id", { id = 1, start = fn }, key = "id" },
    { "an empty id", { id = "", start = fn }, key = "id" },
    { "an id of 1,025 bytes", { id = ("x"):rep(1025), start = fn }, key = "id" },
    { "an unknown field", { id = "v", start = fn, colour = 1 }, key = "colour", id = "v" },
    { "a list for a spec", { { id = "v", start = fn } }, key = "1" },
    { "no start", { id = "v" }, key = "start", id = "v" },
    { "a string as start", { id = "v", start = "m" }, key = "start", id = "v" },
    { "an empty start", { id = "v", start = {} }, key = "start" },
    { "a start without a function", { id = "v", start = { "m" } }, key = "start" },
    { "a named item in start", { id = "v", start = { "m", "f", x = 1 } }, key = "start" },
    { "a fourth item in start", { id = "v", start = { "m", "f", {}, 1 } }, key = "start" },
    { "a wrong n", { id = "v", start = { fn, n = 1.5 } }, key = "start" },
    { "arguments that are no table", { id = "v", start = { "m", "f", 1 } }, key = "start" },
    { "arguments that are no list", { id = "v", start = { "m", "f", { a = 1 } } }, key = "start" },
    { "the module os", { id = "v", start = { "os", "exit" } }, key = "start" },
    { "a wrong restart", { id = "v", start = fn, restart = "always" }, key = "restart" },
    { "a negative shutdown", { id = "v", start = fn, shutdown = -1 }, key = "shutdown" },
    { "a shutdown that is no number", { id = "v", start = fn, shutdown = 0 / 0 }, key = "shutdown" },
    { "a wrong shutdown", { id = "v", start = fn, shutdown = "soon" }, key = "shutdown" },
    { "a wrong type", { id = "v", start = fn, type = "boss" }, key = "type" },
    { "modules that are no list", { id = "v", start = fn, modules = "m" }, key = "modules" },
    { "a number among the modules", { id = "v", start = fn, modules = { 1 } }, key = "modules" },
  }

  for _, case in ipairs(wrong_specs) do
    it("are refused: " .. case[1], inside(function()
      local sup = assert(supervisor.start_link {})
      local err = refused("invalid_child_spec", supervisor.start_child(sup, case[2]))
      assert.equal(case.key, err.key)
      assert.is_nil(err.index)
      if case.id then assert.equal(case.id, err.id) end
      err = refused("invalid_child_spec", supervisor.start_link { children = { spec "good", case[2] } })
      assert.equal(case.key, err.key)
      assert.equal(2, err.index)
      assert.equal("", said()) -- nothing was started
      stop(sup)
    end))
  end

  it("are refused: wrong configurations", inside(function()
    for _, case in ipairs {
      { { strategy = "all_for_one" }, "strategy" }, { { strategy = 1 }, "strategy" },
      { { max_restarts = -1 }, "max_restarts" }, { { max_restarts = 1.5 }, "max_restarts" },
      { { max_seconds = 0 }, "max_seconds" }, { { max_seconds = "5" }, "max_seconds" },
      { { max_seconds = 0 / 0 }, "max_seconds" }, { { children = "x" }, "children" },
      { { children = { x = 1 } }, "children" }, { { intensity = 1 }, "intensity" }, { { 1 }, "1" },
    } do
      assert.equal(case[2], refused("invalid_config", supervisor.start_link(case[1])).key)
    end
    refused("invalid_child_spec", supervisor.start_link { children = { "x" } })
    local err = refused("duplicate_child_id", supervisor.start_link { children = specs "aba" })
    assert.same({ "a", 3 }, { err.id, err.index })
  end))

  it("raise when they are of a wrong type", inside(function()
    local sup = assert(supervisor.start_link {})
    local function raises(pattern, f, ...)
      local ok, err = pcall(f, ...)
      assert.is_false(ok)
      assert.matches(pattern, err)
    end
    raises("#1 to 'start_link' %(table expected, got nil", function() supervisor.start_link(nil) end)
    raises("#1 to 'start_link' %(table expected, got string", function() supervisor.start_link("x") end)
    raises("#2 to 'start_child' %(table expected, got nil", function() supervisor.start_child(sup) end)
    raises("#1 to 'start_child' %(pid, name or { name, node } expected, got nil", function()
      supervisor.start_child(nil, {})
    end)
    local function by_name(name) -- a raised error names the function as it is written
      local code = ("local supervisor = ... return function(...) supervisor.%s(...) end"):format(name)
      return assert(load(code))(supervisor)
    end
    for _, name in ipairs { "terminate_child", "restart_child", "delete_child" } do
      raises("#2 to '" .. name .. "' %(string expected, got nil", by_name(name), sup, nil)
      raises("#2 to '" .. name .. "' %(string expected, got number", by_name(name), sup, 1)
    end
    for _, name in ipairs { "terminate_child", "which_children", "count_children" } do
      raises("#1 to '" .. name .. "' %(pid, name or { name, node } expected, got nil", by_name(name), nil, "a")
      raises("#1 to '" .. name .. "'.-got boolean", by_name(name), true, "a")
    end
    stop(sup)
  end))
end)

describe("phub.child_spec", function()
  it("makes a hub the child of a supervisor", inside(function()
    local sup = assert(supervisor.start_link { children = { phub.child_spec { hub_id = "h" } } })
    local child = supervisor.which_children(sup)[1]
    assert.same({ id = "h", pid = child.pid, type = "supervisor", modules = { "phub" } }, child)
    assert.is_true(phub.is_alive "h")
    assert.equal("ok", assert(phub.start_child("h", {
      id = "c", start = { "spec.support.children", "start" } }, { awaitable = true })):await().status)
    local inner = phub.get_pid("h", "c")
    stop(sup) -- gracefully: the hub's children are stopped before it ends
    assert.is_false(phub.is_alive "h")
    assert.is_false(process.alive(inner))
    assert.is_false(process.alive(child.pid))
  end))

  it("starts it again after its end, whatever that was", inside(function()
    local sup = assert(supervisor.start_link { children = { phub.child_spec { hub_id = "h" } } })
    local first = pid_of(sup, "h")
    assert.is_true(phub.stop "h")
    local second = soon(function()
      local pid = pid_of(sup, "h")
      return pid ~= first and pid
    end)
    assert.is_true(phub.is_alive "h")
    assert(phub.start_child("h", { id = "c", start = { "spec.support.children", "start" } },
      { awaitable = true })):await()
    local inner = phub.get_pid("h", "c")
    process.kill(second, "kill")
    soon(function()
      local pid = pid_of(sup, "h")
      return pid ~= second and pid
    end)
    assert.is_true(phub.is_alive "h")
    soon(function() return not process.alive(inner) end) -- the killed hub's children went with it
    assert.is_nil(phub.get_pid("h", "c"))
    stop(sup)
    assert.is_false(phub.is_alive "h")
  end))

  it("ends with a supervisor that is killed", inside(function()
    local sup
    process.spawn(function()
      process.trap_exit(true)
      sup = supervisor.start_link { children = { phub.child_spec { hub_id = "h" } } }
      process.receive()
    end)
    soon(function() return sup end)
    process.kill(sup, "kill")
    soon(function() return not phub.is_alive "h" end)
  end))

  it("is killed when it does not stop in its time", inside(function()
    local s = phub.child_spec { hub_id = "h" }
    s.shutdown = 20
    package.loaded["spec.supervisor_slow"] = { start = function() return start { id = "c", slow = 400 } end }
    local sup = assert(supervisor.start_link { children = { s } })
    assert(phub.start_child("h", { id = "c", shutdown = "infinity", start = { "spec.supervisor_slow", "start" } }))
    soon(function() return phub.get_pid("h", "c") end)
    local t0 = process.now()
    assert.is_true(supervisor.terminate_child(sup, "h"))
    local took = process.now() - t0
    assert.is_true(took >= 20 and took < 300, took)
    assert.is_false(phub.is_alive "h")
    assert.is_truthy(supervisor.restart_child(sup, "h"))
    assert.is_true(phub.is_alive "h")
    stop(sup)
    package.loaded["spec.supervisor_slow"] = nil
  end))

  it("does not start one that runs already", inside(function()
    local hub = assert(phub.start_link { hub_id = "h" })
    local err = refused("start_failed", supervisor.start_link { children = { phub.child_spec { hub_id = "h" } } })
    assert.equal("already_started", err.reason.code)
    assert.is_true(phub.is_alive(hub))
    local sup = assert(supervisor.start_link { children = { { id = "x", start = function() return hub end } } })
    local other = refused("start_failed", supervisor.start_link { children = { { id = "x", start = function()
      return hub
    end } } })
    assert.equal("already_started", other.reason)
    assert.is_true(phub.is_alive(hub))
    stop(sup)
    assert.is_false(phub.is_alive(hub))
  end))

  it("refuses what is no configuration", inside(function()
    assert.error(function() phub.child_spec() end)
    assert.equal("id", refused("invalid_child_spec", supervisor.start_link { children = { phub.child_spec {} } }).key)
    local err = refused("start_failed", supervisor.start_link { children = {
      phub.child_spec { hub_id = "h", colour = 1 } } })
    assert.same({ "invalid_config", "colour" }, { err.reason.code, err.reason.key })
  end))

  it("a node that stops ends its supervised hubs for good", function()
    local c = cluster.start(1, { hub = false })
    finally(function() c:stop() end)
    c[1]:eval [[
      supervisor = require "phub.supervisor"
      phub = require "phub"
      sup = nil
      phub.process.spawn(function()
        sup = assert(supervisor.start_link { children = { phub.child_spec { hub_id = "h" } } })
        phub.process.receive()
      end)
    ]]
    eventually(function() return c[1]:eval [[ return sup ~= nil and phub.is_alive "h" ]] end, 5000)
    assert.same({ true, false, "nil" }, c[1]:eval [[
      local stopped = phub.node.stop()
      return { stopped, phub.is_alive "h", type(supervisor.which_children(sup)[1].pid) }
    ]])
  end)
end)

describe("doc/supervisor.md", function()
  local page <close> = assert(io.open "doc/supervisor.md")
  local n = 0
  for code in page:read("a"):gmatch "```lua\n(.-)```" do
    n = n + 1
    it("example " .. n .. " does what it says", inside(assert(load(code, "=doc/supervisor.md"))))
  end
end)
