-- The strategies that come with phub, by kind: `phub.strategy.<kind>.<name>{ options }`.
return {
  distribution = require "phub.strategy.distribution",
  redundancy = require "phub.strategy.redundancy",
  migration = require "phub.strategy.migration",
  synchronization = require "phub.strategy.synchronization",
  partition_tolerance = require "phub.strategy.partition_tolerance",
}
