-- Children run only while a fixed number of nodes is in view.
local schema = require "phub.schema"
local builtin = require "phub.strategy.builtin"

return builtin.define {
  kind = "partition_tolerance",
  name = "static_quorum",
  defaults = { startup_confirm = false },
  rules = { quorum_size = schema.integer(1), startup_confirm = schema.boolean },
  required = { "quorum_size" },
  built = false,
}
