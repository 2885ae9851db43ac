local phub = require "phub"

local kinds = {
  distribution = { "consistent_hashing", "guided", "centralized_load_balancer" },
  redundancy = { "singularity", "replication" },
  migration = { "cold_swap", "hot_swap" },
  synchronization = { "pubsub", "gossip" },
  partition_tolerance = { "divergence", "static_quorum", "dynamic_quorum", "majority_quorum" },
}
local built = { consistent_hashing = true, singularity = true, cold_swap = true, pubsub = true, divergence = true }
local required = { static_quorum = { quorum_size = 2 }, dynamic_quorum = { quorum_size = 50 } }

local function start(field, strategy)
  local hub, err = phub.start_link { hub_id = "strategies", [field] = strategy }
  if hub then phub.stop(hub) end
  return hub, err
end

describe("phub.strategy", function()
  for kind, names in pairs(kinds) do
    for _, name in ipairs(names) do
      local field = kind .. "_strategy"
      local constructor = phub.strategy[kind][name]

      it(("has %s.%s, a callable table that never fails"):format(kind, name), function()
        assert.equal(constructor, require(("phub.strategy.%s.%s"):format(kind, name)))
        assert.equal("table", type(constructor))
        for _, options in ipairs { {}, { unknown = 1 }, "text", 42, { sync_interval = {} } } do
          assert.equal(name, constructor(options).name)
        end
        assert.equal(name, constructor().name)
      end)

      it(("refuses wrong options of %s at start_link, by name"):format(name), function()
        local options = {}
        for k, v in pairs(required[name] or {}) do options[k] = v end
        options.no_such_option = 1
        local hub, err = start(field, constructor(options))
        assert.is_nil(hub)
        assert.same({ "invalid_config", field .. ".no_such_option" }, { err.code, err.key })
        hub, err = start(field, constructor "text")
        assert.is_nil(hub)
        assert.same({ "invalid_config", field }, { err.code, err.key })
      end)

      it(("%s %s"):format(built[name] and "runs" or "says that it does not support", name), function()
        local hub, err = start(field, constructor(required[name] or {}))
        if built[name] then
          assert.is_truthy(hub, tostring(err))
        else
          assert.is_nil(hub)
          assert.same({ "not_supported", field }, { err.code, err.key })
        end
      end)
    end
  end

  it("refuses values of a wrong kind", function()
    local cases = {
      { "migration", "hot_swap", { retention = "long" }, "retention" },
      { "migration", "hot_swap", { handover = 1 }, "handover" },
      { "migration", "hot_swap", { handover_data_wait = -1 }, "handover_data_wait" },
      { "redundancy", "replication", { replication_factor = 0 }, "replication_factor" },
      { "redundancy", "replication", { replication_factor = "many" }, "replication_factor" },
      { "redundancy", "replication", { replication_model = "passive" }, "replication_model" },
      { "synchronization", "pubsub", { sync_interval = 0 / 0 }, "sync_interval" },
      { "synchronization", "gossip", { recipients = 1.5 }, "recipients" },
      { "partition_tolerance", "static_quorum", {}, "quorum_size" },
      { "partition_tolerance", "dynamic_quorum", { quorum_size = 101 }, "quorum_size" },
      { "partition_tolerance", "majority_quorum", { initial_cluster_size = 0 }, "initial_cluster_size" },
      { "distribution", "centralized_load_balancer", { weight_decay_factor = 2 }, "weight_decay_factor" },
    }
    for _, case in ipairs(cases) do
      local kind, name, options, key = table.unpack(case)
      local hub, err = start(kind .. "_strategy", phub.strategy[kind][name](options))
      assert.is_nil(hub)
      assert.same({ "invalid_config", kind .. "_strategy." .. key }, { err.code, err.key })
    end
  end)

  it("takes a constructor as the strategy with its defaults", function()
    assert.is_truthy(start("synchronization_strategy", phub.strategy.synchronization.pubsub))
  end)

  it("refuses a strategy of another kind, and what is none", function()
    local hub, err = start("migration_strategy", phub.strategy.redundancy.singularity {})
    assert.is_nil(hub)
    assert.same({ "invalid_config", "migration_strategy" }, { err.code, err.key })
    hub, err = start("migration_strategy", "cold_swap")
    assert.is_nil(hub)
    assert.same({ "invalid_config", "migration_strategy" }, { err.code, err.key })
    hub, err = start("migration_strategy", { name = "mine", version = 1, options = {} })
    assert.is_nil(hub)
    assert.same({ "not_supported", "migration_strategy" }, { err.code, err.key })
  end)
end)
