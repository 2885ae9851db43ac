-- What `phub.start_result` and `phub.stop_result` share.
local result = {}

--- Hands on a result, or the error that stands in its place; anything else raises for the caller of
--- the function `name`.
---@return table? result, any err
function result.check(name, what, value, err)
  if type(value) == "table" then return value end
  if value == nil and err ~= nil then return nil, err end
  error(("bad argument #1 to '%s' (%s expected, got %s)"):format(name, what,
    value == nil and "nil" or type(value)), 3)
end

--- The keys of a set, sorted.
---@param set table<string, any>
---@return string[]
function result.sorted(set)
  local list = {}
  for key in next, set do
    list[#list + 1] = key
  end
  table.sort(list)
  return list
end

--- The ids of a list of entries.
---@param entries { id: string }[]
---@return string[]
function result.ids(entries)
  local ids = {}
  for i, entry in ipairs(entries) do
    ids[i] = entry.id
  end
  return ids
end

return result
