-- What tables of options may hold: rules by field, checked with the name of the field that is wrong.
--
-- A rule is a function that answers nil for a value it accepts, else what it expected.
local core = require "phub.core"

local schema = {}

---@alias phub.schema.rule fun(value: any): string?

--- Milliseconds: a number of at least 0; `math.huge` waits for ever.
---@type phub.schema.rule
function schema.ms(value)
  local ok = type(value) == "number" and value >= 0 -- NaN is neither
  if not ok then return "milliseconds (a number >= 0)" end
end

---@type phub.schema.rule
function schema.boolean(value)
  if type(value) ~= "boolean" then return "a boolean" end
end

---@type phub.schema.rule
function schema.table(value)
  if type(value) ~= "table" then return "a table" end
end

--- A whole number between two bounds.
---@param min integer
---@param max? integer
---@return phub.schema.rule
function schema.integer(min, max)
  max = max or 2 ^ 31 - 1
  return function(value)
    local n = math.type(value) and math.tointeger(value)
    if not n or n < min or n > max then return ("an integer from %d to %d"):format(min, max) end
  end
end

--- A number above `min` (or equal to it, when `inclusive`) and at most `max`.
---@return phub.schema.rule
function schema.number(min, max, inclusive)
  return function(value)
    local ok = type(value) == "number" and (value > min or inclusive and value == min) and value <= max
    if not ok then
      return ("a number %s %g and at most %g"):format(inclusive and "of at least" or "above", min, max)
    end
  end
end

--- A string of 1 to `max` bytes.
---@param max integer
---@return phub.schema.rule
function schema.string(max)
  return function(value)
    if type(value) ~= "string" or #value == 0 or #value > max then
      return ("a string of 1 to %d bytes"):format(max)
    end
  end
end

--- One of these values.
---@return phub.schema.rule
function schema.one_of(...)
  local values, names = {}, {}
  for i, value in ipairs { ... } do
    values[value] = true
    names[i] = ("%q"):format(value)
  end
  return function(value)
    if value == nil or not values[value] then return "one of " .. table.concat(names, ", ") end
  end
end

--- Either rule.
---@return phub.schema.rule
function schema.either(a, b)
  return function(value)
    local wanted_a = a(value)
    local wanted_b = wanted_a and b(value)
    if wanted_b then return wanted_a .. " or " .. wanted_b end
  end
end

--- Checks each field of `t`; an absent one is left to its default.
---@param t table
---@param rules table<string, phub.schema.rule>
---@return any key  the field that is wrong, nil when none is
---@return string? message
function schema.check(t, rules)
  for key, value in next, t do
    local rule = rules[key]
    if not rule then return key, "unknown" end
    local wanted = rule(value)
    if wanted then return key, ("%s expected, got %s"):format(wanted, schema.show(value)) end
  end
end

--- A value as a short piece of a message.
---@return string
function schema.show(value)
  if type(value) == "string" then
    return #value <= 40 and ("%q"):format(value) or "a string of " .. #value .. " bytes"
  end
  if type(value) == "number" or type(value) == "boolean" or value == nil then return tostring(value) end
  return "a " .. type(value)
end

--- Raises as `luaL_argerror` does.
---@param n integer
---@param name string
---@param wanted string
---@param level? integer  whose line the message names; default: the caller of the function that calls this
function schema.argerror(n, name, wanted, value, level)
  error(("bad argument #%d to '%s' (%s expected, got %s)"):format(n, name, wanted,
    value == nil and "nil" or type(value)), level or 3)
end

--- Raises, as `luaL_checkoption` does, unless the argument is one of these strings.
---@param n integer
---@param name string
function schema.option(n, name, value, ...)
  if type(value) ~= "string" then schema.argerror(n, name, "string", value, 4) end
  for _, known in ipairs { ... } do
    if value == known then return end
  end
  error(("bad argument #%d to '%s' (invalid option '%s')"):format(n, name, value), 3)
end

--- Is this a hub that runs here? Raises, for the function `name`, for what is neither hub nor id.
---@param name string
---@return true?, table? err  `not_alive`
function schema.hub(name, hub)
  if type(hub) ~= "string" and not core.is_hub(hub) then
    schema.argerror(1, name, "hub or its id", hub, 4)
  end
  if core.is_alive(hub) then return true end
  return nil, core.error("not_alive", "no such hub")
end

return schema
