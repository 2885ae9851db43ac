-- Round trips of a remote gen_server.call beside raw blocking ones of the same size (rtt_raw.c), the
-- two processes pinned to different cores, and to one.
--
--   eval "$(make env)"; lua5.4 spec/bench/rtt.lua [SECONDS [ROUNDS]]        default: 1 3
--
-- Exits with 1 when a call takes more than twice a raw round trip on different cores, or three times
-- one on the same core, in the median of the rounds.
local LUA = os.getenv "LUA" or "lua5.4"
local SELF = arg[0]
local PAYLOAD = ("x"):rep(64)
local SIZE = 120 -- bytes on the wire of a call with it, and about as many of its reply

local roles = {}

function roles.serve()
  local phub = require "phub"
  local echo = { init = function() return {} end, handle_call = function(_, msg) return msg end }
  phub.run(function()
    assert(phub.node.start { name = ("rtt%s@127.0.0.1"):format(arg[2]), cookie = "bench" })
    phub.process.register("echo", assert(phub.gen_server.start(echo, nil)))
    io.stdout:write(phub.node.address(), "\n")
    io.stdout:flush()
    while true do phub.process.sleep(60000) end
  end)
end

function roles.call()
  local phub = require "phub"
  local seconds, server = tonumber(arg[3]), ("rtt%s@127.0.0.1"):format(arg[4])
  local call, now = phub.gen_server.call, phub.process.now
  phub.run(function()
    assert(phub.node.start { name = ("rttc%s@127.0.0.1"):format(arg[4]), cookie = "bench" })
    assert(phub.node.connect(arg[2]))
    local dest = { "echo", server }
    for _ = 1, 1000 do assert(call(dest, PAYLOAD) == PAYLOAD) end
    local trips, began = 0, now()
    repeat
      for _ = 1, 10 do assert(call(dest, PAYLOAD) == PAYLOAD) end
      trips = trips + 10
    until now() - began >= seconds * 1000
    print(trips / (now() - began) * 1000)
  end)
end

local function read(command)
  local pipe <close> = assert(io.popen(command))
  return pipe:read "a"
end

local serial = 0

-- Calls a second between a server on core b and a caller on core a.
local function calls(seconds, a, b)
  serial = serial + 1
  local id = ("%s-%d"):format(read "echo -n $PPID", serial)
  local server = assert(io.popen(("exec taskset -c %d %s %s serve %s & echo $!; wait"):format(b, LUA, SELF, id)))
  local pid, address = server:read("l", "l")
  local rate = tonumber(read(("taskset -c %d %s %s call %s %s %s"):format(a, LUA, SELF, address, seconds, id)))
  os.execute("kill -9 " .. pid)
  server:close()
  return rate
end

local function median(list)
  table.sort(list)
  return list[(#list + 1) // 2]
end

local function compare(raw, title, seconds, rounds, a, b, most)
  local ratios = {}
  for i = 1, rounds do
    local plain = tonumber(read(("%s %d %s %d %d"):format(raw, SIZE, seconds, a, b)))
    local ours = calls(seconds, a, b)
    ratios[i] = plain / ours
    print(("%s: call %6.0f/s, raw %6.0f/s, a call takes %.2f raw round trips"):format(title, ours, plain, ratios[i]))
  end
  local ratio = median(ratios)
  local good = ratio <= most
  print(("%s: %.2f, at most %.2f wanted: %s"):format(title, ratio, most, good and "ok" or "TOO SLOW"))
  return good
end

if roles[arg[1]] then
  roles[arg[1]]()
else
  local seconds, rounds = tonumber(arg[1]) or 1, tonumber(arg[2]) or 3
  local raw = os.tmpname()
  assert(os.execute(("cc -O2 -D_GNU_SOURCE -o %s %s"):format(raw, (SELF:gsub("%.lua$", "_raw.c")))))
  local apart = compare(raw, "different cores", seconds, rounds, 0, 1, 2)
  local together = compare(raw, "one core       ", seconds, rounds, 0, 0, 3)
  os.remove(raw)
  os.exit(apart and together)
end
