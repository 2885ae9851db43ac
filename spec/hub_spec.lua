local phub = require "phub"
local process = require "phub.process"
local gen_server = require "phub.gen_server"
local node = require "phub.node"
local children = require "spec.support.children"

-- Waits inside a phub process until fn answers something true.
local function eventually(fn, ms)
  local deadline = process.now() + (ms or 5000)
  while true do
    local value = fn()
    if value then return value end
    assert(process.now() < deadline, "not in time")
    process.sleep(2)
  end
end

describe("a hub", function()
  local hub

  -- A test inside a process, with a hub that ends with it.
  local function test(fn)
    return function()
      phub.run(function()
        hub = assert(phub.start_link { hub_id = "h" })
        local ok, err = xpcall(fn, function(e) return e end)
        if phub.is_alive(hub) then assert(phub.stop(hub)) end
        if not ok then error(err, 0) end
      end)
    end
  end

  local function start(specs, options)
    options = options or {}
    options.awaitable = true
    local future, err = phub.start_children(hub, specs, options)
    assert(future, tostring(err))
    return assert(future:await())
  end

  describe("object", function()
    it("has its id and its supervisor's pid", test(function()
      assert.equal("h", hub.hub_id)
      assert.is_true(process.alive(hub.pid))
      assert.equal(node.self(), hub.pid.node)
      assert.is_nil(hub.no_such_field)
    end))

    it("prints as what it is, ended or not", test(function()
      assert.equal("phub.hub: h", tostring(hub))
      phub.stop(hub)
      assert.equal("phub.hub: h (ended)", tostring(hub))
    end))

    it("and its id are the same to every function, as method too", test(function()
      start { children.spec "a" }
      local pid = phub.get_pid(hub, "a")
      assert.is_truthy(pid)
      assert.equal(pid, phub.get_pid("h", "a"))
      assert.equal(pid, hub:get_pid "a")
    end))

    it("of a hub that has ended stays ended when another takes its id", test(function()
      local old = hub
      phub.stop(old)
      hub = assert(phub.start_link { hub_id = "h" })
      assert.is_false(phub.is_alive(old))
      assert.is_true(phub.is_alive(hub))
      assert.is_true(phub.is_alive "h")
      assert.not_equal(old, hub)
      assert.equal("not_alive", select(2, old:get_pid "a").code)
    end))
  end)

  describe("start", function()
    it("refuses a second hub of the same id on this node", test(function()
      local second, err = phub.start_link { hub_id = "h" }
      assert.is_nil(second)
      assert.equal("already_started", err.code)
    end))

    it("lets hubs of different ids run side by side", test(function()
      local other = assert(phub.start_link { hub_id = "other" })
      start { children.spec "a" }
      assert.is_nil(other:get_pid "a")
      assert.same({}, other:process_list())
      assert.is_true(other:stop())
    end))

    it("lets many hubs run side by side, each with all ids of its own", test(function()
      local hubs = {}
      for i = 1, 20 do
        hubs[i] = assert(phub.start_link { hub_id = "many" .. i })
        assert(hubs[i]:start_children(children.specs(5), { awaitable = true, metadata = { tag = "t" } }))
      end
      local seen = {}
      for i, h in ipairs(hubs) do
        eventually(function() return h:get_pid "c5" and h:get_pid "c1" end)
        for id, pid in pairs(h:process_list "local") do
          assert.is_nil(seen[pid])
          seen[pid] = id
          h:cast(id, i)
        end
      end
      for i, h in ipairs(hubs) do
        assert.same({ i }, h:call("c3", "seen"))
        assert.equal("c3", next { c3 = h:tag_query("t").c3 })
        assert.is_true(h:stop())
        if hubs[i + 1] then assert.same({ i + 1 }, hubs[i + 1]:call("c1", "seen")) end
      end
      assert.is_true(phub.is_alive(hub))
    end))

    it("starts its static children by itself", function()
      phub.run(function()
        local static = assert(phub.start_link { hub_id = "static", child_specs = children.specs(3) })
        eventually(function() return static:get_pid "c1" and static:get_pid "c2" and static:get_pid "c3" end)
        static:stop()
      end)
    end)

    it("refuses a static child that is wrong, and nothing runs", function()
      phub.run(function()
        local specs = { children.spec "a", { id = "b", start = { "os", "exit", { 1 } } } }
        local got, err = phub.start_link { hub_id = "static", child_specs = specs }
        assert.is_nil(got)
        assert.same({ "invalid_child_spec", "start", "b", 2 }, { err.code, err.key, err.id, err.index })
        assert.is_false(phub.is_alive "static")
        got, err = phub.start_link { hub_id = "static", child_specs = { children.spec "a", children.spec "a" } }
        assert.is_nil(got)
        assert.same({ "duplicate_child_id", "a" }, { err.code, err.id })
      end)
    end)
  end)

  describe("stop", function()
    it("ends the children and the hub", test(function()
      start(children.specs(10))
      local pids = {}
      for id, pid in pairs(hub:process_list "local") do pids[id] = pid end
      assert.equal(10, select(2, tostring(next(pids)) and 1, 10))
      assert.is_true(phub.stop(hub))
      for _, pid in pairs(pids) do assert.is_false(process.alive(pid)) end
      assert.is_false(phub.is_alive(hub))
      assert.is_false(process.alive(hub.pid))
    end))

    it("answers not_alive for a hub that has ended, and for one that never was", test(function()
      phub.stop(hub)
      assert.equal("not_alive", select(2, phub.stop(hub)).code)
      assert.equal("not_alive", select(2, phub.stop "never").code)
    end))

    it("waits for the end, whoever asked first", test(function()
      start(children.specs(3))
      local done = 0
      for _ = 1, 3 do
        process.spawn(function()
          phub.stop(hub)
          done = done + 1
        end)
      end
      eventually(function() return done == 3 end)
      assert.is_false(phub.is_alive(hub))
    end))
  end)

  describe("reads", function()
    it("give the spec as it was given, and the instances", test(function()
      local spec = { id = "a", start = { "spec.support.children", "start", { { x = 1.0, y = 1 } } },
        restart = "transient", shutdown = 100, modules = { "m" } }
      start { spec }
      local got, instances, metadata = phub.child_lookup(hub, "a")
      assert.same(spec, got)
      assert.equal("float", math.type(got.start[3][1].x))
      assert.same({ [node.self()] = phub.get_pid(hub, "a") }, instances)
      assert.is_nil(metadata)
    end))

    it("give metadata when asked", test(function()
      start({ children.spec "a" }, { metadata = { tag = "t", n = { 1, 2 } } })
      start { children.spec "b" }
      local _, _, metadata, waiting = phub.child_lookup(hub, "a", { with_metadata = true })
      assert.same({ tag = "t", n = { 1, 2 } }, metadata)
      assert.is_nil(waiting)
      assert.same({}, (select(3, phub.child_lookup(hub, "b", { with_metadata = true }))))
    end))

    it("hand out copies", test(function()
      start { children.spec("a", { list = { 1 } }) }
      local spec, instances = phub.child_lookup(hub, "a")
      spec.start[3][1].list[1] = "changed"
      instances[node.self()] = nil
      local again, same = phub.child_lookup(hub, "a")
      assert.equal(1, again.start[3][1].list[1])
      assert.is_truthy(same[node.self()])
    end))

    it("know nothing of an id that is not there", test(function()
      assert.is_nil(phub.child_lookup(hub, "a"))
      assert.is_nil(phub.get_pid(hub, "a"))
      assert.same({}, phub.get_pids(hub, "a"))
      assert.is_nil(phub.get_pid(hub, ("x"):rep(2048)))
      assert.is_nil(phub.get_pid(hub, ""))
    end))

    it("list the processes, global and local", test(function()
      start(children.specs(3))
      local a = phub.get_pid(hub, "c1")
      assert.same({ a }, phub.get_pids(hub, "c1"))
      local global, here = phub.process_list(hub), phub.process_list(hub, "local")
      assert.same({ [node.self()] = a }, global.c1)
      assert.equal(a, here.c1)
      for _, id in ipairs { "c1", "c2", "c3" } do
        assert.is_truthy(global[id])
        assert.is_truthy(here[id])
      end
      assert.same(global, phub.process_list(hub, "global"))
    end))

    it("dump the registry, with and without metadata", test(function()
      start({ children.spec "a" }, { metadata = { k = 1 } })
      local pid = phub.get_pid(hub, "a")
      local dump = phub.registry_dump(hub)
      assert.same({ a = { spec = children.spec "a", instances = { [node.self()] = pid }, metadata = { k = 1 } } }, dump)
      dump.a.metadata = nil
      assert.same(dump, phub.process_registry(hub))
    end))

    it("list the children here with type and modules", test(function()
      start { children.spec "a", { id = "b", start = { "spec.support.children", "start" },
        type = "supervisor", modules = { "x", "y" } } }
      local list = phub.which_children(hub)
      assert.equal(node.self(), list.node)
      table.sort(list.children, function(x, y) return x.id < y.id end)
      assert.same({
        { id = "a", pid = phub.get_pid(hub, "a"), type = "worker", modules = { "spec.support.children" } },
        { id = "b", pid = phub.get_pid(hub, "b"), type = "supervisor", modules = { "x", "y" } },
      }, list.children)
      assert.same({ node.self() }, { phub.which_children(hub, "local").node })
      local all = phub.which_children(hub, "global")
      assert.same({ 1, node.self(), 2 }, { #all, all[1].node, #all[1].children })
      assert.is_nil(all[1].error)
    end))

    it("find children by their tag", test(function()
      start({ children.spec "a", children.spec "b" }, { metadata = { tag = "red", n = 1 } })
      start({ children.spec "c" }, { metadata = { tag = "blue" } })
      start({ children.spec "d" }, { metadata = { colour = "red" } })
      start { children.spec "e" }
      local name = node.self()
      assert.same({ a = { [name] = hub:get_pid "a" }, b = { [name] = hub:get_pid "b" } }, hub:tag_query "red")
      assert.same({ c = { [name] = hub:get_pid "c" } }, phub.tag_query("h", "blue"))
      for _, tag in ipairs { "", "tag", "Red", ("x"):rep(5000) } do assert.same({}, hub:tag_query(tag)) end
      assert(phub.stop_child(hub, "a", { awaitable = true })):await()
      start({ children.spec "a" }, { metadata = { tag = "blue" } })
      assert.same({ b = { [name] = hub:get_pid "b" } }, hub:tag_query "red")
      assert.same({ a = { [name] = hub:get_pid "a" }, c = { [name] = hub:get_pid "c" } }, hub:tag_query "blue")
      hub:tag_query("blue").a[name] = nil
      assert.is_truthy(hub:tag_query("blue").a[name])
    end))

    it("find a tag that is any string, and one that waits for its child", test(function()
      local long = ("tag"):rep(3000)
      start({ children.spec "zero" }, { metadata = { tag = "a\0b" } })
      start({ children.spec "bytes" }, { metadata = { tag = "\xff\xfe" } })
      start({ children.spec "empty" }, { metadata = { tag = "" } })
      start({ children.spec "long" }, { metadata = { tag = long } })
      for id, tag in pairs { zero = "a\0b", bytes = "\xff\xfe", empty = "", long = long } do
        assert.same({ [id] = { [node.self()] = hub:get_pid(id) } }, hub:tag_query(tag))
      end
      assert.same({}, hub:tag_query "a")
      phub.start_child(hub, { id = "slow", start = { "spec.support.children", "slow", { 50 } } },
        { metadata = { tag = "slow" } })
      eventually(function() return phub.child_lookup(hub, "slow") end)
      assert.same({ slow = {} }, hub:tag_query "slow")
      eventually(function() return next(hub:tag_query("slow").slow) end)
    end))

    it("find a tag at a cost that other children do not add to", test(function()
      start(children.specs(20000, "x"), { metadata = { tag = "many" } })
      start(children.specs(10, "y"), { metadata = { tag = "few" } })
      local function seconds(tag, n)
        local began = os.clock()
        for _ = 1, n do hub:tag_query(tag) end
        return (os.clock() - began) / n
      end
      seconds("few", 100)
      local few, many = seconds("few", 500), seconds("many", 1)
      assert.is_true(few < many / 50, ("%g against %g s"):format(few, many))
    end))

    it("give ids of any bytes", test(function()
      local specs = {}
      for i, id in ipairs { "a\0b", "\0", "\xff", "snow\u{2603}", ("x"):rep(1024) } do specs[i] = children.spec(id) end
      assert.equal("ok", start(specs).status)
      for _, spec in ipairs(specs) do
        assert.same(spec, (hub:child_lookup(spec.id)))
        assert.is_truthy(hub:get_pid(spec.id))
        assert.same({}, hub:call(spec.id, "args"))
        assert.is_truthy(hub:process_list()[spec.id])
      end
      assert.is_nil(hub:get_pid "a")
    end))

    it("say why a child does not run", test(function()
      package.loaded["spec.once"] = { start = function()
        if package.loaded["spec.once"].ran then return nil, "no more" end
        package.loaded["spec.once"].ran = true
        return children.start()
      end }
      start { { id = "a", start = { "spec.once", "start" } }, children.spec "b" }
      hub:cast("a", "crash")
      eventually(function() return select(4, hub:child_lookup("a", { with_metadata = true })) == "backoff" end)
      package.loaded["spec.once"] = nil
      local spec, instances, metadata, waiting = hub:child_lookup("a", { with_metadata = true })
      assert.same({ "a", {}, {}, "backoff" }, { spec.id, instances, metadata, waiting })
      assert.equal(2, select("#", hub:child_lookup "a"))
      assert.is_nil(hub:get_pid "a")
      assert.same({}, hub:get_pids "a")
      assert.same({}, hub:process_list().a)
      assert.is_nil(hub:process_list "local".a)
      assert.is_nil((select(4, hub:child_lookup("b", { with_metadata = true }))))
    end))

    it("answer about the hub itself", test(function()
      assert.same({}, phub.nodes(hub))
      assert.same({ node.self() }, phub.nodes(hub, { include_local = true }))
      assert.is_true(phub.is_alive(hub))
      assert.is_false(phub.is_alive "no such hub")
      assert.is_false(phub.is_locked(hub))
      assert.is_false(phub.is_partitioned(hub))
    end))
  end)

  describe("supervisor", function()
    it("restarts a child that fails, under its id", test(function()
      start { children.spec "a" }
      local old = phub.get_pid(hub, "a")
      phub.cast(hub, "a", "crash")
      local new = eventually(function()
        local pid = phub.get_pid(hub, "a")
        return pid and pid ~= old and pid
      end)
      assert.is_true(process.alive(new))
      assert.same({ new }, phub.get_pids(hub, "a"))
    end))

    it("restarts as the spec says", test(function()
      local specs = {}
      for _, restart in ipairs { "permanent", "transient", "temporary" } do
        local spec = children.spec(restart)
        spec.restart = restart
        specs[#specs + 1] = spec
      end
      start(specs)
      local old = phub.process_list(hub, "local")
      for id in pairs(old) do phub.call(hub, id, { "exit", "normal" }) end
      eventually(function()
        local now = phub.process_list(hub, "local")
        return now.permanent and now.permanent ~= old.permanent and not now.transient and not now.temporary
      end)
    end))

    it("starts all children again past its limit, if told to", function()
      phub.run(function()
        local h = assert(phub.start_link { hub_id = "all", dsup_limit_action = "restart_all", dsup_max_restarts = 2 })
        assert(h:start_children(children.specs(5), { awaitable = true })):await()
        local before = h:process_list "local"
        local function crash(id)
          local old = h:get_pid(id)
          h:cast(id, "crash")
          eventually(function() return h:get_pid(id) and h:get_pid(id) ~= old end)
        end
        for _ = 1, 2 do crash "c1" end
        assert.equal(before.c2, h:get_pid "c2")
        crash "c1"
        eventually(function()
          local now, n = h:process_list "local", 0
          for id, pid in pairs(before) do n = n + (now[id] and now[id] ~= pid and 1 or 0) end
          return n == 5
        end)
        assert(h:stop())
      end)
    end)

    it("links the children to itself", test(function()
      start { children.spec "a" }
      local pid = phub.get_pid(hub, "a")
      assert.is_true(process.alive(pid))
      process.kill(pid, "kill")
      eventually(function() return phub.get_pid(hub, "a") ~= pid and phub.get_pid(hub, "a") end)
    end))
  end)

  describe("messages by id", function()
    it("reach the child: call, cast and send", test(function()
      start { children.spec("a", { k = "v" }) }
      assert.same({ k = "v" }, phub.call(hub, "a", "args"))
      assert.is_true(phub.cast(hub, "a", "one"))
      assert.is_true(phub.send(hub, "a", "two"))
      assert.is_true(hub:cast("a", "three"))
      assert.same({ "one", "two", "three" }, phub.call(hub, "a", "seen"))
    end))

    it("go the same way by gen_server's { hub, child }", test(function()
      start { children.spec "a" }
      assert.is_true(gen_server.cast({ hub = "h", child = "a" }, "one"))
      assert.is_true(gen_server.cast({ hub = hub, child = "a" }, "two"))
      assert.same({ "one", "two" }, gen_server.call({ hub = hub, child = "a" }, "seen"))
      assert.equal("no_child", select(2, gen_server.call({ hub = hub, child = "b" }, "seen")).code)
    end))

    it("to an unknown id answer no_child", test(function()
      assert.equal("no_child", select(2, phub.call(hub, "nobody", "args")).code)
      assert.equal("no_child", select(2, phub.cast(hub, "nobody", "args")).code)
      assert.equal("no_child", select(2, phub.send(hub, "nobody", "args")).code)
      assert.equal("no_child", select(2, phub.call(hub, ("x"):rep(2048), "args")).code)
    end))

    it("wait while the child is being started, in the sender's order", test(function()
      assert.equal("start_initiated", phub.start_child(hub,
        { id = "a", start = { "spec.support.children", "slow", { 50 } } }))
      eventually(function() return phub.child_lookup(hub, "a") end)
      assert.is_nil(phub.get_pid(hub, "a"))
      for i = 1, 20 do assert.is_true(phub.cast(hub, "a", i)) end
      local seen = phub.call(hub, "a", "seen")
      assert.equal(20, #seen)
      for i = 1, 20 do assert.equal(i, seen[i]) end
    end))

    it("are copied when they are sent, not when the child is there", test(function()
      phub.start_child(hub, { id = "a", start = { "spec.support.children", "slow", { 50 } } })
      eventually(function() return phub.child_lookup(hub, "a") end)
      local message = { text = "before" }
      assert.is_true(phub.cast(hub, "a", message))
      message.text = "after"
      assert.same({ { text = "before" } }, phub.call(hub, "a", "seen"))
    end))

    it("time out, and say so", test(function()
      start { children.spec "a" }
      local before = process.now()
      local reply, err = phub.call(hub, "a", { "sleep", 500 }, 30)
      assert.is_nil(reply)
      assert.equal("timeout", err.code)
      assert.is_true(process.now() - before < 400)
      phub.start_child(hub, { id = "b", start = { "spec.support.children", "slow", { 300 } } })
      eventually(function() return phub.child_lookup(hub, "b") end)
      assert.equal("timeout", select(2, phub.call(hub, "b", "args", 20)).code)
      assert.same({}, phub.call(hub, "b", "args"))
    end))

    it("tell a call that the child ended while it handled it", test(function()
      start { children.spec "a" }
      local reply, err = phub.call(hub, "a", "crash")
      assert.is_nil(reply)
      assert.equal("exit", err.code)
      assert.equal("error", err.reason[1])
    end))

    it("of a caller that is killed while it waits leave nothing behind", test(function()
      phub.start_child(hub, { id = "a", start = { "spec.support.children", "slow", { 100 } } })
      eventually(function() return phub.child_lookup(hub, "a") end)
      local caller = process.spawn(function() phub.call(hub, "a", { "add", "killed" }) end)
      process.sleep(10)
      process.kill(caller, "kill")
      assert.same({}, phub.call(hub, "a", "seen"))
    end))

    it("that wait for a hub that ends get an answer", test(function()
      phub.start_child(hub, { id = "a", start = { "spec.support.children", "slow", { 60000 } } })
      eventually(function() return phub.child_lookup(hub, "a") end)
      local got
      process.spawn(function() got = table.pack(phub.call(hub, "a", "args", 10000)) end)
      process.sleep(10)
      phub.stop(hub)
      eventually(function() return got end)
      assert.is_nil(got[1])
      assert.is_truthy(({ not_alive = true, no_child = true })[got[2].code], got[2].code)
    end))

    it("keep a reply that is nil or false apart from an error", test(function()
      start { children.spec "a" }
      local reply, err = phub.call(hub, "a", "seen")
      assert.same({}, reply)
      assert.is_nil(err)
    end))
  end)
end)
