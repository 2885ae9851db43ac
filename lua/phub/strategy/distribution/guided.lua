-- The caller of each start names the nodes of every child (`child_mapping`); children never migrate.
local builtin = require "phub.strategy.builtin"

return builtin.define {
  kind = "distribution",
  name = "guided",
  built = false,
}
