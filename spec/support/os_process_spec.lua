local os_process = require "spec.support.os_process"
local eventually = require "spec.support.eventually"

describe("support: os_process", function()
  after_each(os_process.finish)

  it("runs a Lua chunk, writes to it, reads its lines and waits for its end", function()
    local p = os_process.lua([[ print(...); io.write(io.read(), "!\nno newline") os.exit(3) ]],
      { args = { "a b", "'c'" } })
    p:write("hello\n")
    assert.equal("a b\t'c'", p:line())
    assert.equal("hello!", p:expect("^hello.*"))
    assert.equal("no newline", p:line())
    assert.same({ code = 3 }, p:wait())
  end)

  it("stops, continues and kills", function()
    local p = os_process.lua [[ while true do print(os.clock()) io.flush() end ]]
    p:line()
    p:signal("stop")
    eventually(function() return io.lines("/proc/" .. p.pid .. "/stat")():match("%) T ") end)
    p:signal("cont")
    eventually(function() return io.lines("/proc/" .. p.pid .. "/stat")():match("%) [RS] ") end)
    assert.same({ signal = 9 }, p:kill())
  end)

  it("raises with the output when a line does not come", function()
    local p = os_process.lua [[ print "one" io.stderr:write("oops") ]]
    p:wait()
    assert.error_matches(function() p:expect("two", 50) end, "one.*oops")
  end)

  it("kills and names what a spec left running", function()
    local p = os_process.lua [[ io.read() ]]
    assert.error_matches(os_process.finish, "1 processes left running")
    assert.same({ signal = 9 }, p.result)
    os_process.finish()
  end)

  it("waits for a condition, and raises with its last answer", function()
    local n = 0
    assert.equal(3, eventually(function() n = n + 1 return n == 3 and n end))
    assert.error_matches(function() eventually(function() return nil, "why" end, 20) end, "why")
    assert.error_matches(function() eventually(function() error("boom") end, 20) end, "boom")
  end)
end)
