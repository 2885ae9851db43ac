-- kill -9 of a node while an awaited start is under way: nothing is lost, doubled or left unsaid.
-- timeout: 400
local uv = require "luv"
local cluster = require "spec.support.cluster"
local os_process = require "spec.support.os_process"
local tally = require "spec.support.tally"

local FULL = os.getenv "PHUB_SPEC_FULL"
local CHILDREN = FULL and 20000 or 5000
local POINTS = FULL and 10 or 3
local LATER_MS = FULL and 5000 or 1500
local TIMEOUT_MS = 10000
local SLOW_MS = 100
local LEAST = 0.9 -- of the children are in `started`

-- Prints "go" when it begins; answers the ids in `started`, those in `errors`, and how long it took.
local START = [[
  local count, timeout, slow_ms = ...
  local process, census = phub.process, require "spec.support.census"
  local specs = census.specs("c", count, slow_ms)
  io.stdout:write "go\n"
  io.stdout:flush()
  local began = process.now()
  local result, err = assert(phub.start_children("h", specs, { awaitable = true, timeout = timeout })):await()
  local took = process.now() - began
  if not result then return nil, tostring(err), took end
  local started, errors = {}, {}
  for i, entry in ipairs(result.started) do started[i] = entry.id end
  for i, entry in ipairs(result.errors) do errors[i] = entry.id .. " " .. tostring(entry.reason) end
  return table.concat(started, "\n"), table.concat(errors, "\n"), took, result.status
]]

local function lines(text)
  local list = {}
  for line in text:gmatch("[^\n]+") do list[#list + 1] = line end
  return list
end

describe("an awaited start, while another node is killed,", function()
  local c

  after_each(function()
    if c then c:stop() end
    os_process.finish()
  end)

  local function begin(slow_ms)
    local answer = c[1]:send(START, CHILDREN, TIMEOUT_MS, slow_ms)
    c[1].process:expect("^go$")
    return answer
  end

  -- How long the whole takes when nobody is killed.
  local function duration(slow_ms)
    c = cluster.start(3)
    tally.hubs(c)
    local _, _, took, status = begin(slow_ms)(60000)
    assert.equal("ok", status)
    c:stop()
    return took
  end

  -- In exactly one of the two lists each; answers both.
  local function told(answer)
    local started, errors, took = answer(60000)
    assert.is_string(started, errors)
    assert.is_true(took < TIMEOUT_MS + 500, ("resolved after %.0f ms"):format(took))
    local where = {}
    started, errors = lines(started), lines(errors)
    for _, id in ipairs(started) do
      assert.is_nil(where[id], id)
      where[id] = "started"
    end
    for _, line in ipairs(errors) do
      local id = line:match("^%S+")
      assert.is_nil(where[id], line)
      where[id] = "errors"
    end
    for i = 1, CHILDREN do assert.is_string(where["c" .. i], "c" .. i .. " is in neither list") end
    assert.equal(CHILDREN, #started + #errors)
    return started, errors, took
  end

  local function round(victim, after_ms, slow_ms)
    c = cluster.start(3)
    tally.hubs(c)
    local answer = begin(slow_ms)
    uv.sleep(math.floor(after_ms))
    c[victim]:kill()
    local started, errors, took = told(answer)
    if FULL then
      print(("  killed after %3.0f ms: resolved after %5.0f ms, %d started, %d errors%s"):format(after_ms, took,
        #started, #errors, errors[1] and " (" .. errors[1] .. ")" or ""))
    end
    assert.is_true(#started >= LEAST * CHILDREN, ("%d of %d started"):format(#started, CHILDREN))
    tally.settle(c, started)
    -- Nothing may come to life later, either.
    local later = uv.hrtime() + LATER_MS * 1e6
    while uv.hrtime() < later do uv.run "nowait" uv.sleep(20) end
    assert.is_true(tally.each_once(c, started))
    assert.is_true(tally.registries(c))
    c:stop()
  end

  local function rounds(points, slow_ms)
    local whole = duration(slow_ms)
    if FULL then print(("  without a kill: %.0f ms"):format(whole)) end
    for point = 1, points do
      round(2 + point % 2, whole * (point - 0.5) / points, slow_ms)
    end
  end

  it("names each child once, and those started run once, whenever the kill comes", function()
    rounds(POINTS)
  end)

  it("does so too when the start functions take their time", function()
    rounds(FULL and POINTS or 1, SLOW_MS)
  end)

  it("does so too when the kill comes as the victim starts its first child", function()
    c = cluster.start(3)
    tally.hubs(c)
    c[2]:eval [[
      require "spec.support.census".on_start = function()
        require "luv".kill(require "luv".os_getpid(), "sigkill")
      end ]]
    c[2].dead = true
    local started = told(begin())
    assert.same({ signal = 9 }, c[2].process:wait())
    assert.is_true(#started >= LEAST * CHILDREN)
    tally.settle(c, started)
    assert.is_true(tally.registries(c))
  end)
end)
