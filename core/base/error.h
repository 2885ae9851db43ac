/* Error codes of phub: one table gives number, Lua `err.code` and text.
 *
 * A function that can fail returns 0 (or a count) on success and a negative PH_E* code
 * otherwise. Nothing here allocates. */
#ifndef PH_BASE_ERROR_H
#define PH_BASE_ERROR_H

/* X(NAME, number, "err.code", "readable text") */
#define PH_ERROR_MAP(X)                                                                            \
  X(NOMEM, 1, "no_memory", "out of memory")                                                        \
  X(INVAL, 2, "invalid_argument", "invalid argument")                                              \
  X(CONFIG, 3, "invalid_config", "invalid configuration")                                          \
  X(OPTION, 4, "invalid_option", "invalid option")                                                 \
  X(SPEC, 5, "invalid_child_spec", "invalid child spec")                                           \
  X(NOTSUP, 6, "not_supported", "not supported yet")                                               \
  X(NOTSERIAL, 7, "not_serialisable", "value cannot travel")                                       \
  X(TOOLARGE, 8, "too_large", "value too large")                                                   \
  X(TIMEOUT, 9, "timeout", "timed out")                                                            \
  X(NOPROC, 10, "noproc", "no such process")                                                       \
  X(NOCONN, 11, "noconnection", "no connection to the node")                                       \
  X(NOCHILD, 12, "no_child", "no such child")                                                      \
  X(BUSY, 13, "busy", "receiver too far behind")                                                   \
  X(EXIT, 14, "exit", "the process ended")                                                         \
  X(NOTALIVE, 15, "not_alive", "no such hub")                                                      \
  X(ALREADY, 16, "already_started", "already started")                                             \
  X(REGISTERED, 17, "already_registered", "name already registered")                               \
  X(NOCHILDREN, 18, "no_children", "no children given")                                            \
  X(NOTLIST, 19, "children_not_list", "children are not a list")                                   \
  X(DUPID, 20, "duplicate_child_id", "duplicate child id")                                         \
  X(PARTITIONED, 21, "partitioned", "the hub is partitioned")                                      \
  X(REFUSED, 22, "refused", "connection refused")                                                  \
  X(COOKIE, 23, "bad_cookie", "the cookies differ")                                                \
  X(CONFLICT, 24, "name_conflict", "another live node has this name")                              \
  X(VERSION, 25, "protocol_version", "no common protocol version")                                 \
  X(NONODE, 26, "node_not_started", "this node is not started")                                    \
  X(MALFORMED, 27, "malformed", "malformed bytes")                                                 \
  X(CLOSED, 28, "closed", "closed")                                                                \
  X(NOTFOUND, 29, "not_found", "not found")                                                        \
  X(NODETIMEOUT, 30, "node_receive_timeout", "no answer in time")                                  \
  X(NOMODULE, 31, "module_not_found", "module not found")                                          \
  X(NOFUNCTION, 32, "function_not_found", "function not found")                                    \
  X(BADRESULT, 33, "bad_start_result", "the start function returned neither a pid nor a reason")   \
  X(CANNOTWAIT, 34, "cannot_wait", "cannot wait here: Lua cannot yield")                           \
  X(UNYIELDABLE, 35, "unyieldable", "ran too long where Lua cannot yield")                         \
  X(MISMATCH, 36, "strategy_mismatch", "strategies differ from the cluster's")                     \
  X(AGAIN, 37, "again", "not yet")                                                                 \
  X(DUPLICATE, 38, "duplicate", "duplicate connection")                                            \
  X(AWAITINPUT, 39, "invalid_await_input", "not a future")                                         \
  X(STARTFAILED, 40, "start_failed", "some children did not start")                                \
  X(STOPFAILED, 41, "stop_failed", "some children did not stop")                                   \
  X(IO, 42, "io", "input/output error")                                                            \
  X(UNREACHABLE, 43, "unreachable", "address cannot be reached")                                   \
  X(PRESENT, 44, "already_present", "a child of this id is there, not running")                    \
  X(RUNNING, 45, "running", "the child runs")                                                      \
  X(RESTARTING, 46, "restarting", "the child is being restarted")

enum {
  PH_OK = 0,
#define PH_ERROR_ENUM(name, number, code, text) PH_E##name = -(number),
  PH_ERROR_MAP(PH_ERROR_ENUM)
#undef PH_ERROR_ENUM
};

#define PH_MUST_CHECK __attribute__((warn_unused_result))

/* The string that Lua sees as `err.code` ("unknown" for a number not in the table). */
const char *ph_err_code(int err);
/* One readable phrase for the code. */
const char *ph_err_text(int err);
/* The error number of an `err.code` string, PH_EINVAL when unknown. */
int ph_err_number(const char *code);

#endif
