/* The binding between phub's core and Lua 5.4: what its files share.
 *
 * One lph_ctx per Lua state holds the runtime. Every C function that Lua sees is registered by
 * lph_setfuncs and finds its context in upvalue 1 (lph_get). Callbacks of the core get the context
 * as their pointer, never raise, and enter Lua only by lph_protected, lph_start or the scheduler.
 *
 * Raising: functions named lph_check_* and those documented so may raise a Lua error; all others
 * do not (lph_pack, lph_slot_drop ... are safe in callbacks of the core). Stack effects are noted
 * as [-popped, +pushed]. */
#ifndef LPHUB_H
#define LPHUB_H

#include <lauxlib.h>
#include <lua.h>

#include "phub.h"

typedef struct lph_ctx lph_ctx;
typedef struct lph_task lph_task;
typedef struct lph_proc lph_proc;

/* ---- Context (core.c) ---------------------------------------------------------------------- */
/* The context of a C function registered by lph_setfuncs; raises in a forked child. */
lph_ctx *lph_get(lua_State *L);
ph_rt *lph_rt(lph_ctx *ctx);
ph_node *lph_node(lph_ctx *ctx);
ph_sys *lph_sys(lph_ctx *ctx);
const ph_env *lph_env(lph_ctx *ctx);
lua_State *lph_main(lph_ctx *ctx); /* the main thread of the Lua state */
bool lph_closing(lph_ctx *ctx);    /* lua_close runs: no Lua code, no Lua values any more */
/* registers functions with the context as upvalue 1 into the table on the top [-0, +0] */
void lph_setfuncs(lph_ctx *ctx, lua_State *L, const luaL_Reg *fns);
/* one function with the context as upvalue 1 [-0, +1] */
void lph_pushfunction(lph_ctx *ctx, lua_State *L, lua_CFunction fn);
/* A callback of the core enters Lua: fn(L) with `arg` as light userdata at index 1, inside one
 * lua_pcall with a traceback. It runs in the name of the main chunk and cannot wait. An error is
 * logged. Returns 0, PH_ENOMEM, or PH_EINVAL for any other error. */
int lph_protected(lph_ctx *ctx, lua_CFunction fn, void *arg);

/* The main chunk reads or sends: one turn of the loop without waiting, at most each millisecond, so
 * that a script that polls sees the world go on. Elsewhere it does nothing. */
void lph_main_turn(lph_ctx *ctx, lua_State *L);

/* ---- Written by the hub's binding (hub.c) ---------------------------------------------------- */
/* called once while the module opens, before any hub exists */
void lph_hub_host(lph_ctx *ctx, ph_hub_host *out);
/* adds the hub's functions to the module table on the top [-0, +0] */
void lph_hub_open(lph_ctx *ctx, lua_State *L);
/* Messages by child id, for gen_server's dest { hub=, child= }: C functions of Lua over the stack
 * (hub, child id, message[, timeout]), which must be exactly that; they may wait, so their result
 * must be the calling function's own. call: the reply or nil, err; the others: true or nil, err. */
int lph_hub_call(lua_State *L);
int lph_hub_cast(lua_State *L);
int lph_hub_send(lua_State *L);

/* ---- Values (value.c, pid.c) ------------------------------------------------------------------
 */
/* Appends the value at idx as one packed value. Never raises. PH_ENOTSERIAL, PH_ETOOLARGE,
 * PH_ENOMEM; for the first two `path` (may be NULL) receives where and what, as
 * "args.on_done: function": it begins with what `path` held when called (the root's name). */
int lph_pack(lph_ctx *ctx, lua_State *L, int idx, ph_buf *out, char *path,
             size_t path_size) PH_MUST_CHECK;
/* Pushes one value [-0, +1 on success, +0 on error]. PH_EMALFORMED. Raises for lack of memory. */
int lph_unpack(lph_ctx *ctx, lua_State *L, ph_reader *r) PH_MUST_CHECK;
/* the same for a whole packed value; nil when b is NULL or malformed [-0, +1] */
void lph_unpack_bytes(lph_ctx *ctx, lua_State *L, const ph_bytes *b);
/* the value at idx as an exit reason (nil: "normal"), owned; NULL and *err on failure */
ph_bytes *lph_pack_reason(lph_ctx *ctx, lua_State *L, int idx, char *path, size_t path_size,
                          int *err);
