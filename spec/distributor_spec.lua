-- timeout: 300
-- phub.distributor, and the functions of a hub that look at all its nodes.
local phub = require "phub"
local process = require "phub.process"
local node = require "phub.node"
local distributor = require "phub.distributor"
local children = require "spec.support.children"
local cluster = require "spec.support.cluster"
local eventually = require "spec.support.eventually"

local function ids(entries)
  local list = {}
  for i, entry in ipairs(entries) do list[i] = entry.id end
  table.sort(list)
  return list
end

describe("the distributor on one node", function()
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

  local function data(...)
    local list = {}
    for i, id in ipairs { ... } do list[i] = { spec = children.spec(id), metadata = { tag = id } } end
    return list
  end

  it("completes options, keeping what is there", function()
    local given = { timeout = 5, metadata = { tag = "t" }, awaitable = false }
    assert.same({
      timeout = 5, metadata = { tag = "t" }, awaitable = false, async_wait = false, check_existing = true,
      on_failure = "continue", await_timeout = 60000, init_cids = {},
    }, distributor.default_init_opts(given))
    assert.same({ timeout = 5, metadata = { tag = "t" }, awaitable = false }, given)
    assert.same({
      timeout = 10000, metadata = {}, awaitable = false, async_wait = false, check_existing = true,
      on_failure = "continue", await_timeout = 60000, init_cids = {},
    }, distributor.default_init_opts())
    local one, two = distributor.default_init_opts(), distributor.default_init_opts()
    assert.not_equal(one.metadata, two.metadata)
    assert.not_equal(one.init_cids, two.init_cids)
  end)

  it("starts with completed options as with none", test(function()
    local options = distributor.default_init_opts { awaitable = true, metadata = { tag = "t" } }
    local result = assert(distributor.init_children(hub, { children.spec "a" }, options)):await()
    assert.same({ "a" }, result:cids())
    assert.same({ a = { [node.self()] = result:pid() } }, hub:tag_query "t")
    assert.equal("start_initiated", distributor.init_children(hub, { children.spec "b" }))
    assert.equal("already_started", select(2, distributor.init_children(hub, { children.spec "a" }, options)).code)
    local stopped = distributor.stop_children(hub, { "a", "b" }, { awaitable = true }):await()
    assert.same({ "a", "b" }, stopped:cids())
  end))

  it("redistributes: each with its own metadata, one answer for all", test(function()
    assert.equal("no_children_to_redistribute", distributor.children_redist_init(hub, node.self(), {}))
    assert.equal("redistribution_initiated", distributor.children_redist_init(hub, node.self(), data "first"))
    local result = assert(distributor.children_redist_init(hub, node.self(), data("a", "b"),
      distributor.default_init_opts { awaitable = true })):await()
    assert.equal("ok", result.status)
    assert.same({ "a", "b" }, result:cids())
    assert.same({ tag = "b" }, select(3, hub:child_lookup("b", { with_metadata = true })))
    assert.is_truthy(hub:get_pid "first")
  end))

  it("redistributes what runs already: it is left alone, and counts as started", test(function()
    assert(hub:start_child(children.spec "a", { awaitable = true })):await()
    local pid = hub:get_pid "a"
    local result = distributor.children_redist_init(hub, node.self(), data("b", "a"), { awaitable = true }):await()
    assert.equal("ok", result.status)
    assert.same({ { id = "b", instances = { [node.self()] = hub:get_pid "b" } },
      { id = "a", instances = { [node.self()] = pid } } }, result.started)
    assert.equal(pid, hub:get_pid "a")
    assert.same({}, select(3, hub:child_lookup("a", { with_metadata = true })))
  end))

  it("redistributes nothing when one of the entries is wrong", test(function()
    for _, case in ipairs {
      { { "x" }, "invalid_child_spec", nil, 1 },
      { { data "a"[1], {} }, "invalid_child_spec", nil, 2 },
      { { data "a"[1], { spec = { id = "b" } } }, "invalid_child_spec", "start", 2 },
      { { { spec = children.spec "a", meta = {} } }, "invalid_child_spec", "meta", 1 },
      { { { spec = children.spec "a", metadata = 1 } }, "invalid_child_spec", "metadata", 1 },
      { { { spec = children.spec "a", metadata = { tag = 1 } } }, "invalid_child_spec", "metadata.tag", 1 },
      { { data "a"[1], { spec = children.spec "b", metadata = { f = print } } }, "not_serialisable", "metadata", 2 },
      { data("a", "b", "a"), "duplicate_child_id", nil, 3 },
      { { spec = children.spec "a" }, "children_not_list" },
    } do
      local got, err = distributor.children_redist_init(hub, node.self(), case[1])
      assert.is_nil(got)
      assert.same({ case[2], case[3], case[4] }, { err.code, err.key, err.index })
    end
    local _, err = distributor.children_redist_init(hub, node.self(), data "a", { colour = 1 })
    assert.same({ "invalid_option", "colour" }, { err.code, err.key })
    assert.same({}, hub:process_list())
  end))

  it("terminates what runs here, and says what does not", test(function()
    assert(hub:start_children(children.specs(3), { awaitable = true })):await()
    local pids = hub:process_list "local"
    local results = assert(distributor.children_terminate(hub, { "c3", "nobody", "c1" }, nil, { timeout = 5000 }))
    assert.same({
      { id = "c3", result = "ok", node = node.self() },
      { id = "nobody", result = "not_found", node = node.self() },
      { id = "c1", result = "ok", node = node.self() },
    }, results)
    assert.is_false(process.alive(pids.c1))
    assert.is_true(process.alive(pids.c2))
    assert.is_nil(hub:child_lookup "c1")
    assert.same({}, distributor.children_terminate(hub, {}))
    assert.equal("ok", distributor.children_terminate(hub, { "c2" },
      phub.strategy.synchronization.pubsub {})[1].result)
    assert.same({}, hub:process_list())
  end))

  it("terminates a child that waits after it has failed again and again", test(function()
    package.loaded["spec.flaky"] = { start = function()
      if package.loaded["spec.flaky"].ran then return nil, "no more" end
      package.loaded["spec.flaky"].ran = true
      return children.start()
    end }
    assert(hub:start_child({ id = "f", start = { "spec.flaky", "start" } }, { awaitable = true })):await()
    hub:cast("f", "crash")
    while select(4, hub:child_lookup("f", { with_metadata = true })) ~= "backoff" do process.sleep(1) end
    assert.same({}, (select(2, hub:child_lookup "f")))
    assert.equal("ok", distributor.children_terminate(hub, { "f" })[1].result)
    assert.is_nil(hub:child_lookup "f")
    package.loaded["spec.flaky"] = nil
  end))

  it("refuses other strategies than those of synchronization", test(function()
    for _, case in ipairs {
      { phub.strategy.migration.cold_swap {}, "invalid_option" },
      { {}, "invalid_option" },
      { phub.strategy.synchronization.gossip {}, "not_supported" },
    } do
      local got, err = distributor.children_terminate(hub, { "a" }, case[1])
      assert.is_nil(got)
      assert.same({ case[2], "sync_strategy" }, { err.code, err.key })
    end
    assert.equal("children_not_list", select(2, distributor.children_terminate(hub, { "a", 1 })).code)
    assert.equal("timeout", select(2, distributor.children_terminate(hub, { "a" }, nil, { timeout = "x" })).key)
  end))

  it("lists the children of this node, and of all of them", test(function()
    assert(hub:start_children(children.specs(2), { awaitable = true })):await()
    local here = distributor.which_children_local(hub, { timeout = 1 })
    assert.equal(node.self(), here.node)
    assert.same({ "c1", "c2" }, ids(here.children))
    assert.same({ here }, distributor.which_children_global(hub, { timeout = 1000 }))
    assert.same({ here }, hub:which_children "global")
    assert.same(here, hub:which_children "local")
  end))
end)

