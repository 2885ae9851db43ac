-- Futures: values that come later, for any number of waiters.
local core = require "phub.core"
require "phub.error"

---@class phub.future.object
local Future = {}
Future.__index = Future
Future.__name = "phub.future"

local future = {
  --- What a coroutine that is not phub's own yields to its resumer while it waits.
  waiting = core.waiting,
}

function Future:__tostring()
  return ("phub.future: %s"):format(self.state or "waiting")
end

---@return phub.future.object
function future.new()
  return setmetatable({}, Future)
end

--- Is it a future?
---@param value any
---@return boolean
function future.is(value)
  return getmetatable(value) == Future
end

local function check(fut, name, arg)
  if getmetatable(fut) ~= Future then
    error(("bad argument #%d to '%s' (future expected, got %s)"):format(arg, name, type(fut)), 3)
  end
end

local function check_ms(timeout, name, arg)
  if timeout == nil or type(timeout) == "number" and timeout >= 0 then return end
  error(("bad argument #%d to '%s' (milliseconds expected, a number of at least 0, got %s)"):format(arg, name,
    type(timeout) == "number" and tostring(timeout) or type(timeout)), 3)
end

-- What a future that is done hands out: each time a table of its own where `make` can make one.
local function outcome(fut)
  if fut.state == "rejected" then return nil, fut.err end
  if fut.make then return fut.make() end
  return fut.value
end

-- Wakes the waiters (refs of parked waits) and calls the watchers (functions of this module, that do
-- not wait). When memory runs out in between, whoever tries again goes on with the rest.
local function tell(fut)
  local waiters, watchers = fut.waiters, fut.watchers
  for i = 1, waiters and #waiters or 0 do core.wake(waiters[i]) end
  fut.waiters = nil
  for i = 1, watchers and #watchers or 0 do
    if watchers[i] then watchers[i](fut) end
    watchers[i] = false -- told
  end
  fut.watchers = nil
end

local function done(fut, state)
  fut.state = state
  tell(fut)
  return true
end

--- Resolves it. False when it is done already.
---@param value any
---@return boolean
function Future:resolve(value)
  check(self, "resolve", 1)
  if self.state then return tell(self) or false end
  self.value = value
  return done(self, "resolved")
end

--- Rejects it. False when it is done already.
---@param err any  not nil
---@return boolean
function Future:reject(err)
  check(self, "reject", 1)
  if err == nil then error("bad argument #1 to 'reject' (an error expected)", 2) end
  if self.state then return tell(self) or false end
  self.err = err
  return done(self, "rejected")
end

---@return boolean
function Future:is_done()
  check(self, "is_done", 1)
  return self.state ~= nil
end

local function watch(fut, fn)
  fut.watchers = fut.watchers or {}
  table.insert(fut.watchers, fn)
end

-- A wait that ran out takes itself from the list: a future that many ask in vain must not grow.
local function forget(list, item)
  for i = #list, 1, -1 do
    if list[i] == item then table.remove(list, i) end
  end
end

--- Waits for it.
---@param timeout? number  ms, default for ever
---@return any value  or nil
---@return any err  what it was rejected with, or { code = "timeout" }
function Future:await(timeout)
  check(self, "await", 1)
  check_ms(timeout, "await", 1)
  if not self.state then
    self.waiters = self.waiters or {}
    local waiters = self.waiters
    local in_time, ref = core.park(waiters, timeout)
    if not in_time and not self.state then
      forget(waiters, ref)
      return nil, core.error("timeout", "the future is not done in time")
    end
  end
  return outcome(self)
end

--- Calls fn(value, err) once it is done, later, in a process of its own.
---@param fn fun(value: any, err: any)
function Future:on_done(fn)
  check(self, "on_done", 1)
  if type(fn) ~= "function" then
    error(("bad argument #1 to 'on_done' (function expected, got %s)"):format(type(fn)), 2)
  end
  local function call(fut)
    core.spawn(function() fn(outcome(fut)) end)
  end
  if self.state then call(self) else watch(self, call) end
end