/* Pushes a deep copy of the value at idx [-0, +1], or returns an error as lph_pack does [+0]. The
 * same values are refused. Raises for lack of memory only. */
int lph_copy(lph_ctx *ctx, lua_State *L, int idx, char *path, size_t path_size) PH_MUST_CHECK;
#define LPH_PATH 256
/* Writes the value at idx as text, which ends with "..." when it does not fit; of an error reason
 * its message alone. Strings within tables are quoted. Returns its length. Never raises, runs no
 * metamethod (text.c). */
enum { LPH_TEXT = 1000 };
size_t lph_text(lua_State *L, int idx, char *out, size_t size);

/* Tables that keep their methods when copied or sent, by their metatable. */
enum { LPH_KIND_ERROR = 1, LPH_KIND_START_RESULT, LPH_KIND_STOP_RESULT, LPH_KIND_COUNT };
/* the table on the top becomes the metatable of that kind [-1, +0]; Lua: core.object(kind, mt) */
void lph_kind_set(lph_ctx *ctx, lua_State *L, int kind);
void lph_kind_push(lph_ctx *ctx, lua_State *L, int kind); /* its metatable, or nil [-0, +1] */

void lph_push_pid(lua_State *L, ph_pid pid);                /* or a ref; 0 pushes nil [-0, +1] */
bool lph_to_pid(lua_State *L, int idx, ph_pid *out);        /* false when it is no pid */
bool lph_to_ref(lua_State *L, int idx, ph_ref *out);        /* false when it is no ref */
ph_pid lph_check_pid(lua_State *L, int arg);                /* raises an argument error */
uint64_t lph_check_ms(lua_State *L, int arg, uint64_t def); /* UINT64_MAX: for ever; none or nil:
                                                                def; raises an argument error */
/* the same for a field of an options table: 0, or PH_EOPTION when it is no such number */
int lph_to_ms(lua_State *L, int idx, uint64_t *out);
uint64_t lph_due(lph_ctx *ctx, uint64_t ms); /* ns; PH_NEVER for UINT64_MAX */

/* ---- Errors --------------------------------------------------------------------------------- */
/* Pushes nil and an error { code, message } with phub.error's metatable; returns 2. fmt NULL: the
 * code's own text. Raises for lack of memory. [-0, +2] */
