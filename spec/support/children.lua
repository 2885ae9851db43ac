-- Start functions for the specs' children, and one server for all of them.
local gen_server = require "phub.gen_server"
local process = require "phub.process"
local node = require "phub.node"

local children = {}

function children.init(args)
  if args.refuse then return nil, args.refuse end
  return { args = args, seen = {} }
end

local calls = {}

function calls.args(state) return state.args end

function calls.seen(state) return state.seen end

function calls.where() return { node = node.self(), pid = process.self() } end

function calls.add(state, msg)
  state.seen[#state.seen + 1] = msg[2]
  return #state.seen
end

function calls.sleep(_, msg)
  process.sleep(msg[2])
  return "slept"
end

function calls.crash() error("crashed on purpose") end

function calls.crash_with(_, msg) error(msg[2]) end

function calls.exit(_, msg) return gen_server.stopping(msg[2]) end

function children.handle_call(state, msg)
  if type(msg) == "table" then return calls[msg[1]](state, msg) end
  return calls[msg](state, msg)
end

function children.handle_cast(state, msg)
  if msg == "crash" then error("crashed on purpose") end
  state.seen[#state.seen + 1] = msg
end

function children.handle_info(state, msg)
  state.seen[#state.seen + 1] = msg
end

--- The usual child.
function children.start(args)
  return gen_server.start_link(children, args or {})
end

--- The pid of what has ended already; of the hub's own supervisor; of one process for all.
function children.dead()
  local pid = process.spawn(function() end)
  while process.alive(pid) do process.sleep(1) end
  return pid
end

function children.supervisor() return process.self() end

local common
function children.common()
  if not (common and process.alive(common)) then common = process.spawn(process.receive) end
  return common
end

--- One whose start takes a while.
function children.slow(ms, args)
  process.sleep(ms)
  return children.start(args)
end

function children.several(...)
  return children.start { n = select("#", ...), ... }
end

function children.refuse(reason) return nil, reason end

function children.raise(message) error(message, 0) end

function children.raise_table() error { code = 5, list = { 1 } } end

function children.number() return 42 end

function children.nothing() end

--- Ends right after it has started.
function children.gone()
  local pid = assert(children.start())
  gen_server.stop(pid)
  return pid
end

--- One that takes no notice of the signal to stop.
function children.deaf()
  return process.spawn_link(function()
    process.trap_exit(true)
    while true do process.receive() end
  end)
end

children.not_a_function = "text"

--- A spec of the usual child.
function children.spec(id, args)
  return { id = id, start = { "spec.support.children", "start", args and { args } or nil } }
end

--- n of them, called <prefix>1, <prefix>2, ...
function children.specs(n, prefix)
  local specs = {}
  for i = 1, n do
    specs[i] = children.spec((prefix or "c") .. i)
  end
  return specs
end

return children
