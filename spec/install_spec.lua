-- timeout: 400
local os_process = require "spec.support.os_process"

-- A shell of a user's own: nothing of this tree or of the make that runs the specs is set.
local CLEAN = {
  LUA_PATH = false, LUA_CPATH = false, MAKEFLAGS = false, MFLAGS = false, MAKELEVEL = false,
  MAKEOVERRIDES = false, SAN = false, CC = false, LUA = false, LD_PRELOAD = false,
}
local BUILD_MS = 300000

-- Starts a process under an installed phub and says where the module came from.
local TRY = [[
  local phub = require "phub"
  local process = require "phub.process"
  local got = phub.run(function()
    local me = process.self()
    process.spawn(function() process.send(me, "hello") end)
    return process.receive(5000)
  end)
  print(got, package.searchpath("phub", package.path), package.searchpath("phub.core", package.cpath))
]]

describe("an installed phub", function()
  local dir

  local function sh(command)
    local result, out, errors = os_process.sh(command, BUILD_MS, { env = CLEAN })
    assert(result.code == 0, ("%s\n%s\n%s"):format(command, out, errors))
    return out
  end

  local function try(lua, c)
    local env = { LUA_PATH = ("%s/?.lua;%s/?/init.lua;;"):format(lua, lua), LUA_CPATH = c .. "/?.so;;" }
    for name, value in pairs(CLEAN) do
      if env[name] == nil then env[name] = value end
    end
    -- from another directory: nothing may come out of the tree
    local p = os_process.lua(TRY, { env = env, cwd = dir })
    assert.same({ code = 0 }, p:wait(), p.errors)
    assert.equal(("hello\t%s/phub/init.lua\t%s/phub/core.so\n"):format(lua, c), p.out)
  end

  before_each(function() dir = sh("mktemp -d"):gsub("%s+$", "") end)
  after_each(function()
    sh("rm -rf " .. dir)
    os_process.finish()
  end)

  it("works from where `make install` puts it", function()
    sh(("make install PREFIX=/opt/phub DESTDIR=%s"):format(dir))
    local root = dir .. "/opt/phub"
    try(root .. "/share/lua/5.4", root .. "/lib/lua/5.4")
  end)

  it("holds every Lua file of the tree, and one shared object", function()
    sh(("make install PREFIX=/usr DESTDIR=%s"):format(dir))
    assert.equal(sh "cd lua && find phub -name '*.lua' | sort",
      sh(("cd %s/usr/share/lua/5.4 && find . -type f | sed 's|^./||' | sort"):format(dir)))
    assert.equal("./usr/lib/lua/5.4/phub/core.so\n",
      sh(("cd %s && find . -type f -name '*.so'"):format(dir)))
  end)

  it("works from LuaRocks, which needs no network for it", function()
    local tree = dir .. "/tree"
    -- a proxy that refuses: whoever asks the network fails
    sh(("http_proxy=http://127.0.0.1:1 https_proxy=http://127.0.0.1:1 "
      .. "luarocks --lua-version 5.4 --tree %s make rockspec/phub-scm-1.rockspec"):format(tree))
    try(tree .. "/share/lua/5.4", tree .. "/lib/lua/5.4")
    assert.matches("phub.*scm%-1", sh(("luarocks --lua-version 5.4 --tree %s list"):format(tree)))
    sh(("luarocks --lua-version 5.4 --tree %s remove phub"):format(tree))
    assert.equal("", sh(("find %s -name 'core.so' -o -path '*/phub/init.lua'"):format(tree)))
  end)
end)
