-- Children run only while a share of the nodes seen lately is in view.
local schema = require "phub.schema"
local builtin = require "phub.strategy.builtin"

return builtin.define {
  kind = "partition_tolerance",
  name = "dynamic_quorum",
  defaults = { threshold_time = 30 },
  rules = { quorum_size = schema.number(0, 100), threshold_time = schema.number(0, math.huge) },
  required = { "quorum_size" },
  built = false,
}
