-- A wrong cookie: refused on both sides at once, logged once a peer, never shown.
local uv = require "luv"
local cluster = require "spec.support.cluster"
local eventually = require "spec.support.eventually"
local os_process = require "spec.support.os_process"

local SECRETS = { "first-secret-cookie", "other-secret-cookie" }
local WITHIN_MS = 1000
local REDIALS_MS = 3000 -- a joiner has tried more than once by then

local function cookie(i) return ("{ cookie = %q }"):format(SECRETS[i]) end

describe("a node with another cookie", function()
  local c, one, two

  before_each(function()
    c = cluster.start(1, { node = cookie(1), join = false })
    one = c[1]
  end)

  after_each(function()
    if c then c:stop() end
    os_process.finish()
  end)

  local function count(node, pattern)
    local n = 0
    for line in node.process.errors:gmatch("[^\n]+") do
      if line:find(pattern) then n = n + 1 end
    end
    return n
  end

  -- Neither has let the other in, each has said so once, and no output holds a cookie.
  local function refused()
    for _, node in ipairs { one, two } do
      assert.same({}, node:sees())
      assert.same({}, node:eval [[ return phub.nodes "h" ]])
      assert.equal(1, count(node, "cookie"), node.process.errors)
      for _, secret in ipairs(SECRETS) do
        assert.is_nil(node.process.out:find(secret, 1, true))
        assert.is_nil(node.process.errors:find(secret, 1, true))
      end
    end
  end

  local function connect(from, to)
    return from:eval([[
      local began = phub.process.now()
      local ok, err = phub.node.connect(..., 5000)
      return ok or false, err and err.code, phub.process.now() - began, tostring(err)
    ]], to.address)
  end

  it("is refused within a second whichever side connects, and again", function()
    two = c:add { node = cookie(2) }
    for _ = 1, 3 do
      for _, pair in ipairs { { one, two }, { two, one } } do
        local ok, code, took, text = connect(pair[1], pair[2])
        assert.same({ false, "bad_cookie" }, { ok, code })
        assert.is_true(took < WITHIN_MS, ("after %.0f ms"):format(took))
        for _, secret in ipairs(SECRETS) do assert.is_nil(text:find(secret, 1, true)) end
      end
    end
    refused()
  end)

  it("that joins is refused each time it tries, and both say so once", function()
    two = c:launch { node = ("{ cookie = %q, join = { %q } }"):format(SECRETS[2], one.address) }:ready()
    local began = uv.hrtime()
    eventually(function() return count(one, "cookie") > 0 and count(two, "cookie") > 0 end, WITHIN_MS)
    while uv.hrtime() - began < REDIALS_MS * 1e6 do uv.run "nowait" uv.sleep(20) end
    refused()
  end)

  it("leaves both hubs at work, and the right one is let in", function()
    two = c:add { node = cookie(2) }
    connect(two, one)
    for _, node in ipairs { one, two } do
      assert.equal("ok", node:eval [[
        local specs = require "spec.support.census".specs("c", 10)
        return phub.start_children("h", specs, { awaitable = true }):await().status ]])
      assert.equal(node.name, node:eval [[ return phub.call("h", "c1", "where") ]])
    end
    local three = c:add { node = ("{ cookie = %q, join = { %q } }"):format(SECRETS[1], one.address) }
    eventually(function() return #one:sees() == 1 and #three:sees() == 1 end)
    assert.same({ three.name }, one:sees())
    assert.same({}, two:sees())
  end)
end)
