-- Light processes: each has a pid and a mailbox, messages are copied, all share one Lua state.
local core = require "phub.core"
require "phub.error"

---@alias phub.pid lightuserdata  prints as <name@host.serial>; `pid.node` is the node's name
---@alias phub.ref lightuserdata
---@alias phub.dest phub.pid|string|{ [1]: string, [2]: string }  a pid, a name, or { name, node }

---@class phub.process
local process = {
  --- Starts a process that runs fn(...); the arguments are copied. `nil, err`: `not_serialisable`.
  ---@type fun(fn: function, ...: any): phub.pid?, phub.error?
  spawn = core.spawn,
  --- The same, linked to the caller.
  ---@type fun(fn: function, ...: any): phub.pid?, phub.error?
  spawn_link = core.spawn_link,
  --- The same, monitored by the caller; the second result is the monitor's ref.
  ---@type fun(fn: function, ...: any): phub.pid?, phub.ref|phub.error
  spawn_monitor = core.spawn_monitor,
  --- The caller's pid.
  ---@type fun(): phub.pid
  self = core.self,

  --- Sends a message (not nil). A dead pid is no error. `nil, err`: `not_serialisable`, `too_large`,
  --- `noproc` (an unknown name of this node), `noconnection` (a name of a node not in view), `busy`
  --- (the way there stayed full for `timeout` ms, default 5000).
  ---@type fun(dest: phub.dest, msg: any, timeout?: number): true?, phub.error?
  send = core.send,
  --- The oldest message, or the oldest for which match(msg) is true; waits at most timeout ms
  --- (default: for ever), then `nil, { code = "timeout" }`. match must not wait.
  ---@type fun(match?: number|(fun(msg: any): any), timeout?: number): any, phub.error?
  receive = core.receive,
  --- Sends a message in `ms` milliseconds.
  ---@type fun(ms: number, dest: phub.dest, msg: any): phub.ref?, phub.error?
  send_after = core.send_after,
  --- Milliseconds that were left, or false when it has fired.
  ---@type fun(timer: phub.ref): number|false
  cancel_timer = core.cancel_timer,

  --- Ends the caller; no pcall catches it. Default reason: "normal". In the main chunk it ends the
  --- program: with code 0 for "normal" and "shutdown", else 1.
  ---@type fun(reason?: any)
  exit = core.exit,
  --- Sends an exit signal; "kill" cannot be trapped. Default reason: "normal".
  ---@type fun(pid: phub.pid, reason?: any): true?, phub.error?
  kill = core.kill,
  --- Links the caller with a process: when one ends, the other gets its exit signal.
  ---@type fun(pid: phub.pid): true?, phub.error?
  link = core.link,
  ---@type fun(pid: phub.pid): true
  unlink = core.unlink,
  --- { "DOWN", ref, pid, reason } comes when it ends.
  ---@type fun(dest: phub.dest): phub.ref?, phub.error?
  monitor = core.monitor,
  ---@type fun(ref: phub.ref): true
  demonitor = core.demonitor,
  --- Exit signals become messages { "EXIT", pid, reason }. Returns what it was before.
  ---@type fun(on: boolean): boolean
  trap_exit = core.trap_exit,

  --- Gives a process of this node (default: the caller) a name. `nil, err`: `already_registered`,
  --- `noproc`.
  ---@type fun(name: string, pid?: phub.pid): true?, phub.error?
  register = core.register,
  ---@type fun(name: string): true?, phub.error?
  unregister = core.unregister,
  ---@type fun(name: string): phub.pid?
  whereis = core.whereis,

  --- Does this process of this node live? Of another node's: `not_supported`.
  ---@type fun(pid: phub.pid): boolean?, phub.error?
  alive = core.alive,
  --- { mailbox = messages, memory = bytes that the core holds, state = "running"|"runnable"|"waiting" }
  ---@type fun(pid: phub.pid): table?, phub.error?
  info = core.info,

  --- Waits ms milliseconds (`math.huge`: for ever).
  ---@type fun(ms: number)
  sleep = core.sleep,
  --- Lets other processes run.
  ---@type fun()
  yield = core.yield,
  --- A monotonic clock in milliseconds.
  ---@type fun(): number
  now = core.now,
}

return process
