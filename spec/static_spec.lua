-- timeout: 300
-- The static children of a hub's configuration, and a hub whose node gets its name late.
local phub = require "phub"
local process = require "phub.process"
local children = require "spec.support.children"
local cluster = require "spec.support.cluster"
local eventually = require "spec.support.eventually"
local os_process = require "spec.support.os_process"

describe("static children on one node", function()
  local hub

  local function test(config, fn)
    return function()
      phub.run(function()
        config.hub_id = "static"
        hub = assert(phub.start_link(config))
        local ok, err = xpcall(fn, function(e) return e end)
        assert(phub.stop(hub))
        if not ok then error(err, 0) end
      end)
    end
  end

  local function wait_for(fn, ms)
    local deadline = process.now() + (ms or 5000)
    while not fn() do
      assert(process.now() < deadline, "not in time")
      process.sleep(2)
    end
  end

  it("run once the hub does", test({ child_specs = children.specs(50) }, function()
    wait_for(function()
      local n = 0
      for _ in pairs(hub:process_list "local") do n = n + 1 end
      return n == 50
    end)
    assert.same(children.spec "c7", (hub:child_lookup "c7"))
    assert.same({}, (select(3, hub:child_lookup("c7", { with_metadata = true }))))
  end))

  it("stop and start as any other", test({ child_specs = children.specs(1) }, function()
    wait_for(function() return hub:get_pid "c1" end)
    assert.equal("already_started", select(2, hub:start_child(children.spec "c1")).code)
    assert.equal("ok", hub:stop_child("c1", { awaitable = true }):await().status)
    process.sleep(50)
    assert.is_nil(hub:child_lookup "c1")
    assert.equal("ok", hub:start_child(children.spec "c1", { awaitable = true }):await().status)
  end))

  it("that fail are tried again, later and later", test({
    child_specs = { { id = "late", start = { "spec.late", "start" } }, children.spec "fine" },
  }, function()
    local tries = {}
    package.loaded["spec.late"] = { start = function()
      tries[#tries + 1] = process.now()
      if #tries < 3 then return nil, "not yet" end
      return children.start()
    end }
    wait_for(function() return hub:get_pid "fine" end)
    wait_for(function()
      return select(4, hub:child_lookup("late", { with_metadata = true })) == "backoff"
    end)
    assert.same({}, (select(2, hub:child_lookup "late")))
    wait_for(function() return hub:get_pid "late" end, 10000)
    package.loaded["spec.late"] = nil
    assert.is_true(#tries == 3)
    assert.is_true(tries[2] - tries[1] >= 990 and tries[3] - tries[2] >= 1990)
    assert.is_nil((select(4, hub:child_lookup("late", { with_metadata = true }))))
  end))

  it("refuse the hub when one is wrong in itself, and nothing has run", function()
    phub.run(function()
      local started = false
      package.loaded["spec.noted"] = { start = function()
        started = true
        return children.start()
      end }
      local good = { id = "good", start = { "spec.noted", "start" } }
      for _, case in ipairs {
        { { good, { id = "b" } }, "invalid_child_spec", "start", 2 },
        { { good, { id = "b", start = { "m", "f", { print } } } }, "not_serialisable", "start", 2 },
        { { good, children.spec "b", good }, "duplicate_child_id", nil, 3 },
      } do
        local got, err = phub.start_link { hub_id = "static", child_specs = case[1] }
        assert.is_nil(got)
        assert.same({ case[2], case[3], case[4] }, { err.code, err.key, err.index })
        assert.is_false(phub.is_alive "static")
      end
      process.sleep(20)
      assert.is_false(started)
      package.loaded["spec.noted"] = nil
    end)
  end)

  it("of one hub are not those of another", function()
    phub.run(function()
      local one = assert(phub.start_link { hub_id = "one", child_specs = { children.spec("a", { from = 1 }) } })
      local two = assert(phub.start_link { hub_id = "two", child_specs = { children.spec("a", { from = 2 }) } })
      wait_for(function() return one:get_pid "a" and two:get_pid "a" end)
      assert.equal(1, one:call("a", "args").from)
      assert.equal(2, phub.call("two", "a", "args").from)
      assert.not_equal(one:get_pid "a", two:get_pid "a")
      assert.is_true(one:stop())
      assert.equal(2, two:call("a", "args").from)
      assert.equal("not_alive", select(2, phub.call("one", "a", "args")).code)
      assert.is_true(two:stop())
    end)
  end)
end)

describe("static children of a cluster", function()
  local c
  after_each(function() c:stop() end)

  local function config(...)
    local specs = {}
    for i, spec in ipairs { ... } do
      specs[i] = ('{ id = %q, start = { "spec.support.children", "start", { { from = %q } } } }'):format(
        spec[1], spec[2])
    end
    return ('{ hub_id = "h", child_specs = { %s } }'):format(table.concat(specs, ", "))
  end

  local from = [[
    local from = {}
    for id, instances in pairs(hub:process_list()) do
      from[id] = next(instances) and hub:child_lookup(id).start[3][1].from
    end
    return from
  ]]

  it("that it knows are left alone, those that were stopped too", function()
    c = cluster.start(1, { hub = config({ "a", "first" }, { "b", "first" }) })
    eventually(function() return c[1]:eval [[ return hub:get_pid "a" and hub:get_pid "b" and true ]] end)
    assert.equal("ok", c[1]:eval [[ return hub:stop_child("b", { awaitable = true }):await().status ]])
    c:add { hub = config({ "a", "second" }, { "b", "second" }, { "c", "second" }) }
    for _, node in ipairs(c) do
      eventually(function()
        assert.same({ a = "first", c = "second" }, node:eval(from))
        return true
      end)
    end
    c[1]:eval [[ phub.process.sleep(300) ]]
    for _, node in ipairs(c) do assert.same({ a = "first", c = "second" }, node:eval(from)) end
  end)

  it("run once, however many nodes begin with them at once", function()
    local specs = {}
    for i = 1, 20 do specs[i] = { "s" .. i, "all" } end
    c = cluster.start(0, { hub = config(table.unpack(specs)) })
    local first = c:add()
    c:launch()
    c:launch()
    for i = 2, 3 do c[i]:ready() end
    c:settle()
    assert.is_truthy(first)
    for _, node in ipairs(c) do
      eventually(function()
        local n = 0
        for _, who in pairs(node:eval(from)) do n = n + (who == "all" and 1 or 0) end
        return n == 20
      end)
    end
    local total = 0
    for _, node in ipairs(c) do
      total = total + node:eval [[
        local n = 0
        for _ in pairs(hub:process_list "local") do n = n + 1 end
        return n
      ]]
    end
    assert.equal(20, total)
  end)
end)

describe("a hub started before its node", function()
  after_each(os_process.finish)

  it("takes the node's name, and every pid that was held stays good", function()
    local p = os_process.lua([[
      local suffix = ...
      local phub = require "phub"
      local children = require "spec.support.children"
      local process = require "phub.process"
      phub.run(function()
        local hub = assert(phub.start_link { hub_id = "h" })
        assert(hub:start_children(children.specs(20), { awaitable = true, metadata = { tag = "t" } })):await()
        local before, sup = hub:process_list "local", hub.pid
        local slow = assert(hub:start_child({ id = "slow", start = { "spec.support.children", "slow", { 100 } } },
          { awaitable = true }))
        assert(select(2, hub:promote_to_node()).code == "node_not_started")
        assert(select(2, hub:promote_to_node("late@127.0.0.1")).code == "node_not_started")
        local name = "late" .. suffix .. "@127.0.0.1"
        assert(phub.node.start { name = name })
        assert(hub:promote_to_node() and hub:promote_to_node(name))
        assert(select(2, hub:promote_to_node("other@127.0.0.1")).code == "invalid_argument")
        local after = hub:process_list "local"
        for id, pid in pairs(before) do
          assert(after[id] == pid and pid.node == name and process.alive(pid))
          assert(hub:process_list()[id][name] == pid)
          assert(phub.gen_server.call(pid, "where").pid == pid)
        end
        assert(sup == hub.pid and sup.node == name)
        assert(slow:await():node() == name)
        assert(hub:tag_query("t").c7[name] == before.c7)
        assert(hub:nodes({ include_local = true })[1] == name and hub:which_children().node == name)
        hub:cast("c7", "crash")
        while hub:get_pid "c7" == before.c7 or not hub:get_pid "c7" do process.sleep(1) end
        print("ready", phub.node.address())
        local here, elsewhere
        repeat
          process.sleep(5)
          here, elsewhere = 0, 0
          for _, instances in pairs(hub:process_list()) do
            if instances[name] then here = here + 1 end
            if next(instances) and not instances[name] then elsewhere = elsewhere + 1 end
          end
        until elsewhere > 0 and here + elsewhere == 21 and not hub:is_locked()
        print("shared", here, elsewhere)
        phub.node.stop()
      end)
    ]], { args = { tostring(require "luv".os_getpid()) }, name = "late node" })
    local address = p:expect "^ready%s+(%S+)$"
    local q = os_process.lua([[
      local suffix, address = ...
      local phub = require "phub"
      local process = require "phub.process"
      phub.run(function()
        local down
        phub.node.monitor(function(event) down = down or event == "nodedown" end)
        assert(phub.node.start { name = "second" .. suffix .. "@127.0.0.1", join = { address } })
        local hub = assert(phub.start_link { hub_id = "h" })
        local n = 0
        while n == 0 do
          process.sleep(5)
          for id in pairs(hub:process_list "local") do
            n = n + 1
            assert(hub:call(id, "where").node == phub.node.self())
          end
        end
        print "moved"
        while not down do process.sleep(1) end
      end)
    ]], { args = { tostring(require "luv".os_getpid()), address }, name = "second node" })
    q:expect "^moved$"
    local here, elsewhere = p:expect "^shared%s+(%d+)%s+(%d+)$"
    assert.equal(21, here + elsewhere)
    assert.is_true(tonumber(elsewhere) > 0)
    assert.same({ code = 0 }, p:wait())
    assert.same({ code = 0 }, q:wait())
  end)
end)
