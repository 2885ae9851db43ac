-- How late others are while one process of a node loops without end: bare, under pcall, in a coroutine
-- of its own; and beside nothing.
local LOOPS = { { "nothing", "beside nothing" }, { "bare", "beside an endless loop" },
  { "pcall", "beside a loop in pcall" }, { "coroutine", "beside a loop in a coroutine" } }

return function(b)
  local c = b:cluster(1)
  local beside_nothing
  for _, loop in ipairs(LOOPS) do
    local late = b:on(c[1], "preempt.late", loop[1], b.full and 5 or 1)
    beside_nothing = beside_nothing or late.median
    b:row { key = "late_" .. loop[1], what = "late, " .. loop[2], nodes = 1, unit = "s",
      value = late.median, p99 = late.p99, max = late.max,
      limit = { what = "beside nothing", value = beside_nothing } }
  end
  b:close(c)
end
