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

  describe("distributor", function()
    local distributor = phub.distributor
    for _, name in ipairs { "children_redist_init", "children_terminate", "init_children", "stop_children",
      "which_children_global", "which_children_local" } do
      local args = ({ children_redist_init = { "n", {} } })[name] or { {} }
      it(name .. " says not_alive for an unknown hub", function()
        refused({ nil, nil, "not_alive" }, distributor[name]("nobody", table.unpack(args)))
      end)
      raises(name, "no hub", "hub or its id expected, got nil", function()
        distributor[name](nil, table.unpack(args))
      end)
      raises(name, "a number as hub", "hub or its id expected, got number", function()
        distributor[name](1, table.unpack(args))
      end)
    end
    for _, case in ipairs(wrong_specs) do
      it("children_redist_init refuses " .. case[1] .. " among good ones", function()
        local data = { { spec = children.spec "g" }, { spec = case[2] } }
        local err = select(2, distributor.children_redist_init(hub, "n", data))
        refused(case, nil, err)
        assert.equal(2, err.index)
      end)
    end
    for _, case in ipairs(wrong_start_options) do
      if case[3] ~= "not_serialisable" then
        refuses("children_redist_init", case, function(value)
          return distributor.children_redist_init(hub, "n", { { spec = children.spec "g" } }, value)
        end)
      end
    end
    for _, case in ipairs(wrong_stop_options) do
      refuses("children_terminate", case, function(value)
        return distributor.children_terminate(hub, { "v" }, nil, value)
      end)
    end
    for _, name in ipairs { "which_children_local", "which_children_global" } do
      for _, case in ipairs { { "an unknown option", { x = 1 }, "invalid_option", key = "x" },
        { "a text as timeout", { timeout = "x" }, "invalid_option", key = "timeout" } } do
        refuses(name, case, function(value) return distributor[name](hub, value) end)
      end
    end
  end)

  -- Every function of phub, node, process, gen_server, supervisor, future, distributor and of results,
  -- and of what they hand out: its calls with nothing, nil, a wrong type, an unknown name, a wrong
  -- field. "hub, ..." stands for the blocks above, which take the functions of hubs one by one.
  describe("every function:", function()
    local process, gen_server = phub.process, phub.gen_server
    local pid, server
    local module = { init = function() return {} end, handle_call = function() return 1 end }

    setup(function()
      pid = process.self()
      server = assert(gen_server.start(module))
    end)
    teardown(function() assert(gen_server.stop(server)) end)

    local HUB = {} -- the hub, PID a process, SERVER a server, in the arguments of a row
    local PID, SERVER = {}, {}

    local function R(pattern, ...) return { raises = pattern, args = table.pack(...) } end
    local function E(code, ...) return { code = code, args = table.pack(...) } end
    local function K(code, key, ...) return { code = code, key = key, args = table.pack(...) } end
    local function G(value, ...) return { gives = table.pack(value), args = table.pack(...) } end

    -- What a destination or a process may be.
    local function dests(name)
      return R(("#1 to '%s' %%(pid"):format(name), nil), R(("#1 to '%s' %%(pid"):format(name), 1)
    end
    local no_dest = "pid, name or { name, node } expected, got "

    local ok_result = { status = "ok", started = {}, stopped = {}, errors = {}, rollback = false }
    -- A result that is empty, one without its fields, one whose list, entries or parts are wrong.
    local function results(name, what, empty)
      local list = what == "start result" and "started" or "stopped"
      local part = ({ first = "id", cids = "id" })[name] or what == "start result" and "instances" or "nodes"
      local looks_at = ({ status = "status", errors = "errors", format = "status" })[name] or list
      local rows = {
        R(("#1 to '%s' %%(%s expected, got nil"):format(name, what), nil),
        R(("#1 to '%s' %%(%s expected, got string"):format(name, what), "x"),
        E("timeout", nil, { code = "timeout", message = "m" }),
        G(empty, ok_result), K("invalid_argument", looks_at, {}),
        K("invalid_argument", looks_at, { status = true, [list] = 1, errors = "x" }),
      }
      if name == "format" then
        table.insert(rows, K("invalid_argument", list, { status = "ok" }))
        table.insert(rows, K("invalid_argument", "errors", { status = "error", [list] = {} }))
      elseif looks_at == list then
        table.insert(rows, K("invalid_argument", list .. "[1]", { [list] = { 1 } }))
        table.insert(rows, K("invalid_argument", list .. "[1]." .. part, { [list] = { {} } }))
      end
      return rows
    end

    local rows = {
      start_link = "hub, start_link", start_child = "hub, start_child",
      start_children = "hub, start_children",
      stop_child = "hub, stop_child", stop_children = "hub, stop_children", stop = "hub, the hub",
      child_lookup = "hub, the reads", get_pid = "hub, the reads", get_pids = "hub, the reads",
      process_list = "hub, the reads", nodes = "hub, the reads", call = "hub, messages by id",
      cast = "hub, messages by id", send = "hub, messages by id",
      registry_dump = { G({}, HUB) }, process_registry = { G({}, HUB) },
      is_alive = { G(false, "nobody"), G(true, HUB), R("hub or its id expected, got nil", nil) },
      is_locked = { G(false, HUB) }, is_partitioned = { G(false, HUB) },
      tag_query = { R("#2 to '.*string expected, got nil", HUB, nil), R("#2 to '.*string expected, got number", HUB, 1),
        G({}, HUB, "nobody has it"), G({}, HUB, LONG), G({}, HUB, "") },
      which_children = { R("#2 to 'which_children' %(invalid option 'all'%)", HUB, "all"),
        R("#2 to 'which_children' %(string expected, got table%)", HUB, {}) },
      promote_to_node = { R("#2 to 'promote_to_node' %(string expected, got number%)", HUB, 1),
        E("node_not_started", HUB), E("node_not_started", HUB, "a@b") },
      register_hook_handlers = { E("not_supported", HUB, "k", {}) },
      cancel_hook_handlers = { E("not_supported", HUB, "k", {}) },
      await = { E("invalid_await_input", nil), E("invalid_await_input", "start_initiated"),
        E("invalid_await_input", {}), E("no_children", nil, { code = "no_children", message = "m" }) },
      child_spec = { R("#1 to 'child_spec' %(table expected, got nil", nil), R("table expected, got string", "h"),
        G({ id = "w", start = { "phub", "start_link", { { hub_id = "w" } } }, type = "supervisor" },
          { hub_id = "w" }) },
      run = { R("#1 to 'run' %(function expected, got number", 1), R("function expected, got table", {}) },
      halt = { R("#1 to 'halt' %(number expected, got string", "x"), R("#1 to 'halt'", 1.5) },
      handle_signals = { R("#1 to 'handle_signals' %(boolean expected, got no value"),
        R("boolean expected, got number", 1) },

      ["node.start"] = { R("#1 to 'start' %(table expected, got no value"), R("table expected, got number", 1),
        K("invalid_option", "name", {}), K("invalid_option", "colour", { name = "a@b", colour = 1 }),
        K("invalid_option", "join", { name = "a@b", join = "c@d" }),
        K("invalid_option", "max_message", { name = "a@b", max_message = "1" }),
        K("invalid_option", "max_queue", { name = "a@b", max_queue = 2 ^ 27 - 1 }),
        K("invalid_option", "max_unproven", { name = "a@b", max_unproven = 0 }),
        K("invalid_option", "handshake_timeout", { name = "a@b", handshake_timeout = "1" }),
        K("not_supported", "tls", { name = "a@b", tls = {} }) },
      ["node.self"] = { G "nonode@nohost" }, ["node.address"] = { G(nil) }, ["node.list"] = { G {} },
      ["node.connect"] = { R("#1 to 'connect' %(string expected, got no value"), R("string expected, got table", {}),
        E("node_not_started", "a@b"), E("node_not_started", LONG) },
      ["node.disconnect"] = { R("#1 to 'disconnect' %(string expected, got no value"), R("string expected", 1),
        E("node_not_started", "a@b") },
      ["node.monitor"] = { R("#1 to 'monitor' %(function expected, got nil", nil),
        R("function expected, got string", "x") },
      ["node.demonitor"] = { R("#1 to 'demonitor' %(ref expected, got nil", nil), R("ref expected, got table", {}) },
      ["node.stop"] = { E "node_not_started" },

      ["process.spawn"] = { R("#1 to 'spawn' %(function expected, got nil", nil), R("function expected, got table", {}),
        E("not_serialisable", fn, fn), E("not_serialisable", fn, { f = fn }) },
      ["process.spawn_link"] = { R("#1 to 'spawn_link' %(function expected, got nil", nil),
        E("not_serialisable", fn, fn) },
      ["process.spawn_monitor"] = { R("#1 to 'spawn_monitor' %(function expected, got nil", nil),
        E("not_serialisable", fn, fn) },
      ["process.self"] = { G(PID) }, ["process.yield"] = { G() }, ["process.now"] = {},
      ["process.send"] = { R("#1 to 'send' %(" .. no_dest .. "nil", nil, 1), R(no_dest .. "boolean", true, 1),
        R("{ name, node } must hold two strings", { "a" }, 1), R("#2 to 'send' %(a message cannot be nil", PID),
        R("#3 to 'send' %(number of milliseconds expected, got string", PID, 1, "x"), E("noproc", "nobody", 1),
        E("noproc", LONG, 1), E("noconnection", { "a", "b@c" }, 1), E("not_serialisable", PID, fn),
        E("not_serialisable", PID, { f = fn }) },
      ["process.receive"] = { R("#1 to 'receive' %(number of milliseconds expected, got table", {}),
        R("#1 to 'receive' %(milliseconds must be at least 0", -1), R("#2 to 'receive'", fn, "x"), E("timeout", 0),
        E("timeout", fn, 0) },
      ["process.exit"] = { R("reason: function", fn) },
      ["process.kill"] = { R("#1 to 'kill' %(pid expected, got nil", nil), R("pid expected, got string", "x", "kill"),
        E("not_serialisable", PID, fn) },
      ["process.link"] = { dests "link" }, ["process.unlink"] = { dests "unlink" },
      ["process.monitor"] = { R("#1 to 'monitor' %(" .. no_dest .. "nil", nil), R("must hold two strings", {}) },
      ["process.demonitor"] = { R("#1 to 'demonitor' %(ref expected, got nil", nil), R("ref expected, got table", {}) },
      ["process.trap_exit"] = { R("#1 to 'trap_exit' %(boolean expected, got nil", nil), R("boolean expected", 1) },
      ["process.sleep"] = { R("#1 to 'sleep' %(number of milliseconds expected, got nil", nil), R("got string", "1"),
        R("milliseconds must be at least 0", -1), R("milliseconds must be at least 0", 0 / 0) },
      ["process.send_after"] = { R("#1 to 'send_after' %(number of milliseconds expected, got nil", nil),
        R("#2 to 'send_after' %(" .. no_dest .. "nil", 1, nil, 1),
        R("#3 to 'send_after' %(a message cannot be nil", 1, PID),
        E("not_serialisable", 1, PID, fn) },
      ["process.cancel_timer"] = { R("#1 to 'cancel_timer' %(timer expected, got nil", nil), R("timer expected", {}) },
      ["process.register"] = { R("#1 to 'register' %(string expected, got nil", nil),
        R("a name has 1 to 255 bytes", ""), R("a name has 1 to 255 bytes", LONG),
        R("#2 to 'register' %(pid expected, got number", "a", 1) },
      ["process.unregister"] = { R("#1 to 'unregister' %(string expected, got nil", nil), E("noproc", "nobody") },
      ["process.whereis"] = { R("#1 to 'whereis' %(string expected, got nil", nil), G(nil, "nobody") },
      ["process.alive"] = { dests "alive", G(true, PID) },
      ["process.info"] = { dests "info" },

      ["gen_server.start"] = { R("#1 to 'start' %(table expected, got no value"), R("table expected, got string", "m"),
        R("the module has no function init", {}), R("#3 to 'start' %(table expected, got number", module, 1, 1),
        E("not_serialisable", module, fn), K("invalid_option", "x", module, 1, { x = 1 }),
        K("invalid_option", "name", module, 1, { name = 1 }) },
      ["gen_server.start_link"] = { R("#1 to 'start_link' %(table expected, got nil", nil),
        R("the module has no function init", {}), E("not_serialisable", module, { f = fn }) },
      ["gen_server.call"] = { R("#1 to 'call' %(.*expected, got nil", nil, 1), R("#1 to 'call' %(.*got number", 1, 1),
        R("#2 to 'call' %(a message cannot be nil", SERVER), R("#3 to 'call'", SERVER, 1, "x"),
        R("string expected, got nil", { hub = "v" }, 1), E("noproc", "nobody", 1), E("noconnection", { "a", "b@c" }, 1),
        E("not_alive", { hub = "nobody", child = "c" }, 1), E("no_child", { hub = "v", child = "c" }, 1),
        E("no_child", { hub = "v", child = LONG }, 1), E("not_serialisable", SERVER, fn) },
      ["gen_server.cast"] = { R("#1 to 'cast' %(.*expected, got nil", nil, 1),
        R("#2 to 'cast' %(a message cannot be nil", SERVER), E("noproc", "nobody", 1),
        E("not_alive", { hub = "nobody", child = "c" }, 1), E("no_child", { hub = "v", child = "c" }, 1),
        E("not_serialisable", SERVER, fn) },
      ["gen_server.reply"] = { R("#1 to 'reply' %(from .* expected, got nil", nil, 1), R("got number", 1, 1) },
      ["gen_server.stop"] = { R("#1 to 'stop' %(" .. no_dest .. "nil", nil), R(no_dest .. "number", 1),
        E("noproc", "nobody"), E("not_serialisable", SERVER, fn) },
      ["gen_server.stopping"] = {}, -- takes any reason

      ["supervisor.start_link"] = { R("#1 to 'start_link' %(table expected, got nil", nil), R("table expected", "x"),
        K("invalid_config", "colour", { colour = 1 }), K("invalid_config", "strategy", { strategy = "x" }),
        K("invalid_config", "children", { children = { a = 1 } }), E("invalid_child_spec", { children = { {} } }) },
      ["supervisor.start_child"] = { R("#1 to 'start_child' %(" .. no_dest .. "nil", nil, {}),
        R("#2 to 'start_child' %(table expected, got nil", SERVER), E("invalid_child_spec", SERVER, {}),
        E("noproc", "nobody", children.spec "v") },
    }
    for _, name in ipairs { "terminate_child", "restart_child", "delete_child" } do
      rows["supervisor." .. name] = { R(("#1 to '%s' %%(%snil"):format(name, no_dest), nil, "v"),
        R(("#2 to '%s' %%(string expected, got nil"):format(name), SERVER), E("noproc", "nobody", "v") }
    end
    for _, name in ipairs { "which_children", "count_children" } do
      rows["supervisor." .. name] = { R(("#1 to '%s' %%(%sno value"):format(name, no_dest)), E("noproc", "nobody") }
    end
    for name, more in pairs {
      new = {}, is = { G(false, nil), G(false, {}) },
      await = { E("invalid_argument", nil), E("invalid_argument", {}),
        E("timeout", nil, { code = "timeout", message = "m" }) },
      all = { R("#1 to 'all' %(list of futures expected, got nil", nil), R("#1 to 'all'", "x"),
        E("invalid_argument", { 1 }), G({}, {}), R("#2 to 'all' %(milliseconds expected.*got string", {}, "x"),
        R("#2 to 'all'.*got %-1", {}, -1) },
      any = { R("#1 to 'any' %(list of futures expected, got nil", nil), E("invalid_argument", { 1 }),
        E("invalid_argument", {}), R("#2 to 'any' %(milliseconds expected.*got string", {}, "x") },
    } do
      rows["future." .. name] = more
    end
    local f = phub.future.new()
    for name, more in pairs {
      await = { R("#1 to 'await' %(milliseconds expected.*got string", f, "x"), E("timeout", f, 0) },
      is_done = { G(false, f) },
      on_done = { R("#1 to 'on_done' %(function expected, got nil", f, nil) },
      resolve = {},
      reject = { R("#1 to 'reject' %(an error expected", f, nil) },
    } do
      table.insert(more, R(("#1 to '%s' %%(future expected, got nil"):format(name), nil))
      table.insert(more, R(("#1 to '%s' %%(future expected, got table"):format(name), {}))
      rows["future:" .. name] = more
    end
    for name, empty in pairs { format = {}, status = "ok", errors = {}, cids = {}, nodes = {}, pids = {},
      first = false, pid = false, node = false } do
      if empty == false then empty = nil end
      rows["start_result." .. name] = results(name, "start result", empty)
      if not name:find "^pid" and name ~= "node" then
        rows["stop_result." .. name] = results(name, "stop result", empty)
      end
    end
    for name, more in pairs {
      children_redist_init = { R("#2 to '.*string expected, got nil", HUB, nil, {}),
        R("#3 to '.*table expected", HUB, "n"), R("#4 to '.*table expected", HUB, "n", {}, 1),
        G("no_children_to_redistribute", HUB, "n", {}),
        E("children_not_list", HUB, "n", { a = 1 }), E("invalid_child_spec", HUB, "n", { 1 }) },
      children_terminate = { R("#2 to 'children_terminate' %(table expected, got nil", HUB, nil),
        R("#3 to 'children_terminate' %(table expected, got string", HUB, {}, "pubsub"),
        R("#4 to 'children_terminate' %(table expected, got number", HUB, {}, nil, 1), G({}, HUB, {}),
        E("children_not_list", HUB, { 1 }), E("children_not_list", HUB, { a = "v" }),
        K("invalid_option", "sync_strategy", HUB, {}, {}),
        G({ { id = LONG, result = "not_found", node = "nonode@nohost" } }, HUB, { LONG }) },
      default_init_opts = { R("#1 to 'default_init_opts' %(table expected, got string", "x") },
      init_children = { R("#2 to '.*table expected, got nil", HUB, nil), E("no_children", HUB, {}) },
      stop_children = { R("#2 to '.*table expected, got nil", HUB, nil), E("no_children", HUB, {}) },
      which_children_local = { R("#2 to 'which_children_local' %(table expected, got number", HUB, 1) },
      which_children_global = { R("#2 to 'which_children_global' %(table expected, got number", HUB, 1) },
    } do
      rows["distributor." .. name] = more
    end

    local function arguments(args)
      local own = { n = args.n }
      local stands = { [HUB] = hub, [PID] = pid, [SERVER] = server }
      for i = 1, args.n do own[i] = stands[args[i]] or args[i] end
      return own
    end

    local function public(name)
      local method = name:match "^future:(.*)$"
      if method then return phub.future.new()[method] end
      local of, field = name:match "^(.-)%.(.*)$"
      if of then return phub[of][field] end
      return phub[name]
    end

    local function check(name, row)
      local args = arguments(row.args)
      if row.raises then
        local call = name:find ":" and public(name) or by_name(name)
        local ok, err = pcall(call, table.unpack(args, 1, args.n))
        assert.is_false(ok)
        assert.matches(row.raises, tostring(err))
      elseif row.code then
        refused({ nil, nil, row.code, key = row.key }, public(name)(table.unpack(args, 1, args.n)))
      else
        local wanted = arguments(row.gives)
        assert.same(wanted[1], (public(name)(table.unpack(args, 1, args.n))))
      end
    end

    for name, list in pairs(rows) do
      if type(list) == "table" then
        for i, row in ipairs(list) do
          it(("%s, row %d: %s"):format(name, i, row.raises and "raises" or row.code or "answers"), function()
            check(name, row)
          end)
        end
      end
    end

    -- Sections 4 and 5 of the API: apart from their modules nothing public is left out.
    local elsewhere = { strategy = true, hook = true, hook_manager = true }

    local function functions(prefix, t, into)
      for name, value in pairs(t) do
        if type(value) == "function" and not name:find "^__" then into[prefix .. name] = true end
      end
    end

    it("each has a row, and each row its function", function()
      local all = {}
      functions("", phub, all)
      for name, value in pairs(phub) do
        if type(value) == "table" and not elsewhere[name] then functions(name .. ".", value, all) end
      end
      functions("future:", getmetatable(phub.future.new()), all)
      for name in pairs(all) do assert.is_truthy(rows[name], "no row for " .. name) end
      for name in pairs(rows) do assert.is_true(all[name] or false, "no function for the row " .. name) end
    end)

    it("each that takes a hub is its method too", function()
      local none = { start_link = true, child_spec = true, await = true, run = true, halt = true,
        handle_signals = true }
      for name, value in pairs(phub) do
        if type(value) == "function" then assert.equal(not none[name] and value or nil, hub[name], name) end
      end
    end)
  end)

  describe("what is not built yet", function()
    for name, call in pairs(phub.hook_manager) do
      it(("hook_manager.%s says so"):format(name), function()
        refused({ nil, nil, "not_supported" }, call(hub, "k", {}))
      end)
    end
  end)
end)
