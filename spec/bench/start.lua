-- Awaited bulk starts and stops on one node, and reads of the registry.
--
--   eval "$(make env)"; lua5.4 spec/bench/start.lua [N...]       default: 10000 100000 1000000
local phub = require "phub"
local process = require "phub.process"
local gen_server = require "phub.gen_server"

local child = {}
function child.init(args) return { args } end
function child.handle_call(state) return state[1] end
function child.start(args) return gen_server.start_link(child, args) end
package.preload["bench.child"] = function() return child end

local READS = 1000000

local function timed(fn)
  local before = process.now()
  local result = fn()
  return (process.now() - before) / 1000, result
end

local function memory()
  collectgarbage()
  local rss = io.lines("/proc/self/statm")():match("^%d+ (%d+)")
  return ("Lua %.0f MB, process %.0f MB"):format(collectgarbage("count") / 1024, rss * 4096 / 2 ^ 20)
end

local function specs(n)
  local list = {}
  for i = 1, n do
    list[i] = { id = "child" .. i, start = { "bench.child", "start", { "x" } } }
  end
  return list
end

local function start_and_stop(hub, n)
  local list, ids = specs(n), {}
  for i = 1, n do ids[i] = list[i].id end
  collectgarbage()
  local options = { awaitable = true, timeout = math.huge, await_timeout = math.huge }
  local called, future = timed(function() return assert(hub:start_children(list, options)) end)
  local rest = timed(function()
    local result = assert(future:await(math.huge))
    assert(result.status == "ok" and #result.started == n)
  end)
  print(("start %8d: %6.2f s, %8.0f children/s (of it the call %.2f s)"):format(n, called + rest,
    n / (called + rest), called))
  print("       " .. memory())
  local stopped = timed(function()
    local r = assert(assert(hub:stop_children(ids, options)):await(math.huge))
    assert(r.status == "ok" and #r.stopped == n)
  end)
  print(("stop  %8d: %6.2f s, %8.0f children/s"):format(n, stopped, n / stopped))
end

local function reads(hub)
  assert(hub:start_children(specs(1000), { awaitable = true })):await()
  local ids = {}
  for i = 1, 1000 do ids[i] = "child" .. i end
  for _, name in ipairs { "get_pid", "child_lookup" } do
    local read = phub[name]
    local seconds = timed(function()
      for i = 1, READS do
        if read(hub, ids[i % 1000 + 1]) == nil then error("not there") end
      end
    end)
    print(("%-12s %10.0f calls/s"):format(name, READS / seconds))
  end
end

local sizes = { table.unpack(arg) }
if #sizes == 0 then sizes = { 10000, 100000, 1000000 } end
phub.run(function()
  local hub = assert(phub.start_link { hub_id = "bench" })
  for _, n in ipairs(sizes) do
    start_and_stop(hub, math.tointeger(n))
  end
  reads(hub)
end)
