-- Clocks and the few statistics that the benches share, in the driver and in its nodes.
local uv = require "luv"

local measure = {}

--- Seconds of the machine's monotonic clock: the same in every process.
function measure.now()
  return uv.hrtime() / 1e9
end

--- Seconds that this process has computed: a clock for what waits for nothing, so that the time
--- that other programs take of the machine does not count.
measure.cpu = os.clock

--- Seconds that fn takes by a clock, and what it returns.
function measure.by(clock, fn, ...)
  local start = clock()
  local result = table.pack(fn(...))
  return clock() - start, table.unpack(result, 1, result.n)
end

function measure.timed(fn, ...)
  return measure.by(measure.now, fn, ...)
end

--- How many a second: batch() does n of them, again and again for so many seconds.
---@param clock? fun(): number  default measure.now
function measure.rate(seconds, n, batch, clock)
  clock = clock or measure.now
  local count, start = 0, clock()
  local past
  repeat
    batch()
    count = count + n
    past = clock() - start
  until past >= seconds
  return count / past
end

--- The value below which a share of the list lies.
function measure.percentile(list, share)
  local sorted = table.move(list, 1, #list, 1, {})
  table.sort(sorted)
  return sorted[math.max(1, math.ceil(share * #sorted))]
end

function measure.median(list)
  return measure.percentile(list, 0.5)
end

--- What is told of many samples: `{ median=, p99=, max=, count= }`.
function measure.summary(list)
  return {
    median = measure.median(list), p99 = measure.percentile(list, 0.99),
    max = measure.percentile(list, 1), count = #list,
  }
end

return measure
