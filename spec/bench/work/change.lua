-- On a node: waits until its registry says where all children run after a node came or went.
local phub = require "phub"
local process = require "phub.process"
local child = require "spec.bench.child"
local measure = require "spec.bench.measure"

local change = {}

local LOOK_MS = 1
local SHARE = 0.01

--- How many children each node runs, by this node's registry; nil while a child runs nowhere or twice.
function change.counts(n)
  local counts, seen = {}, 0
  for _, instances in pairs(phub.process_list "h") do
    local name = next(instances)
    if not name or next(instances, name) then return nil end
    counts[name] = (counts[name] or 0) + 1
    seen = seen + 1
  end
  return seen == n and counts or nil
end

--- Where each child of a sample runs.
function change.places(n)
  local places = {}
  for _, id in ipairs(child.sample(n, SHARE, 100)) do places[id] = phub.get_pid("h", id).node end
  return places
end

-- The registry is listed in full, which takes long, only once a sample of it is right.
local function sample_settled(places, gone)
  for id, name in pairs(places) do
    local pid = phub.get_pid("h", id)
    if not pid or pid.node ~= name and (not gone or pid.node == gone) then return false end
  end
  return true
end

local function settled(n, gone, wanted)
  local counts = change.counts(n)
  if not counts or counts[gone or ""] then return false end
  for name, count in pairs(not gone and wanted or {}) do
    if counts[name] ~= count then return false end
  end
  return true
end

local function not_settled(n, ms)
  local told, counts = {}, change.counts(n)
  for name, count in pairs(counts or {}) do told[#told + 1] = name .. " " .. count end
  error(("after %d ms the registry says: %s"):format(ms, counts and table.concat(told, ", ")
    or "a child runs nowhere or twice"))
end

local function wait(n, places, wanted, gone, ms)
  local deadline = measure.now() + ms / 1000
  while measure.now() < deadline do
    local moment = measure.now()
    if sample_settled(places, gone) then
      if settled(n, gone, wanted) then return moment end
      process.sleep((measure.now() - moment) * 1000) -- others have their turn
    end
    process.sleep(LOOK_MS)
  end
  return not_settled(n, ms)
end

local function ask(n)
  for _, id in ipairs(child.sample(n, SHARE, 1)) do
    local answer, err = phub.call("h", id, 1, 10000)
    if not answer then error(id .. ": " .. tostring(err)) end
  end
  return measure.now()
end

local waiting

--- Begins to wait until each of the n children runs once: as many on each node as `wanted` says and
--- a sample at its places, or, after the fall of the node `gone`, all of its children on others;
--- and then, if asked for, until one child in a hundred has answered a call.
---@param held { n: integer, places: table<string, string>, counts: table<string, integer> }
function change.begin(held, gone, and_ask, ms)
  waiting = phub.future.new()
  process.spawn(function()
    local ok, moment = xpcall(wait, debug.traceback, held.n, held.places, held.counts, gone, ms)
    if ok and and_ask then ok, moment = xpcall(ask, debug.traceback, held.n) end
    if ok then waiting:resolve(moment) else waiting:reject(moment) end
  end)
end

--- When that was.
function change.finish()
  local moment, err = waiting:await(math.huge)
  return moment or error(err, 0)
end

--- Joins; returns when it began to.
function change.connect(address)
  local moment = measure.now()
  assert(phub.node.connect(address))
  return moment
end

return change
