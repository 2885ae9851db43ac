-- Waiting for a condition instead of sleeping: `eventually(fn, ms)`.
--
-- Calls fn every few milliseconds until it answers something true, and returns that. Past the time
-- it raises, with fn's last answer or error. Output of OS processes is read meanwhile. Times are
-- longer where everything is slower (spec.support.slower).
local uv = require "luv"
local SLOWER = require "spec.support.slower"

local STEP_MS = 5

---@param fn fun(): any  may raise, which counts as "not yet"
---@param ms? number  default 5000
---@return any  what fn answered
local function eventually(fn, ms)
  ms = (ms or 5000) * SLOWER
  local deadline = uv.hrtime() + ms * 1e6
  while true do
    local ok, value, detail = pcall(fn)
    if ok and value then return value, detail end
    if uv.hrtime() >= deadline then
      local last = ok and detail == nil and tostring(value) or tostring(detail or value)
      error(("not within %d ms; last: %s"):format(ms, last), 2)
    end
    uv.run("nowait")
    uv.sleep(STEP_MS)
  end
end

return eventually
