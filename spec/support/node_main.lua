-- A node of spec.support.cluster: node_main.lua NODE_CONFIG MORE_CONFIG HUB_CONFIG
--
-- Prints `ready ADDRESS`, then answers each line `{ id, chunk, args }` of stdin with `@id {...}`.
-- Leaves gracefully when stdin ends, so that no node outlives its spec. Chunks see `phub` and
-- `hub`, and share one table of globals.
local uv = require "luv"
local phub = require "phub"
local process = require "phub.process"
local values = require "spec.support.values"

local POLL_MS = tonumber(os.getenv "SPEC_POLL_MS") or 2

local function config(source)
  return assert(load("return " .. source))()
end

local function say(line)
  io.stdout:write(line, "\n")
  io.stdout:flush()
end

local function answer(line)
  local request = values.parse(line)
  local id, chunk, args = request[1], request[2], request[3]
  process.spawn(function()
    local r = table.pack(xpcall(function()
      return assert(load(chunk, "=eval"))(table.unpack(args, 1, args.n))
    end, function(err) return debug.traceback(tostring(err)) end))
    local out = { ok = r[1], n = r.n - 1, error = not r[1] and r[2] or nil }
    if r[1] then table.move(r, 2, r.n, 1, out) end
    say(("@%d %s"):format(id, values.line(out)))
  end)
end

-- stdin is polled: reading it must not hold up the node.
local function open_stdin()
  local pipe = uv.new_pipe(false)
  local state = { text = "", ended = false }
  assert(pipe:open(0))
  pipe:read_start(function(err, data)
    if err or not data then
      state.ended = true
    else
      state.text = state.text .. data
    end
  end)
  return state
end

local function serve()
  local input = open_stdin()
  while not input.ended do
    uv.run("nowait")
    local line, rest = input.text:match("^([^\n]*)\n(.*)$")
    while line do
      answer(line)
      input.text = rest
      line, rest = input.text:match("^([^\n]*)\n(.*)$")
    end
    local ms = rawget(_G, "pause_ms") or POLL_MS
    _G.pause_ms = nil
    process.sleep(ms)
  end
end

local node_config = config(arg[1])
for name, value in pairs(config(arg[2])) do
  node_config[name] = value
end
_G.phub = phub
phub.run(function()
  assert(phub.node.start(node_config))
  if arg[3] ~= "" then
    _G.hub = assert(phub.start_link(config(arg[3])))
  end
  say("ready " .. phub.node.address())
  serve()
  phub.node.stop()
end)
