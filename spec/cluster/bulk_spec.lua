-- Bulk starts cost in proportion to their size. The rates themselves: spec/bench/start.lua.
-- timeout: 300
local os_process = require "spec.support.os_process"

local FULL = os.getenv "PHUB_SPEC_FULL"
local SMALL, BIG = 10000, 100000
local MOST = 20 -- times the small one's cost; in proportion it is 10
local BEST_OF = 3
local RATE = 100000 -- children a second at each size, of the issue; only looked at in full

local START = [[
  local phub = require "phub"
  local census = require "spec.support.census"
  local options = { awaitable = true, timeout = math.huge, await_timeout = math.huge }
  phub.run(function()
    local hub = assert(phub.start_link { hub_id = "h" })
    for line in io.lines() do
      local n = math.tointeger(line)
      local specs = {}
      for i = 1, n do specs[i] = { id = "c" .. i, start = { "spec.support.census", "plain", { i } } } end
      collectgarbage()
      local began, cpu = phub.process.now(), os.clock()
      local result = assert(assert(hub:start_children(specs, options)):await())
      local took = phub.process.now() - began
      cpu = (os.clock() - cpu) * 1000
      local here = 0
      for _ in pairs(hub:process_list "local") do here = here + 1 end
      print(result.status, #result.started, here, took, cpu)
      io.stdout:flush()
      local ids = {}
      for i = 1, n do ids[i] = "c" .. i end
      assert(assert(hub:stop_children(ids, options)):await())
    end
  end)
]]

describe("an awaited bulk start on one node", function()
  after_each(os_process.finish)

  -- The least of a few, in ms of the processor: whatever else runs on this machine.
  local function cost(p, n)
    local time, least = math.huge, math.huge
    for _ = 1, BEST_OF do
      p:write(n .. "\n")
      local status, started, here, took, cpu = p:expect("^(%a+)\t(%d+)\t(%d+)\t(%S+)\t(%S+)$", 120000)
      assert.same({ "ok", n, n }, { status, math.tointeger(started), math.tointeger(here) })
      time, least = math.min(time, tonumber(took)), math.min(least, tonumber(cpu))
    end
    if FULL then
      local rate = n / least * 1000
      print(("  %7d: %7.1f ms, of the processor %7.1f ms: %.0f children/s"):format(n, time, least, rate))
      assert.is_true(rate >= RATE, ("%.0f children/s"):format(rate))
    end
    return least
  end

  it("of " .. BIG .. " costs at most " .. MOST .. " times one of " .. SMALL, function()
    local p = os_process.lua(START)
    local small, big = cost(p, SMALL), cost(p, BIG)
    if FULL then cost(p, 10 * BIG) end
    p:close_stdin()
    assert.same({ code = 0 }, p:wait())
    assert.is_true(big <= MOST * small, ("%.1f ms and %.1f ms"):format(small, big))
  end)
end)
