-- Every public function with values that it does not expect, in every place: whatever comes, it is
-- an answer, `nil, err` with a code, or a raised error that names the argument or has a code; never
-- an error of Lua's from somewhere inside. (What each says is validation_spec's.)
local phub = require "phub"
local process = require "phub.process"

-- They end the hub or the program, or change the whole program.
local LEFT_OUT = { halt = true, run = true, handle_signals = true, stop = true, ["node.stop"] = true,
  ["process.exit"] = true }
local ELSEWHERE = { strategy = true, hook = true, hook_manager = true }

local function cycle()
  local t = {}
  t.t = t
  return t
end

local function deep(n)
  local t = {}
  for _ = 1, n do t = { t } end
  return t
end

local values = {
  0, -1, 1.5, 1 << 62, math.huge, 0 / 0, true, false, "", "x", "a\0b", "\xff", ("x"):rep(3000), {}, { 1 },
  { "x" }, { a = 1 }, { 1, nil, 3 }, { {} }, { { id = 1 } }, { id = "x" }, { id = "x", start = {} }, cycle(), deep(100),
  { cycle() }, { print }, print, coroutine.create(print), io.stdout, setmetatable({}, { __index = cycle }),
  { name = "x" }, { hub = 1, child = 2 }, { hub = "w", child = {} }, { "a", "b" },
  { status = "ok" }, { status = "error" }, { status = 1, started = 1, stopped = 1, errors = 1 },
  { status = "ok", started = { 1 }, stopped = { 1 }, errors = {} },
  { status = "ok", started = { {} }, stopped = { {} }, errors = { {} } },
  { status = "error", started = { { id = 1, instances = 1 } }, stopped = { { id = 1, nodes = 1 } }, errors = 1 },
  { status = "ok", started = { { id = "x", instances = { 1, {} } } }, stopped = { { id = "x", nodes = { 1, {} } } } },
  { status = "error", started = { { id = "x", instances = {} } }, stopped = { { id = "x", nodes = {} } } },
}

local function public()
  local all = {}
  local function add(prefix, t)
    for name, value in pairs(t) do
      if type(value) == "function" and not name:find "^__" and not LEFT_OUT[prefix .. name] then
        all[prefix .. name] = value
      end
    end
  end
  add("", phub)
  for name, value in pairs(phub) do
    if type(value) == "table" and not ELSEWHERE[name] then add(name .. ".", value) end
  end
  add("future:", getmetatable(phub.future.new()))
  return all
end

local function is_error(err)
  return type(err) == "table" and type(err.code) == "string" and type(err.message) == "string"
end

-- nil when the outcome is one that may be
local function judge(ok, first, second)
  if ok then
    if first == nil and type(second) == "table" and not is_error(second) and second[1] ~= "error" then
      return "nil and a table that is no error"
    end
  elseif not is_error(first) and not tostring(first):find "bad argument #%d to '" then
    return "raised " .. tostring(first)
  end
end

describe("every function", function()
  local hub, server
  local Server = { init = function() return 1 end, handle_call = function() return 2 end }

  setup(function() hub = assert(phub.start_link { hub_id = "w" }) end)
  teardown(function() assert(phub.stop(hub)) end)

  -- the values that come first, so that the others are looked at
  local function beginnings()
    return { {}, { hub }, { hub, "x" }, { hub, {} }, { hub, "x", 1 }, { server }, { server, 1 }, { 1 }, { "x" },
      { Server }, { Server, 1 }, { phub.future.new() }, { print }, { { hub = hub, child = "x" } }, { {}, {} } }
  end

  for name, fn in pairs(public()) do
    it(name .. " bears any value in any place", function()
      phub.run(function()
        local waiting, wrong = {}, {}
        server = assert(phub.gen_server.start(Server))
        local function try(...)
          local args = table.pack(...)
          -- not as arguments of spawn, which copies them
          local pid, ref = process.spawn_monitor(function()
            local problem = judge(pcall(fn, table.unpack(args, 1, args.n)))
            if problem then wrong[#wrong + 1] = problem end
          end)
          waiting[ref] = pid
        end
        for _, first in ipairs(beginnings()) do
          for _, value in ipairs(values) do
            local args = { table.unpack(first) }
            args[#args + 1] = value
            try(table.unpack(args))
            args[#args + 1] = value
            try(table.unpack(args))
          end
          try(table.unpack(first))
        end
        -- some wait for ever, and have nothing to say
        process.sleep(20)
        for _, pid in pairs(waiting) do process.kill(pid, "kill") end
        for _ in pairs(waiting) do process.receive(function(m) return m[1] == "DOWN" end) end
        process.kill(server, "kill")
        assert.same({}, wrong)
      end)
      assert.is_true(phub.is_alive(hub))
    end)
  end
end)
