-- Nodes at the limits of their machine: of open files, and of the disk that takes their log.
local uv = require "luv"
local cluster = require "spec.support.cluster"
local eventually = require "spec.support.eventually"
local os_process = require "spec.support.os_process"

local ASK = [[ return phub.gen_server.call({ "answerer", (...) }, 41, 5000) ]]
local ANSWERER = [[
  local server = phub.gen_server
  local pid = assert(server.start { init = function() return 1 end,
    handle_call = function(state, by) return state + by end })
  assert(phub.process.register("answerer", pid))
]]
-- Opens files until there is room for no more, but for `...` of them.
local EXHAUST = [[
  held = {}
  while true do
    local file = io.open "/dev/null"
    if not file then break end
    held[#held + 1] = file
  end
  for _ = 1, ... do table.remove(held):close() end
  return #held
]]
local RELEASE = [[ for _, file in ipairs(held) do file:close() end held = {} ]]

describe("a node at its limit of open files", function()
  local c
  after_each(function() c:stop() end)

  -- Two nodes that know each other, the first of them at its limit.
  local function at_the_limit(spare)
    c = cluster.start(2, { hub = false })
    c:settle()
    for i = 1, 2 do c[i]:eval(ANSWERER) end
    local prlimit = os_process.start("prlimit", {
      args = { "--pid", tostring(c[1].process.pid), "--nofile=200:200" },
      env = { LD_PRELOAD = false }, -- it is no part of what is tested
    })
    assert.same({ code = 0 }, prlimit:wait())
    assert.is_true(c[1]:eval(EXHAUST, spare) > 50)
  end

  local function links_live()
    assert.equal(42, c[1]:eval(ASK, c[2].name))
    assert.equal(42, c[2]:eval(ASK, c[1].name))
  end

  it("keeps its links, says why it cannot connect, and connects when files are closed", function()
    at_the_limit(0)
    links_live()
    local other = c:add { join = false }
    for _ = 1, 3 do
      local ok, code = c[1]:eval([[
        local ok, err = phub.node.connect(..., 1000)
        return ok ~= nil, err and err.code ]], other.address)
      assert.is_false(ok)
      assert.equal("string", type(code))
    end
    links_live()
    c[1]:eval(RELEASE)
    assert.is_true(c[1]:eval([[ return (phub.node.connect(..., 5000)) ~= nil ]], other.address))
    c:settle()
    links_live()
  end)

  it("takes newcomers when files are closed, and keeps its links until then", function()
    at_the_limit(0)
    local newcomer = c:add { join = true }
    for _ = 1, 5 do
      links_live()
      assert.same({ c[2].name }, c[1]:sees())
      assert.same({}, newcomer:sees())
    end
    c[1]:eval(RELEASE)
    c:settle(30000)
    links_live()
  end)

  it("sleeps where it can accept nobody", function()
    at_the_limit(0)
    c:add { join = true }
    local cpu = [[ return os.clock() ]]
    links_live()
    local from, began = c[1]:eval(cpu), os.time()
    eventually(function() return os.time() - began >= 3 end)
    local used, took = c[1]:eval(cpu) - from, os.time() - began
    assert.is_true(used < took / 2, ("%.2f s of CPU in %d s"):format(used, took))
    c[1]:eval(RELEASE)
    c:settle(30000)
  end)
end)

describe("a node whose log cannot be written", function()
  it("lives on with its links and its hub", function()
    local c = cluster.start(2, { env = { PHUB_LOG = "debug" } })
    for i = 1, 2 do
      c[i]:eval [[
        local uv = require "luv"
        assert(uv.fs_close(2))
          assert(uv.fs_open("/dev/full", "w", 0) == 2)
      ]]
      c[i]:eval(ANSWERER)
    end
    c:settle()
    local newcomer = c:add()
    c:settle()
    newcomer:kill()
    c:settle()
    for i = 1, 2 do
      c[i]:eval [[
        assert(io.stderr:write(("x"):rep(10000)) == nil, "the log can be written")
        for i = 1, 20 do phub.process.spawn(function() error(("logged %d"):format(i)) end) end
        phub.process.sleep(1)
      ]]
      assert.equal(42, c[i]:eval(ASK, c[3 - i].name))
    end
    c:stop()
  end)
end)

describe("a node that comes and goes", function()
  local c
  after_each(function() c:stop() end)

  it("leaves no file, socket or thread behind, ten times", function()
    c = cluster.start(2, { hub = false })
    c[2]:eval [[ assert(phub.node.stop()) ]]
    local round = [[
      local name, peer, join = ...
      local uv, node = require "luv", phub.node
      assert(node.start { name = name, cookie = "spec-cookie" })
      assert(node.connect(join, 5000))
      assert(phub.start_link { hub_id = "h" })
      assert(#node.list() == 1)
      assert(phub.stop "h")
      assert(node.stop())
      local function entries(path)
        local n, dir = 0, assert(uv.fs_scandir(path))
        while uv.fs_scandir_next(dir) do n = n + 1 end
        return n
      end
      collectgarbage()
      return entries "/proc/self/fd", entries "/proc/self/task"
    ]]
    local first = table.pack(c[2]:eval(round, c[2].name, c[1].name, c[1].address))
    local function files(pid)
      local n, dir = 0, assert(uv.fs_scandir(("/proc/%d/fd"):format(pid)))
      while uv.fs_scandir_next(dir) do n = n + 1 end
      return n
    end
    eventually(function() return #c[1]:sees() == 0 end)
    local before = files(c[1].process.pid)
    for _ = 1, 10 do
      assert.same(first, table.pack(c[2]:eval(round, c[2].name, c[1].name, c[1].address)))
    end
    eventually(function() return #c[1]:sees() == 0 and files(c[1].process.pid) == before end)
    c[2].process:kill()
    c[2].dead = true
  end)
end)
