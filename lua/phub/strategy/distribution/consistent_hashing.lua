-- A child belongs to the first nodes that follow its id on a ring of hashes.
local builtin = require "phub.strategy.builtin"

return builtin.define {
  kind = "distribution",
  name = "consistent_hashing",
}
