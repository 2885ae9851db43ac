-- Start there, hand the state over, then stop here.
local schema = require "phub.schema"
local builtin = require "phub.strategy.builtin"

return builtin.define {
  kind = "migration",
  name = "hot_swap",
  defaults = {
    retention = 5000,
    handover = false,
    confirm_handover = false,
    handover_data_wait = 3000,
    child_migration_timeout = 10000,
  },
  rules = {
    retention = schema.ms,
    handover = schema.boolean,
    confirm_handover = schema.boolean,
    handover_data_wait = schema.ms,
    child_migration_timeout = schema.ms,
  },
  built = false,
}
