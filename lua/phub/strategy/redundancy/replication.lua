-- Several instances of each child, on different nodes.
local schema = require "phub.schema"
local builtin = require "phub.strategy.builtin"

return builtin.define {
  kind = "redundancy",
  name = "replication",
  defaults = {
    replication_factor = 2,
    replication_model = "active_active",
    redundancy_signal = "none",
  },
  rules = {
    replication_factor = schema.either(schema.integer(1), schema.one_of("cluster_size")),
    replication_model = schema.one_of("active_active", "active_passive"),
    redundancy_signal = schema.one_of("none", "active", "passive", "all"),
  },
  built = false,
}
