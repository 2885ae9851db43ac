-- Each node tells every other of its changes, and compares numbers and digests each `sync_interval`.
local schema = require "phub.schema"
local builtin = require "phub.strategy.builtin"

return builtin.define {
  kind = "synchronization",
  name = "pubsub",
  defaults = { sync_interval = 15000 },
  rules = { sync_interval = schema.ms },
}
