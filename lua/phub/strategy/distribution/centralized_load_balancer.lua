-- New children are shared out in proportion to the free capacity that nodes report.
local schema = require "phub.schema"
local builtin = require "phub.strategy.builtin"

return builtin.define {
  kind = "distribution",
  name = "centralized_load_balancer",
  defaults = {
    max_history_size = 30,
    weight_decay_factor = 0.9,
    push_interval = 10000,
    nodeup_redistribution = false,
  },
  rules = {
    max_history_size = schema.integer(1),
    weight_decay_factor = schema.number(0, 1),
    push_interval = schema.ms,
    nodeup_redistribution = schema.boolean,
  },
  built = false,
}
