-- Each side of a cut runs every child; after the heal one instance of each stays.
local builtin = require "phub.strategy.builtin"

return builtin.define {
  kind = "partition_tolerance",
  name = "divergence",
}
