-- Children that say themselves where they run, and each node's own list of them.
--
-- What the registry believes is one thing; here every instance enters its node's list when it begins
-- and leaves it when it ends, so that a second copy, or one that nobody knows of, is seen. The
-- children trap exits: their `terminate` runs however they are stopped.
local uv = require "luv"
local gen_server = require "phub.gen_server"
local process = require "phub.process"
local node = require "phub.node"

local census = {
  started = 0,   -- instances that have begun here
  on_start = nil, -- fn(started), called by each
}

local here = {}    -- pid -> entry of an instance that has not ended
local journal = {} -- every entry: { id, began, ended }, ns of the machine's clock

function census.init(id)
  process.trap_exit(true)
  local entry = { id, uv.hrtime(), nil }
  here[process.self()] = entry
  journal[#journal + 1] = entry
  census.started = census.started + 1
  if census.on_start then census.on_start(census.started) end
  return { id = id, seen = 0, order = true }
end

local calls = {}

function calls.where() return node.self() end

function calls.seen(state) return { state.seen, state.order, state.last } end

function census.handle_call(state, msg)
  return calls[msg](state)
end

-- Casts are rising numbers; each is counted, and one that comes late or twice is noticed.
function census.handle_cast(state, n)
  if state.last and n <= state.last then state.order = false end
  state.last = n
  state.seen = state.seen + 1
end

function census.terminate()
  local entry = here[process.self()]
  here[process.self()] = nil
  entry[3] = uv.hrtime()
end

function census.start(id)
  return gen_server.start_link(census, id)
end

--- One that keeps no list: as light as a server can be.
local plain = { init = function(args) return args end }

function census.plain(args)
  return gen_server.start_link(plain, args)
end

--- Its start function takes a while.
function census.slow(id, ms)
  process.sleep(ms)
  return census.start(id)
end

--- Specs of the children <prefix>1 to <prefix>count, whose start functions take slow_ms.
function census.specs(prefix, count, slow_ms)
  local specs = {}
  for i = 1, count do
    local id = prefix .. i
    local start = slow_ms and { "slow", { id, slow_ms } } or { "start", { id } }
    specs[i] = { id = id, start = { "spec.support.census", start[1], start[2] } }
  end
  return specs
end

--- The ids of all instances that live here, one a line, an id as often as it runs.
function census.list()
  local ids = {}
  for pid, entry in pairs(here) do
    if process.alive(pid) then ids[#ids + 1] = entry[1] end
  end
  return table.concat(ids, "\n")
end

--- What this node's registry says: lines `id node`, sorted.
function census.registry(hub)
  local lines = {}
  for id, instances in pairs(require "phub".process_list(hub)) do
    local names = {}
    for name in pairs(instances) do names[#names + 1] = name end
    table.sort(names)
    lines[#lines + 1] = id .. " " .. table.concat(names, " ")
  end
  table.sort(lines)
  return table.concat(lines, "\n")
end

--- Every instance that ever began here: lines `id began ended`, ended "-" while it lives.
function census.journal()
  local lines = {}
  for i, entry in ipairs(journal) do
    lines[i] = ("%s %d %s"):format(entry[1], entry[2], entry[3] and ("%d"):format(entry[3]) or "-")
  end
  return table.concat(lines, "\n")
end

return census
