-- phub.run, phub.halt, signals, and how a script ends.
local phub = require "phub"
local process = require "phub.process"
local os_process = require "spec.support.os_process"
local SLOWER = require "spec.support.slower"

-- A script that ends by itself; its result and output.
local function script(code, options)
  local p = os_process.lua('local phub = require "phub" local process = phub.process ' .. code, options)
  p:close_stdin()
  return p:wait(), p.out, p.errors
end

-- A node with a standby thread, that other code of the script then ends in its way.
local NODE = [[ assert(phub.node.start { name = "end-]] .. "%d" .. [[@127.0.0.1" }) ]]
local count = 0
local function with_node(code)
  count = count + 1
  return NODE:format(require "luv".os_getpid() * 1000 + count) .. code
end

describe("phub.run", function()
  after_each(os_process.finish)

  it("hands back what the function returns", function()
    assert.same({ n = 3, 1, nil, "x" }, table.pack(phub.run(function(...) return ... end, 1, nil, "x")))
    assert.same({ n = 0 }, table.pack(phub.run(function() end)))
    local many = table.pack(phub.run(function() return table.unpack({}, 1, 10000) end))
    assert.equal(10000, many.n)
  end)

  it("runs it as a process with copies of the arguments", function()
    local given = { 1 }
    local pid, same = phub.run(function(t)
      process.sleep(1)
      return process.self(), t == given
    end, given)
    assert.not_equal(process.self(), pid)
    assert.is_false(same)
    local r, err = phub.run(print, { f = print })
    assert.is_nil(r)
    assert.equal("args[1].f: function", err.message)
  end)

  it("raises the function's error, as it is", function()
    local e = { "mine" }
    local ok, err = pcall(phub.run, function() error(e) end)
    assert.is_false(ok)
    assert.equal(e, err)
    ok, err = pcall(phub.run, function() error("text", 0) end)
    assert.is_false(ok)
    assert.equal("text", err)
  end)

  it("raises when the function's process is ended otherwise", function()
    local ok, err = pcall(phub.run, function() process.exit { "why" } end)
    assert.is_false(ok)
    assert.equal("exit", err.code)
    assert.same({ "why" }, err.reason)
    assert.same({ n = 0 }, table.pack(phub.run(function() process.exit() end)))
    assert.same({ n = 0 }, table.pack(phub.run(function() process.exit("shutdown") end)))
  end)

  it("does not nest", function()
    assert.has_error(function() phub.run(phub.run, 1) end)
    assert.has_error(function() phub.run(function() phub.run(function() end) end) end)
    assert.has_error(function() phub.run(5) end)
  end)

  it("without a function goes on until halt", function()
    process.send_after(5, process.spawn(function()
      process.receive()
      phub.halt()
    end), "now")
    assert.same({ n = 0 }, table.pack(phub.run()))
    phub.halt()
    phub.run()
  end)

  it("ends with its program when halt names a code", function()
    local result = script [[
      process.spawn(function() process.sleep(5) phub.halt(7) print "still here" process.sleep(1000) end)
      phub.run()
      print "not here" ]]
    assert.same({ code = 7 }, result)
    local out
    result, out = script [[ phub.run(function() phub.halt(0) process.sleep(1000) end) print "not here" ]]
    assert.same({ code = 0 }, result)
    assert.equal("", out)
    assert.same({ code = 3 }, (script [[ phub.halt(3) ]]))
    assert.same({ code = 4 }, (script [[
      process.spawn(function() phub.halt(4) end) process.receive() ]]))
    assert.has_error(function() phub.halt("x") end)
  end)
end)

