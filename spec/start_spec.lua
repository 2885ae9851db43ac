local phub = require "phub"
local process = require "phub.process"
local node = require "phub.node"
local children = require "spec.support.children"
local os_process = require "spec.support.os_process"

describe("starting and stopping children", function()
  local hub

  local function test(fn)
    return function()
      phub.run(function()
        hub = assert(phub.start_link { hub_id = "h" })
        local ok, err = xpcall(fn, function(e) return e end)
        assert(phub.stop(hub))
        if not ok then error(err, 0) end
      end)
    end
  end

  local function await(future, err)
    assert(future, tostring(err))
    return assert(future:await())
  end

  local function start(specs, options)
    options = options or {}
    options.awaitable = true
    return await(phub.start_children(hub, specs, options))
  end

  local function stop(ids)
    return await(phub.stop_children(hub, ids, { awaitable = true }))
  end

  local function ids(entries)
    local list = {}
    for i, entry in ipairs(entries) do list[i] = entry.id end
    return list
  end

  it("answers start_initiated at once, and the child runs soon", test(function()
    assert.equal("start_initiated", phub.start_child(hub, children.spec "a"))
    assert.same({}, phub.call(hub, "a", "args"))
    assert.equal("stop_initiated", phub.stop_child(hub, "a"))
    while phub.child_lookup(hub, "a") do process.sleep(1) end
  end))

  it("gives a future with awaitable, whose result names each child in the order asked", test(function()
    local specs = {}
    for i = 1, 50 do specs[i] = children.spec("c" .. 51 - i) end
    local result = start(specs)
    assert.equal("ok", result.status)
    assert.same({}, result.errors)
    assert.is_false(result.rollback)
    for i, entry in ipairs(result.started) do
      assert.equal("c" .. 51 - i, entry.id)
      assert.same({ [node.self()] = phub.get_pid(hub, entry.id) }, entry.instances)
    end
    assert.equal(50, #result.started)
  end))

  it("gives each waiter a result of its own", test(function()
    local future = assert(phub.start_child(hub, children.spec "a", { awaitable = true }))
    local first = future:await()
    first.started[1].id = "changed"
    assert.equal("a", future:await().started[1].id)
  end))

  it("passes the arguments, holes and kinds of numbers too", test(function()
    start {
      { id = "list", start = { "spec.support.children", "several", { 1, 1.0, "x", false } } },
      { id = "holes", start = { "spec.support.children", "several", { 1, nil, 3, n = 4 } } },
      { id = "none", start = { "spec.support.children", "several" } },
    }
    local list = phub.call(hub, "list", "args")
    assert.same({ 1, 1.0, "x", false, n = 4 }, list)
    assert.equal("float", math.type(list[2]))
    assert.same({ 1, nil, 3, n = 4 }, phub.call(hub, "holes", "args"))
    assert.same({ n = 0 }, phub.call(hub, "none", "args"))
  end))

  it("names each way in which a start can fail", test(function()
    assert.equal("ok", start({ { id = "has it", start = { "spec.support.children", "common" } } }).status)
    local specs = {}
    local function add(id, fn, ...)
      specs[#specs + 1] = { id = id, start = { "spec.support.children", fn, { ... } } }
    end
    add("fine", "start")
    add("reason", "refuse", { why = "not today" })
    add("init", "start", { refuse = "by init" })
    add("raised", "raise", "boom")
    add("number", "number")
    add("nothing", "nothing")
    add("function", "no_such_function")
    add("text", "not_a_function")
    add("dead", "dead")
    add("supervisor", "supervisor")
    add("shared", "common")
    specs[#specs + 1] = { id = "module", start = { "no.such.module", "start" } }
    local result = start(specs)
    assert.equal("error", result.status)
    assert.same({ "fine" }, ids(result.started))
    local reasons = {}
    for _, e in ipairs(result.errors) do
      reasons[e.id] = e.reason
      assert.equal(node.self(), e.node)
    end
    assert.same({ why = "not today" }, reasons.reason)
    assert.equal("by init", reasons.init)
    assert.same({ "error", "boom" }, { reasons.raised[1], reasons.raised[2] })
    assert.matches("traceback", reasons.raised[3])
    assert.equal("bad_start_result", reasons.number)
    assert.equal("bad_start_result", reasons.nothing)
    assert.equal("noproc", reasons.dead)
    assert.equal("bad_start_result", reasons.supervisor)
    assert.equal("bad_start_result", reasons.shared)
    assert.equal("function_not_found", reasons["function"])
    assert.equal("function_not_found", reasons.text)
    assert.equal("module_not_found", reasons.module)
    for id in pairs(reasons) do
      assert.is_nil(phub.child_lookup(hub, id), id)
    end
  end))

  it("does not try a first start that failed again", test(function()
    local result = start { { id = "a", start = { "spec.support.children", "refuse", { "no" } } } }
    assert.equal("no", result.errors[1].reason)
    process.sleep(50)
    assert.is_nil(phub.child_lookup(hub, "a"))
    assert.equal("ok", start({ children.spec "a" }).status)
  end))

  it("raises what a module raises while it loads, as the reason", test(function()
    package.preload["spec.broken_child"] = function() error("broken while loading", 0) end
    local result = start { { id = "a", start = { "spec.broken_child", "start" } } }
    package.preload["spec.broken_child"] = nil
    assert.same({ "error", "broken while loading" }, { table.unpack(result.errors[1].reason, 1, 2) })
  end))

  it("refuses ids that run, all of them and in the order asked, and changes nothing", test(function()
    start(children.specs(3))
    local future, err = phub.start_children(hub,
      { children.spec "new", children.spec "c3", children.spec "c1" })
    assert.is_nil(future)
    assert.equal("already_started", err.code)
    assert.same({ "c3", "c1" }, err.children)
    assert.is_nil(phub.child_lookup(hub, "new"))
  end))

  it("reports them as errors with check_existing=false, and does not replace them", test(function()
    start { children.spec "a" }
    local pid = phub.get_pid(hub, "a")
    local result = start({ children.spec "a", children.spec "b" }, { check_existing = false })
    assert.same({ "b" }, ids(result.started))
    assert.equal("already_started", result.errors[1].reason)
    assert.equal(pid, result.errors[1].pid)
    assert.equal(pid, phub.get_pid(hub, "a"))
  end))

  it("stops, and names unknown ids at once", test(function()
    start(children.specs(3))
    local pid = phub.get_pid(hub, "c2")
    local result = stop { "c2", "nobody", "c1" }
    assert.equal("error", result.status)
    assert.same({ { id = "c2", nodes = { node.self() } }, { id = "c1", nodes = { node.self() } } }, result.stopped)
    assert.same({ { "nobody", "not_found" } }, { { result.errors[1].id, result.errors[1].reason } })
    assert.is_false(process.alive(pid))
    assert.is_nil(phub.get_pid(hub, "c2"))
    assert.is_truthy(phub.get_pid(hub, "c3"))
    assert.equal("ok", stop({ "c3" }).status)
  end))

  it("stops an id once that is named twice", test(function()
    start { children.spec "a" }
    local result = stop { "a", "a" }
    assert.same({ { id = "a", nodes = { node.self() } } }, result.stopped)
    assert.same({}, result.errors)
  end))

  it("knows no child by an id that is too long or empty", test(function()
    local long = ("x"):rep(2048)
    local result = stop { long, "" }
    local here = node.self()
    assert.same({ { id = long, node = here, reason = "not_found" }, { id = "", node = here, reason = "not_found" } },
      result.errors)
    start { children.spec "a" }
    result = stop { "a", long }
    assert.equal("a", result.stopped[1].id)
    assert.equal(long, result.errors[1].id)
  end))

  it("resolves within its timeout, and what had not started does not run later", test(function()
    local before = process.now()
    local result = start({ children.spec "a",
      { id = "slow", start = { "spec.support.children", "slow", { 400 } } } }, { timeout = 100 })
    assert.is_true(process.now() - before < 350)
    assert.same({ "a" }, ids(result.started))
    assert.same({ { id = "slow", reason = "node_receive_timeout" } },
      { { id = result.errors[1].id, reason = result.errors[1].reason } })
    process.sleep(450)
    assert.is_nil(phub.child_lookup(hub, "slow"))
    assert.is_nil(phub.process_list(hub, "local").slow)
  end))

  it("names the node in every error, whatever the reason", test(function()
    start { children.spec "a" }
    local result = start({ children.spec "a", { id = "slow", start = { "spec.support.children", "slow", { 300 } } },
      { id = "no", start = { "spec.support.children", "refuse", { "no" } } },
      { id = "none", start = { "spec.support.nowhere", "start" } } }, { check_existing = false, timeout = 50 })
    local here, seen = phub.node.self(), {}
    for _, e in ipairs(result.errors) do seen[#seen + 1] = { e.id, e.node, e.reason } end
    assert.same({ { "a", here, "already_started" }, { "slow", here, "node_receive_timeout" }, { "no", here, "no" },
      { "none", here, "module_not_found" } }, seen)
    result = await(phub.stop_children(hub, { "nobody", ("x"):rep(2000), "a" }, { awaitable = true }))
    assert.same({ here, here }, { result.errors[1].node, result.errors[2].node })
    assert.equal(2, #result.errors)
  end))

  it("rolls back when asked", test(function()
    local result = start({ children.spec "a",
      { id = "b", start = { "spec.support.children", "refuse", { "no" } } } }, { on_failure = "rollback" })
    assert.is_true(result.rollback)
    assert.equal("error", result.status)
    assert.same({ "a" }, ids(result.started))
    assert.is_nil(phub.child_lookup(hub, "a"))
    assert.is_nil(phub.get_pid(hub, "a"))
  end))

  it("rolls back within await_timeout, and says when that was too short", test(function()
    local deaf = { id = "deaf", start = { "spec.support.children", "deaf" }, shutdown = 400 }
    local no = { id = "no", start = { "spec.support.children", "refuse", { "no" } } }
    local before = process.now()
    local result = start({ deaf, no }, { on_failure = "rollback", await_timeout = 100 })
    assert.is_true(process.now() - before < 350)
    assert.same({ "error", false }, { result.status, result.rollback })
    assert.same({ { "deaf" }, "no" }, { ids(result.started), result.errors[1].id })
    while phub.process_list(hub, "local").deaf do process.sleep(5) end
    result = start({ deaf, no }, { on_failure = "rollback" })
    assert.is_true(result.rollback)
    assert.same({}, phub.process_list(hub))
  end))

  it("rolls back what started when another id runs already", test(function()
    start { children.spec "a" }
    local pid = phub.get_pid(hub, "a")
    local result = start({ children.spec "b", children.spec "a" }, { on_failure = "rollback", check_existing = false })
    assert.is_true(result.rollback)
    assert.same({ "b" }, ids(result.started))
    assert.equal("already_started", result.errors[1].reason)
    assert.equal(pid, phub.get_pid(hub, "a"))
    assert.is_nil(phub.child_lookup(hub, "b"))
  end))

  it("bounds the whole by await_timeout", test(function()
    local before = process.now()
    local result = start({ { id = "slow", start = { "spec.support.children", "slow", { 400 } } } },
      { await_timeout = 50, timeout = 10000 })
    assert.is_true(process.now() - before < 350)
    assert.equal("node_receive_timeout", result.errors[1].reason)
    assert.is_nil(phub.child_lookup(hub, "slow"))
  end))

  it("takes any time: none, fractions, for ever", test(function()
    local slow = { id = "slow", start = { "spec.support.children", "slow", { 20 } } }
    assert.equal("node_receive_timeout", start({ slow }, { timeout = 0 }).errors[1].reason)
    assert.equal("node_receive_timeout", start({ slow }, { timeout = 0.5 }).errors[1].reason)
    local result = start({ slow }, { timeout = math.huge, await_timeout = math.huge })
    assert.equal("ok", result.status)
    assert.equal("ok", await(phub.stop_child(hub, "slow", { awaitable = true, timeout = math.huge })).status)
  end))

  it("resolves a stop within its timeout; the child ends all the same", test(function()
    start { { id = "deaf", start = { "spec.support.children", "deaf" }, shutdown = 300 } }
    local pid = phub.get_pid(hub, "deaf")
    for _, options in ipairs { { timeout = 50 }, { await_timeout = 50 } } do
      options.awaitable = true
      local before = process.now()
      local result = await(phub.stop_child(hub, "deaf", options))
      assert.is_true(process.now() - before < 250)
      assert.equal("error", result.status)
      assert.is_truthy(({ node_receive_timeout = true, not_found = true })[result.errors[1].reason])
    end
    while process.alive(pid) do process.sleep(5) end
    assert.is_nil(phub.child_lookup(hub, "deaf"))
  end))

  it("sets init_cids by itself, whatever it is given", test(function()
    local options = { awaitable = true, init_cids = { "x" } }
    assert.same({ "a" }, await(phub.start_children(hub, { children.spec "a" }, options)):cids())
    assert.same({ "x" }, options.init_cids)
  end))

  it("leaves the tables that it is given as they are", test(function()
    local spec, options = children.spec("a", { list = { 1 } }), { awaitable = true, metadata = { tag = "t" } }
    await(phub.start_child(hub, spec, options))
    assert.same(children.spec("a", { list = { 1 } }), spec)
    assert.same({ awaitable = true, metadata = { tag = "t" } }, options)
    spec.start[3][1].list[1] = "changed"
    options.metadata.tag = "changed"
    local got, _, metadata = phub.child_lookup(hub, "a", { with_metadata = true })
    assert.same({ 1, "t" }, { got.start[3][1].list[1], metadata.tag })
  end))

  it("stops a child whose start it has just asked for", test(function()
    for i = 1, 50 do
      local id = "a" .. i
      assert.equal("start_initiated", phub.start_child(hub, children.spec(id), { disable_logging = true }))
      assert.same({ id }, ids(stop({ id }).stopped))
    end
    assert.same({}, phub.process_list(hub))
  end))

  it("formats the result with async_wait", test(function()
    local entry = await(phub.start_child(hub, children.spec "a", { async_wait = true }))
    assert.same({ id = "a", instances = { [node.self()] = phub.get_pid(hub, "a") } }, entry)
    local list = await(phub.start_children(hub, children.specs(2), { async_wait = true }))
    assert.same({ "c1", "c2" }, ids(list))
    assert.same({ id = "a", nodes = { node.self() } }, await(phub.stop_child(hub, "a", { async_wait = true })))
    local failed = assert(phub.start_child(hub,
      { id = "b", start = { "spec.support.children", "refuse", { "no" } } }, { async_wait = true }))
    local value, err = failed:await()
    assert.is_nil(value)
    assert.equal("start_failed", err.code)
    assert.equal("no", err.errors[1].reason)
    assert.same({ {}, false }, { err.started, err.rollback })
    value, err = assert(phub.stop_children(hub, { "c1", "nobody" }, { async_wait = true })):await()
    assert.is_nil(value)
    assert.same({ "stop_failed", "nobody", { "c1" } }, { err.code, err.errors[1].id, ids(err.stopped) })
    assert.same({ "c2" }, ids(await(phub.stop_children(hub, { "c2" }, { async_wait = true }))))
  end))

  it("waits for its future by phub.await too", test(function()
    assert.equal("ok", phub.await(phub.start_child(hub, children.spec "a", { awaitable = true })).status)
    assert.equal("invalid_await_input", select(2, phub.await "start_initiated").code)
    assert.equal("invalid_await_input", select(2, phub.await(nil)).code)
  end))

  it("starts the same id again after a stop, again and again", test(function()
    local seen = {}
    for _ = 1, 20 do
      assert.equal("ok", start({ children.spec "a" }).status)
      local pid = phub.get_pid(hub, "a")
      assert.is_nil(seen[tostring(pid)])
      seen[tostring(pid)] = true
      assert.equal("ok", stop({ "a" }).status)
    end
  end))

  it("takes thousands at once", test(function()
    local result = start(children.specs(5000))
    assert.equal("ok", result.status)
    assert.equal(5000, #result.started)
    local names = {}
    for i, entry in ipairs(result.started) do names[i] = entry.id end
    result = stop(names)
    assert.equal(5000, #result.stopped)
    assert.same({}, phub.process_list(hub))
  end))

  it("ends a hub while starts are under way, and the future resolves", test(function()
    local future = assert(phub.start_child(hub,
      { id = "slow", start = { "spec.support.children", "slow", { 60000 } } }, { awaitable = true }))
    process.sleep(10)
    phub.stop(hub)
    local result = assert(future:await(5000))
    assert.equal("slow", result.errors[1].id)
    hub = assert(phub.start_link { hub_id = "h" })
  end))

  it("works at the top level of a script, without phub.run", function()
    local h = assert(phub.start_link { hub_id = "top" })
    local result = assert(phub.start_child(h, children.spec "a", { awaitable = true })):await()
    assert.equal("ok", result.status)
    assert.same({}, phub.call(h, "a", "args"))
    assert.is_true(phub.stop(h))
  end)

  describe("what nobody waits for", function()
    after_each(os_process.finish)

    it("is logged when it fails, unless that is disabled", function()
      local p = os_process.lua [[
        local phub = require "phub"
        phub.run(function()
          local hub = assert(phub.start_link { hub_id = "logging" })
          local function try(id, options)
            hub:start_child({ id = id, start = { "spec.support.children", "refuse", { "because" } } }, options)
            local last = { id = id .. "2", start = { "spec.support.children", "start" } }
            hub:start_child(last, { awaitable = true }):await()
          end
          try("plain")
          try("quiet", { disable_logging = true })
          local spec = { id = "future", start = { "no.module", "f" } }
          assert(hub:start_child(spec, { awaitable = true }):await().status == "error")
          hub:stop_child "nobody"
          hub:stop()
        end)
      ]]
      assert.same({ code = 0 }, p:wait())
      assert.matches("hub logging: 1 of 1 children did not start; plain: because", p.errors)
      assert.is_nil(p.errors:find("quiet", 1, true))
      assert.is_nil(p.errors:find("future", 1, true))
    end)
  end)
end)
