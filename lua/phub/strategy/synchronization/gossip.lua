-- Changes travel from node to node, each telling a few others.
local schema = require "phub.schema"
local builtin = require "phub.strategy.builtin"

return builtin.define {
  kind = "synchronization",
  name = "gossip",
  defaults = { sync_interval = 15000, recipients = 3, restricted_init = true },
  rules = {
    sync_interval = schema.ms,
    recipients = schema.integer(1),
    restricted_init = schema.boolean,
  },
  built = false,
}