describe("a script", function()
  after_each(os_process.finish)

  it("ends with its own code, promptly, in any way, while threads run", function()
    local cases = {
      { [[ ]], 0 },
      { [[ os.exit(5) ]], 5 },
      { [[ os.exit(6, true) ]], 6 },
      { [[ error("x") ]], 1 },
      { [[ process.spawn(function() process.sleep(1000) end) process.sleep(1) ]], 0 },
      { [[ phub.run(function() os.exit(7) end) ]], 7 },
      { [[ phub.run(function() os.exit(8, true) end) ]], 8 },
      { [[ phub.run(function() error("x") end) ]], 1 },
      { [[ local s = phub.gen_server.start { init = function() return 1 end,
             handle_call = function() os.exit(9, true) end }
           phub.gen_server.call(s, 1) ]], 9 },
      { [[ coroutine.wrap(function() process.sleep(1) os.exit(10, true) end)() process.sleep(1000) ]], 10 },
      { [[ setmetatable({}, { __gc = function() os.exit(11) end }) collectgarbage() ]], 11 },
      { [[ setmetatable({}, { __gc = function() pcall(process.send, process.self(), 1) end }) ]], 0 },
      { [[ process.exit() ]], 0 },
      { [[ process.exit("shutdown") ]], 0 },
      { [[ process.exit("other") ]], 1 },
      { [[ local me = process.self() process.spawn(function() process.kill(me, "x") end) process.receive() ]], 1 },
    }
    for i, case in ipairs(cases) do
      for _, code in ipairs { case[1], with_node(case[1]) } do
        local start = process.now()
        local result, out, errors = script(code)
        assert.same({ code = case[2] }, result, ("case %d: %s\n%s%s"):format(i, code, out, errors))
        assert.is_true(process.now() - start < 3000 * SLOWER)
      end
    end
  end)

  it("runs the <close> variables of its main chunk at os.exit with close", function()
    local _, out = script [[
      local _ <close> = setmetatable({}, { __close = function() print "closed" end })
      phub.run(function() os.exit(0, true) end) ]]
    assert.equal("closed\n", out)
  end)

  it("writes an uncaught error of a process to stderr, on one line", function()
    local _, _, errors = script [[
      process.spawn(function() local function f() error("boom") end f() end) process.sleep(5) ]]
    assert.matches("error: process <nonode@nohost%.%d+> ended by an error: .-boom; stack traceback: [^\n]+\n$", errors)
    _, _, errors = script [[ process.spawn(error, { code = 5, text = "a\\nb" }) process.sleep(5) ]]
    assert.matches('ended by an error: {.-code = 5.-}; stack traceback: [^\n]+\n$', errors)
    assert.matches('text = "a\\\\nb"', errors)
    _, _, errors = script [[
      process.spawn(function() process.exit("shutdown") end)
      process.spawn(function() process.exit("odd") end) process.sleep(5) ]]
    assert.equal("", errors)
  end)

end)

describe("signals", function()
  after_each(os_process.finish)

  local WAIT = [[ io.stdout:setvbuf("no") process.send_after(1, process.self(), 1) process.receive() print "up" ]]

  it("end a program that waits, gracefully, with 128 and their number", function()
    for _, case in ipairs { { "term", 143 }, { "int", 130 } } do
      for _, wait in ipairs { "phub.run()", "phub.run(function() process.sleep(1e6) end)" } do
        local p = os_process.lua('local phub = require "phub" local process = phub.process '
          .. with_node(WAIT .. wait))
        p:expect "up"
        require "luv".sleep(20)
        p:signal(case[1])
        assert.same({ code = case[2] }, p:wait())
      end
    end
  end)

  it("run what was registered for leaving first, and a second one ends it at once", function()
    local p = os_process.lua('local phub = require "phub" local process = phub.process '
      .. [[ io.stdout:setvbuf("no")
            require "phub.core".leave_with(function() print "leaving" process.sleep(1e6) end)
            process.spawn(function() print "up" end) phub.run() ]])
    p:expect "up"
    require "luv".sleep(20)
    p:signal "term"
    p:expect "leaving"
    p:signal "term"
    assert.same({ code = 143 }, p:wait())
  end)

  it("are the user's after handle_signals(false)", function()
    local p = os_process.lua('local phub = require "phub" local process = phub.process '
      .. [[ io.stdout:setvbuf("no") phub.handle_signals(false) process.spawn(function() print "up" end) phub.run() ]])
    p:expect "up"
    p:signal "term"
    assert.same({ signal = 15 }, p:wait())
    assert.has_error(function() phub.handle_signals() end)
  end)
end)
