-- Raw round trips over loopback, by a program in C: the limit of whatever asks another node.
local os_process = require "spec.support.os_process"

local BIN = os.getenv "BENCH_BIN" or "build/release/test"

--- A second: `{ different = { raw=, loop= }, one = { raw=, loop= } }`, the two processes on different
--- cores (absent where there is but one) or on one; `loop`: through phub's event loop.
return function(seconds)
  local result, out, errors = os_process.sh(("%s/core/net/test/bench_rtt %g"):format(BIN, seconds), 60000)
  assert(result.code == 0, errors)
  local trips = {}
  for where, loop, raw in out:gmatch "(%a+) cores?: loop (%d+)/s, raw (%d+)/s" do
    trips[where] = { loop = tonumber(loop), raw = tonumber(raw) }
  end
  return trips
end
