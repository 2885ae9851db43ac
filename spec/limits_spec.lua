-- What a node holds of its process, it gives back; and it bears a log that cannot be written.
local os_process = require "spec.support.os_process"

-- `rest(n)` waits until the process has no more than what it had, or raises with what is left.
local HELD = [[
  local phub = require "phub"
  local process, node = phub.process, phub.node
  local uv = require "luv"
  local function entries(path)
    local list, dir = {}, assert(uv.fs_scandir(path))
    for name in uv.fs_scandir_next, dir do list[#list + 1] = name end
    return list
  end
  local function held()
    local files = {}
    for _, fd in ipairs(entries "/proc/self/fd") do
      local target = uv.fs_readlink("/proc/self/fd/" .. fd)
      if target and not target:find "/proc/%d+/fd$" then files[#files + 1] = fd .. " " .. target end
    end
    table.sort(files)
    return { threads = #entries "/proc/self/task", files = files }
  end
  local function same(before)
    local now = held()
    if now.threads ~= before.threads then
      return nil, ("%d threads, before %d"):format(now.threads, before.threads)
    end
    if #now.files == #before.files then return true end
    return nil, ("files: %s\nbefore: %s"):format(table.concat(now.files, ", "), table.concat(before.files, ", "))
  end
]]

describe("what a node holds", function()
  after_each(os_process.finish)

  local function rounds(body)
    local p = os_process.lua(HELD .. [[
      local name, runs = ("limits-%d@127.0.0.1"):format(uv.os_getpid()), 0
      local child = { start = function() return process.spawn_link(process.receive) end }
      package.loaded["limits_child"] = child
      local function round()
        ]] .. body .. [[
        runs = runs + 1
      end
      round() -- libuv and OpenSSL keep what they once made
      collectgarbage()
      local before = held()
      for i = 1, 10 do
        round()
        assert(same(before), "round " .. i)
      end
      print("rounds", runs)
    ]])
    local done = p:expect("^rounds\t(%d+)$", 30000)
    assert.equal("11", done)
    assert.same({ code = 0 }, p:wait())
  end

  it("is given back by node.stop, ten times", function()
    rounds [[
      assert(node.start { name = name })
      assert(#held().files > 3 and #entries "/proc/self/task" > 1) -- it sees what a node holds
      assert(node.stop())
    ]]
  end)

  it("is given back by phub.stop and node.stop with children, in phub.run", function()
    rounds [[
      phub.run(function()
        assert(node.start { name = name })
        local hub = assert(phub.start_link { hub_id = "h" })
        local specs = {}
        for i = 1, 20 do specs[i] = { id = "c" .. i, start = { "limits_child", "start", {} } } end
        local results = assert(hub:start_children(specs, { awaitable = true })):await()
        assert(results, "children did not start")
        assert(phub.stop "h")
        assert(node.stop())
      end)
    ]]
  end)

  it("is given back by phub.stop without a node", function()
    rounds [[
      local hub = assert(phub.start_link { hub_id = "h" })
      assert(hub:start_child({ id = "c", start = { "limits_child", "start", {} } }, { awaitable = true })):await()
      assert(phub.stop "h")
    ]]
  end)

  it("is given back when a node could not start", function()
    rounds [[
      local taken = assert(uv.new_tcp())
      assert(taken:bind("127.0.0.1", 0))
      assert(taken:listen(1, function() end))
      local ok, err = node.start { name = name, listen = "127.0.0.1:" .. taken:getsockname().port }
      assert(not ok and err.code, "the address was taken")
      taken:close()
      uv.run "nowait"
    ]]
  end)
end)

describe("a log that cannot be written", function()
  after_each(os_process.finish)

  it("stops neither a node nor its hub", function()
    local p = os_process.lua([[
      local uv = require "luv"
      assert(uv.fs_close(2))
      assert(uv.fs_open("/dev/full", "w", 0) == 2)
      assert(not io.stderr:write(("x"):rep(100000)), "the log can be written")
    ]] .. HELD .. [[
      local name = ("limits-%d@127.0.0.1"):format(uv.os_getpid())
      phub.run(function()
        assert(node.start { name = name })
        local hub = assert(phub.start_link { hub_id = "h" })
        for i = 1, 20 do
          process.spawn(function() error(("logged %d"):format(i)) end) -- each a line
        end
        process.sleep(1)
        local pid = assert(phub.gen_server.start { init = function() return 1 end,
          handle_call = function(s, m) return s + m end })
        print("answer", phub.gen_server.call(pid, 41))
        assert(phub.stop "h")
        assert(node.stop())
      end)
      print "end"
    ]], { env = { PHUB_LOG = "debug" } })
    assert.equal("42", p:expect("^answer\t(%d+)$"))
    p:expect "^end$"
    assert.same({ code = 0 }, p:wait())
    assert.equal("", p.errors)
  end)
end)
