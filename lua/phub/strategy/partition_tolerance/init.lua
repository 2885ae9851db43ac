-- What a hub does when it loses sight of nodes.
return require("phub.strategy.builtin").folder("partition_tolerance", {
  "divergence", "static_quorum", "dynamic_quorum", "majority_quorum",
})
