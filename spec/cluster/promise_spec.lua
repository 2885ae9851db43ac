-- Promise 1: kill -9 of any one node the instant an awaited start resolves loses no child.
local uv = require "luv"
local cluster = require "spec.support.cluster"
local os_process = require "spec.support.os_process"
local tally = require "spec.support.tally"

local FULL = os.getenv "PHUB_SPEC_FULL"
local CHILDREN = 3000
local ROUNDS = FULL and 10 or 1

-- The requester kills by itself, in the statement after the one that waits for the future.
local START = [[
  local uv, census = require "luv", require "spec.support.census"
  local victim, count = ...
  local result, err = phub.start_children("h", census.specs("c", count), { awaitable = true }):await()
  if result and result.status == "ok" then uv.kill(victim, "sigkill") end
  return result and result.status, result and #result.started, result and #result.errors, tostring(err)
]]

describe("an awaited start of 3,000 children on three nodes", function()
  local c

  after_each(function()
    if c then c:stop() end
    os_process.finish()
  end)

  local function round(victim)
    c = cluster.start(3)
    tally.hubs(c)
    local ids = tally.ids("c", CHILDREN)
    local node = c[victim]
    local answer = c[1]:send(START, node.process.pid, CHILDREN)
    if victim == 1 then
      assert.same({ signal = 9 }, node.process:wait())
    else
      assert.same({ "ok", CHILDREN, 0, "nil" }, { answer() })
      assert.same({ signal = 9 }, node.process:wait())
    end
    local killed = uv.hrtime()
    node.dead = true
    tally.settle(c, ids)
    if FULL then
      print(("  node %d: each runs once %.0f ms after the kill"):format(victim, (uv.hrtime() - killed) / 1e6))
    end
    -- What ran on the survivors ran on; what ran on the dead one began once more, once.
    local begun = {}
    for _, survivor in ipairs(c:live()) do
      for _, entry in ipairs(tally.journal(survivor)) do
        begun[entry.id] = (begun[entry.id] or 0) + 1
        assert.is_nil(entry.ended, entry.id .. " was ended on " .. survivor.name)
      end
    end
    for _, id in ipairs(ids) do assert.equal(1, begun[id], id) end
    assert.is_true(tally.registries(c))
    c:stop()
  end

  for victim, who in ipairs { "the requester", "the second node", "the third node" } do
    it("survives the loss of " .. who .. " the instant it resolves", function()
      for _ = 1, ROUNDS do round(victim) end
    end)
  end
end)
