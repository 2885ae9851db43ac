-- A node that came into view while Lua was busy is reached by the very next call.
local cluster = require "spec.support.cluster"
local eventually = require "spec.support.eventually"

-- Connects in a process of its own, and blocks the whole interpreter until the other node has seen
-- this one, as the file says, and some time after; then calls `what` at once.
local CONNECT_BLOCKED = [[
  local name, file, what = ...
  os.remove(file)
  local answer
  phub.process.spawn(function() answer = phub.node.connect(name) end)
  phub.process.yield()
  while true do
    local f = io.open(file)
    if f then f:close() break end
    require "luv".sleep(10)
  end
  require "luv".sleep(200)
  assert(answer == nil, "it was not blocked")
  return load(what)(name)
]]

describe("a node that comes into view while Lua is busy", function()
  local c, file

  before_each(function()
    c = cluster.start(2, { hub = false, join = false })
    file = os.tmpname()
    c[2]:eval([[
      file = ...
      phub.node.monitor(function(event) if event == "nodeup" then assert(io.open(file, "w")):close() end end)
      seen = {}
      local server = { init = function() return {} end, handle_call = function(_, msg) return { msg } end,
        handle_cast = function(_, msg) seen[#seen + 1] = msg end,
        handle_info = function(_, msg) seen[#seen + 1] = msg end }
      pid = assert(phub.gen_server.start(server, {}, { name = "echo" }))
    ]], file)
  end)
  after_each(function()
    os.remove(file)
    c:stop()
  end)

  it("is called, and sent to, by name", function()
    local reply, code, sent, cast = c[1]:eval(CONNECT_BLOCKED, c[2].name, file, [[
      local dest = { "echo", ... }
      local reply, err = phub.gen_server.call(dest, "hi")
      return reply, err and err.code, phub.process.send(dest, "sent"), phub.gen_server.cast(dest, "cast")
    ]])
    assert.same({ { "hi" }, nil, true, true }, { reply, code, sent, cast })
    eventually(function() return #c[2]:eval [[ return seen ]] == 2 end)
  end)

  it("is sent to first", function()
    assert.same({ true, nil }, { c[1]:eval(CONNECT_BLOCKED, c[2].name, file, [[
      local ok, err = phub.process.send({ "echo", ... }, "sent")
      return ok, err and err.code
    ]]) })
    eventually(function() return #c[2]:eval [[ return seen ]] == 1 end)
  end)

  it("is called by a pid from before, and its server stopped", function()
    local got = c[1]:send([[
      assert(phub.node.connect(...))
      phub.process.register("asker")
      pid = phub.process.receive(10000)
      return pid ~= nil
    ]], c[2].name)
    eventually(function()
      return c[2]:eval([[ return phub.node.list()[1] and phub.process.send({ "asker", ... }, pid) ]], c[1].name)
    end)
    assert.is_true(got())
    c[1]:eval([[ assert(phub.node.disconnect(...)) ]], c[2].name)
    eventually(function() return #c[1]:sees() == 0 and #c[2]:sees() == 0 end)
    local reply, stopped = c[1]:eval(CONNECT_BLOCKED, c[2].name, file, [[
      local reply, err = phub.gen_server.call(pid, "hi")
      return reply or err.code, phub.gen_server.stop({ "echo", ... })
    ]])
    assert.same({ { "hi" }, true }, { reply, stopped })
  end)

  it("answers noconnection while it is not there", function()
    assert.equal("noconnection", c[1]:eval([[ return select(2, phub.process.send({ "echo", ... }, 1)).code ]],
      c[2].name))
  end)
end)
