-- Promise 2: nodes are killed, started again, stopped, paused and added at random while children start and stop;
-- once it is quiet, what was answered is what runs, once, and all registries are equal.
--
-- PHUB_SPEC_SEED=n begins with that seed; the deeds of a failed round are printed with it.
-- timeout: 400
local uv = require "luv"
local cluster = require "spec.support.cluster"
local eventually = require "spec.support.eventually"
local os_process = require "spec.support.os_process"
local tally = require "spec.support.tally"

local FULL = os.getenv "PHUB_SPEC_FULL"
local ROUNDS = FULL and 20 or 2
local STEPS = 60
local SEED = tonumber(os.getenv "PHUB_SPEC_SEED") or os.time()
local NODE = "{ heartbeat_interval = 100, heartbeat_timeout = 1000 }"
local FEWEST, MOST = 2, 5 -- nodes that live
local BATCH = 60
local APART_MS = 400   -- between two losses: the promise is about any one node
local PAUSE_MS = { 200, 2500 }
local QUIET_MS = 20000

local START = [[
  local ids, options = ...
  local specs = {}
  for i, id in ipairs(ids) do specs[i] = { id = id, start = { "spec.support.census", "start", { id } } } end
  local future, err = phub.start_children("h", specs, { awaitable = true, check_existing = false })
  if not future then return nil, tostring(err) end
  local result = assert(future:await())
  local started = {}
  for i, entry in ipairs(result.started) do started[i] = entry.id end
  return started, #result.errors, result.errors[1] and tostring(result.errors[1].reason) ]]

local STOP = [[
  local result = assert(assert(phub.stop_children("h", ..., { awaitable = true })):await())
  local stopped = {}
  for i, entry in ipairs(result.stopped) do stopped[i] = entry.id end
  return stopped, #result.errors, result.errors[1] and tostring(result.errors[1].reason) ]]

local Storm = {}
Storm.__index = Storm

function Storm:note(...)
  local ms = (uv.hrtime() - self.began) / 1e6
  self.deeds[#self.deeds + 1] = ("%6.0f  "):format(ms) .. string.format(...)
end

-- Nodes that live and are not paused.
function Storm:awake()
  local list = {}
  for _, node in ipairs(self.c:live()) do
    if not node.paused then list[#list + 1] = node end
  end
  return list
end

local function any(list) return list[math.random(#list)] end

-- state[id]: "free" (never ran, or stopped), "busy" (asked for), "runs", "unknown" (who asked is gone)
function Storm:take(state, n)
  local ids = {}
  for id, s in pairs(self.state) do
    if s == state then ids[#ids + 1] = id end
  end
  table.sort(ids)
  local taken = {}
  for _ = 1, math.min(n, #ids) do
    local id = table.remove(ids, math.random(#ids))
    self.state[id] = "busy"
    taken[#taken + 1] = id
  end
  return taken
end

function Storm:start()
  local ids = self:take("free", math.random(BATCH // 4))
  for _ = 1, math.random(BATCH) do
    self.count = self.count + 1
    ids[#ids + 1] = "c" .. self.count
    self.state["c" .. self.count] = "busy"
  end
  self:ask("start", START, ids)
end

function Storm:stop()
  local ids = self:take("runs", math.random(BATCH))
  if #ids > 0 then self:ask("stop", STOP, ids) end
end

function Storm:ask(what, chunk, ids)
  local node = any(self:awake())
  self:note("%s asks to %s %d: %s ...", node.name, what, #ids, ids[1])
  table.insert(self.asked, { what = what, node = node, ids = ids, answer = node:send(chunk, ids), id = node.asked })
end

-- What an answer says of the ids.
function Storm:answered(ask, listed, errors, reason)
  if not listed then error(ask.what .. ": " .. tostring(errors), 0) end
  self:note("%s: %s of %d, %d errors %s", ask.node.name, ask.what, #ask.ids, errors, reason or "")
  local is_listed = {}
  for _, id in ipairs(listed) do is_listed[id] = true end
  for _, id in ipairs(ask.ids) do
    if ask.what == "start" then
      self.state[id] = is_listed[id] and "runs" or "free"
    else
      self.state[id] = is_listed[id] and "free" or "unknown"
    end
  end
end

-- Looks at what has been answered; waits for all of it when `all`.
function Storm:collect(all)
  local open = {}
  for _, ask in ipairs(self.asked) do
    local node = ask.node
    local ok = pcall(node.answer, node, ask.id, all and not node.dead and QUIET_MS or 0)
    if ok then
      self:answered(ask, ask.answer())
    elseif node.dead then
      for _, id in ipairs(ask.ids) do self.state[id] = "unknown" end
    elseif all then
      error(("%s did not answer a %s\n%s"):format(node.name, ask.what, node.process.errors), 0)
    else
      open[#open + 1] = ask
    end
  end
  self.asked = open
end

function Storm:lose(how)
  if #self:awake() <= FEWEST or uv.hrtime() < self.lost + APART_MS * 1e6 then return end
  local node = any(self:awake())
  self:note("%s %s", how, node.name)
  if how == "kill" then
    node:kill()
  else
    node:stop(QUIET_MS)
  end
  self.lost = uv.hrtime()
  return node
end

-- One more node; with a name, that one's next incarnation.
function Storm:add(name)
  if #self.c:live() >= MOST then return end
  local config = ("{ heartbeat_interval = 100, heartbeat_timeout = 1000, join = { %q }, name = %s }")
    :format(any(self:awake()).address, name and ("%q"):format(name))
  local node = self.c:add { node = config }
  node.name = name or node.name
  self:note("add %s", node.name)
end

function Storm:restart()
  local node = self:lose "kill"
  if node then self:add(node.name) end
end

function Storm:pause()
  if #self:awake() <= FEWEST or uv.hrtime() < self.lost + APART_MS * 1e6 then return end
  local node = any(self:awake())
  local ms = math.random(table.unpack(PAUSE_MS))
  self:note("pause %s for %d ms", node.name, ms)
  node:pause()
  node.paused = uv.hrtime() + ms * 1e6
  self.lost = uv.hrtime()
end

function Storm:wake(all)
  for _, node in ipairs(self.c:live()) do
    if node.paused and (all or uv.hrtime() >= node.paused) then
      self:note("resume %s", node.name)
      node.paused = nil
      node:resume()
    end
  end
end

local DEEDS = { "start", "start", "start", "stop", "stop", "kill", "restart", "leave", "add", "add", "pause" }

function Storm:step()
  local deed = any(DEEDS)
  if deed == "kill" or deed == "leave" then
    self:lose(deed)
  else
    self[deed](self)
  end
  local till = uv.hrtime() + math.random(0, 120) * 1e6
  while uv.hrtime() < till do
    uv.run "nowait"
    self:wake()
    uv.sleep(2)
  end
  self:collect()
end

-- Is what runs what was answered, once?
function Storm:judge()
  local where, wrong = tally.running(self.c), {}
  local function bad(...) wrong[#wrong + 1] = string.format(...) end
  for id, state in pairs(self.state) do
    local names = where[id] or {}
    if #names > 1 then
      bad("%s runs on %s", id, table.concat(names, " and "))
    elseif state == "runs" and #names == 0 then
      bad("%s does not run", id)
    elseif state == "free" and #names > 0 then
      bad("%s runs on %s though it was stopped or never started", id, names[1])
    end
  end
  for id in pairs(where) do
    if not self.state[id] then bad("%s runs and was never asked for", id) end
  end
  if #wrong == 0 then return true end
  return nil, #wrong .. ": " .. table.concat(wrong, "; ", 1, math.min(#wrong, 8))
end

function Storm:quiet()
  self:wake(true)
  self:collect(true)
  tally.hubs(self.c, QUIET_MS)
  eventually(function() return self:judge() end, QUIET_MS)
  eventually(function() return tally.registries(self.c) end, QUIET_MS)
  local till = uv.hrtime() + 1.5e9
  while uv.hrtime() < till do uv.run "nowait" uv.sleep(10) end
  assert(self:judge())
  assert(tally.registries(self.c))
end

describe("a cluster in a storm of failures", function()
  local c

  after_each(function()
    for _, node in ipairs(c or {}) do node.process:signal "cont" end
    if c then c:stop() end
    os_process.finish()
  end)

  local function round(seed)
    math.randomseed(seed)
    c = cluster.start(3, { node = NODE })
    tally.hubs(c)
    local storm = setmetatable({ c = c, state = {}, asked = {}, deeds = {}, count = 0, lost = 0,
      began = uv.hrtime() }, Storm)
    local ok, err = pcall(function()
      for _ = 1, STEPS do storm:step() end
      storm:note "quiet"
      storm:quiet()
    end)
    if not ok then
      local logs = {}
      for _, node in ipairs(c) do
        if node.process.errors ~= "" then logs[#logs + 1] = node.name .. ": " .. node.process.errors end
      end
      error(("seed %d: %s\n%s\n%s"):format(seed, tostring(err), table.concat(storm.deeds, "\n"),
        table.concat(logs, "\n")), 0)
    end
    c:stop()
  end

  for i = 0, ROUNDS - 1 do
    it("ends with what was answered, once, and equal registries (" .. i + 1 .. ")", function()
      round(SEED + i)
    end)
  end
end)
