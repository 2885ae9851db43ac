-- On a node: reads of a registry of n children, and the same of a plain table.
local phub = require "phub"
local child = require "spec.bench.child"
local measure = require "spec.bench.measure"

local reads = {}

local HOT, TURNS = 1000, 5

local function shuffled(n)
  local ids = child.ids(1, n)
  math.randomseed(1)
  for i = n, 2, -1 do
    local j = math.random(i)
    ids[i], ids[j] = ids[j], ids[i]
  end
  return ids
end

-- Functions of a list of ids: each looks every one of them up.
local function lookup(read)
  return function(ids)
    for i = 1, #ids do
      if read("h", ids[i]) == nil then error("not there: " .. ids[i]) end
    end
  end
end

local function field(t)
  return function(ids)
    for i = 1, #ids do
      if t[ids[i]] == nil then error("not there: " .. ids[i]) end
    end
  end
end

--- Reads a second, of all ids in random order and of a thousand of them: for each name
--- `{ all=, hot= }`; `table` is t[id]. They take turns, so that what else the machine does falls on
--- all of them; medians.
function reads.rates(n, seconds)
  local lists = { all = shuffled(n) }
  lists.hot = table.move(lists.all, 1, math.min(n, HOT), 1, {})
  local plain = {}
  for _, id in ipairs(lists.all) do plain[id] = phub.get_pid("h", id) end
  local reading = {
    table = field(plain), get_pid = lookup(phub.get_pid), child_lookup = lookup(phub.child_lookup),
  }
  local runs = { table = {}, get_pid = {}, child_lookup = {} }
  for _ = 1, TURNS do
    for name, read in pairs(reading) do
      for which, ids in pairs(lists) do
        collectgarbage()
        runs[name][which] = runs[name][which] or {}
        table.insert(runs[name][which],
          measure.rate(seconds / TURNS, #ids, function() read(ids) end, measure.cpu))
      end
    end
  end
  for _, run in pairs(runs) do
    for which, list in pairs(run) do run[which] = measure.median(list) end
  end
  return runs
end

local function count(map)
  local n = 0
  for _ in pairs(map) do n = n + 1 end
  return n
end

local function copy(plain, name)
  local out = {}
  for id, pid in pairs(plain) do out[id] = { [name] = pid } end
  return out
end

local function repeated(times, expected, fn, ...)
  local runs = {}
  for i = 1, times do
    collectgarbage()
    local seconds, map = measure.by(measure.cpu, fn, ...)
    runs[i] = seconds
    assert(count(map) == expected, "it lists the wrong number of children")
  end
  return measure.median(runs)
end

--- Seconds of the reads that list children, and of copying a plain table into one of the same shape.
function reads.lists(n, tagged, times)
  local plain, some = {}, {}
  for i = 1, n do plain[child.id(i)] = phub.get_pid("h", child.id(i)) end
  for i = n - tagged + 1, n do some[child.id(i)] = plain[child.id(i)] end
  local name = phub.node.self()
  return {
    process_list = repeated(times, n, phub.process_list, "h"),
    tag_query = repeated(times, tagged, phub.tag_query, "h", "some"),
    copy_all = repeated(times, n, copy, plain, name),
    copy_some = repeated(times, tagged, copy, some, name),
  }
end

return reads
