-- Writes JSON: tables with the keys 1 to #t as lists, others as objects with sorted keys.
local json = {}

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function text(s)
  return '"' .. s:gsub('[%c"\\]', function(c)
    return ESCAPES[c] or ("\\u%04x"):format(c:byte())
  end) .. '"'
end

local function number(v)
  if v ~= v or v == math.huge or v == -math.huge then return "null" end
  return math.type(v) == "integer" and ("%d"):format(v) or ("%.6g"):format(v)
end

local write

local function list(t, indent)
  local out = {}
  for i, v in ipairs(t) do out[i] = write(v, indent) end
  return "[" .. table.concat(out, ", ") .. "]"
end

local function object(t, indent)
  local keys, out = {}, {}
  for k in pairs(t) do keys[#keys + 1] = k end
  table.sort(keys)
  for i, k in ipairs(keys) do out[i] = text(k) .. ": " .. write(t[k], indent .. "  ") end
  local line = table.concat(out, ", ")
  if #line < 100 and not line:find "\n" then return "{" .. line .. "}" end
  local inner = "\n" .. indent .. "  "
  return "{" .. inner .. table.concat(out, "," .. inner) .. "\n" .. indent .. "}"
end

function write(v, indent)
  if type(v) == "string" then return text(v) end
  if type(v) == "number" then return number(v) end
  if type(v) ~= "table" then return tostring(v) end
  return (#v > 0 or next(v) == nil) and list(v, indent) or object(v, indent)
end

--- The value as JSON.
---@return string
function json.encode(v)
  return write(v, "") .. "\n"
end

return json
