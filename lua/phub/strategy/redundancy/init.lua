-- How many nodes run a child, and which of them is the active one.
return require("phub.strategy.builtin").folder("redundancy", { "singularity", "replication" })
