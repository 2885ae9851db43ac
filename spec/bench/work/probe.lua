-- On a node: how promptly it answers a call each millisecond while something else goes on.
local process = require "phub.process"
local gen_server = require "phub.gen_server"
local child = require "spec.bench.child"
local measure = require "spec.bench.measure"

local probe = {}

local EACH = 0.001

local samples

--- Begins to call a server of this node; a call that comes late counts from when it was due.
function probe.start()
  samples = {}
  local mine = samples
  process.spawn(function()
    local server = gen_server.start_link(child, "x")
    while mine == samples do
      local due = measure.now() + EACH
      process.sleep(EACH * 1000)
      assert(gen_server.call(server, 1))
      mine[#mine + 1] = measure.now() - due
    end
    gen_server.stop(server)
  end)
end

--- Ends it: a summary, in seconds.
function probe.stop()
  local summary = measure.summary(samples)
  samples = nil
  return summary
end

return probe
