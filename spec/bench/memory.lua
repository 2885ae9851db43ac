-- Bytes that an idle child takes on its own node, and on another that knows it.
--
-- One cluster tells which children its first node runs; in a second one of the same names only these
-- are started, by the third node, whose own memory, garbage of the starts included, is left aside.
local function first_nodes(b, names, n)
  local c = b:cluster(3, { name = names })
  local numbers = b:on(c[1], "memory.here", 3 * n)
  b:close(c, 3 * n)
  return numbers
end

local function used(b, c)
  return { b:on(c[1], "memory.used"), b:on(c[2], "memory.used") }
end

return function(b)
  local names = ("memory-%d-"):format(require "luv".os_getpid())
  for _, n in ipairs(b.sizes) do
    local numbers = first_nodes(b, names, n)
    local _, count = numbers:gsub("%d+", "")
    local c = b:cluster(3, { name = names })
    local before = used(b, c)
    b:on(c[3], "memory.start", numbers)
    local after = used(b, c)
    assert(b:on(c[1], "memory.count") == count, "the first node does not run all of them")
    for i, where in ipairs { "own", "other" } do
      local function grown(field) return (after[i][field] - before[i][field]) / count end
      b:row { key = "memory_" .. where, nodes = 3, n = n, unit = "bytes", value = grown "process",
        what = ("memory per idle child, %s node"):format(where), lua = grown "lua", counted = count,
        limit = i == 1 and { what = "its state", value = b.machine.state_bytes } or nil }
    end
    c:stop()
  end
end
