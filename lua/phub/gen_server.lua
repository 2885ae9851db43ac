-- Servers: a module of callbacks, a state, and messages handled one after the other.
--
--   function M.init(args) return state end                  -- nil, reason refuses the start
--   function M.handle_call(state, msg, from) return reply, new_state end
--   function M.handle_cast(state, msg) return new_state end
--   function M.handle_info(state, msg) return new_state end
--   function M.terminate(state, reason) end
--
-- All but init are optional: a call or cast to a module without the callback ends the server by an
-- error, other messages are ignored. A new state of nil keeps the old one. Callbacks may wait.
local core = require "phub.core"
require "phub.error"

---@alias phub.server phub.dest|{ hub: any, child: string }

---@class phub.gen_server
local gen_server = {
  --- Starts a server; the arguments are copied; waits until init has returned.
  --- opts.name: a name to register. `nil, reason`: what init refused with, `{ "error", message,
  --- traceback }` for one that raised, or an error (`already_registered`, `invalid_option`).
  ---@type fun(module: table, args?: any, opts?: { name?: string }): phub.pid?, any
  start = core.server_start,
  --- The same, linked to the caller unless that is the main chunk.
  ---@type fun(module: table, args?: any, opts?: { name?: string }): phub.pid?, any
  start_link = core.server_start_link,
  --- The server's reply. It may be nil or false, so test err: `timeout`, `noproc`, `noconnection`,
  --- `no_child`, `busy`, `exit` (err.reason).
  ---@type fun(dest: phub.server, msg: any, timeout?: number): any, phub.error?
  call = core.server_call,
  --- Sends a message for handle_cast; returns as `phub.process.send`.
  ---@type fun(dest: phub.server, msg: any, timeout?: number): true?, phub.error?
  cast = core.server_cast,
  --- Answers a call whose handle_call returned `noreply`, from any process.
  ---@type fun(from: phub.ref, value: any): true?, phub.error?
  reply = core.server_reply,
  --- Ends a server (terminate runs) and waits for it. Default reason: "normal". `nil, err`: `noproc`,
  --- or `exit` when it ended for another reason (err.reason).
  ---@type fun(dest: phub.server, reason?: any): true?, phub.error?
  stop = core.server_stop,
  --- As the reply of handle_call: it comes later, by `reply`.
  noreply = core.noreply,
  --- As the result of a callback (the reply of handle_call): the server stops with that reason, and
  --- answers the call if a reply is given.
  ---@type fun(reason: any, reply?: any): table
  stopping = core.stopping,
}

return gen_server
