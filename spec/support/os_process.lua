-- Real OS processes for specs: start, talk to, stop, kill, read line by line; none is left behind.
--
--   local os_process = require "spec.support.os_process"
--   local p = os_process.lua [[ print(io.read()) ]]
--   p:write("hello\n")
--   assert.equal("hello", p:expect("h.*"))
--   assert.same({ code = 0 }, p:wait())
--   after_each(os_process.finish)          -- kills what still runs; raises if some did
--
-- Everything here waits with a limit and raises with the process's whole output past it.
local uv = require "luv"
local eventually = require "spec.support.eventually"

local os_process = {}
local Process = {}
Process.__index = Process

local DEFAULT_MS = 10000
local SANITIZER = { "runtime error: ", "ERROR: %w+Sanitizer", "WARNING: ThreadSanitizer" }
local running = {} ---@type table<table, boolean>
local started = {} ---@type table[]  since the last finish

local function environment(extra)
  local vars = uv.os_environ()
  for name, value in pairs(extra or {}) do
    vars[name] = value or nil
  end
  local list = {}
  for name, value in pairs(vars) do
    list[#list + 1] = name .. "=" .. value
  end
  return list
end

local function collect(self, pipe, field)
  pipe:read_start(function(err, data)
    if data then
      self[field] = self[field] .. data
    else
      self.open_pipes = self.open_pipes - 1
      if not pipe:is_closing() then pipe:close() end
    end
    if err then self.errors = self.errors .. "\n[read: " .. err .. "]" end
  end)
end

---@class os_process.options
---@field args? string[]
---@field env? table<string, string|false>  added to this process's environment; false removes
---@field cwd? string
---@field name? string  for messages

--- Starts a program.
---@param file string
---@param options? os_process.options
function os_process.start(file, options)
  options = options or {}
  local self = setmetatable({ out = "", errors = "", read_at = 1, open_pipes = 2 }, Process)
  self.name = options.name or file
  self.stdin = uv.new_pipe(false)
  local out, err = uv.new_pipe(false), uv.new_pipe(false)
  local handle, pid = uv.spawn(file, {
    args = options.args,
    env = environment(options.env),
    cwd = options.cwd,
    stdio = { self.stdin, out, err },
  }, function(code, signal)
    self.result = signal == 0 and { code = code } or { signal = signal }
    self.handle:close()
    if not self.stdin:is_closing() then self.stdin:close() end
    running[self] = nil
  end)
  if not handle then error(("cannot start %s: %s"):format(file, pid), 2) end
  self.handle, self.pid = handle, pid
  running[self] = true
  started[#started + 1] = self
  collect(self, out, "out")
  collect(self, err, "errors")
  return self
end

--- Starts the interpreter on a chunk of Lua, which gets `options.args` as `...`.
---@param code string
---@param options? os_process.options
function os_process.lua(code, options)
  options = options or {}
  local args = { "-e", "local arg_ = arg; (function(...) " .. code .. "\nend)(table.unpack(arg_))",
    "/dev/null" }
  for _, a in ipairs(options.args or {}) do
    args[#args + 1] = a
  end
  return os_process.start(os_process.interpreter(), {
    args = args, env = options.env, cwd = options.cwd, name = options.name or "lua chunk",
  })
end

--- Starts the interpreter on a script file.
---@param path string
---@param options? os_process.options
function os_process.script(path, options)
  options = options or {}
  local args = { path }
  for _, a in ipairs(options.args or {}) do
    args[#args + 1] = a
  end
  return os_process.start(os_process.interpreter(), {
    args = args, env = options.env, cwd = options.cwd, name = options.name or path,
  })
end

function os_process.interpreter()
  return os.getenv("LUA") or "lua5.4"
end

--- Runs a shell command to its end; returns its result, stdout and stderr.
---@param command string
---@param ms? number
---@param options? os_process.options
function os_process.sh(command, ms, options)
  options = options or {}
  local p = os_process.start("/bin/sh",
    { args = { "-c", command }, env = options.env, cwd = options.cwd, name = command })
  p:close_stdin()
  local result = p:wait(ms)
  return result, p.out, p.errors
end

local function report(self)
  return ("%s (pid %d, %s)\n--- stdout\n%s\n--- stderr\n%s"):format(self.name, self.pid,
    self.result and (self.result.code and "exit " .. self.result.code
      or "signal " .. self.result.signal) or "running", self.out, self.errors)
end

local function wait_for(self, what, fn, ms)
  local ok, value = pcall(eventually, fn, ms or DEFAULT_MS)
  if not ok then
    error(("%s: %s\n%s"):format(what, tostring(value), report(self)), 3)
  end
  return value
end

local function next_line(self)
  local at = self.out:find("\n", self.read_at, true)
  if at then
    local line = self.out:sub(self.read_at, at - 1)
    self.read_at = at + 1
    return line
  end
  if self.open_pipes == 0 and self.read_at <= #self.out then
    local line = self.out:sub(self.read_at)
    self.read_at = #self.out + 1
    return line
  end
end

--- The next line of stdout.
---@param ms? number
---@return string
function Process:line(ms)
  return wait_for(self, "no line", function() return next_line(self) end, ms)
end

--- Reads lines until one matches; returns its captures (or the line).
---@param pattern string
---@param ms? number
function Process:expect(pattern, ms)
  local found
  wait_for(self, "no line matches " .. pattern, function()
    local line = next_line(self)
    while line do
      found = table.pack(line:match(pattern))
      if found[1] ~= nil then return true end
      line = next_line(self)
    end
    if self.result and self.open_pipes == 0 then return nil, "it ended" end
  end, ms)
  return table.unpack(found, 1, found.n)
end

--- Waits until stderr matches; returns the captures.
---@param pattern string
---@param ms? number
function Process:expect_error(pattern, ms)
  return wait_for(self, "stderr lacks " .. pattern, function()
    return self.errors:match(pattern)
  end, ms)
end

function Process:write(text)
  self.stdin:write(text)
end

function Process:close_stdin()
  if not self.stdin:is_closing() then self.stdin:close() end
end

--- Sends a signal: "kill", "stop", "cont", "term", ...
---@param signal string
function Process:signal(signal)
  if not self.result then uv.process_kill(self.handle, "sig" .. signal:lower()) end
end

--- Kill -9, and waits until it is gone.
function Process:kill()
  self:signal("kill")
  return self:wait()
end

---@return boolean
function Process:is_running()
  uv.run("nowait")
  return self.result == nil
end

--- Waits for its end and for all of its output: `{ code = n }` or `{ signal = n }`.
---@param ms? number
function Process:wait(ms)
  return wait_for(self, "it did not end", function()
    return self.open_pipes == 0 and self.result
  end, ms)
end

--- Waits for its end alone; children of its own may still hold its output open.
---@param ms? number
function Process:wait_exit(ms)
  return wait_for(self, "it did not end", function() return self.result end, ms)
end

-- A process that a sanitizer ended looks to a spec like one that was killed.
local function sanitizer_reports()
  local reports = {}
  for _, p in ipairs(started) do
    for _, pattern in ipairs(SANITIZER) do
      if p.errors:find(pattern) then
        reports[#reports + 1] = report(p)
        break
      end
    end
  end
  started = {}
  return reports
end

--- For after_each: raises when a started process still runs, after killing it, and when one was
--- ended by a sanitizer.
function os_process.finish()
  uv.run("nowait")
  local left = {}
  for p in pairs(running) do
    left[#left + 1] = report(p)
    p:signal("cont")
    p:signal("kill")
  end
  local ended = #left == 0 or pcall(eventually, function() return next(running) == nil end, 5000)
  local reports = sanitizer_reports()
  if #reports > 0 then
    error("a sanitizer reported:\n" .. table.concat(reports, "\n"), 2)
  elseif #left > 0 then
    error(("%d processes left running%s:\n%s"):format(#left, ended and "" or ", some still",
      table.concat(left, "\n")), 2)
  end
end

return os_process
