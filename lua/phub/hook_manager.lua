-- Hooks of a hub. Not built yet: every function says so.
local core = require "phub.core"
local schema = require "phub.schema"

local hook_manager = {}

for _, name in ipairs {
  "register_handler", "register_handlers", "registered_handlers", "cancel_handler", "dispatch_hook",
  "dispatch_hooks", "dispatch_alter_hook",
} do
  hook_manager[name] = function(hub)
    local alive, err = schema.hub(name, hub)
    if not alive then return nil, err end
    return nil, core.error("not_supported", ("phub.hook_manager.%s is not supported yet"):format(name))
  end
end

return hook_manager
