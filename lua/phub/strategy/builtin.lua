-- Makes the constructors of the strategies that come with phub.
--
-- A constructor is a callable table and a strategy itself, with the default options. Calling it
-- never fails: options are kept as given and checked by `phub.start_link`.
local builtin = {}

---@class phub.strategy
---@field kind string  "distribution", "redundancy", "migration", ...
---@field name string
---@field version integer  hubs with other versions do not work together
---@field options table  hubs with other options do not work together

-- Weak keys: which tables are strategies of phub's own, and the rules for their options.
local definitions = setmetatable({}, { __mode = "k" })

local function with_defaults(given, defaults)
  if given == nil then given = {} end
  if type(given) ~= "table" then return given end
  local options = {}
  for name, value in pairs(defaults) do
    options[name] = value
  end
  for name, value in next, given do
    options[name] = value
  end
  return options
end

---@class phub.strategy.definition
---@field kind string
---@field name string
---@field defaults? table<string, any>
---@field rules? table<string, fun(value: any): string?>
---@field required? string[]  options without a default
---@field built? boolean  false: `start_link` refuses it with `not_supported`

--- A constructor.
---@param definition phub.strategy.definition
---@return phub.strategy
function builtin.define(definition)
  definition.defaults = definition.defaults or {}
  definition.rules = definition.rules or {}
  definition.required = definition.required or {}
  local function make(options)
    local strategy = { kind = definition.kind, name = definition.name, version = 1,
      options = with_defaults(options, definition.defaults) }
    definitions[strategy] = definition
    return strategy
  end
  local constructor = make()
  return setmetatable(constructor, { __call = function(_, options) return make(options) end })
end

--- The definition behind a strategy made here; nil for any other value.
---@return phub.strategy.definition?
function builtin.definition(strategy)
  return definitions[strategy]
end

--- The modules of a folder as fields.
---@param kind string
---@param names string[]
function builtin.folder(kind, names)
  local folder = {}
  for _, name in ipairs(names) do
    folder[name] = require("phub.strategy." .. kind .. "." .. name)
  end
  return folder
end

return builtin
