local phub = require "phub"
local process = require "phub.process"
local start_result = require "phub.start_result"
local stop_result = require "phub.stop_result"
local children = require "spec.support.children"

-- Any values do for pids here.
local function started()
  return {
    status = "ok",
    started = {
      { id = "b", instances = { n2 = "b2", n1 = "b1" } },
      { id = "a", instances = { n3 = "a3" } },
    },
    errors = {},
    rollback = false,
  }
end

local function failed()
  return {
    status = "error", started = {}, rollback = true,
    errors = { { id = "a", node = "n1", reason = "module_not_found" } },
  }
end

local function stopped()
  return {
    status = "ok", errors = {},
    stopped = { { id = "b", nodes = { "n2", "n3" } }, { id = "a", nodes = { "n1", "n2" } } },
  }
end

describe("phub.start_result", function()
  it("reads plain tables of the same fields", function()
    local r = started()
    assert.equal("ok", start_result.status(r))
    assert.equal(r.started, start_result.format(r))
    assert.equal(r.errors, start_result.errors(r))
    assert.equal(r.started[1], start_result.first(r))
    assert.same({ "b", "a" }, start_result.cids(r))
    assert.equal("b1", start_result.pid(r))
    assert.same({ "b1", "b2", "a3" }, start_result.pids(r))
    assert.equal("n1", start_result.node(r))
    assert.same({ "n1", "n2", "n3" }, start_result.nodes(r))
  end)

  it("formats a failure as an error with all there is to know", function()
    local value, err = start_result.format(failed())
    assert.is_nil(value)
    assert.equal("start_failed", err.code)
    assert.same(failed().errors, err.errors)
    assert.same({}, err.started)
    assert.is_true(err.rollback)
    assert.equal("string", type(err.message))
    assert.matches("start", tostring(err))
  end)

  it("answers nil or nothing where no child started", function()
    assert.is_nil(start_result.first(failed()))
    assert.is_nil(start_result.pid(failed()))
    assert.is_nil(start_result.node(failed()))
    assert.same({}, start_result.pids(failed()))
    assert.same({}, start_result.nodes(failed()))
    assert.same({}, start_result.cids(failed()))
  end)

  it("passes nil, err through, and raises for anything else", function()
    for name, fn in pairs(start_result) do
      assert.same({ nil, "e", n = 2 }, table.pack(fn(nil, "e")), name)
      assert.error_matches(function() fn(42) end, "#1 to '" .. name .. "'.*start result expected, got number")
      assert.error_matches(function() fn(nil) end, "#1 to '" .. name .. "'")
    end
  end)
end)

describe("phub.stop_result", function()
  it("reads plain tables of the same fields", function()
    local r = stopped()
    assert.equal("ok", stop_result.status(r))
    assert.equal(r.stopped, stop_result.format(r))
    assert.equal(r.errors, stop_result.errors(r))
    assert.equal(r.stopped[1], stop_result.first(r))
    assert.same({ "b", "a" }, stop_result.cids(r))
    assert.same({ "n1", "n2", "n3" }, stop_result.nodes(r))
  end)

  it("formats a failure as an error", function()
    local r = { status = "error", stopped = {}, errors = { { id = "a", reason = "not_found" } } }
    local value, err = stop_result.format(r)
    assert.is_nil(value)
    assert.equal("stop_failed", err.code)
    assert.same(r.errors, err.errors)
    assert.same({}, err.stopped)
    assert.is_nil(stop_result.first(r))
  end)

  it("passes nil, err through, and raises for anything else", function()
    for name, fn in pairs(stop_result) do
      assert.same({ nil, "e", n = 2 }, table.pack(fn(nil, "e")), name)
      assert.error_matches(function() fn "x" end, "#1 to '" .. name .. "'.*stop result expected, got string")
    end
  end)
end)

describe("a result of a hub", function()
  local function with_result(fn)
    return function()
      phub.run(function()
        local hub = assert(phub.start_link { hub_id = "results" })
        local result = assert(phub.start_child(hub, children.spec "a", { awaitable = true })):await()
        local ok, err = xpcall(fn, function(e) return e end, result, hub)
        phub.stop(hub)
        if not ok then error(err, 0) end
      end)
    end
  end

  it("has its functions as methods, where no field bears the name", with_result(function(result, hub)
    assert.equal(phub.get_pid(hub, "a"), result:pid())
    assert.same({ "a" }, result:cids())
    assert.same({ result:node() }, result:nodes())
    assert.equal("ok", result.status)
    assert.same({}, result.errors)
    assert.equal(result.started, result:format())
    local stop = phub.stop_child(hub, "a", { awaitable = true }):await()
    assert.same({ "a" }, stop:cids())
    assert.equal("a", stop:first().id)
  end))

  it("keeps its methods in a message", with_result(function(result)
    local me = process.self()
    process.send(me, result)
    local got = process.receive(1000)
    assert.equal(result:pid(), got:pid())
    assert.not_equal(result, got)
  end))
end)
