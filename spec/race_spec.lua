-- timeout: 300
-- Requests for one id from several nodes at once: one order for all of them, and all nodes agree.
local cluster = require "spec.support.cluster"
local eventually = require "spec.support.eventually"

describe("on three nodes", function()
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
    for _, node in ipairs(c) do
      node:eval [[
        local uv = require "luv"
        local children = require "spec.support.children"
        local function outcome(began, future, err)
          if not future then return { code = err.code } end
          local result = assert(future:await())
          local e, first = result.errors[1], result.started and result.started[1]
          return { began = began, ended = uv.hrtime(), done = not e, code = e and e.reason,
            pid = first and tostring(select(2, next(first.instances))) }
        end
        function start(id, options)
          options.awaitable = true
          local spec = children.spec(id, { from = phub.node.self() })
          return outcome(uv.hrtime(), hub:start_child(spec, options))
        end
        function stop(id) return outcome(uv.hrtime(), hub:stop_child(id, { awaitable = true })) end
        function known(id)
          local spec, instances = hub:child_lookup(id)
          if not spec then return "none" end
          local node, pid = next(instances)
          return ("%s %s %s"):format(spec.start[3][1].from, tostring(node), tostring(pid))
        end
      ]]
    end
  end)
  after_each(function() c:stop() end)

  -- The one thing that all nodes know of the id.
  local function agreed(id)
    return eventually(function()
      local first
      for _, node in ipairs(c) do
        local known = node:eval([[ return known(...) ]], id)
        if first and known ~= first then return nil, ("%s: %s, %s"):format(id, first, known) end
        first = known
      end
      return first ~= "" and not first:find " nil nil" and first
    end, 10000)
  end

  local function at_once(chunks, ...)
    local answers = {}
    for i, node in ipairs(c) do
      answers[i] = chunks[i] and node:send(chunks[i], ...)
    end
    for i in ipairs(c) do answers[i] = answers[i] and answers[i]() end
    return answers
  end

  it("starts of one id at once, a hundred times: one wins, the others are told", function()
    local winners = {}
    for round = 1, 100 do
      local id, won = "race" .. round, {}
      local chunk = [[ return start(..., { check_existing = ]] .. tostring(round % 2 == 0) .. [[ }) ]]
      for i, answer in ipairs(at_once({ chunk, chunk, chunk }, id)) do
        if answer.done then
          won[#won + 1] = i
          winners[i] = true
        else
          assert.equal("already_started", answer.code)
        end
      end
      assert.equal(1, #won, id)
      local known = agreed(id)
      assert.equal(c[won[1]].name, known:match "^%S+")
      assert.equal(c[won[1]].name, c[round % 3 + 1]:eval([[ return hub:call(..., "args").from ]], id))
    end
    assert.is_truthy(winners[1] or winners[2] or winners[3])
    local total = 0
    for _, node in ipairs(c) do
      total = total + node:eval [[
        local n = 0
        for _ in pairs(hub:process_list "local") do n = n + 1 end
        return n
      ]]
    end
    assert.equal(100, total)
  end)

  -- Both done: the answers overlap, so either may have been the last; unless one was there before the
  -- other was asked for.
  local function may_run(stopped, started, ran)
    if stopped.done and started.done then
      return started.ended >= stopped.began, stopped.ended >= started.began
    end
    local runs = started.done or not stopped.done and ran
    return runs, not runs
  end

  it("stop and start at once, a hundred times: what all agree on is what was answered", function()
    local seen = {}
    for round = 1, 100 do
      local id, ran = "change" .. round, round % 2 == 0
      if ran then assert.is_true(c[3]:eval([[ return start(..., {}) ]], id).done) end
      local answers = at_once({ [[ return stop(...) ]], [[ return start(..., { check_existing = false }) ]] }, id)
      local stopped, started = answers[1], answers[2]
      assert.is_truthy(stopped.done or stopped.code == "not_found", stopped.code)
      assert.is_truthy(started.done or ({ not_found = true, already_started = true })[started.code], started.code)
      local known = agreed(id)
      local runs, runs_not = may_run(stopped, started, ran)
      local what = ("%s: stop %s, start %s, then %s"):format(id, stopped.code, started.code, known)
      if known == "none" then
        assert.is_true(runs_not, what)
      else
        assert.is_true(runs, what)
        if started.done then assert.equal(started.pid, known:match "%S+$", what) end
      end
      seen[known == "none"] = true
    end
    assert.same({ [true] = true, [false] = true }, seen)
  end)
end)
