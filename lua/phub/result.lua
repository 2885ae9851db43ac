-- What `phub.start_result` and `phub.stop_result` share.
local errors = require "phub.error"

local result = {}

local function refuse(key, wanted, value)
  local message = ("%s: %s expected, got %s"):format(key, wanted, type(value))
  return nil, errors.new("invalid_argument", message, { key = key })
end

--- Hands on a result, or the error that stands in its place; anything else raises for the caller of
--- the function `name`.
---@return table? result, any err
function result.check(name, what, value, err)
  if type(value) == "table" then return value end
  if value == nil and err ~= nil then return nil, err end
  error(("bad argument #1 to '%s' (%s expected, got %s)"):format(name, what,
    value == nil and "nil" or type(value)), 3)
end

--- A field of a result that must be a table; else `nil, err`.
---@param r table
---@param field string
---@return table?, any err
function result.list(r, field)
  if type(r[field]) == "table" then return r[field] end
  return refuse(field, "a list", r[field])
end

--- The status of a result.
---@return "ok"|"error"|nil, any err
function result.status(r)
  if r.status == "ok" or r.status == "error" then return r.status end
  return refuse("status", '"ok" or "error"', r.status)
end

--- The i-th entry of a result's list `field`, whose own field `part` is of that type; nil past the end.
---@return table? entry, any err
function result.entry(list, field, i, part, of_type)
  local entry = list[i]
  if entry == nil then return nil end
  if type(entry) ~= "table" then return refuse(("%s[%d]"):format(field, i), "a table", entry) end
  if type(entry[part]) == of_type then return entry end
  return refuse(("%s[%d].%s"):format(field, i, part), "a " .. of_type, entry[part])
end

--- Calls fn with each entry of a result's list; `nil, err` when one is wrong.
---@return boolean? ok, any err
function result.each(r, field, part, of_type, fn)
  local list, err = result.list(r, field)
  if not list then return nil, err end
  for i = 1, #list do
    local entry
    entry, err = result.entry(list, field, i, part, of_type)
    if not entry then return nil, err end
    fn(entry)
  end
  return true
end

--- The first entry of a result's list; nil alone when there is none.
---@return table? entry, any err
function result.first(r, field, part, of_type)
  local list, err = result.list(r, field)
  if not list then return nil, err end
  return result.entry(list, field, 1, part, of_type)
end

--- The ids of a result's list.
---@return string[]?, any err
function result.ids(r, field)
  local ids = {}
  local ok, err = result.each(r, field, "id", "string", function(entry) ids[#ids + 1] = entry.id end)
  if not ok then return nil, err end
  return ids
end

--- The list when all went well, else an error with that code and the result's fields.
---@return table?, any err
function result.format(r, field, code, message, more)
  local status, err = result.status(r)
  if not status then return nil, err end
  local list, failed
  list, err = result.list(r, field)
  if not list then return nil, err end
  if status == "ok" then return list end
  failed, err = result.list(r, "errors")
  if not failed then return nil, err end
  err = errors.new(code, message, more)
  err.errors, err[field] = failed, list
  return nil, err
end

--- The keys of a set, sorted.
---@param set table<string, any>
---@return string[]
function result.sorted(set)
  local list = {}
  for key in next, set do
    if type(key) == "string" then list[#list + 1] = key end
  end
  table.sort(list)
  return list
end

return result
