-- Supervisors of one's own, apart from hubs. Not built yet: every function says so.
local core = require "phub.core"

local supervisor = {}

for _, name in ipairs {
  "start_link", "start_child", "terminate_child", "restart_child", "delete_child", "which_children",
  "count_children",
} do
  supervisor[name] = function()
    return nil, core.error("not_supported", ("phub.supervisor.%s is not supported yet"):format(name))
  end
end

return supervisor
