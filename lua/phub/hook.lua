-- The keys of the hooks, and `ANY`, which stands for the data in a handler's arguments.
local hook = {
  pre_cluster_join = "pre_cluster_join_hook",
  post_cluster_join = "post_cluster_join_hook",
  pre_cluster_leave = "pre_cluster_leave_hook",
  post_cluster_leave = "post_cluster_leave_hook",
  registry_pid_inserted = "registry_pid_insert_hook",
  registry_pid_removed = "registry_pid_remove_hook",
  children_migrated = "children_migrated_hook",
  forwarded_migration = "forwarded_migration_hook",
  priority_state_updated = "priority_state_updated_hook",
  pre_nodes_redistribution = "pre_nodes_redistribution_hook",
  post_nodes_redistribution = "post_nodes_redistribution_hook",
  pre_children_start = "pre_children_start_hook",
  post_children_start = "post_children_start_hook",
  pre_children_redistribution = "pre_children_redistribution_hook",
  coordinator_shutdown = "coordinator_shutdown_hook",
  process_startups = "process_startups_hook",
  child_process_pid_update = "child_process_pid_update_hook",
  scoreboard_updated = "scoreboard_updated",
  child_data_alter = "child_data_alter_hook",
}

hook.ANY = setmetatable({}, { __name = "phub.hook.ANY", __tostring = function() return "phub.hook.ANY" end })

return hook
