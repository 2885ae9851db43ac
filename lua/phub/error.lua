-- Errors as phub hands them out: tables { code =, message =, ... } that print as one line and keep
-- that when they are copied or sent.
local core = require "phub.core"

core.own() -- the code in this folder is preempted nowhere but where it waits

---@class phub.error
---@field code string  documented with each function
---@field message string
---@field key? string  the option that is wrong
---@field reason? any  why a process ended (code "exit")
local Error = {}
Error.__index = Error
Error.__name = "phub.error"

function Error:__tostring()
  local text = ("%s: %s"):format(tostring(self.code), tostring(self.message))
  if self.reason ~= nil then text = ("%s (%s)"):format(text, core.text(self.reason)) end
  return (text:gsub("%s*[\r\n]%s*", " "))
end

core.object(1, Error)

local err = {}

--- A new error.
---@param code string
---@param message string
---@param fields? table  further fields
---@return phub.error
function err.new(code, message, fields)
  local e = core.error(code, message)
  for k, v in pairs(fields or {}) do e[k] = v end
  return e
end

--- Is it an error of phub's?
---@param value any
---@return boolean
function err.is(value)
  return getmetatable(value) == Error
end

return err
