-- What the driver asks of a node: a gen_server that speaks for the node's hub.
local phub = require "phub"
local gen_server = require "phub.gen_server"
local process = require "phub.process"

local control = {}
local CALL_MS = 10000

---@param hub_id string
---@param main any  the pid to tell when the node is to leave
function control.start(hub_id, main)
  return gen_server.start(control, { hub = hub_id, main = main })
end

function control.init(state)
  return state
end

local requests = {}

--- Starts children and waits for the result: how many run, and the first errors.
function requests.start(state, specs)
  local future, err = phub.start_children(state.hub, specs, { awaitable = true, timeout = 60000 })
  if not future then return { error = tostring(err) } end
  local result
  result, err = future:await()
  if not result then return { error = tostring(err) } end
  if #result.errors == 0 then return { started = #result.started } end
  local first = result.errors[1]
  local reason = first.reason
  if type(reason) == "table" then reason = reason[2] or reason[1] end
  return { error = ("%d of %d children did not start; %s: %s")
    :format(#result.errors, #specs, first.id, tostring(reason)) }
end

--- How many children run where, by this node's registry.
function requests.survey(state)
  local answer = { children = 0, single = 0, on = {}, nodes = phub.nodes(state.hub, { include_local = true }),
    moving = phub.is_locked(state.hub) }
  for _, instances in pairs(phub.process_list(state.hub)) do
    answer.children = answer.children + 1
    local count = 0
    for where in pairs(instances) do
      count = count + 1
      answer.on[where] = (answer.on[where] or 0) + 1
    end
    if count == 1 then answer.single = answer.single + 1 end
  end
  return answer
end

--- Where each child runs: { [id] = node }.
function requests.homes(state)
  local homes = {}
  for id, instances in pairs(phub.process_list(state.hub)) do
    homes[id] = next(instances)
  end
  return homes
end

--- Asks every child, by its id, wherever it runs: { [id] = { words=, node= } }.
function requests.count(state, ids)
  local counts = {}
  for _, id in ipairs(ids) do
    local answer, err = phub.call(state.hub, id, "count", CALL_MS)
    if not answer then return { error = ("%s does not answer: %s"):format(id, tostring(err)) } end
    counts[id] = answer
  end
  return { counts = counts }
end

function requests.leave(state)
  process.send(state.main, "leave")
  return true
end

--- A message is { request, argument }. Each is answered from a process of its own, so that a
--- survey does not wait for a start.
function control.handle_call(state, msg, from)
  process.spawn(function()
    gen_server.reply(from, requests[msg[1]](state, msg[2]))
  end)
  return gen_server.noreply
end

return control
