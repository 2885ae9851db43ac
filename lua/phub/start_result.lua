-- What became of a start: functions on the value that a start's future gives.
--
-- All of them accept a plain table of the same fields, and pass a `nil, err` through; a field that
-- is missing or wrong is `nil, { code = "invalid_argument", key = }`. Those whose
-- name is no field of the result are methods too (`result:pid()`).
local core = require "phub.core"
local result = require "phub.result"

local start_result = {}

---@class phub.started
---@field id string
---@field instances table<string, lightuserdata>  pid by node name

---@class phub.start_error
---@field id string
---@field node? string
---@field reason any  a code, `{ "error", message, traceback }`, or the child's own reason
---@field pid? lightuserdata  of one that had been started already

---@class phub.start_result
---@field status "ok"|"error"
---@field started phub.started[]  in the order asked
---@field errors phub.start_error[]
---@field rollback boolean  those in `started` have been stopped again

local function check(name, value, err)
  return result.check(name, "start result", value, err)
end

--- The list `started` when all went well, else an error with the code `start_failed` and the fields
--- `errors`, `started` and `rollback`.
---@return phub.started[]?, table? err
function start_result.format(value, err)
  local r, e = check("format", value, err)
  if not r then return nil, e end
  return result.format(r, "started", "start_failed", "some children did not start", { rollback = r.rollback or false })
end

---@return "ok"|"error"|nil, any err
function start_result.status(value, err)
  local r, e = check("status", value, err)
  if not r then return nil, e end
  return result.status(r)
end

---@return phub.start_error[]?, any err
function start_result.errors(value, err)
  local r, e = check("errors", value, err)
  if not r then return nil, e end
  return result.list(r, "errors")
end

--- The first child started; nil alone when none was.
---@return phub.started?, any err
function start_result.first(value, err)
  local r, e = check("first", value, err)
  if not r then return nil, e end
  return result.first(r, "started", "id", "string")
end

--- The ids of the children started.
---@return string[]?, any err
function start_result.cids(value, err)
  local r, e = check("cids", value, err)
  if not r then return nil, e end
  return result.ids(r, "started")
end

--- The pid of the first child started; of several instances, the first by node name.
---@return lightuserdata?, any err
function start_result.pid(value, err)
  local r, e = check("pid", value, err)
  if not r then return nil, e end
  local first
  first, e = result.first(r, "started", "instances", "table")
  if not first then return nil, e end
  return first.instances[result.sorted(first.instances)[1]]
end

--- All pids: child by child in the order asked, the instances of one by node name.
---@return lightuserdata[]?, any err
function start_result.pids(value, err)
  local r, e = check("pids", value, err)
  if not r then return nil, e end
  local pids, ok = {}
  ok, e = result.each(r, "started", "instances", "table", function(entry)
    for _, node in ipairs(result.sorted(entry.instances)) do
      pids[#pids + 1] = entry.instances[node]
    end
  end)
  if not ok then return nil, e end
  return pids
end

--- The node of the first child started; of several instances, the first by name.
---@return string?, any err
function start_result.node(value, err)
  local r, e = check("node", value, err)
  if not r then return nil, e end
  local first
  first, e = result.first(r, "started", "instances", "table")
  if not first then return nil, e end
  return result.sorted(first.instances)[1]
end

--- The nodes on which children were started, sorted, each once.
---@return string[]?, any err
function start_result.nodes(value, err)
  local r, e = check("nodes", value, err)
  if not r then return nil, e end
  local set, ok = {}
  ok, e = result.each(r, "started", "instances", "table", function(entry)
    for node in next, entry.instances do
      set[node] = true
    end
  end)
  if not ok then return nil, e end
  return result.sorted(set)
end

-- The number is the kind of table that keeps its methods when it is copied or sent.
core.object(2, { __index = start_result, __name = "phub.start_result" })

return start_result
