-- The demo: lua5.4 examples/demo.lua [FOLDER]
--
-- Three OS processes, each a node, run one child per text file; each child counts the words of its
-- file and keeps the count. One node is killed with -9, later a fourth joins. After each of these
-- every child is asked, by its id, and the sum must be what `LC_ALL=C wc -w` counts; otherwise, and
-- on any other failure, the demo says so and ends with code 1.
--
-- This process is a node too, but runs no hub: it only asks (demo/control.lua answers).
package.path = arg[0]:match("^(.-)[^/]*$") .. "?.lua;" .. package.path

local phub = require "phub"
local node = require "phub.node"
local process = require "phub.process"
local files = require "demo.files"
local node_process = require "demo.node_process"
local screen = require "demo.screen"

local POLL_MS = 20
local LIMIT_MS = 60000
local QUIET_MS = 500   -- a placement that did not change for so long is settled
local MAX_ID = 1024    -- bytes of a child id

local nodes = {} ---@type table[]  every node process started, in order
local paths, ids = {}, {}
local say = screen.say

local function live()
  local list = {}
  for _, n in ipairs(nodes) do
    if n.state == "up" then list[#list + 1] = n end
  end
  return list
end

-- ---- children ------------------------------------------------------------------------------

local function child_specs()
  local specs = {}
  for i, path in ipairs(paths) do
    local id = #path <= MAX_ID and path or ("%d:%s"):format(i, path:sub(-MAX_ID // 2))
    ids[i] = id
    specs[i] = { id = id, start = { "wordcount", "start", { path } } }
  end
  return specs
end

-- Looks at the cluster through one node and shows it.
local function survey(observer)
  local seen = observer:ask("survey")
  for _, n in ipairs(nodes) do
    if n.state == "up" then n.children = seen.on[n.name] or 0 end
  end
  screen.update(nodes, #ids)
  return seen
end

-- Each child runs once, on nodes that live.
local function is_whole(seen)
  local running = 0
  for _, n in ipairs(live()) do
    running = running + (seen.on[n.name] or 0)
  end
  return seen.children == #ids and seen.single == #ids and running == #ids
end

local function wait_until(what, observer, is_done)
  local deadline = process.now() + LIMIT_MS
  while true do
    local seen = survey(observer)
    if is_done(seen) then return seen end
    if process.now() > deadline then
      error(("%s: not within %d s (%d of %d children run once)")
        :format(what, LIMIT_MS // 1000, seen.single, #ids), 0)
    end
    process.sleep(POLL_MS)
  end
end

local function wait_for_nodes(observer)
  return wait_until("the nodes see each other", observer, function(seen)
    return #seen.nodes == #live()
  end)
end

-- Waits until every child runs once and nothing has moved for a while.
local function wait_until_settled(observer)
  local last, since = "", process.now()
  wait_until("the children settle", observer, function(seen)
    local state = {}
    for _, n in ipairs(live()) do
      state[#state + 1] = seen.on[n.name] or 0
    end
    local now = table.concat(state, " ")
    if now ~= last or not is_whole(seen) or seen.moving then last, since = now, process.now() end
    return process.now() - since >= QUIET_MS
  end)
end

-- Asks every child, by id, through one node, and compares the sum with wc's.
local function check_sum(asked)
  local counts = asked:ask("count", ids).counts
  local sum, answers = 0, 0
  for _, id in ipairs(ids) do
    sum = sum + counts[id].words
    answers = answers + 1
  end
  local expected, err = files.wc(paths)
  if not expected then error(err, 0) end
  screen.table(nodes, #ids)
  say("  asked %d children through %s: %d words; wc -w: %d words%s", answers, asked.short, sum,
    expected, sum == expected and "" or "  <-- DIFFER")
  if sum ~= expected then
    error(("the children count %d words, wc counts %d"):format(sum, expected), 0)
  end
end

-- ---- stages --------------------------------------------------------------------------------

local function start_node(suffix)
  local n = node_process.start("node" .. #nodes + 1, suffix, node.address())
  nodes[#nodes + 1] = n
  return n
end

local function stage_start(suffix)
  say("Three nodes, %d files", #paths)
  for _ = 1, 3 do
    start_node(suffix)
  end
  for _, n in ipairs(nodes) do
    wait_for_nodes(n)
  end
  local began, answer = process.now(), nil
  process.spawn(function()
    answer = table.pack(pcall(nodes[1].ask, nodes[1], "start", child_specs()))
  end)
  while not answer do
    survey(nodes[1])
    process.sleep(POLL_MS)
  end
  if not answer[1] then error(answer[2], 0) end
  local took = process.now() - began
  wait_until("the children start", nodes[1], is_whole)
  say("  started %d children in %.0f ms", answer[2].started, took)
  check_sum(nodes[1])
end

local function stage_kill()
  local victim, observer = nodes[2], nodes[1]
  say("\nkill -9 %s, which runs %d children", victim.short, victim.children)
  local began = process.now()
  victim:kill()
  wait_until("recovery", observer, is_whole)
  say("  every child runs again, once, after %.0f ms", process.now() - began)
  check_sum(nodes[3])
end

-- "12 children moved: 7 from node1, 5 from node3", and some by name.
local function show_moves(before, after)
  local short, from, moved = {}, {}, {}
  for _, n in ipairs(nodes) do
    short[n.name] = n.short
  end
  for _, id in ipairs(ids) do
    if before[id] ~= after[id] then
      moved[#moved + 1] = ("%s: %s -> %s"):format(id, short[before[id]], short[after[id]])
      from[short[before[id]]] = (from[short[before[id]]] or 0) + 1
    end
  end
  local parts = {}
  for _, n in ipairs(nodes) do
    if from[n.short] then parts[#parts + 1] = ("%d from %s"):format(from[n.short], n.short) end
  end
  say("  %d children moved%s", #moved, #parts > 0 and ": " .. table.concat(parts, ", ") or "")
  for i = 1, math.min(#moved, 3) do
    say("    %s", moved[i])
  end
  if #moved > 3 then say("    ...") end
end

local function stage_join(suffix)
  local before = nodes[1]:ask("homes")
  local began = process.now()
  local newcomer = start_node(suffix)
  say("\n%s joins", newcomer.short)
  for _, n in ipairs(live()) do
    wait_for_nodes(n)
  end
  wait_until_settled(newcomer)
  say("  settled after %.0f ms", process.now() - began - QUIET_MS)
  show_moves(before, newcomer:ask("homes"))
  check_sum(newcomer)
end

local function stage_end()
  say("\nThe nodes leave")
  for _, n in ipairs(live()) do
    n:ask("leave")
  end
  for _, n in ipairs(nodes) do
    local killed = n.state == "killed"
    if not n:close() and not killed then error(n.short .. " did not end well", 0) end
    n.state = "ended"
  end
  say("Every sum was right.")
end

-- ---- the whole -----------------------------------------------------------------------------

local function fail(err)
  say("\nDEMO FAILED: %s", tostring(err))
  for _, n in ipairs(nodes) do
    if n.state ~= "ended" then
      if n.state == "up" then n:kill() end
      local log = n:logged()
      if log ~= "" then say("--- log of %s\n%s", n.short, log) end
      n:close()
    end
  end
  return 1
end

local function usage(err)
  io.stderr:write("demo: ", err, "\n")
  os.exit(2)
end

if #arg > 1 then usage("one folder at most") end
local list, err
if arg[1] then
  list, err = files.of_folder(arg[1])
else
  list, err = files.default()
end
if not list then usage(err) end
paths = list

local code = phub.run(function()
  -- pids are reused, tmp names are not while the file is there
  local mark = os.tmpname()
  local suffix = mark:match("[^/_]*$"):gsub("%W", "")
  local ok, problem = xpcall(function()
    assert(node.start { name = ("driver-%s@127.0.0.1"):format(suffix) })
    stage_start(suffix)
    stage_kill()
    stage_join(suffix)
    stage_end()
  end, function(e) return type(e) == "string" and e or debug.traceback(tostring(e)) end)
  os.remove(mark)
  local result = ok and 0 or fail(problem)
  node.stop()
  return result
end)
os.exit(code)
