-- timeout: 300
-- What the functions of a hub do when its children run on several nodes.
local cluster = require "spec.support.cluster"
local eventually = require "spec.support.eventually"

describe("a hub on three nodes", function()
  local c

  before_each(function()
    c = cluster.start(3)
    c:settle()
    eventually(function()
      for _, node in ipairs(c) do
        if #node:eval [[ return hub:nodes() ]] ~= 2 then return nil end
      end
      return true
    end)
  end)
  after_each(function() c:stop() end)

  local function start(node, n)
    return node:eval([[
      local children = require "spec.support.children"
      local result = assert(hub:start_children(children.specs(...), { awaitable = true })):await()
      return result.status, #result.started, #result.errors, result:nodes()
    ]], n)
  end

  it("spreads children, and every node reads the same", function()
    local status, started, errors, nodes = start(c[1], 300)
    assert.same({ "ok", 300, 0 }, { status, started, errors })
    assert.same({ c[1].name, c[2].name, c[3].name }, nodes)
    local list = [[
      local where = {}
      for id, instances in pairs(hub:process_list()) do
        for node, pid in pairs(instances) do where[id] = node .. " " .. tostring(pid) end
      end
      return where
    ]]
    local first = c[1]:eval(list)
    for i = 2, 3 do
      eventually(function()
        local other = c[i]:eval(list)
        assert.same(first, other)
        return true
      end)
    end
    assert.same({ c[1].name, c[2].name, c[3].name }, c[2]:eval [[ return hub:nodes { include_local = true } ]])
  end)

  it("reaches every child by its id from every node, and stops it from any", function()
    start(c[1], 60)
    for _, node in ipairs(c) do
      local count, places = node:eval [[
        local n, places = 0, {}
        for i = 1, 60 do
          local where = assert(hub:call("c" .. i, "where"))
          if tostring(where.pid) == tostring(hub:get_pid("c" .. i)) then n = n + 1 end
          places[where.node] = (places[where.node] or 0) + 1
        end
        return n, places
      ]]
      assert.equal(60, count)
      for _, other in ipairs(c) do assert.is_true(places[other.name] > 0) end
    end
    local stopped, errors = c[3]:eval [[
      local ids = { "nobody" }
      for i = 1, 60 do ids[#ids + 1] = "c" .. i end
      local result = assert(hub:stop_children(ids, { awaitable = true })):await()
      return #result.stopped, result.errors
    ]]
    assert.equal(60, stopped)
    assert.same({ "nobody", "not_found" }, { errors[1].id, errors[1].reason })
    assert.same({}, c[3]:eval [[ return hub:process_list() ]])
    assert.equal("no_child", c[1]:eval [[ return select(2, hub:call("c1", "where")).code ]])
  end)

  it("keeps the order of one sender's messages to a child elsewhere", function()
    start(c[1], 30)
    for _, node in ipairs(c) do
      assert.is_true(node:eval [[
        for i = 1, 30 do
          local id, from = "c" .. i, phub.node.self()
          for n = 1, 50 do assert(hub:cast(id, from .. " " .. n)) end
          local n = 0
          for _, seen in ipairs(assert(hub:call(id, "seen"))) do
            if seen:find(from, 1, true) then
              n = n + 1
              if seen ~= from .. " " .. n then return false end
            end
          end
          if n ~= 50 then return false end
        end
        return true
      ]])
    end
  end)

  it("knows at once, on every node, what one of them has just been told", function()
    for i = 1, 20 do
      local from, other = c[i % 3 + 1], c[(i + 1) % 3 + 1]
      local id = "n" .. i
      from:eval([[
        local spec = require "spec.support.children".spec(...)
        return assert(hub:start_child(spec, { awaitable = true })):await().status
      ]], id)
      assert.is_truthy(other:eval([[ return hub:call(..., "where") ]], id))
    end
  end)

  it("answers a call to a child whose node dies, and the next one reaches the new instance", function()
    start(c[1], 30)
    local id = c[1]:eval([[
      for id, instances in pairs(hub:process_list()) do
        if next(instances) == ... then return id end
      end
    ]], c[2].name)
    local answer = c[1]:send([[
      local reply, err = hub:call(..., { "sleep", 60000 }, 30000)
      return reply, err and err.code
    ]], id)
    eventually(function() return c[1]:eval [[ return true ]] end)
    c[2]:kill()
    assert.same({ nil, "noconnection" }, { answer(20000) })
    local where = c[1]:eval_within(20000, [[ return hub:call(..., "where", 15000) ]], id)
    assert.is_truthy(({ [c[1].name] = true, [c[3].name] = true })[where.node])
  end)

  it("names nodes and reasons in the errors of a start", function()
    local errors = c[1]:eval [[
      local specs = {}
      for i = 1, 30 do
        specs[i] = { id = "e" .. i, start = { "spec.support.children", "refuse", { "not today" } } }
      end
      local result = assert(hub:start_children(specs, { awaitable = true })):await()
      local seen = {}
      for _, e in ipairs(result.errors) do
        if e.reason == "not today" then seen[e.node] = (seen[e.node] or 0) + 1 end
      end
      return seen
    ]]
    local total = 0
    for _, node in ipairs(c) do total = total + (errors[node.name] or 0) end
    assert.equal(30, total)
    for _, node in ipairs(c) do
      assert.is_true(node:eval [[ return next(hub:process_list()) == nil ]])
    end
  end)

  it("names the node that does not answer in time, and the one that runs a child already", function()
    start(c[1], 30)
    local seen = c[1]:eval [[
      local children = require "spec.support.children"
      local specs = children.specs(30)
      for i = 1, 30 do specs[#specs + 1] = { id = "s" .. i, start = { "spec.support.children", "slow", { 500 } } } end
      local options = { awaitable = true, check_existing = false, timeout = 100 }
      local seen = {}
      for _, e in ipairs(assert(hub:start_children(specs, options)):await().errors) do
        local where = e.reason .. " " .. tostring(e.node)
        seen[where] = (seen[where] or 0) + 1
        if e.pid and e.pid.node ~= e.node then seen[where] = "not where it runs" end
      end
      return seen
    ]]
    local total = { already_started = 0, node_receive_timeout = 0 }
    for _, node in ipairs(c) do
      for reason, n in pairs(total) do total[reason] = n + (seen[reason .. " " .. node.name] or 0) end
    end
    assert.same({ already_started = 30, node_receive_timeout = 30 }, total)
  end)

  it("hands error values on as they are, whichever node they were raised on", function()
    local raised, reasons, downs = c[1]:eval [[
      local children = require "spec.support.children"
      local specs = {}
      for i = 1, 30 do specs[i] = { id = "e" .. i, start = { "spec.support.children", "raise_table" } } end
      local result = assert(hub:start_children(specs, { awaitable = true })):await()
      local raised, reasons, downs = 0, 0, 0
      for _, e in ipairs(result.errors) do
        if e.reason[1] == "error" and e.reason[2].code == 5 and e.reason[2].list[1] == 1 then raised = raised + 1 end
      end
      assert(hub:start_children(children.specs(30), { awaitable = true })):await()
      for i = 1, 30 do
        local pid = hub:get_pid("c" .. i)
        local ref = phub.process.monitor(pid)
        local _, err = phub.gen_server.call(pid, { "crash_with", { code = i } })
        if err.reason[2].code == i then reasons = reasons + 1 end
        local down = phub.process.receive(function(m) return m[2] == ref end, 5000)
        if down[4][2].code == i then downs = downs + 1 end
      end
      return raised, reasons, downs
    ]]
    assert.same({ 30, 30, 30 }, { raised, reasons, downs })
  end)

  it("refuses what runs elsewhere", function()
    start(c[1], 30)
    local code, list = c[2]:eval [[
      local children = require "spec.support.children"
      local _, err = hub:start_children { children.spec "c7", children.spec "new", children.spec "c3" }
      return err.code, err.children
    ]]
    assert.equal("already_started", code)
    assert.same({ "c7", "c3" }, list)
  end)

  it("says which strategies differ, and runs nothing", function()
    local other = c:add { hub = [[ { hub_id = "h",
      synchronization_strategy = phub.strategy.synchronization.pubsub { sync_interval = 1234 } } ]] }
    eventually(function()
      local _, code, message = other:eval [[
        local future, err = hub:start_child(require "spec.support.children".spec "x")
        return future, err and err.code, err and err.message
      ]]
      assert.equal("strategy_mismatch", code)
      assert.matches("%S", message)
      return true
    end)
    assert.equal("ok", (start(c[1], 5)))
    assert.same({}, other:eval [[ return hub:process_list "local" ]])
  end)
end)
