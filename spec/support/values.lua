-- Values as one line of Lua source, for the pipes between specs and their nodes.
local values = {}

local function write(v, out)
  local kind = math.type(v) or type(v)
  if kind == "table" and next(v) ~= nil or kind == "table" and not (getmetatable(v) or {}).__tostring then
    out[#out + 1] = "{"
    for k, item in pairs(v) do
      out[#out + 1] = "["
      write(k, out)
      out[#out + 1] = "]="
      write(item, out)
      out[#out + 1] = ","
    end
    out[#out + 1] = "}"
  elseif kind == "string" then
    out[#out + 1] = ("%q"):format(v):gsub("\\\n", "\\n"):gsub("\r", "\\r")
  elseif kind == "integer" or kind == "float" or kind == "boolean" or kind == "nil" then
    out[#out + 1] = ("%q"):format(v)
  else
    out[#out + 1] = ("%q"):format(tostring(v))
  end
end

--- One line of source; what is no table, string, number, boolean or nil becomes its tostring.
---@return string
function values.line(v)
  local out = {}
  write(v, out)
  return table.concat(out)
end

--- The value of such a line.
---@param line string
function values.parse(line)
  return assert(load("return " .. line, "=values", "t", {}))()
end

return values
