-- One instance of each child in the cluster.
local builtin = require "phub.strategy.builtin"

return builtin.define {
  kind = "redundancy",
  name = "singularity",
}
