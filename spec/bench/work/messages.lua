-- On a node: messages to one server, here or on another node.
local phub = require "phub"
local process = require "phub.process"
local gen_server = require "phub.gen_server"
local child = require "spec.bench.child"
local measure = require "spec.bench.measure"

local messages = {}

local BATCH = 1000

local Echo = { init = function() return {} end, handle_call = function(_, msg) return msg end }

--- Servers for the other nodes' calls.
function messages.serve()
  assert(gen_server.start(child, "x", { name = "counter" }))
  assert(gen_server.start(Echo, nil, { name = "echo" }))
end

local function calls(server, msg, seconds)
  return measure.rate(seconds, BATCH, function()
    for _ = 1, BATCH do
      local reply, err = gen_server.call(server, msg)
      if reply == nil then error(err) end
    end
  end)
end

-- The call at the end of a batch waits until all its casts are handled.
local function casts(server, seconds)
  local batch = 20 * BATCH
  return measure.rate(seconds, batch, function()
    for _ = 1, batch - 1 do assert(gen_server.cast(server, 1)) end
    assert(gen_server.call(server, 1))
  end)
end

--- Calls and casts a second to the server on a node, this one or another.
function messages.rates(node, seconds)
  local counter, echo = { "counter", node }, { "echo", node }
  if node == phub.node.self() then
    counter, echo = process.whereis "counter", process.whereis "echo"
  end
  return {
    call = calls(counter, 1, seconds),
    call_table = calls(echo, { id = 1, name = "x", list = { 1, 2, 3 } }, seconds),
    cast = casts(counter, seconds),
  }
end

--- Calls a second alone.
function messages.calls(node, seconds)
  return calls({ "counter", node }, 1, seconds)
end

--- Calls a second by child id, to one of the hub's children on that node.
function messages.calls_by_id(node, seconds)
  for id, instances in pairs(phub.process_list "h") do
    if instances[node] then
      return measure.rate(seconds, BATCH, function()
        for _ = 1, BATCH do assert(phub.call("h", id, 1)) end
      end)
    end
  end
  error("no child on " .. node)
end

local function send_and_receive(seconds)
  local me = process.self()
  local echo = process.spawn(function()
    while true do process.send(me, process.receive()) end
  end)
  local rate = measure.rate(seconds, BATCH, function()
    for i = 1, BATCH do
      process.send(echo, i)
      process.receive()
    end
  end)
  process.kill(echo, "kill")
  return rate
end

local function spawns(seconds)
  return measure.rate(seconds, BATCH, function()
    local me = process.self()
    for i = 1, BATCH do
      process.spawn(function() if i == BATCH then process.send(me, i) end end)
    end
    process.receive()
  end)
end

local function servers(seconds)
  local pids = {}
  return measure.rate(seconds, BATCH, function()
    for i = 1, BATCH do pids[i] = gen_server.start(child, i) end
    for i = 1, BATCH do gen_server.stop(pids[i]) end
  end)
end

--- What processes of one node do besides, a second.
function messages.processes(seconds)
  return {
    send = send_and_receive(seconds), spawn = spawns(seconds), server = servers(seconds),
  }
end

return messages
