-- Nodes that stop, go on, join and leave: what moves, what does not, and who answers meanwhile.
local uv = require "luv"
local cluster = require "spec.support.cluster"
local eventually = require "spec.support.eventually"
local os_process = require "spec.support.os_process"
local tally = require "spec.support.tally"

local FULL = os.getenv "PHUB_SPEC_FULL"
local CHILDREN = FULL and 3000 or 600
local NODE = "{ heartbeat_interval = 200, heartbeat_timeout = 1600 }"
local STOPPED_MS = 4000

local START = [[
  local prefix, count = ...
  local specs = require "spec.support.census".specs(prefix, count)
  local result = assert(phub.start_children("h", specs, { awaitable = true })):await()
  return result.status, #result.started ]]

-- Calls children by id, one after the other, and keeps what went wrong and the longest wait.
local CALLS = [[
  local prefix, count = ...
  calls = { made = 0, longest = 0, errors = {} }
  local process = phub.process
  process.spawn(function()
    while not calls.stop do
      local id = prefix .. math.random(count)
      local before = process.now()
      local reply, err = phub.call("h", id, "where", 10000)
      calls.made = calls.made + 1
      calls.longest = math.max(calls.longest, process.now() - before)
      if not reply then
        calls.errors[#calls.errors + 1] = id .. " " .. tostring(err)
        process.sleep(1)
      end
    end
    calls.over = true
  end) ]]

local STOP_CALLS = [[
  calls.stop = true
  while not calls.over do phub.process.sleep(2) end
  return calls.made, calls.errors, calls.longest ]]

describe("a cluster", function()
  local c

  local function begin(n)
    c = cluster.start(n, { node = NODE })
    tally.hubs(c)
    assert.same({ "ok", CHILDREN }, { c[1]:eval(START, "c", CHILDREN) })
    return tally.ids("c", CHILDREN)
  end

  after_each(function()
    for _, node in ipairs(c or {}) do node.process:signal "cont" end
    if c then c:stop() end
    os_process.finish()
  end)

  local function calls_went_well(node)
    local made, errors, longest = node:eval(STOP_CALLS)
    assert.same({}, errors)
    assert.is_true(made > 10, made .. " calls")
    if FULL then print(("  %d calls by id meanwhile, the longest %.0f ms"):format(made, longest)) end
  end

  local function sleep(ms)
    local till = uv.hrtime() + ms * 1e6
    while uv.hrtime() < till do uv.run "nowait" uv.sleep(5) end
  end

  it("takes over from a node that is stopped too long, and merges it when it goes on", function()
    local ids = begin(3)
    c[2]:pause()
    c[2].dead = true -- to the tally, for now
    tally.settle(c, ids)
    sleep(STOPPED_MS)
    assert.is_true(tally.each_once(c, ids))
    c[2]:resume()
    c[2].dead = nil
    tally.hubs(c)
    tally.settle(c, ids)
    eventually(function() return tally.registries(c) end, 10000)
    -- It has its share again.
    local count = select(2, c[2]:eval [[ return require "spec.support.census".list() ]]:gsub("[^\n]+", ""))
    assert.is_true(count > CHILDREN / 6, count .. " children")
    for i = 1, 3 do assert.equal("", c[i].process.errors) end
  end)

  it("does not notice a node that is stopped for less", function()
    begin(3)
    local before = tally.running(c)
    c[2]:pause()
    sleep(800)
    c[2]:resume()
    sleep(2000)
    tally.hubs(c)
    assert.same(before, tally.running(c))
    assert.equal(CHILDREN, c[1]:eval [[ return require "spec.support.census".started ]]
      + c[2]:eval [[ return require "spec.support.census".started ]]
      + c[3]:eval [[ return require "spec.support.census".started ]])
  end)

  -- Of two tallies: ids whose node changed, each { from, to }.
  local function moved(before, after)
    local changes = {}
    for id, names in pairs(before) do
      if names[1] ~= after[id][1] then changes[id] = { names[1], after[id][1] } end
    end
    return changes
  end

  -- No instance of an id began before the one before it had ended.
  local function never_twice(nodes)
    local by_id = {}
    for _, node in ipairs(nodes) do
      for _, entry in ipairs(tally.journal(node)) do
        by_id[entry.id] = by_id[entry.id] or {}
        table.insert(by_id[entry.id], entry)
      end
    end
    for id, list in pairs(by_id) do
      table.sort(list, function(a, b) return a.began < b.began end)
      for i = 2, #list do
        local before = list[i - 1].ended
        assert.is_true(before ~= nil and before <= list[i].began, id .. " ran twice at once")
      end
    end
  end

  it("moves to a node that joins what belongs there, nothing else, and answers calls by id throughout", function()
    local ids = begin(3)
    local before = tally.running(c)
    c[1]:eval(CALLS, "c", CHILDREN)
    c[3]:eval(CALLS, "c", CHILDREN)
    local new = c:add()
    tally.hubs(c)
    new:eval(CALLS, "c", CHILDREN)
    eventually(function()
      local count = new:eval [[ return require "spec.support.census".started ]]
      for _, node in ipairs(c) do
        if node:eval [[ return phub.is_locked "h" ]] then return nil, "moves are under way" end
      end
      return count > CHILDREN / 8, count .. " have moved"
    end, 20000)
    tally.settle(c, ids)
    sleep(200)
    local changes, count = moved(before, tally.running(c)), 0
    for id, change in pairs(changes) do
      assert.equal(new.name, change[2], id)
      count = count + 1
    end
    assert.is_true(count > CHILDREN / 8 and count < CHILDREN / 2, count .. " moved")
    assert.equal(count, new:eval [[ return require "spec.support.census".started ]])
    never_twice(c)
    for _, i in ipairs { 1, 3, 4 } do calls_went_well(c[i]) end
    assert.is_true(tally.registries(c))
  end)

  for how, leave in pairs {
    ["by node.stop"] = function(node) node:stop() end,
    ["by SIGTERM"] = function(node)
      node.dead = true
      node.process:signal "term"
      assert.same({ code = 143 }, node.process:wait())
    end,
  } do
    it("hands on what a node has that leaves " .. how .. ", and answers calls by id throughout", function()
      local ids = begin(3)
      local before = tally.running(c)
      local leaver = c[2]
      c[1]:eval(CALLS, "c", CHILDREN)
      c[3]:eval(CALLS, "c", CHILDREN)
      local began = uv.hrtime()
      leave(leaver)
      local took = (uv.hrtime() - began) / 1e6
      -- It had handed on all before it was gone: no waiting here.
      assert.is_true(tally.each_once(c, ids))
      for id, change in pairs(moved(before, tally.running(c))) do assert.equal(leaver.name, change[1], id) end
      assert.equal("", leaver.process.errors)
      for _, i in ipairs { 1, 3 } do
        assert.same(1, #c[i]:sees())
        calls_went_well(c[i])
      end
      if FULL then print(("  left in %.0f ms"):format(took)) end
      assert.is_true(tally.registries(c))
    end)
  end

  it("is read without any word from the others", function()
    begin(3)
    c[2]:pause()
    c[3]:pause()
    local missing, slowest = c[1]:eval([[
      local count = ...
      local now, missing, slowest = phub.process.now, 0, 0
      for i = 1, count do
        local before = now()
        local pid = phub.get_pid("h", "c" .. i)
        local spec, instances = phub.child_lookup("h", "c" .. i)
        slowest = math.max(slowest, now() - before)
        if not pid or spec.id ~= "c" .. i or instances[pid.node] ~= pid then missing = missing + 1 end
      end
      return missing, slowest ]], CHILDREN)
    c[2]:resume()
    c[3]:resume()
    assert.equal(0, missing)
    assert.is_true(slowest < 100, ("the slowest took %.1f ms"):format(slowest))
  end)
end)
