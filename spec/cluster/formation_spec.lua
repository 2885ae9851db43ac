-- Nodes started at the same moment, each of which joins all the others, form one cluster.
local uv = require "luv"
local cluster = require "spec.support.cluster"
local os_process = require "spec.support.os_process"
local tally = require "spec.support.tally"
local values = require "spec.support.values"

local FULL = os.getenv "PHUB_SPEC_FULL"
local TIMES = FULL and 50 or 8
local NODES = 3
local MAX_APART_MS = 50
local LIMIT_MS = 10000

-- Ports that are free now: the system does not give one again soon.
local function free_ports(n)
  local sockets, ports = {}, {}
  for i = 1, n do
    sockets[i] = uv.new_tcp()
    assert(sockets[i]:bind("127.0.0.1", 0))
    ports[i] = sockets[i]:getsockname().port
  end
  for _, socket in ipairs(sockets) do socket:close() end
  uv.run "nowait"
  return ports
end

describe("three nodes that join each other", function()
  local c
  local seed = tonumber(os.getenv "PHUB_SPEC_SEED") or os.time()

  after_each(function()
    if c then c:stop() end
    os_process.finish()
  end)

  -- targets(i): what the i-th node is called, for the others' `join`
  local function form(round, targets)
    local ports = free_ports(NODES)
    c = cluster.start(0, { join = false })
    for i = 1, NODES do
      local join = {}
      for j = 1, NODES do
        if j ~= i then join[#join + 1] = targets(c, j, ports[j]) end
      end
      if i > 1 then uv.sleep(math.random(0, MAX_APART_MS)) end
      c:launch { node = ("{ listen = '127.0.0.1:%d', join = %s }"):format(ports[i], values.line(join)) }
    end
    for i = 1, NODES do c[i]:ready() end
    local began = uv.hrtime()
    local ok, err = pcall(tally.hubs, c, LIMIT_MS)
    if not ok then error(("round %d of seed %d: %s"):format(round, seed, err), 0) end
    local took = (uv.hrtime() - began) / 1e6
    -- One cluster in what it does, too: what one starts, all know.
    local ids = tally.ids("c", 9)
    assert.equal("ok", c[round % NODES + 1]:eval [[
      local specs = require "spec.support.census".specs("c", 9)
      return phub.start_children("h", specs, { awaitable = true }):await().status ]])
    tally.settle(c, ids)
    for i = 1, NODES do
      assert.equal(9, c[i]:eval [[
        local n = 0
        for _ in pairs(phub.process_list "h") do n = n + 1 end
        return n ]])
    end
    c:stop()
    return took
  end

  local function many(targets)
    math.randomseed(seed)
    local worst = 0
    for round = 1, TIMES do worst = math.max(worst, form(round, targets)) end
    if FULL then print(("  %d of %d, the slowest %.0f ms after the last was ready"):format(TIMES, TIMES, worst)) end
  end

  it("by address form one cluster, every time", function()
    many(function(_, _, port) return "127.0.0.1:" .. port end)
  end)

  it("by name form one cluster, every time", function()
    many(function(cl, i) return ("%s%d@127.0.0.1"):format(cl.prefix, i) end)
  end)
end)
