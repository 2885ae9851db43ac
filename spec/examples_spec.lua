local os_process = require "spec.support.os_process"

package.path = "examples/?.lua;" .. package.path
local wordcount = require "wordcount"
local files = require "demo.files"

local DEMO_MS = 120000

local function sh(command, ms)
  local result, out, errors = os_process.sh(command, ms)
  assert(result.code == 0, ("%s\n%s\n%s"):format(command, out, errors))
  return out
end

describe("the demo", function()
  local dir

  local function write(name, text)
    local file <close> = assert(io.open(dir .. "/" .. name, "wb"))
    file:write(text)
  end

  local function demo(folder)
    local p = os_process.script("examples/demo.lua", { args = { folder } })
    return p, p:wait(DEMO_MS)
  end

  before_each(function() dir = sh("mktemp -d"):gsub("%s+$", "") end)
  after_each(function()
    sh(("chmod -R u+rwx %s; rm -rf %s"):format(dir, dir))
    os_process.finish()
  end)

  it("counts words as wc does, whatever the bytes", function()
    math.randomseed(1)
    for i = 1, 20 do
      local bytes = {}
      for n = 1, math.random(0, 3000) do
        bytes[n] = string.char(i % 2 == 0 and math.random(0, 255) or math.random(0, 40))
      end
      write("f", table.concat(bytes))
      local path = { dir .. "/f" }
      assert.equal(files.wc(path), wordcount.words_of_file(path[1]))
    end
  end)

  it("counts a word once that lies across two blocks", function()
    write("long", ("x"):rep(3 << 20) .. " end")
    assert.equal(2, wordcount.words_of_file(dir .. "/long"))
  end)

  it("takes each regular file of a folder once, whatever its name", function()
    write("it's \"one\"", "a b c")
    write("two\nlines", "d")
    write("-n", "e")
    sh(("cd %s && ln -s ./-n link && mkdir sub && cp ./-n sub && mkfifo pipe"):format(dir))
    local list = assert(files.of_folder(dir))
    assert.equal(3, #list)
    assert.equal(5, files.wc(list))
  end)

  it("loses a node, gains a node, and the sums stay right", function()
    for i = 1, 60 do
      write(("it's file \"%d\""):format(i), ("word "):rep(i) .. "end")
    end
    local p, result = demo(dir)
    assert.same({ code = 0 }, result, p.out .. p.errors)
    local sum = ("%d words"):format(60 * 61 // 2 + 60)
    local _, checks = p.out:gsub("asked 60 children through %S+: " .. sum .. "; wc %-w: " .. sum, "")
    assert.equal(3, checks, p.out)
    assert.matches("kill %-9 node2, which runs %d+ children", p.out)
    assert.matches("every child runs again, once, after %d+ ms", p.out)
    assert.matches("%d+ children moved: %d+ from node[13]", p.out)
    assert.is_nil(p.out:find("\27"), "control characters though stdout is no terminal")
  end)

  it("refuses a folder without files, an unreadable file, and what is no folder", function()
    local p, result = demo(dir)
    assert.same({ code = 2 }, result)
    assert.matches("holds no file", p.errors)
    write("f", "a")
    sh(("ln -s nowhere %s/broken"):format(dir))
    p, result = demo(dir)
    assert.same({ code = 2 }, result)
    assert.matches("cannot read .*/broken", p.errors)
    p, result = demo(dir .. "/f")
    assert.same({ code = 2 }, result)
    assert.matches("is not a folder", p.errors)
  end)
end)