--- Waits for f. A call's `nil, err` passes through: `future.await(hub:start_child(...))`.
---@param f phub.future.object?
---@param err? any
---@return any value
---@return any err  `invalid_argument` for what is no future
function future.await(f, err)
  if getmetatable(f) == Future then return f:await() end
  if f == nil and err ~= nil then return nil, err end
  return nil, core.error("invalid_argument", "a future expected, got " .. type(f))
end

local function check_list(list, name)
  if type(list) ~= "table" then
    error(("bad argument #1 to '%s' (list of futures expected, got %s)"):format(name, type(list)), 3)
  end
  for i = 1, #list do
    if getmetatable(list[i]) ~= Future then
      return nil, core.error("invalid_argument",
        ("item %d: a future expected, got %s"):format(i, type(list[i])))
    end
  end
  return true
end

-- Waits until `looks(i, fut)` has answered something for one of the futures that are done; it is asked
-- about each future once.
local function until_one(list, timeout, looks)
  local waiters, answer = {}, nil
  local hooks = {}
  for i = 1, #list do
    local fut = list[i]
    local function hook(f)
      answer = answer or looks(i, f)
      if answer then core.wake(waiters[1]) end
    end
    if fut.state then
      answer = looks(i, fut)
      if answer then break end
    else
      watch(fut, hook)
      hooks[fut] = hooks[fut] or {}
      table.insert(hooks[fut], hook)
    end
  end
  local ok, in_time = true, true
  if not answer then ok, in_time = pcall(core.park, waiters, timeout) end
  for fut, fns in pairs(hooks) do
    for _, fn in ipairs(fns) do
      if fut.watchers then forget(fut.watchers, fn) end
    end
  end
  if not ok then error(in_time, 0) end
  return answer
end

local function timed_out()
  return nil, core.error("timeout", "the futures are not done in time")
end

-- An error with the place in the list: a table is not changed, as others have it too.
local function at_index(err, i)
  if type(err) ~= "table" then
    local e = core.error("rejected", tostring(err))
    e.reason, e.index = err, i
    return e
  end
  local copy = setmetatable({}, getmetatable(err))
  for k, v in pairs(err) do copy[k] = v end
  copy.index = i
  return copy
end

-- What the futures of the list came to; a list with a hole says how long it is.
local function values_of(list)
  local values = {}
  for i = 1, #list do
    values[i] = outcome(list[i])
    if values[i] == nil then values.n = #list end
  end
  return values
end

--- Waits for all of them.
---@param list phub.future.object[]
---@param timeout? number  ms, default for ever
---@return any[]? values  in order; with a field `n` when one of them is nil
---@return any err  the first error, with `err.index`; or `timeout`
function future.all(list, timeout)
  check_ms(timeout, "all", 2)
  local ok, bad = check_list(list, "all")
  if not ok then return nil, bad end
  local left = #list
  if left == 0 then return {} end
  local failed = until_one(list, timeout, function(i, fut)
    left = left - 1
    if fut.state == "rejected" then return i end
    return left == 0 and 0
  end)
  if not failed then return timed_out() end
  if failed > 0 then return nil, at_index(list[failed].err, failed) end
  return values_of(list)
end

--- Waits for the first value.
---@param list phub.future.object[]  at least one
---@param timeout? number  ms, default for ever
---@return any value  of the first that is resolved
---@return any err  when all were rejected: the last one's error, with `err.index`; or `timeout`
function future.any(list, timeout)
  check_ms(timeout, "any", 2)
  local ok, bad = check_list(list, "any")
  if not ok then return nil, bad end
  local left = #list
  if left == 0 then return nil, core.error("invalid_argument", "an empty list") end
  local first = until_one(list, timeout, function(i, fut)
    left = left - 1
    return (fut.state == "resolved" or left == 0) and i
  end)
  if not first then return timed_out() end
  local fut = list[first]
  if fut.state == "rejected" then return nil, at_index(fut.err, first) end
  return outcome(fut)
end

-- For the core: see lph_future_resolve.
core.future_functions(future.new, function(fut, value, second)
  if fut.state then return tell(fut) end
  if value == nil and second ~= nil then
    fut:reject(second)
  elseif second == true and type(value) == "function" then
    fut.make = value
    done(fut, "resolved")
  else
    fut:resolve(value)
  end
end)

return future
