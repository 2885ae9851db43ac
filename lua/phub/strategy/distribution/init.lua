-- Which nodes a child belongs to.
return require("phub.strategy.builtin").folder("distribution", {
  "consistent_hashing", "guided", "centralized_load_balancer",
})
