local process = require "phub.process"
local err = require "phub.error"

describe("an error", function()
  it("has a code, a message and further fields, and prints as one line", function()
    local e = err.new("invalid_option", "cookie: a string\n\texpected", { key = "cookie" })
    assert.equal("invalid_option", e.code)
    assert.equal("cookie", e.key)
    assert.equal("invalid_option: cookie: a string expected", tostring(e))
    assert.is_true(err.is(e))
    assert.is_false(err.is({ code = "x", message = "y" }))
    assert.is_false(err.is("x"))
  end)

  it("shows why a process ended", function()
    assert.equal("exit: it ended (shutdown)", tostring(err.new("exit", "it ended", { reason = "shutdown" })))
    assert.equal("exit: it ended (boom)",
      tostring(err.new("exit", "it ended", { reason = { "error", "boom", "traceback" } })))
  end)

  it("is what functions return", function()
    local _, e = process.send("spec_nobody", 1)
    assert.is_true(err.is(e))
    assert.equal("noproc: no process is registered as 'spec_nobody'", tostring(e))
  end)
end)