describe("the distributor on three nodes", function()
  local c

  before_each(function()
    c = cluster.start(3)
    c:settle()
    eventually(function()
      for _, n in ipairs(c) do
        if #n:eval [[ return hub:nodes() ]] ~= 2 then return nil end
      end
      return true
    end)
    c[1]:eval [[
      local children = require "spec.support.children"
      assert(hub:start_children(children.specs(60), { awaitable = true, metadata = { tag = "t" } })):await()
    ]]
  end)
  after_each(function() c:stop() end)

  local global = [[
    local seen = {}
    for i, entry in ipairs(assert(phub.distributor.which_children_global(hub, ...))) do
      seen[i] = { node = entry.node, error = entry.error, n = entry.children and #entry.children }
      for _, child in ipairs(entry.children or {}) do
        assert(child.pid.node == entry.node and child.type == "worker")
        assert(child.modules[1] == "spec.support.children")
      end
    end
    return seen
  ]]

  it("lists the children of every node, right after they were started", function()
    local total = 0
    local seen = c[3]:eval(global)
    for i, entry in ipairs(seen) do
      assert.equal(c[i].name, entry.node)
      assert.is_nil(entry.error)
      assert.is_true(entry.n > 0)
      total = total + entry.n
    end
    assert.same({ 3, 60 }, { #seen, total })
    local here = c[2]:eval [[
      local here = hub:which_children()
      return { node = here.node, n = #here.children }
    ]]
    assert.same(seen[2], here)
  end)

  it("is not held up by a silent node, and names it", function()
    c[2]:pause()
    local seen = c[1]:eval(global, { timeout = 300 })
    c[2]:resume()
    assert.same({ node = c[2].name, error = "timeout" }, seen[2])
    assert.is_true(seen[1].n > 0 and seen[3].n > 0)
    eventually(function() return not c[1]:eval(global)[2].error end)
  end)

  it("terminates only what runs where it is asked", function()
    local outcome = c[1]:eval [[
      local ids, here = {}, hub:process_list "local"
      for id in pairs(hub:process_list()) do ids[#ids + 1] = id end
      local good = true
      for _, entry in ipairs(assert(phub.distributor.children_terminate(hub, ids))) do
        local expected = here[entry.id] and "ok" or "not_found"
        good = good and entry.result == expected and entry.node == phub.node.self()
      end
      return good and next(hub:process_list "local") == nil
    ]]
    assert.is_true(outcome)
    local left = c[2]:eval(global)
    assert.equal(0, left[1].n)
    for _, n in ipairs(c) do
      eventually(function()
        return n:eval [[
          local n = 0
          for _ in pairs(hub:process_list()) do n = n + 1 end
          return n
        ]] == left[2].n + left[3].n
      end)
    end
  end)

  it("sends what it redistributes to where the strategy places it", function()
    local status, nodes, n = c[1]:eval([[
      local children, data = require "spec.support.children", {}
      for i = 1, 60 do data[i] = { spec = children.spec("r" .. i), metadata = { tag = "r" } } end
      data[61] = { spec = children.spec "c7" }
      local result = assert(phub.distributor.children_redist_init(hub, ..., data, { awaitable = true })):await()
      return result.status, result:nodes(), #result.started
    ]], c[2].name)
    assert.same({ "ok", { c[1].name, c[2].name, c[3].name }, 61 }, { status, nodes, n })
    for _, other in ipairs(c) do
      eventually(function()
        return other:eval [[
          local n, t = 0, 0
          for _, instances in pairs(hub:tag_query "r") do
            if next(instances) then n = n + 1 end
          end
          for _ in pairs(hub:tag_query "t") do t = t + 1 end
          return n == 60 and t == 60 and next(hub:tag_query "x") == nil
        ]]
      end)
    end
  end)
end)
