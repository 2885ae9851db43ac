-- The benches' child: a gen_server whose state is a small table.
local gen_server = require "phub.gen_server"

local child = {}

function child.init(name) return { name = name, n = 0 } end

function child.handle_call(state, msg)
  state.n = state.n + msg
  return state.n
end

function child.handle_cast(state, msg) state.n = state.n + msg end

function child.start(name)
  return gen_server.start_link(child, name)
end

function child.id(i)
  return "child" .. i
end

function child.spec(i)
  return { id = child.id(i), start = { "spec.bench.child", "start", { "x" } } }
end

--- Specs of the children first to last.
function child.specs(first, last)
  local specs = {}
  for i = first, last do specs[#specs + 1] = child.spec(i) end
  return specs
end

function child.ids(first, last)
  local ids = {}
  for i = first, last do ids[#ids + 1] = child.id(i) end
  return ids
end

--- Some of the children 1 to n: a share of them, at least so many, always the same.
function child.sample(n, share, least)
  local count = math.min(n, math.max(least, math.floor(n * share)))
  local ids = {}
  for i = 1, count do ids[i] = child.id(1 + (i * n // count + i * 7919) % n) end
  return ids
end

return child
