-- timeout: 600
-- What README.md tells people to type works as it stands, and what it shows is true.
local os_process = require "spec.support.os_process"

local DEMO_MS = 300000

local function read(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

-- { language =, text = } of each fenced block, in order.
local function blocks(text)
  local list = {}
  for language, body in text:gmatch "```(%w+)\n(.-)```" do
    list[#list + 1] = { language = language, text = body }
  end
  return list
end

local readme = read "README.md"

-- Lua blocks begin with the name of their file.
local function files()
  local found = {}
  for _, block in ipairs(blocks(readme)) do
    if block.language == "lua" then
      local name = assert(block.text:match "^%-%- ([%w_]+%.lua)\n", "a Lua block without a file name")
      found[name] = block.text
    end
  end
  return found
end

local function commands()
  local list = {}
  for _, block in ipairs(blocks(readme)) do
    if block.language == "sh" then
      for line in block.text:gmatch "[^\n]+" do list[#list + 1] = line end
    end
  end
  return list
end

describe("README.md", function()
  local dir, env

  setup(function()
    local _, out = os_process.sh "mktemp -d"
    dir = out:gsub("%s+$", "")
    for name, text in pairs(files()) do
      local file <close> = assert(io.open(dir .. "/" .. name, "wb"))
      file:write(text)
    end
    -- what the user's shell has after eval "$(make env)"
    local result, vars, errors = os_process.sh(
      'eval "$(make env)"; printf "%s\\n%s\\n" "$LUA_PATH" "$LUA_CPATH"', 60000,
      { env = { LUA_PATH = false, LUA_CPATH = false, MAKEFLAGS = false, MAKELEVEL = false, MFLAGS = false } })
    assert.same({ code = 0 }, result, errors)
    local path, cpath = vars:match "^(.-)\n(.-)\n$"
    env = { LUA_PATH = path, LUA_CPATH = os.getenv "SAN" == "" and cpath or os.getenv "LUA_CPATH" }
  end)
  teardown(function() os_process.sh("rm -rf " .. dir) end)
  after_each(os_process.finish)

  local function run(command)
    return os_process.start("/bin/sh", { args = { "-c", "exec " .. command }, env = env, cwd = dir, name = command })
  end

  it("tells these commands and no others: each has its test here", function()
    assert.same({
      "make demo", "make test", "apt-get install -y make", 'eval "$(make env)"', "lua5.4 one.lua",
      "lua5.4 node.lua first", "lua5.4 node.lua second first",
    }, commands())
  end)

  it("has a demo that ends well", function()
    local result, out, errors = os_process.sh("make demo", DEMO_MS)
    assert.same({ code = 0 }, result, out .. errors)
  end)

  it("names targets that exist", function()
    for _, target in ipairs { "test", "demo DIR=.", "install PREFIX=/usr/local DESTDIR=" .. dir .. "/none" } do
      local result, _, errors = os_process.sh("make -n " .. target, 60000, { env = { MAKEFLAGS = false } })
      assert.same({ code = 0 }, result, errors)
    end
  end)

  it("has a counter that prints what it says", function()
    local p = run "lua5.4 one.lua"
    assert.same({ code = 0 }, p:wait(), p.errors)
    assert.equal(readme:match "prints `(%d+)`" .. "\n", p.out)
    assert.equal("", p.errors)
  end)

  it("has two nodes that share the counters, and one takes over from the other", function()
    local first = run "lua5.4 node.lua first"
    local second = run "lua5.4 node.lua second first"
    local both = "c1=%S+ c2=%S+ c3=%S+ c4=%S+ c5=%S+ c6=%S+ c7=%S+ c8=%S+"
    for _, p in ipairs { first, second } do
      local line = p:expect("^" .. both .. "$", 15000)
      assert.matches("=first@127.0.0.1", line, 1, true)
      assert.matches("=second@127.0.0.1", line, 1, true)
    end
    second:kill()
    local line
    repeat line = first:expect("^" .. both .. "$", 15000) until not line:find "second"
    assert.equal(8, select(2, line:gsub("=first@127.0.0.1", "")))
    first:signal "int" -- as Ctrl-C
    assert.same({ code = 130 }, first:wait(), first.errors)
  end)

  it("links to pages that are there, with Lua that is Lua", function()
    local pages = 0
    for page in readme:gmatch "%]%((doc/[%w_]+%.md)%)" do
      pages = pages + 1
      local text = read(page)
      for _, block in ipairs(blocks(text)) do
        if block.language == "lua" then
          assert.is_truthy(load(block.text) or load("return " .. block.text), page .. ": " .. block.text)
        end
      end
      for target in text:gmatch "%]%(([%w_]+%.md)%)" do
        assert.is_truthy(io.open("doc/" .. target), page .. " links to " .. target)
      end
    end
    assert.is_true(pages >= 7)
  end)
end)
