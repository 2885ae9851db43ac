-- A script that ends without node.stop ends at once, with its own code, whatever runs in it.
local uv = require "luv"
local cluster = require "spec.support.cluster"
local eventually = require "spec.support.eventually"
local os_process = require "spec.support.os_process"

local FULL = os.getenv "PHUB_SPEC_FULL"
local TIMES = FULL and 20 or 4 -- each of ten ways to end
local PROMPT_MS = FULL and 1000 or 2000

-- A node with a peer, a hub with children, and messages on their way both ways.
local BEGIN = [[
  local phub = require "phub"
  local process = phub.process
  local census = require "spec.support.census"
  local name, peer = arg[1], arg[2]
  local function begin()
    assert(phub.node.start { name = name, cookie = "spec-cookie", join = { peer } })
    assert(phub.start_link { hub_id = "h" })
    while #phub.nodes "h" == 0 do process.sleep(1) end
    local specs = census.specs(name, 20)
    assert(phub.start_children("h", specs, { awaitable = true, check_existing = false })):await()
    process.spawn(function()
      while true do
        for i = 1, 20 do phub.cast("h", name .. i, 1) end
        process.sleep(0)
      end
    end)
    ready = true
    io.stdout:write "end\n"
    io.stdout:flush()
  end
  local function once_ready(fn)
    process.spawn(function()
      while not ready do process.sleep(1) end
      fn()
    end)
  end
]]

local WAYS = {
  { "falls off the end", 0, "begin()" },
  { "ends with an error", 1, "begin() error 'on purpose'", "on purpose" },
  { "calls os.exit", 7, "begin() os.exit(7)" },
  { "calls os.exit and closes the state", 8, "begin() os.exit(8, true)" },
  { "calls os.exit in a process", 9, "begin() phub.run(function() process.sleep(1) os.exit(9) end)" },
  { "calls os.exit in a process and closes the state", 10,
    "begin() phub.run(function() process.sleep(1) os.exit(10, true) end)" },
  { "calls os.exit in a process beside the main chunk's wait", 11,
    "once_ready(function() os.exit(11, true) end) begin() phub.run()" },
  { "ends with an error in phub.run", 1, "phub.run(function() begin() error 'in run' end)", "in run" },
  { "returns from phub.run", 0, "phub.run(begin)" },
  { "halts with a code", 12, "once_ready(function() phub.halt(12) end) begin() phub.run()" },
}

describe("a script with a node, peers and children", function()
  local c, n = nil, 0

  setup(function() c = cluster.start(1) end)

  teardown(function()
    if c then c:stop() end
    os_process.finish()
  end)

  for _, way in ipairs(WAYS) do
    local title, code, body, says = table.unpack(way)
    it("that " .. title .. " exits with its own code, at once", function()
      local slowest = 0
      for _ = 1, TIMES do
        n = n + 1
        local name = ("exit%d@127.0.0.1"):format(n)
        local p = os_process.lua(BEGIN .. body, { args = { name, c[1].address }, name = title })
        p:expect("^end$")
        local began = uv.hrtime()
        assert.same({ code = code }, p:wait())
        slowest = math.max(slowest, (uv.hrtime() - began) / 1e6)
        assert.is_true(slowest < PROMPT_MS, ("it took %.0f ms"):format(slowest))
        if says then
          assert.matches(says, p.errors)
        else
          assert.equal("", p.errors)
        end
      end
      -- The peer has seen each come and go, and is as it was.
      eventually(function() return #c[1]:sees() == 0 end)
      if FULL then print(("  %d of %d, the slowest took %.0f ms"):format(TIMES, TIMES, slowest)) end
    end)
  end

  it("leaves its peer at work", function()
    assert.equal(c[1].name, c[1]:eval [[
      phub.start_children("h", require "spec.support.census".specs("last", 1), { awaitable = true }):await()
      return phub.call("h", "last1", "where") ]])
    assert.equal("", c[1].process.errors)
  end)
end)
