-- Reads of the registry, beside a plain Lua table of the same size.
local TAGGED = 100
local LEAST = 1.4e6          -- get_pid a second at 100,000 children
local LOOKUP_FLOOR = 1e6     -- child_lookup builds tables
local MORE = 2               -- get_pid may slow that many times as much as t[id] does
local SMALL, LARGE = 1000, 100000

local function rate_rows(b, nodes, n, rates)
  for _, name in ipairs { "get_pid", "child_lookup" } do
    for _, ids in ipairs { "hot", "all" } do
      b:row { key = ids == "all" and name or name .. "_hot", nodes = nodes, n = n, unit = "/s",
        what = ids == "all" and name .. ", any id" or name .. ", 1,000 hot ids",
        value = rates[name][ids], limit = { what = "t[id]", value = rates.table[ids] },
        floor = name == "child_lookup" and LOOKUP_FLOOR or nil }
    end
  end
end

local function list_rows(b, nodes, n, tagged, lists)
  b:row { key = "process_list", what = "process_list", nodes = nodes, n = n, unit = "s",
    value = lists.process_list, limit = { what = "copy of a table", value = lists.copy_all } }
  b:row { key = "tag_query", what = ("tag_query of %d"):format(tagged), nodes = nodes, n = n, unit = "s",
    value = lists.tag_query, limit = { what = "copy of a table", value = lists.copy_some } }
end

-- get_pid is asked of 1,000 hot ids, and of any. With any, each call waits for memory three times in a
-- row, while a loop over t[id] asks for the next id's memory before it has the last one's.
local function check(b, nodes, key, ids)
  local small, large = b.report:find(key, nodes, SMALL), b.report:find(key, nodes, LARGE)
  if not large then return end
  b:check(("%d nodes: get_pid of %s at 100,000 children is at least 1.4 M/s"):format(nodes, ids),
    large.value >= LEAST, ("%.2f M/s"):format(large.value / 1e6))
  if not small then return end
  local slows, plain = small.value / large.value, small.limit.value / large.limit.value
  b:check(("%d nodes: get_pid of %s slows from 1,000 to 100,000 at most %d times as much as t[id]"):format(
    nodes, ids, MORE), slows <= MORE * plain, ("%.2f times, t[id] %.2f times"):format(slows, plain))
end

return function(b)
  for _, nodes in ipairs(b.nodes) do
    for _, n in ipairs(b.sizes) do
      local c = b:cluster(nodes)
      local tagged = math.min(TAGGED, n // 10)
      b:on(c[1], "bulk.fill", n, tagged)
      rate_rows(b, nodes, n, b:on(c[1], "reads.rates", n, b.seconds))
      list_rows(b, nodes, n, tagged, b:on(c[1], "reads.lists", n, tagged, 5))
      b:close(c, n)
    end
    check(b, nodes, "get_pid_hot", "1,000 hot ids")
    check(b, nodes, "get_pid", "any id")
  end
end
