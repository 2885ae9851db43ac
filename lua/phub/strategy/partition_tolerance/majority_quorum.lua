-- Children run only while a majority of the cluster is in view, whose size is kept.
local schema = require "phub.schema"
local builtin = require "phub.strategy.builtin"

return builtin.define {
  kind = "partition_tolerance",
  name = "majority_quorum",
  defaults = { initial_cluster_size = 1, track_max_size = true, forget_leavers = false },
  rules = {
    initial_cluster_size = schema.integer(1),
    track_max_size = schema.boolean,
    file = schema.string(4096),
    forget_leavers = schema.boolean,
  },
  built = false,
}
