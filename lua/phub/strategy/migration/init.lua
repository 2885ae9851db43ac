-- How a child goes from one node to another.
return require("phub.strategy.builtin").folder("migration", { "cold_swap", "hot_swap" })
