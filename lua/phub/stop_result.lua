-- What became of a stop: functions on the value that a stop's future gives.
--
-- All of them accept a plain table of the same fields, and pass a `nil, err` through. Those whose
-- name is no field of the result are methods too (`result:nodes()`).
local core = require "phub.core"
local result = require "phub.result"

local stop_result = {}

---@class phub.stopped
---@field id string
---@field nodes string[]  where it ran, sorted

---@class phub.stop_error
---@field id string
---@field node? string
---@field reason any  `not_found`, `node_receive_timeout`, ...

---@class phub.stop_result
---@field status "ok"|"error"
---@field stopped phub.stopped[]  in the order asked
---@field errors phub.stop_error[]

local function check(name, value, err)
  return result.check(name, "stop result", value, err)
end

--- The list `stopped` when all went well, else an error with the code `stop_failed` and the fields
--- `errors` and `stopped`.
---@return phub.stopped[]?, table? err
function stop_result.format(value, err)
  local r, e = check("format", value, err)
  if not r then return nil, e end
  return result.format(r, "stopped", "stop_failed", "some children did not stop")
end

---@return "ok"|"error"|nil, any err
function stop_result.status(value, err)
  local r, e = check("status", value, err)
  if not r then return nil, e end
  return result.status(r)
end

---@return phub.stop_error[]?, any err
function stop_result.errors(value, err)
  local r, e = check("errors", value, err)
  if not r then return nil, e end
  return result.list(r, "errors")
end

--- The first child stopped; nil alone when none was.
---@return phub.stopped?, any err
function stop_result.first(value, err)
  local r, e = check("first", value, err)
  if not r then return nil, e end
  return result.first(r, "stopped", "id", "string")
end

--- The ids of the children stopped.
---@return string[]?, any err
function stop_result.cids(value, err)
  local r, e = check("cids", value, err)
  if not r then return nil, e end
  return result.ids(r, "stopped")
end

--- The nodes on which children were stopped, sorted, each once.
---@return string[]?, any err
function stop_result.nodes(value, err)
  local r, e = check("nodes", value, err)
  if not r then return nil, e end
  local set, ok = {}
  ok, e = result.each(r, "stopped", "nodes", "table", function(entry)
    for _, node in ipairs(entry.nodes) do
      set[node] = true
    end
  end)
  if not ok then return nil, e end
  return result.sorted(set)
end

-- The number is the kind of table that keeps its methods when it is copied or sent.
core.object(3, { __index = stop_result, __name = "phub.stop_result" })

return stop_result
