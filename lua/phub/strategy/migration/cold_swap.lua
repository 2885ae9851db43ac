-- Stop there, then start here: the child begins anew, its state is not carried over.
local builtin = require "phub.strategy.builtin"

return builtin.define {
  kind = "migration",
  name = "cold_swap",
}
