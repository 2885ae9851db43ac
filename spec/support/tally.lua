-- Judges what a cluster runs by what its children say (spec.support.census), for specs.
local eventually = require "spec.support.eventually"

local tally = {}

local MS = 30000

--- Names of the nodes on which each id runs, as often as it runs: `{ [id] = { name, ... } }`.
function tally.running(c)
  local answers, where = {}, {}
  local live = c:live()
  for i, node in ipairs(live) do
    answers[i] = node:send [[ return require "spec.support.census".list() ]]
  end
  for i, node in ipairs(live) do
    for id in answers[i](MS):gmatch("[^\n]+") do
      where[id] = where[id] or {}
      table.insert(where[id], node.name)
    end
  end
  return where
end

local function some(list)
  local first = table.concat(list, ", ", 1, math.min(#list, 5))
  return #list > 5 and first .. (", ... (%d)"):format(#list) or first
end

--- Does each of the ids run once, and nothing else? true, or nil and what is wrong.
---@param c table  a cluster
---@param ids string[]
function tally.each_once(c, ids)
  local where, wanted = tally.running(c), {}
  local missing, twice, more = {}, {}, {}
  for _, id in ipairs(ids) do
    wanted[id] = true
    if not where[id] then
      missing[#missing + 1] = id
    elseif #where[id] > 1 then
      twice[#twice + 1] = id .. " on " .. table.concat(where[id], "+")
    end
  end
  for id, names in pairs(where) do
    if not wanted[id] then more[#more + 1] = id .. " on " .. table.concat(names, "+") end
  end
  if #missing + #twice + #more == 0 then return true end
  return nil, ("of %d missing: %s; twice: %s; unwanted: %s"):format(#ids, some(missing), some(twice), some(more))
end

--- Waits for that.
function tally.settle(c, ids, ms)
  return eventually(function() return tally.each_once(c, ids) end, ms or MS)
end

--- Does every node's registry say what the children say? true, or nil and what is wrong.
function tally.registries(c)
  local lines = {}
  for id, names in pairs(tally.running(c)) do
    table.sort(names)
    lines[#lines + 1] = id .. " " .. table.concat(names, " ")
  end
  table.sort(lines)
  local truth, wrong = table.concat(lines, "\n"), {}
  for _, node in ipairs(c:live()) do
    local told = node:eval_within(MS, [[ return require "spec.support.census".registry("h") ]])
    if told ~= truth then wrong[#wrong + 1] = tally.difference(node.name, told, truth) end
  end
  if #wrong == 0 then return true end
  return nil, table.concat(wrong, "; ")
end

--- The first lines that one text has and the other lacks.
function tally.difference(name, told, truth)
  local function lacks(a, b)
    local has, out = {}, {}
    for line in b:gmatch("[^\n]+") do has[line] = true end
    for line in a:gmatch("[^\n]+") do
      if not has[line] then out[#out + 1] = line end
    end
    return some(out)
  end
  return ("%s says wrongly: %s; and not: %s"):format(name, lacks(told, truth), lacks(truth, told))
end

--- The instances that ever began on a node, in order: { id=, began=, ended= } (ended nil: it lives).
function tally.journal(node)
  local list = {}
  local text = node:eval_within(MS, [[ return require "spec.support.census".journal() ]])
  for id, began, ended in text:gmatch("(%S+) (%d+) (%S+)") do
    list[#list + 1] = { id = id, began = math.tointeger(began), ended = math.tointeger(ended) }
  end
  return list
end

--- <prefix>1 to <prefix>count, as census.specs names them.
function tally.ids(prefix, count)
  local ids = {}
  for i = 1, count do ids[i] = prefix .. i end
  return ids
end

--- Waits until every live node's hub knows that of every other.
function tally.hubs(c, ms)
  c:settle(ms)
  local live = c:live()
  return eventually(function()
    for _, node in ipairs(live) do
      local others = node:eval [[ return phub.nodes "h" ]]
      if #others ~= #live - 1 then
        return nil, ("%s's hub knows %s"):format(node.name, table.concat(others, " "))
      end
    end
    return true
  end, ms or MS)
end

return tally