int lph_error(lua_State *L, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The error alone, to add fields to [-0, +1]. */
void lph_push_error(lua_State *L, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* the same with a code that is not in the core's table */
void lph_push_error_code(lua_State *L, const char *code, const char *message);
/* raises it */
int lph_raise(lua_State *L, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* ---- Slots: Lua values that C holds ------------------------------------------------------------
 * In chunks of 256, never in one big table. 0 is no slot. */
uint32_t lph_slot_new(lph_ctx *ctx, lua_State *L);             /* pops it; raises [-1, +0] */
void lph_slot_push(lph_ctx *ctx, lua_State *L, uint32_t slot); /* [-0, +1] */
void lph_slot_set(lph_ctx *ctx, lua_State *L, uint32_t slot);  /* never raises [-1, +0] */
void lph_slot_drop(lph_ctx *ctx, uint32_t slot);               /* never raises; 0 allowed */

/* ---- Starting children, and other work on a coroutine of its own (sched.c) --------------------
 *
 * lph_start runs work on a pooled coroutine in the name of a process (a hub's supervisor, so that
 * start_link links to it). `prepare` is a Lua C function called there with `arg` as light userdata:
 * it returns a function and its arguments, which are then called; or, with something that is no
 * function first (nil, reason), these are the results themselves. Both may raise; the function may
 * wait, then lph_start returns and it goes on later.
 * `done` comes exactly once, before lph_start returns or later from the loop: LPH_DONE with the
 * `n` results at the indices 1..n of L; LPH_FAILED with one value, { "error", message, traceback };
 * LPH_ABANDONED with none
 * (L is then NULL if the Lua state closes). L is good only inside it; it may raise (that is
 * logged). */
enum { LPH_DONE, LPH_FAILED, LPH_ABANDONED };
typedef void (*lph_done)(lph_ctx *ctx, void *arg, lua_State *L, int status, int n);
/* 0: `done` has come or will come; *task (may be NULL) is then the one that waits, or NULL when it
 * is over. PH_ENOMEM, PH_ENOPROC: nothing was run, `done` does not come. */
int lph_start(lph_ctx *ctx, ph_pid in_name_of, lua_CFunction prepare, void *arg, lph_done done,
              lph_task **task) PH_MUST_CHECK;
/* Ends work that waits: its <close> variables run, then done(LPH_ABANDONED). Only while `done` has
 * not come. */
void lph_start_abandon(lph_task *task);

/* ---- Waiting (wait.c) --------------------------------------------------------------------------
 * In a C function of Lua:
 *     lph_task *t = lph_wait_begin(L, ctx);          // raises cannot_wait where it cannot
 *     int rc = ph_call(sys, self, to, m, lph_waiter(t), due);
 *     if (rc < 0) { lph_wait_drop(t); return lph_error(L, rc, NULL); }
 *     return lph_wait(L, t, k);                      // must be the function's return
 * Then k(L, LUA_OK, (lua_KContext)t) is called once it is over, with the function's stack as it
 * was; it looks at lph_wait_result, returns the function's results, and everything that it has not
 * taken is freed. Raising between begin and wait is allowed once the waiter is not armed. */
lph_task *lph_wait_begin(lua_State *L, lph_ctx *ctx);
ph_waiter *lph_waiter(lph_task *t);
void lph_wait_drop(lph_task *t); /* it will not wait after all */
int lph_wait(lua_State *L, lph_task *t, lua_KFunction k);
/* err as in ph_waiter.done; *m and *reason are borrowed until k returns or waits again */
int lph_wait_result(lph_task *t, ph_msg **m, ph_bytes **reason);
/* a word of the caller's own that survives the wait (0 at first) */
void **lph_wait_user(lph_task *t);
/* the results of a call that is over: the reply, or nil, err [-0, +1 or 2]; returns their number */
int lph_wait_reply(lua_State *L, lph_task *t);

/* ---- Messages (value.c) ------------------------------------------------------------------------
 */
/* A message from the value at idx, for a local receiver (a copy in Lua's memory) or a remote one
 * (packed). NULL and *err on failure, with the path as in lph_pack. Raises for lack of memory. */
ph_msg *lph_msg(lph_ctx *ctx, lua_State *L, int idx, ph_class cls, bool remote, char *path,
                size_t path_size, int *err);
ph_pid lph_self(lph_ctx *ctx); /* the process in whose name Lua code runs now */
/* L has sent a message to that process: a sender never waits for one of its own node, but whoever
 * is far ahead of it gives way soon. */
void lph_sent(lph_ctx *ctx, lua_State *L, ph_pid pid);

/* ---- Futures ----------------------------------------------------------------------------------
 */
/* Pushes a new phub.future and returns a number that holds it for C [-0, +1]. Raises. */
uint32_t lph_future_new(lph_ctx *ctx, lua_State *L);
void lph_future_drop(lph_ctx *ctx, uint32_t future); /* will not be resolved; 0: none */
/* Resolves it, from anywhere in the core: `make` is a Lua C function called with `arg` as light
 * userdata, inside lph_protected. It returns one value (the future's), or nil and an error (rejects
 * it); or a function and `true`: then each await calls that function for a table of its own. Drops
 * the number. Without memory it is done as soon as there is some: by `make` if arg is NULL, else
 * the future is rejected with PH_ENOMEM. */
void lph_future_resolve(lph_ctx *ctx, uint32_t future, lua_CFunction make, void *arg);

#endif
