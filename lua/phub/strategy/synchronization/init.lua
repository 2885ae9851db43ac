-- How the nodes of a hub learn of each other's changes.
return require("phub.strategy.builtin").folder("synchronization", { "pubsub", "gossip" })
