-- Processes of one node: calls, casts, spawns and starts a second, and memory an idle server.
--
--   eval "$(make env)"; lua5.4 spec/bench/proc.lua [seconds a measure]
local phub = require "phub"
local process = require "phub.process"
local gen_server = require "phub.gen_server"

local SECONDS = tonumber(arg and arg[1]) or 1

local Counter = {}
function Counter.init(n) return { n = n } end

function Counter.handle_call(state, msg)
  state.n = state.n + msg
  return state.n
end

function Counter.handle_cast(state, msg) state.n = state.n + msg end

-- Runs batch() until the time is over; prints how many `n` a second that is.
local function measure(name, n, batch)
  local count, start = 0, process.now()
  repeat
    batch()
    count = count + n
  until process.now() - start >= SECONDS * 1000
  local seconds = (process.now() - start) / 1000
  print(("%-28s %12.0f /s  %8.3f us"):format(name, count / seconds, seconds / count * 1e6))
end

local function calls()
  local server = gen_server.start(Counter, 0)
  measure("calls, one to one", 1000, function()
    for _ = 1, 1000 do gen_server.call(server, 1) end
  end)
  gen_server.stop(server)
end

local function table_calls()
  local Echo = { init = function() return {} end, handle_call = function(_, msg) return msg end }
  local server = gen_server.start(Echo)
  local msg = { id = 1, name = "x", list = { 1, 2, 3 } }
  measure("calls, small tables", 1000, function()
    for _ = 1, 1000 do gen_server.call(server, msg) end
  end)
  gen_server.stop(server)
end

local function casts()
  local server = gen_server.start(Counter, 0)
  measure("casts, one to one", 1000, function()
    for _ = 1, 999 do gen_server.cast(server, 1) end
    gen_server.call(server, 1)
  end)
  gen_server.stop(server)
end

local function sends()
  local me = process.self()
  local echo = process.spawn(function()
    while true do process.send(me, process.receive()) end
  end)
  measure("send and receive, round trip", 1000, function()
    for i = 1, 1000 do
      process.send(echo, i)
      process.receive()
    end
  end)
  process.kill(echo, "kill")
end

local function spawns()
  measure("spawn to end", 1000, function()
    local me = process.self()
    for i = 1, 1000 do
      process.spawn(function() if i == 1000 then process.send(me, i) end end)
    end
    process.receive()
  end)
end

local function starts()
  local pids = {}
  measure("start and stop", 1000, function()
    for i = 1, 1000 do pids[i] = gen_server.start(Counter, i) end
    for i = 1, 1000 do gen_server.stop(pids[i]) end
  end)
end

local function many()
  local N = 100000
  local pids = table.move({}, 1, 0, 1)
  collectgarbage()
  local start = process.now()
  for i = 1, N do pids[i] = gen_server.start(Counter, i) end
  local ms = process.now() - start
  print(("%-28s %12.0f /s  %8.3f us"):format("start, " .. N .. " live", N / ms * 1000, ms * 1000 / N))
  collectgarbage()
  print(("%-28s %12.0f bytes of Lua's memory"):format("an idle server",
    (collectgarbage("count") * 1024) / N))
  for i = 1, N do process.kill(pids[i], "kill") end
end

phub.run(function()
  calls()
  table_calls()
  casts()
  sends()
  spawns()
  starts()
  many()
end)
