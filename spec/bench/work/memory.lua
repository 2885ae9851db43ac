-- On a node: its memory, and children that live on one node of the cluster.
local phub = require "phub"
local child = require "spec.bench.child"
local bulk = require "spec.bench.work.bulk"

local memory = {}

--- Bytes that the process has in memory, garbage collected, and how many of them are Lua's.
function memory.used()
  collectgarbage()
  collectgarbage()
  local file <close> = assert(io.open("/proc/self/statm"))
  local pages = file:read("a"):match("^%d+ (%d+)")
  return { process = pages * 4096, lua = collectgarbage("count") * 1024 }
end

--- Which of the children 1 to n this node runs: their numbers, a line each.
function memory.here(n)
  bulk.start(child.specs(1, n))
  local numbers = {}
  for id in pairs(phub.process_list("h", "local")) do numbers[#numbers + 1] = id:match("%d+") end
  return table.concat(numbers, "\n")
end

--- How many children this node runs.
function memory.count()
  local n = 0
  for _ in pairs(phub.process_list("h", "local")) do n = n + 1 end
  return n
end

--- Starts the children of these numbers, in batches.
function memory.start(numbers)
  local BATCH = 1000
  local batch = {}
  for i in numbers:gmatch("%d+") do
    batch[#batch + 1] = child.spec(i)
    if #batch == BATCH then
      bulk.start(batch)
      batch = {}
    end
  end
  if #batch > 0 then bulk.start(batch) end
end

return memory
