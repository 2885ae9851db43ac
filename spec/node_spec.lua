local phub = require "phub"
local process = require "phub.process"
local node = require "phub.node"
local cluster = require "spec.support.cluster"
local eventually = require "spec.support.eventually"
local os_process = require "spec.support.os_process"

describe("node.start", function()
  local function refused(key, options, code)
    local ok, err = node.start(options)
    assert.is_nil(ok)
    assert.equal(code or "invalid_option", err.code)
    assert.equal(key, err.key)
  end

  it("names the option that is wrong", function()
    refused("name", {})
    for _, name in ipairs { "x", "@", "a@", "@b", "a b@c", "a@b@c", ("x"):rep(300) .. "@h", 5 } do
      refused("name", { name = name })
    end
    local function with(key, value, code)
      refused(key, { name = "a@b", [key] = value }, code)
    end
    for _, a in ipairs { "x", "127.0.0.1", "127.0.0.1:x", ":1", "127.0.0.1:70000", "::1:5", 5 } do
      with("listen", a)
      with("advertise", a)
    end
    with("cookie", "")
    with("cookie", 5)
    with("cookie", ("x"):rep(1025))
    with("join", "x")
    with("join", { "nowhere" })
    with("join", { x = "a@b" })
    for _, key in ipairs { "heartbeat_interval", "heartbeat_timeout", "stall_timeout", "time_slice",
      "handshake_timeout" } do
      for _, v in ipairs { 0, -1, "1", 0 / 0, math.huge } do with(key, v) end
    end
    with("max_message", 10)
    with("max_message", 1.5)
    with("max_message", 2 ^ 40)
    for _, v in ipairs { 1023, 2 ^ 20 + 0.5, "1", 2 ^ 41, 2 ^ 26 } do with("max_queue", v) end
    for _, v in ipairs { 0, -1, 1.5, "1", 2 ^ 17 } do with("max_unproven", v) end
    with("no_such", 1)
    with("tls", {}, "not_supported")
    refused("cookie", { name = "a@b", listen = "0.0.0.0:0", advertise = "127.0.0.1:1" })
    refused("advertise", { name = "a@b", listen = "0.0.0.0:0", cookie = "c" })
    refused("heartbeat_timeout", { name = "a@b", heartbeat_interval = 1000, heartbeat_timeout = 2000 })
    assert.has_error(function() node.start() end, "bad argument #1 to 'start' (table expected, got no value)")
    assert.equal("nonode@nohost", node.self())
    assert.is_nil(node.address())
    assert.same({}, node.list())
  end)

  it("is needed by connect, disconnect and stop", function()
    for _, name in ipairs { "connect", "disconnect", "stop" } do
      local ok, err = node[name]("a@b")
      assert.is_nil(ok)
      assert.equal("node_not_started", err.code)
    end
    assert.has_error(function() node.connect(5) end)
    assert.has_error(function() node.disconnect() end)
    assert.has_error(function() node.monitor("x") end)
    assert.has_error(function() node.demonitor("x") end)
  end)

  it("makes this process a node, once, and stop ends that", function()
    local p = os_process.lua [[
      local phub = require "phub"
      local node = phub.node
      local pid = phub.process.self()
      assert(node.start { name = "start-spec@127.0.0.1", cookie = "c" })
      print(node.self(), pid.node, node.address(), #node.list())
      local ok, err = node.start { name = "again@127.0.0.1" }
      print(ok, err.code)
      print(node.connect("127.0.0.1:1", 1000))
      print(node.connect("nobody-here@127.0.0.1", 1000))
      print(select(2, node.connect("rubbish")).code)
      print(node.stop(), node.address(), node.stop())
      assert(phub.process.alive(pid) and node.self() == pid.node and node.self() == "start-spec@127.0.0.1")
    ]]
    p:close_stdin()
    assert.same({ code = 0 }, p:wait(), p.errors)
    local lines = {}
    for line in p.out:gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.matches("^start%-spec@127.0.0.1\tstart%-spec@127.0.0.1\t127.0.0.1:%d+\t0$", lines[1])
    assert.equal("nil\talready_started", lines[2])
    assert.matches("^nil\trefused: ", lines[3])
    assert.matches("^nil\tnot_found: ", lines[4])
    assert.equal("invalid_argument", lines[5])
    assert.matches("^true\tnil\tnil\tnode_not_started", lines[6])
    os_process.finish()
  end)
end)

describe("two nodes", function()
  local c

  setup(function()
    c = cluster.start(2, { hub = false })
    c:settle()
  end)

  teardown(function() c:stop() end)

  it("see each other", function()
    assert.same({ c[2].name }, c[1]:eval [[ return phub.node.list() ]])
    assert.same({ c[1].name }, c[2]:eval [[ return phub.node.list() ]])
  end)

  it("exchange messages of every kind, in order", function()
    c[2]:eval [[
      echo = phub.process.spawn(function()
        phub.process.register "echo"
        while true do
          local m = phub.process.receive()
          phub.process.send(m[1], { phub.process.self(), table.unpack(m, 2) })
        end
      end) ]]
    local result = c[1]:eval([[
      local process = phub.process
      local me, there = process.self(), ...
      local values = { 1, 2.0, -1, math.mininteger, math.maxinteger, 0.1, "\0\xff", true, false,
        { x = { y = { 1, 2, [5] = 3, [1.5] = 4, [true] = 5 } } }, {}, ("x"):rep(200000) }
      local problems = {}
      local function same(a, b)
        if type(a) ~= "table" then return a == b and math.type(a) == math.type(b) end
        for k, v in pairs(a) do if not same(v, b[k]) then return false end end
        for k in pairs(b) do if a[k] == nil then return false end end
        return true
      end
      for i, v in ipairs(values) do process.send({ "echo", there }, { me, i, v }) end
      for i, v in ipairs(values) do
        local m = process.receive(5000)
        if m[2] ~= i or not same(v, m[3]) then problems[#problems + 1] = i end
      end
      process.send({ "echo", there }, { me, me })
      local m = process.receive(5000)
      if m[2] ~= me then problems[#problems + 1] = "own pid" end
      if m[1].node ~= there or not tostring(m[1]):find(there, 1, true) then problems[#problems + 1] = "pid" end
      process.send(m[1], { me, "direct", select(2, process.send("nobody", 1)) })
      m = process.receive(5000)
      if m[2] ~= "direct" or not tostring(m[3]):find "^noproc" then problems[#problems + 1] = "error" end
      return problems ]], c[2].name)
    assert.same({}, result)
  end)

  it("call, cast and stop servers by pid and by { name, node }", function()
    c[2]:eval [[
      local M = { init = function() return { n = 0 } end }
      function M.handle_call(s, m, from)
        if m == "raise" then error("boom", 0) end
        if m == "later" then
          phub.process.spawn(function() phub.gen_server.reply(from, "late") end)
          return phub.gen_server.noreply
        end
        return { s.n, m, phub.process.self() }
      end
      function M.handle_cast(s, m) s.n = s.n + m end
      Module = M
      assert(phub.gen_server.start(M, nil, { name = "server" })) ]]
    local result = c[1]:eval([[
      local gs, dest = phub.gen_server, { "server", ... }
      assert(gs.cast(dest, 5))
      local r = assert(gs.call(dest, { a = 1 }))
      local out = { r[1], r[2].a, gs.call(r[3], "later"), gs.call(dest, "later") }
      local _, err = gs.call(dest, "raise")
      out[#out + 1] = err.code .. " " .. err.reason[2]
      out[#out + 1] = select(2, gs.call(r[3], "x")).code
      out[#out + 1] = select(2, gs.call(dest, "x")).code
      out[#out + 1] = select(2, gs.call({ "server", "no@where" }, "x")).code
      return out ]], c[2].name)
    assert.same({ 5, 1, "late", "late", "exit boom", "noproc", "noproc", "noconnection" }, result)
    c[2]:eval [[ assert(phub.gen_server.start(Module, nil, { name = "server2" })) ]]
    assert.is_true(c[1]:eval([[ return phub.gen_server.stop({ "server2", ... }, "shutdown") ]], c[2].name))
    assert.is_nil((c[2]:eval [[ return phub.process.whereis "server2" ]]))
  end)

  it("link, monitor and kill across", function()
    c[2]:eval [[
      phub.process.spawn(function()
        phub.process.register "spawner"
        while true do
          local who = phub.process.receive()
          phub.process.send(who, phub.process.spawn(function() phub.process.receive() end))
        end
      end) ]]
    local out = c[1]:eval([[
      local process, there = phub.process, ...
      local function remote()
        process.send({ "spawner", there }, process.self())
        return process.receive(5000)
      end
      process.trap_exit(true)
      local a, b = remote(), remote()
      local ref = process.monitor(a)
      process.link(b)
      process.kill(a, "x")
      process.kill(b, { "y" })
      local out = {}
      for _ = 1, 2 do
        local m = process.receive(5000)
        if m[1] == "DOWN" then out[1] = m[2] == ref and m[3] == a and m[4] end
        if m[1] == "EXIT" then out[2] = m[2] == b and m[3][1] end
      end
      out[3] = select(2, process.alive(a)).code
      return out ]], c[2].name)
    assert.same({ "x", "y", "not_supported" }, out)
  end)

  it("refuse a message that is too large", function()
    assert.equal("too_large", c[1]:eval([[
      return select(2, phub.process.send({ "echo", ... }, ("x"):rep(65 * 1024 * 1024))).code ]], c[2].name))
  end)
end)

describe("node.monitor", function()
  it("tells of nodes that come and go, in order, while its function may wait", function()
    local c = cluster.start(1, { hub = false })
    c[1]:eval [[
      events = {}
      ref = phub.node.monitor(function(event, name)
        phub.process.sleep(5)
        events[#events + 1] = event .. " " .. name
        error("logged, and the next event comes all the same")
      end)
      other = phub.node.monitor(function() error("never called") end)
      phub.node.demonitor(other) ]]
    local b = c:add()
    c:settle()
    b:kill()
    local want = { "nodeup " .. b.name, "nodedown " .. b.name }
    eventually(function()
      local events = c[1]:eval [[ return events ]]
      return #events >= 2
    end)
    assert.same(want, c[1]:eval [[ return events ]])
    assert.same({}, c[1]:eval [[ return phub.node.list() ]])
    c:stop()
  end)
end)

describe("node.connect and disconnect", function()
  it("make and drop a link on purpose", function()
    local c = cluster.start(2, { hub = false, join = false })
    assert.is_true(c[1]:eval([[ return phub.node.connect(...) ]], c[2].address))
    c:settle()
    assert.is_true(c[1]:eval([[ return phub.node.connect(...) ]], c[2].name))
    for _, bad in ipairs { "x", -1 } do
      assert.matches("bad argument #2 to 'connect'", c[1]:eval([[
        return select(2, pcall(phub.node.connect, ...)) ]], c[2].name, bad))
    end
    assert.is_true(c[1]:eval([[ return phub.node.disconnect(...) ]], c[2].name))
    eventually(function()
      return #c[1]:eval [[ return phub.node.list() ]] == 0 and #c[2]:eval [[ return phub.node.list() ]] == 0
    end)
    assert.is_true(c[2]:eval([[ return phub.node.connect(...) ]], c[1].name))
    c:settle()
    c:stop()
  end)

  it("refuse another cookie", function()
    local c = cluster.start(1, { hub = false, join = false })
    local other = c:add { node = '{ cookie = "other" }' }
    assert.equal("bad_cookie", other:eval([[ return select(2, phub.node.connect(...)).code ]], c[1].address))
    c:stop()
  end)
end)

describe("a dead node", function()
  it("ends calls, links and monitors with noconnection", function()
    local c = cluster.start(2, { hub = false })
    c:settle()
    c[2]:eval [[ phub.process.register("waits", phub.process.spawn(function()
      phub.process.receive(function() return false end) end)) ]]
    local answer = c[1]:send([[
      local process = phub.process
      process.trap_exit(true)
      local dest = { "waits", ... }
      local ref = process.monitor(dest)
      local _, err = phub.gen_server.call(dest, "x", 10000)
      local down = process.receive(5000)
      return { err.code, down[1], down[2] == ref, down[4], (process.send(dest, 1)) } ]], c[2].name)
    eventually(function()
      return c[2]:eval [[ return phub.process.info(phub.process.whereis "waits").mailbox ]] == 1
    end)
    c[2]:kill()
    assert.same({ "noconnection", "DOWN", true, "noconnection" }, answer())
    c:stop()
  end)
end)

describe("a node that listens on all interfaces", function()
  it("is found where it says, at the port that it really has", function()
    local c = cluster.start(1, { hub = false, join = false })
    for i, listen in ipairs { "0.0.0.0:0", "[::]:0" } do
      local advertise = ({ "localhost:0", "[::1]:0" })[i]
      local b = c:add { node = ("{ listen = %q, advertise = %q }"):format(listen, advertise) }
      assert.is_true(c[1]:eval([[ return phub.node.connect(...) ]], b.name))
    end
    c:settle() -- the second hears of the third by its address alone
    c:stop()
  end)
end)

describe("a node that is started again", function()
  it("on another port is found by its name", function()
    local c = cluster.start(2, { hub = false, join = false })
    local name, address = c[2].name, c[2].address
    assert.is_true(c[1]:eval([[ return phub.node.connect(...) ]], address))
    c[2]:kill()
    eventually(function() return #c[1]:sees() == 0 end)
    local again = c:add { node = ("{ name = %q }"):format(name) }
    assert.not_equal(address, again.address)
    eventually(function() return c[1]:sees()[1] == name end, 5000)
    c:stop()
  end)
end)

describe("a node that does not read", function()
  it("makes senders wait, at last for busy, and they go on when it reads again", function()
    local c = cluster.start(2, { hub = false })
    c:settle()
    c[2]:eval [[ phub.process.register("sink", phub.process.spawn(function()
      got = 0
      while true do
        local m = phub.process.receive()
        if type(m) == "string" then got = got + #m end
      end
    end)) ]]
    c[2]:pause()
    local filled = c[1]:eval([[
      local process, dest = phub.process, { "sink", ... }
      local mb, sent = ("x"):rep(1024 * 1024), 0
      while true do
        local start = process.now()
        local ok, err = process.send(dest, mb, 50)
        if not ok then
          local call = select(2, phub.gen_server.call(dest, mb, 20))
          local now = select(2, process.send(dest, 1, 0))
          return { sent, err.code, process.now() - start >= 50, call.code, now.code }
        end
        sent = sent + 1
      end ]], c[2].name)
    assert.is_true(filled[1] > 3 and filled[1] < 100, filled[1] .. " MiB until busy")
    assert.same({ "busy", true, "busy", "busy" }, { table.unpack(filled, 2) })
    local answer = c[1]:send([[
      return { phub.process.send({ "sink", ... }, ("y"):rep(1024 * 1024), 10000) } ]], c[2].name)
    require "luv".sleep(50)
    c[2]:resume()
    assert.same({ true }, answer())
    eventually(function() return c[2]:eval [[ return got ]] == (filled[1] + 1) * 1024 * 1024 end)
    c:stop()
  end)
end)

describe("pids", function()
  it("held before node.start stay valid", function()
    assert.equal("nonode@nohost", process.self().node)
    assert.equal(phub.process.self(), process.self())
  end)
end)
