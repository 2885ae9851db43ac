-- What every function of a hub does with nil, a wrong type, an unknown hub, an empty list, a
-- duplicate, a function inside, an id of 2 KB, an unknown option; and that the hub works on.
--
-- A row: the call, and what it must do: an error code with fields of the error, `raises` with a
-- pattern, or `gives` with its results. A new function of the API is a new block here.
local phub = require "phub"
local children = require "spec.support.children"

local LONG = ("x"):rep(2048)
local function fn() end

-- A call as people write it: a raised error names the function by it.
local function by_name(name)
  return assert(load(("local phub = ... return function(...) phub.%s(...) end"):format(name)))(phub)
end

local function spec(fields)
  local s = children.spec "v"
  for key, value in pairs(fields or {}) do
    if value == "absent" then value = nil end
    s[key] = value
  end
  return s
end

local function starting(start)
  return { id = "v", start = start }
end

-- Of one child: the same for start_child, for start_children with a list, and for child_specs.
local wrong_specs = {
  { "an empty table", {}, "invalid_child_spec", key = "id" },
  { "no id", spec { id = "absent" }, "invalid_child_spec", key = "id" },
  { "a number as id", spec { id = 1 }, "invalid_child_spec", key = "id" },
  { "an empty id", spec { id = "" }, "invalid_child_spec", key = "id" },
  { "an id of 2 KB", spec { id = LONG }, "invalid_child_spec", key = "id" },
  { "an id of 1,025 bytes", spec { id = ("x"):rep(1025) }, "invalid_child_spec", key = "id" },
  { "an unknown field", spec { colour = "red" }, "invalid_child_spec", key = "colour", id = "v" },
  { "a list for a spec", { children.spec "v" }, "invalid_child_spec", key = "1" },
  { "no start", spec { start = "absent" }, "invalid_child_spec", key = "start", id = "v" },
  { "a function as start", spec { start = fn }, "invalid_child_spec", key = "start", id = "v" },
  { "a string as start", spec { start = "m" }, "invalid_child_spec", key = "start" },
  { "start without a function", starting { "m" }, "invalid_child_spec", key = "start" },
  { "a function in start", starting { "m", fn }, "invalid_child_spec", key = "start" },
  { "a fourth item in start", starting { "m", "f", {}, 1 }, "invalid_child_spec", key = "start" },
  { "a named item in start", starting { "m", "f", x = 1 }, "invalid_child_spec", key = "start" },
  { "arguments that are no table", starting { "m", "f", 1 }, "invalid_child_spec", key = "start" },
  { "arguments that are no list", starting { "m", "f", { a = 1 } }, "invalid_child_spec", key = "start" },
  { "an empty module name", starting { "", "f" }, "invalid_child_spec", key = "start" },
  { "a wrong restart", spec { restart = "always" }, "invalid_child_spec", key = "restart" },
  { "a boolean restart", spec { restart = true }, "invalid_child_spec", key = "restart" },
  { "a negative shutdown", spec { shutdown = -1 }, "invalid_child_spec", key = "shutdown" },
  { "a wrong shutdown", spec { shutdown = "soon" }, "invalid_child_spec", key = "shutdown" },
  { "a shutdown that is no number", spec { shutdown = 0 / 0 }, "invalid_child_spec", key = "shutdown" },
  { "a wrong type", spec { type = "boss" }, "invalid_child_spec", key = "type" },
  { "modules that are no list", spec { modules = "m" }, "invalid_child_spec", key = "modules" },
  { "a number among the modules", spec { modules = { 1 } }, "invalid_child_spec", key = "modules" },
  { "a function in the arguments", starting { "m", "f", { fn } }, "not_serialisable", key = "start",
    message = "args%[1%]: function" },
  { "a function deep in the arguments", starting { "m", "f", { { on_done = fn } } }, "not_serialisable",
    message = "args%[1%]%.on_done: function" },
  { "a coroutine in the arguments", starting { "m", "f", { coroutine.create(fn) } }, "not_serialisable" },
  { "a metatable in the arguments", starting { "m", "f", { setmetatable({}, {}) } }, "not_serialisable" },
}
for _, name in ipairs { "os", "io", "debug", "package", "coroutine", "string", "table", "math", "utf8", "_G",
  "bit32", "ffi", "os.execute" } do
  wrong_specs[#wrong_specs + 1] = { "the module " .. name, starting { name, "f" }, "invalid_child_spec", key = "start" }
end

local wrong_start_options = {
  { "an unknown option", { colour = "red" }, "invalid_option", key = "colour" },
  { "a numbered option", { 1 }, "invalid_option" },
  { "a text as awaitable", { awaitable = "yes" }, "invalid_option", key = "awaitable" },
  { "a negative timeout", { timeout = -1 }, "invalid_option", key = "timeout" },
  { "a timeout that is no number", { timeout = 0 / 0 }, "invalid_option", key = "timeout" },
  { "a text as await_timeout", { await_timeout = "1" }, "invalid_option", key = "await_timeout" },
  { "a number as check_existing", { check_existing = 1 }, "invalid_option", key = "check_existing" },
  { "a wrong on_failure", { on_failure = "ignore" }, "invalid_option", key = "on_failure" },
  { "metadata that is no table", { metadata = "m" }, "invalid_option", key = "metadata" },
  { "a tag that is no string", { metadata = { tag = 1 } }, "invalid_option", key = "metadata.tag" },
  { "a function in metadata", { metadata = { f = fn } }, "not_serialisable", message = "metadata%.f: function" },
  { "a number as disable_logging", { disable_logging = 0 }, "invalid_option", key = "disable_logging" },
  { "a text as init_cids", { init_cids = "a" }, "invalid_option", key = "init_cids" },
  { "a number as async_wait", { async_wait = 1 }, "invalid_option", key = "async_wait" },
  { "a child_mapping", { child_mapping = {} }, "not_supported", key = "child_mapping" },
}

local wrong_stop_options = {
  { "an unknown option", { colour = "red" }, "invalid_option", key = "colour" },
  { "an option of starts", { metadata = {} }, "invalid_option", key = "metadata" },
  { "a text as awaitable", { awaitable = "yes" }, "invalid_option", key = "awaitable" },
  { "a text as timeout", { timeout = "1" }, "invalid_option", key = "timeout" },
}

describe("validation:", function()
  local hub

  setup(function() hub = assert(phub.start_link { hub_id = "v" }) end)
  teardown(function() assert(phub.stop(hub)) end)

  -- Nothing was changed, and the hub starts and stops children as before.
  after_each(function()
    assert.same({}, phub.process_registry(hub))
    assert.equal("ok", assert(phub.start_child(hub, children.spec "works", { awaitable = true })):await().status)
    assert.equal("ok", assert(phub.stop_child(hub, "works", { awaitable = true })):await().status)
  end)

  local function refused(case, value, err, ...)
    assert.is_nil(value)
    assert.equal(0, select("#", ...))
    assert.is_truthy(err, "no error")
    assert.equal(case[3], err.code, tostring(err))
    assert.equal("string", type(err.message))
    assert.matches("%S", tostring(err))
    for field, wanted in pairs(case) do
      if field == "message" then
        assert.matches(wanted, err.message)
      elseif type(field) == "string" then
        assert.equal(wanted, err[field])
      end
    end
  end

  local function refuses(what, case, call)
    it(("%s refuses %s"):format(what, case[1]), function() refused(case, call(case[2])) end)
  end

  local function raises(name, what, pattern, call)
    it(("%s raises for %s"):format(name, what), function()
      local ok, err = pcall(call)
      assert.is_false(ok)
      assert.matches(pattern, err)
    end)
  end

  describe("the hub", function()
    local takes_hub = {
      start_child = { {} }, start_children = { {} }, stop_child = { "a" }, stop_children = { {} },
      child_lookup = { "a" }, get_pid = { "a" }, get_pids = { "a" }, process_list = {}, registry_dump = {},
      process_registry = {}, which_children = {}, nodes = {}, is_locked = {}, is_partitioned = {}, stop = {},
      call = { "a", 1 }, cast = { "a", 1 }, send = { "a", 1 }, tag_query = { "t" }, promote_to_node = {},
      register_hook_handlers = { "k", {} }, cancel_hook_handlers = { "k", {} },
    }
    for name, args in pairs(takes_hub) do
      it(("that is unknown is not_alive for %s"):format(name), function()
        for _, id in ipairs { "nobody", "", LONG } do
          refused({ nil, nil, "not_alive" }, phub[name](id, table.unpack(args)))
        end
      end)
      raises(name, "no hub", "#1 to '.-" .. name .. "'.*hub or its id expected, got nil", function()
        by_name(name)(nil, table.unpack(args))
      end)
      raises(name, "a table as hub", "hub or its id expected, got table", function()
        by_name(name)({}, table.unpack(args))
      end)
    end

    it("that is unknown is not alive", function()
      assert.is_false(phub.is_alive "nobody")
      assert.is_false(phub.is_alive(LONG))
      assert.error(function() phub.is_alive(nil) end)
    end)
  end)

  describe("start_child", function()
    for _, case in ipairs(wrong_specs) do
      refuses("it", case, function(value) return phub.start_child(hub, value) end)
    end
    for _, case in ipairs(wrong_start_options) do
      refuses("it", case, function(value) return phub.start_child(hub, children.spec "v", value) end)
    end
    raises("it", "nil as spec", "#2 to '.*table expected, got nil", function() phub.start_child(hub, nil) end)
    raises("it", "a string as spec", "#2 to '.*table expected, got string", function() phub.start_child(hub, "v") end)
    raises("it", "a number as options", "#3 to '.*table expected, got number", function()
      phub.start_child(hub, children.spec "v", 1)
    end)
    raises("it", "a string as spec, as method", "#1 to '.*table expected", function() hub:start_child "v" end)
  end)

  describe("start_children", function()
    local good = children.spec "good"
    for _, case in ipairs(wrong_specs) do
      it("it refuses " .. case[1] .. " among good ones", function()
        local err = select(2, phub.start_children(hub, { good, case[2] }))
        refused(case, phub.start_children(hub, { good, case[2] }))
        assert.equal(2, err.index)
      end)
    end
    for _, case in ipairs(wrong_start_options) do
      refuses("it", case, function(value) return phub.start_children(hub, { good }, value) end)
    end
    for _, case in ipairs {
      { "an empty list", {}, "no_children" },
      { "a spec in place of a list", children.spec "v", "children_not_list" },
      { "a list with more than its items", { good, x = 1 }, "children_not_list" },
      { "a list that begins at 0", { [0] = good }, "children_not_list" },
      { "a text in the list", { "v" }, "invalid_child_spec", index = 1 },
      { "a duplicate", { good, children.spec "v", good }, "duplicate_child_id", id = "good", index = 3 },
      { "a wrong spec behind a duplicate", { good, good, {} }, "invalid_child_spec", index = 3 },
    } do
      refuses("it", case, function(value) return phub.start_children(hub, value) end)
    end
    refuses("it", { "a duplicate before an unknown option", { good, good }, "duplicate_child_id" },
      function(value) return phub.start_children(hub, value, { colour = 1 }) end)
    raises("it", "nil as list", "#2 to '.*table expected, got nil", function() phub.start_children(hub, nil) end)
    raises("it", "a string as list", "#2 to '.*table expected, got string", function()
      phub.start_children(hub, "v")
    end)
  end)

  describe("stop_child", function()
    for _, case in ipairs(wrong_stop_options) do
      refuses("it", case, function(value) return phub.stop_child(hub, "v", value) end)
    end
    raises("it", "nil as id", "#2 to '.*string expected, got nil", function() phub.stop_child(hub, nil) end)
    raises("it", "a number as id", "#2 to '.*string expected, got number", function() phub.stop_child(hub, 1) end)
    raises("it", "a string as options", "#3 to '.*table expected", function() phub.stop_child(hub, "v", "x") end)
    it("it answers not_found for an unknown id, and one of 2 KB", function()
      for _, id in ipairs { "nobody", LONG, "" } do
        local result = assert(phub.stop_child(hub, id, { awaitable = true })):await()
        assert.same({ id, "not_found" }, { result.errors[1].id, result.errors[1].reason })
      end
    end)
  end)

  describe("stop_children", function()
    for _, case in ipairs(wrong_stop_options) do
      refuses("it", case, function(value) return phub.stop_children(hub, { "v" }, value) end)
    end
    for _, case in ipairs {
      { "an empty list", {}, "no_children" },
      { "no list", { a = "v" }, "children_not_list" },
      { "a number in the list", { "v", 1 }, "children_not_list", index = 2 },
      { "a function in the list", { fn }, "children_not_list", index = 1 },
    } do
      refuses("it", case, function(value) return phub.stop_children(hub, value) end)
    end
    raises("it", "nil as list", "#2 to '.*table expected, got nil", function() phub.stop_children(hub, nil) end)
  end)

  describe("the reads", function()
    for _, name in ipairs { "child_lookup", "get_pid", "get_pids" } do
      raises(name, "nil as id", "#2 to '.*string expected, got nil", function() phub[name](hub, nil) end)
      raises(name, "a table as id", "#2 to '.*string expected, got table", function() phub[name](hub, {}) end)
    end
    refuses("child_lookup", { "an unknown option", { x = true }, "invalid_option", key = "x" },
      function(value) return phub.child_lookup(hub, "v", value) end)
    refuses("child_lookup",
      { "a text as with_metadata", { with_metadata = "x" }, "invalid_option", key = "with_metadata" },
      function(value) return phub.child_lookup(hub, "v", value) end)
    refuses("nodes", { "an unknown option", { x = true }, "invalid_option", key = "x" },
      function(value) return phub.nodes(hub, value) end)
    raises("nodes", "a text as options", "#2 to '.*table expected", function() phub.nodes(hub, "all") end)
    raises("process_list", "an unknown scope", "#2 to '.*invalid option", function() phub.process_list(hub, "here") end)
    raises("process_list", "a table as scope", "#2 to '.*string expected", function() phub.process_list(hub, {}) end)
  end)

  describe("messages by id", function()
    for _, name in ipairs { "call", "cast", "send" } do
      raises(name, "nil as id", "#2 to '.*string expected, got nil", function() phub[name](hub, nil, 1) end)
      raises(name, "nil as message", "#3 to '.*message", function() phub[name](hub, "v", nil) end)
      refuses(name, { "an unknown id", "nobody", "no_child" }, function(id) return phub[name](hub, id, 1) end)
      refuses(name, { "an id of 2 KB", LONG, "no_child" }, function(id) return phub[name](hub, id, 1) end)
      it(name .. " refuses a function in a message", function()
        assert.equal("ok", phub.start_child(hub, children.spec "m", { awaitable = true }):await().status)
        refused({ nil, nil, "not_serialisable", message = "message%.f: function" }, phub[name](hub, "m", { f = fn }))
        refused({ nil, nil, "not_serialisable", message = "message: function" }, phub[name](hub, "m", fn))
        assert.equal("ok", phub.stop_child(hub, "m", { awaitable = true }):await().status)
      end)
    end
    raises("call", "a text as timeout", "#4 to '", function() phub.call(hub, "v", 1, "soon") end)
    raises("call", "a negative timeout", "#4 to '", function() phub.call(hub, "v", 1, -1) end)
  end)

  describe("start_link", function()
    for _, case in ipairs {
      { "no hub_id", {}, "invalid_config", key = "hub_id" },
      { "a number as hub_id", { hub_id = 1 }, "invalid_config", key = "hub_id" },
      { "an empty hub_id", { hub_id = "" }, "invalid_config", key = "hub_id" },
      { "a hub_id of 2 KB", { hub_id = LONG }, "invalid_config", key = "hub_id" },
      { "an unknown field", { hub_id = "w", colour = 1 }, "invalid_config", key = "colour" },
      { "a text as child_specs", { hub_id = "w", child_specs = "x" }, "invalid_config", key = "child_specs" },
      { "child_specs that are no list", { hub_id = "w", child_specs = { a = {} } },
        "invalid_config", key = "child_specs" },
      { "hooks", { hub_id = "w", hooks = { k = {} } }, "not_supported", key = "hooks" },
      { "a negative time", { hub_id = "w", dsup_shutdown_timeout = -1 },
        "invalid_config", key = "dsup_shutdown_timeout" },
      { "a wrong action", { hub_id = "w", dsup_limit_action = "x" },
        "invalid_config", key = "dsup_limit_action" },
      { "no starts at once", { hub_id = "w", max_concurrent_starts = 0 },
        "invalid_config", key = "max_concurrent_starts" },
    } do
      refuses("it", case, phub.start_link)
    end
    for _, case in ipairs(wrong_specs) do
      refuses("it", case, function(value)
        return phub.start_link { hub_id = "w", child_specs = { children.spec "good", value } }
      end)
    end
    it("it says which of the static children is wrong", function()
      local _, err = phub.start_link { hub_id = "w", child_specs = { children.spec "good", {} } }
      assert.equal(2, err.index)
    end)
    raises("it", "nil", "#1 to 'start_link'.*table expected, got nil", function() phub.start_link(nil) end)
    raises("it", "a string", "#1 to 'start_link'.*table expected, got string", function() phub.start_link "h" end)
    it("it takes every documented field", function()
      local h = assert(phub.start_link {
        hub_id = "w", child_specs = {}, hooks = {}, hubs_discover_interval = 1000, deadlock_recovery_timeout = 1,
        storage_purge_interval = math.huge, migr_base_timeout = 1.5, dsup_max_restarts = 1, dsup_max_seconds = 0.5,
        dsup_limit_action = "restart_all", dsup_shutdown_timeout = 0, max_concurrent_starts = 1,
        redundancy_strategy = phub.strategy.redundancy.singularity {},
        migration_strategy = phub.strategy.migration.cold_swap {},
        synchronization_strategy = phub.strategy.synchronization.pubsub { sync_interval = 100 },
        partition_tolerance_strategy = phub.strategy.partition_tolerance.divergence {},
        distribution_strategy = phub.strategy.distribution.consistent_hashing {},
      })
      assert.is_true(phub.stop(h))
    end)
  end)

  describe("what is not built yet", function()
    local not_built = {
      { "tag_query", "t" }, { "promote_to_node" }, { "register_hook_handlers", "k", {} },
      { "cancel_hook_handlers", "k", {} }, { "which_children", "global" },
    }
    for _, call in ipairs(not_built) do
      it(call[1] .. " says so", function()
        refused({ nil, nil, "not_supported" }, phub[call[1]](hub, table.unpack(call, 2)))
      end)
    end
    for name, call in pairs(phub.hook_manager) do
      it(("hook_manager.%s says so"):format(name), function()
        refused({ nil, nil, "not_supported" }, call(hub, "k", {}))
      end)
    end
    for _, name in ipairs { "children_redist_init", "children_terminate", "which_children_global" } do
      it(("distributor.%s says so"):format(name), function()
        refused({ nil, nil, "not_supported" }, phub.distributor[name](hub, {}))
        refused({ nil, nil, "not_alive" }, phub.distributor[name]("nobody", {}))
      end)
    end
  end)

  describe("distributor", function()
    it("starts and stops as the functions of the hub do", function()
      local result = assert(phub.distributor.init_children(hub, { children.spec "d" }, { awaitable = true })):await()
      assert.same({ "d" }, result:cids())
      assert.equal("d", phub.distributor.which_children_local(hub, {}).children[1].id)
      assert.same({ "d" }, phub.distributor.stop_children(hub, { "d" }, { awaitable = true }):await():cids())
      assert.equal("no_children", select(2, phub.distributor.init_children(hub, {}, {})).code)
    end)

    it("completes options, keeping what is there", function()
      local given = { timeout = 5, metadata = { tag = "t" } }
      assert.same({
        timeout = 5, metadata = { tag = "t" }, awaitable = false, async_wait = false, check_existing = true,
        on_failure = "continue", await_timeout = 60000, init_cids = {},
      }, phub.distributor.default_init_opts(given))
      assert.same({ timeout = 5, metadata = { tag = "t" } }, given)
      assert.equal(10000, phub.distributor.default_init_opts().timeout)
    end)
  end)
end)
