-- Flow control between nodes: a receiver that does not keep up holds its senders back, whoever they are.
-- timeout: 120
local cluster = require "spec.support.cluster"
local eventually = require "spec.support.eventually"
local os_process = require "spec.support.os_process"

local MESSAGES = 400000 -- far more than a mailbox's mark and the way there hold together
local MOST = 150000     -- the mark, and what was on its way

local RECEIVER = [[
  local process, n = phub.process, ...
  receiver = process.spawn(function()
    process.register "slow"
    while not awake do process.sleep(20) end
    got, wrong = 0, 0
    while got < n do
      local m = process.receive(5000)
      if not m then break end
      got = got + 1
      if m ~= got then wrong = wrong + 1 end
    end
  end)
  return process.info(receiver) ~= nil
]]

local SENDER = [[
  local node_name, how, n = ...
  sent, refused = 0, nil
  local process = phub.process
  process.spawn(function()
    local dest = { "slow", node_name }
    if how == "pid" then dest = phub.gen_server.call({ "book", node_name }, "slow") end
    for i = 1, n do
      local ok, err = process.send(dest, i, 60000)
      if not ok then refused = err.code break end
      sent = i
    end
  end)
]]

local BOOK = [[
  local book = {}
  function book.init() return {} end
  function book.handle_call(_, name) return phub.process.whereis(name) end
  phub.process.register("book", phub.gen_server.start(book, nil))
]]

describe("a receiver that does not keep up", function()
  local c

  before_each(function()
    c = cluster.start(2, { hub = false })
    c:settle()
  end)

  after_each(function()
    c:stop()
    os_process.finish()
  end)

  for _, how in ipairs { "pid", "name" } do
    it("makes a sender by " .. how .. " wait, and loses nothing", function()
      assert.is_true(c[2]:eval(RECEIVER, MESSAGES))
      c[2]:eval(BOOK)
      c[1]:eval(SENDER, c[2].name, how, MESSAGES)
      local last
      eventually(function() -- it stands still while the receiver sleeps
        local sent = c[1]:eval [[ return sent ]]
        local still = sent > 1000 and sent == last
        last = sent
        return still
      end)
      assert.is_true(last < MOST, ("%d of %d were accepted"):format(last, MESSAGES))
      assert.is_true(c[2]:eval [[ return phub.process.info(receiver).mailbox ]] <= MOST)
      c[2]:eval [[ awake = true ]]
      eventually(function() return c[2]:eval [[ return got ]] == MESSAGES end, 30000)
      assert.equal(0, c[2]:eval [[ return wrong ]])
      assert.is_nil(c[1]:eval [[ return refused ]])
    end)
  end

  it("is told of no more once its time is over: busy", function()
    assert.is_true(c[2]:eval(RECEIVER, MESSAGES))
    local code, sent = c[1]:eval([[
      local dest, n = { "slow", (...) }, 0
      while true do
        local ok, err = phub.process.send(dest, n + 1, 200)
        if not ok then return err.code, n end
        n = n + 1
      end
    ]], c[2].name)
    assert.equal("busy", code)
    assert.is_true(sent < MOST)
    assert.equal("pong", c[1]:eval([[
      local p = phub.process.spawn(function() phub.process.send(phub.process.receive(), "pong") end)
      phub.process.send(p, phub.process.self())
      return phub.process.receive(5000)
    ]])) -- the sender's node goes on
  end)
end)

describe("a script's main chunk that never waits", function()
  it("sees others come, and its hub's work done", function()
    local text = [[
      local phub = require "phub"
      package.loaded.still = { start = function()
        return phub.gen_server.start_link({ init = function() return {} end })
      end }
      assert(phub.node.start { name = arg[1], join = { arg[2] }, cookie = arg[3] })
      local hub = assert(phub.start_link { hub_id = "h" })
      repeat os.execute "sleep 0.02" until #phub.node.list() == 1
      hub:start_child { id = "x", start = { "still", "start" } }
      repeat os.execute "sleep 0.02" until hub:get_pid "x"
      print "done"
      os.exit(0)
    ]]
    local c = cluster.start(1, { hub = false })
    local p = os_process.lua(text, { args = { "poller@127.0.0.1", c[1].name, "spec-cookie" } })
    assert.is_truthy(p:expect("^done$", 15000))
    p:wait()
    c:stop()
    os_process.finish()
  end)
end)
