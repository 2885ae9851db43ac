/* gen_servers as processes: between messages a server holds the slots of its state and its module,
 * and no coroutine. A turn takes one from the pool and handles messages in it until the mailbox is
 * empty or the turn's time is over; it keeps it only while a callback waits. */
#include <string.h>

#include "lsched.h"

enum { TURN_US = 500 };

/* the stack of a server's coroutine */
enum { AT_MSGH = 1, AT_TASK, AT_MODULE, AT_STATE };

const char lph_noreply_key = 0;
static const char modules_key = 0;

static int serve(lua_State *L, lph_task *t);

/* ---- Modules
 * -------------------------------------------------------------------------------------- */

static lph_module *module_new(lph_ctx *ctx, lua_State *L, int idx) {
  lua_pushvalue(L, idx);
  uint32_t slot = lph_slot_new(ctx, L);
  lph_module *m = ph_alloc(ctx->env, sizeof *m);
  if (!m) {
    lph_slot_drop(ctx, slot);
    luaL_error(L, "not enough memory");
  }
  *m = (lph_module){.slot = slot};
  return m;
}

/* the record of the module table at idx, a reference more; raises for lack of memory */
static lph_module *module_get(lph_ctx *ctx, lua_State *L, int idx) {
  const void *ptr = lua_topointer(L, idx);
  if (ctx->module && ctx->module_ptr == ptr) {
    ctx->module->refs++;
    return ctx->module;
  }
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &modules_key) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &modules_key);
  }
  lua_pushvalue(L, idx);
  if (lua_rawget(L, -2) != LUA_TLIGHTUSERDATA) {
    lua_pop(L, 1);
    lua_pushvalue(L, idx);
    lua_pushboolean(L, 0);
    lua_rawset(L, -3); /* room for the key: from here on nothing fails half-way */
    lua_pushlightuserdata(L, module_new(ctx, L, idx));
    lua_pushvalue(L, idx);
    lua_pushvalue(L, -2);
    lua_rawset(L, -4);
  }
  ctx->module = lua_touserdata(L, -1);
  ctx->module_ptr = ptr;
  lua_pop(L, 2);
  ctx->module->refs++;
  return ctx->module;
}

static void module_put(lph_ctx *ctx, lph_module *m) {
  if (--m->refs) return;
  if (ctx->module == m) ctx->module = NULL;
  if (!ctx->closing) {
    lua_State *L = ctx->service;
    lua_checkstack(L, 4);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &modules_key);
    lph_slot_push(ctx, L, m->slot);
    lua_pushnil(L);
    lua_rawset(L, -3);
    lua_pop(L, 1);
    lph_slot_drop(ctx, m->slot);
  }
  ph_free(ctx->env, m);
}

void lph_server_release(lph_proc *lp) {
  module_put(lp->ctx, lp->module);
  lph_slot_drop(lp->ctx, lp->state);
  lp->module = NULL;
  lp->state = 0;
}

/* ---- What a callback returned
 * ----------------------------------------------------------------------- */

static bool is_stopping(lph_ctx *ctx, lua_State *L, int idx) {
  if (!lua_istable(L, idx) || !lua_getmetatable(L, idx)) return false;
  bool yes = lua_topointer(L, -1) == ctx->stopping;
  lua_pop(L, 1);
  return yes;
}

/* An error of phub's about what a callback did; becomes the reason it stops with. */
static void fail(lua_State *L, lph_proc *lp, const char *where, const char *what) {
  lua_createtable(L, 3, 0);
  lua_pushliteral(L, "error");
  lua_rawseti(L, -2, 1);
  lua_pushfstring(L, "%s: %s", where, what);
  lua_rawseti(L, -2, 2);
  lua_pushliteral(L, "");
  lua_rawseti(L, -2, 3);
  lp->stop = lph_error_reason(lp->ctx, L, lp->p->pid);
  lua_pop(L, 1);
}

static void stop_with(lua_State *L, lph_proc *lp, int idx) {
  char path[LPH_PATH];
  int err;
  memcpy(path, "reason", sizeof "reason");
  lp->stop = lph_pack_reason(lp->ctx, L, idx, path, sizeof path, &err);
  if (!lp->stop) fail(L, lp, "gen_server.stopping", path);
}

static void send_reply(lua_State *L, lph_proc *lp, int idx) {
  lph_ctx *ctx = lp->ctx;
  ph_ref ref = lp->msg->ref;
  char path[LPH_PATH];
  int rc;
  memcpy(path, "reply", sizeof "reply");
  ph_msg *m = lph_msg(ctx, L, idx, PH_C_REPLY, ph_id_node(ref) != PH_SELF, path, sizeof path, &rc);
  if (m && (rc = ph_reply(ctx->sys, lp->msg->from, ref, m)) == 0) return;
  if (m) ph_msg_free(ctx->sys, m);
  fail(L, lp, "handle_call", m ? ph_err_text(rc) : path);
}

/* gen_server.stopping's result at idx */
static void take_stopping(lua_State *L, lph_proc *lp, int idx, bool may_reply) {
  if (may_reply) {
    lua_rawgeti(L, idx, 3);
    bool replies = lua_toboolean(L, -1);
    lua_rawgeti(L, idx, 2);
    if (replies) send_reply(L, lp, lua_gettop(L));
    lua_pop(L, 2);
  }
  if (lp->stop) return;
  lua_rawgeti(L, idx, 1);
  stop_with(L, lp, lua_gettop(L));
  lua_pop(L, 1);
}

static void take_state(lua_State *L, lph_proc *lp, int idx) {
  if (lua_isnil(L, idx) || lua_rawequal(L, idx, AT_STATE)) return;
  if (is_stopping(lp->ctx, L, idx)) {
    take_stopping(L, lp, idx, false);
    return;
  }
  lua_copy(L, idx, AT_STATE);
  lua_pushvalue(L, idx);
  lph_slot_set(lp->ctx, L, lp->state);
}

/* two results after AT_STATE */
static void take_results(lua_State *L, lph_proc *lp) {
  int first = AT_STATE + 1, second = AT_STATE + 2;
  if (lp->msg->cls != PH_C_CALL) {
    take_state(L, lp, first);
  } else if (is_stopping(lp->ctx, L, first)) {
    take_stopping(L, lp, first, true);
  } else {
    if (lua_touserdata(L, first) != &lph_noreply_key) send_reply(L, lp, first);
    if (!lp->stop) take_state(L, lp, second);
  }
}

/* ---- Callbacks
 * ---------------------------------------------------------------------------------------- */

static bool failed(int status) {
  return status != LUA_OK && status != LUA_YIELD;
}

static int no_callback(lua_State *L) {
  return luaL_error(L, "the module has no function %s", lua_tostring(L, lua_upvalueindex(1)));
}

static int terminated(lua_State *L, int status, lua_KContext k) {
  lph_proc *lp = ((lph_task *)k)->proc;
  if (failed(status)) {
    ph_bytes_unref(lp->ctx->env, lp->stop);
    lp->stop = lph_error_reason(lp->ctx, L, lp->p->pid);
  }
  ph_bytes_unref(lp->ctx->env, lp->exit_reason);
  lp->exit_reason = lp->stop;
  lp->stop = NULL;
  return 0;
}

/* lp->stop says why; it ends once terminate has returned */
static int terminate(lua_State *L, lph_task *t) {
  lph_proc *lp = t->proc;
  lp->phase = LPH_G_TERM;
  lua_settop(L, AT_STATE);
  int status = LUA_OK;
  if (lua_getfield(L, AT_MODULE, "terminate") == LUA_TFUNCTION) {
    lua_pushvalue(L, AT_STATE);
    lph_unpack_bytes(lp->ctx, L, lp->stop);
    status = lua_pcallk(L, 2, 0, AT_MSGH, (lua_KContext)t, terminated);
  }
  return terminated(L, status, (lua_KContext)t);
}

static int terminate_body(lua_State *L) {
  return terminate(L, lua_touserdata(L, AT_TASK));
}

/* true: the next message; false: the turn is over (then *out is what the body returns) */
static bool handled(lua_State *L, lph_task *t, int status, int *out) {
  lph_proc *lp = t->proc;
  if (failed(status) && lp->exit_reason) { /* process.exit, where it could only raise */
    lp->stop = lp->exit_reason;
    lp->exit_reason = NULL;
  } else if (failed(status)) {
    lp->stop = lph_error_reason(lp->ctx, L, lp->p->pid);
  } else {
    take_results(L, lp);
  }
  ph_msg_free(lp->ctx->sys, lp->msg);
  lp->msg = NULL;
  lua_settop(L, AT_STATE);
  if (!lp->stop) return true;
  *out = terminate(L, t);
  return false;
}

static int went_on(lua_State *L, int status, lua_KContext k) {
  lph_task *t = (lph_task *)k;
  int out;
  return handled(L, t, status, &out) ? serve(L, t) : out;
}

/* the callback's name, or NULL for messages that are not for callbacks */
static const char *callback_of(lph_proc *lp, const ph_msg *m) {
  switch ((ph_class)m->cls) {
  case PH_C_CALL:
    return "handle_call";
  case PH_C_CAST:
    return "handle_cast";
  case PH_C_STOP:
    return NULL;
  case PH_C_EXIT:
    return m->from == lp->parent ? NULL : "handle_info";
  default:
    return "handle_info";
  }
}

/* Pushes the callback for lp->msg and its arguments. Their number, or -1: nothing to call. */
static int push_callback(lua_State *L, lph_proc *lp, const char *name) {
  lph_ctx *ctx = lp->ctx;
  ph_msg *m = lp->msg;
  bool request = m->cls == PH_C_CALL || m->cls == PH_C_CAST;
  if (lua_getfield(L, AT_MODULE, name) != LUA_TFUNCTION) {
    lua_pop(L, 1);
    if (!request) {
      ph_logf(ctx->env, PH_LOG_DEBUG, "a gen_server without handle_info ignores a message");
      return -1;
    }
    lua_pushstring(L, name);
    lua_pushcclosure(L, no_callback, 1);
    return 0;
  }
  lua_pushvalue(L, AT_STATE);
  bool ok = request ? lph_msg_push(ctx, L, m, true) == 0 : lph_push_event(ctx, L, m, true);
  if (!ok) {
    ph_logf(ctx->env, PH_LOG_WARN, "a malformed message from another node is ignored");
    lua_pop(L, 2);
    return -1;
  }
  if (m->cls == PH_C_CALL) lph_push_pid(L, m->ref);
  return m->cls == PH_C_CALL ? 3 : 2;
}

static void drop_message(lph_proc *lp) {
  ph_msg_free(lp->ctx->sys, lp->msg);
  lp->msg = NULL;
}

/* Handles messages; in the coroutine, after each wait of a callback too. */
static int serve(lua_State *L, lph_task *t) {
  lph_proc *lp = t->proc;
  lph_ctx *ctx = lp->ctx;
  while (!lp->exit_reason && !lp->p->killed && (lp->msg = ph_recv(lp->p))) {
    const char *name = callback_of(lp, lp->msg);
    if (!name) {
      ph_bytes *reason = lp->msg->reason;
      lp->stop = ph_bytes_ref(reason ? reason : ph_reason_get(ctx->sys, PH_REASON_NORMAL));
      drop_message(lp);
      return terminate(L, t);
    }
    int nargs = push_callback(L, lp, name), out;
    if (nargs >= 0) {
      int status = lua_pcallk(L, nargs, 2, AT_MSGH, (lua_KContext)t, went_on);
      if (!handled(L, t, status, &out)) return out;
    } else {
      drop_message(lp);
    }
    if (lp->p->mailbox.head && ph_now(ctx->env) >= t->until) break;
  }
  return 0;
}

static int serve_body(lua_State *L) {
  return serve(L, lua_touserdata(L, AT_TASK));
}

/* ---- init
 * ------------------------------------------------------------------------------------------------
 */

/* results after AT_STATE, where init's arguments stand */
static int initialised(lua_State *L, int status, lua_KContext k) {
  lph_task *t = (lph_task *)k;
  lph_proc *lp = t->proc;
  int first = AT_STATE + 1, second = AT_STATE + 2;
  if (failed(status)) {
    lp->stop = lph_error_reason(lp->ctx, L, lp->p->pid);
  } else if (is_stopping(lp->ctx, L, first)) {
    take_stopping(L, lp, first, false);
  } else if (lua_isnil(L, first)) {
    if (lua_isnil(L, second)) {
      lua_pushstring(L, ph_err_code(PH_EBADRESULT));
      lua_replace(L, second);
    }
    stop_with(L, lp, second);
  } else {
    lua_settop(L, first);
    lp->state = lph_slot_new(lp->ctx, L);
    lp->phase = LPH_G_RUN;
  }
  return 0;
}

/* stack: msgh, task, module, args */
static int init_body(lua_State *L) {
  lua_KContext k = (lua_KContext)lua_touserdata(L, AT_TASK);
  lua_getfield(L, AT_MODULE, "init");
  lua_pushvalue(L, AT_STATE);
  return initialised(L, lua_pcallk(L, 1, 2, AT_MSGH, k, initialised), k);
}

lph_proc *lph_server_new(lph_ctx *ctx, lua_State *L, ph_pid parent) {
  lph_module *m = module_get(ctx, L, 1);
  lph_task *t = lph_task_get(ctx, LPH_T_PROC);
  lph_proc *lp = t ? lph_proc_new(ctx, &lph_server_bh, parent) : NULL;
  if (!lp) {
    if (t) lph_task_put(t, true);
    module_put(ctx, m);
    return NULL;
  }
  lp->module = m;
  lp->task = t;
  t->proc = lp;
  t->self = lp->p->pid;
  t->nargs = 4;
  lua_pushcfunction(t->L, init_body);
  lua_pushcfunction(t->L, lph_msgh);
  lua_pushlightuserdata(t->L, t);
  lph_slot_push(ctx, t->L, m->slot);
  lua_xmove(L, t->L, 1);
  return lp;
}

/* The task's coroutine has returned: between messages there is none. */
static void release_task(lph_proc *lp) {
  lph_task *t = lp->task;
  lp->task = NULL;
  lph_task_put(t, true);
}

static void tell_starter(lph_proc *lp, ph_bytes *failure) {
  ph_sys *s = lp->ctx->sys;
  ph_waiter *w = lp->starter ? ph_waiter_find(s, lp->starter) : NULL;
  lp->starter = 0;
  if (!w) return;
  ph_msg *m = failure ? ph_msg_bytes(s, PH_C_REPLY, failure->data, failure->len) : NULL;
  ph_wake(w, failure && !m ? PH_ENOMEM : 0, m);
}

/* The reason for which init refused or died, once; owned. The starter hears of it by the result of
 * its start, not by its link. */
static ph_bytes *init_failure(lph_proc *lp, int status) {
  ph_bytes *reason = status > LUA_YIELD ? lph_dead_reason(lp->task, status) : lp->exit_reason;
  if (status <= LUA_YIELD) lp->exit_reason = NULL;
  if (!reason) {
    reason = lp->stop;
    lp->stop = NULL;
  }
  if (lp->linked) ph_unlink(lp->p, lp->parent);
  return reason;
}

/* init has given way or returned: 1, 0, -1 as lph_server_init */
static int after_init(lph_proc *lp, int status, int n, ph_bytes **reason) {
  lph_task *t = lp->task;
  if (status == LUA_YIELD && !lp->exit_reason) {
    lua_pop(t->L, n);
    if (!t->waits) ph_ready(lp->p);
    return 0;
  }
  if (status == LUA_OK && lp->phase == LPH_G_RUN && !lp->exit_reason) {
    release_task(lp);
    tell_starter(lp, NULL);
    return 1;
  }
  *reason = init_failure(lp, status);
  return -1;
}

int lph_server_init(lph_proc *lp, lua_State *L, ph_bytes **reason) {
  lph_ctx *ctx = lp->ctx;
  lph_task *t = lp->task;
  if (ctx->depth >= LPH_MAX_NEST) {
    ph_ready(lp->p);
    return 0;
  }
  int n, nargs = t->nargs;
  t->nargs = 0;
  t->hold = !lph_can_wait(L, ctx);
  int status = lph_resume(t, L, nargs, &n);
  t->hold = false;
  int rc = after_init(lp, status, n, reason);
  if (rc < 0) ph_exit(lp->p, *reason);
  return rc;
}

/* ---- The behaviour
 * ------------------------------------------------------------------------------------------ */

static ph_run resume(lph_proc *lp, int nargs);

/* a fresh body on the server's coroutine: module and state go onto its stack */
static bool begin(lph_proc *lp, lua_CFunction body) {
  lph_ctx *ctx = lp->ctx;
  if (!lp->task) {
    lph_task *t = lph_task_get(ctx, LPH_T_PROC);
    if (!t) return false;
    t->proc = lp;
    t->self = lp->p->pid;
    lp->task = t;
  }
  lua_State *L = lp->task->L;
  lua_pushcfunction(L, body);
  lua_pushcfunction(L, lph_msgh);
  lua_pushlightuserdata(L, lp->task);
  lph_slot_push(ctx, L, lp->module->slot);
  lph_slot_push(ctx, L, lp->state);
  return true;
}

/* A callback has called process.exit, or died outside its pcall: terminate runs on a coroutine that
 * was closed, or on a new one. */
static ph_run terminate_anew(lph_proc *lp, ph_bytes *reason, bool dead) {
  lph_task *t = lp->task;
  lp->exit_reason = NULL;
  lph_close(t);
  if (dead) {
    lp->task = NULL;
    lph_task_put(t, false);
  }
  drop_message(lp);
  ph_bytes_unref(lp->ctx->env, lp->exit_reason); /* of a <close> variable */
  lp->exit_reason = NULL;
  lp->stop = reason;
  lp->phase = LPH_G_TERM;
  if (begin(lp, terminate_body)) return resume(lp, 4);
  lp->stop = NULL;
  return lph_end(lp, reason);
}

static ph_run after(lph_proc *lp, int status, int n) {
  lph_task *t = lp->task;
  ph_bytes *reason = lp->exit_reason;
  if (status == LUA_YIELD && !reason) {
    lua_pop(t->L, n);
    return t->waits && !t->over ? PH_RUN_WAIT : PH_RUN_AGAIN;
  }
  if (status > LUA_YIELD) {
    ph_bytes_unref(lp->ctx->env, reason);
    reason = lp->exit_reason = lph_dead_reason(t, status);
  }
  if (reason) {
    if (lp->phase == LPH_G_RUN) return terminate_anew(lp, reason, status > LUA_YIELD);
    lp->exit_reason = NULL;
    return lph_end(lp, reason);
  }
  release_task(lp);
  return lp->p->mailbox.head ? PH_RUN_AGAIN : PH_RUN_WAIT;
}

static ph_run resume(lph_proc *lp, int nargs) {
  lph_ctx *ctx = lp->ctx;
  lph_task *t = lp->task;
  int n;
  t->until = ph_now(ctx->env) + TURN_US * 1000;
  bool init = lp->phase == LPH_G_INIT;
  int status = lph_resume(t, lph_resumer(ctx), nargs, &n);
  if (!init) return after(lp, status, n);
  ph_bytes *reason;
  int rc = after_init(lp, status, n, &reason);
  if (rc < 0) return lph_end(lp, reason);
  if (rc == 0) return lp->task->waits ? PH_RUN_WAIT : PH_RUN_AGAIN;
  return lp->p->mailbox.head ? PH_RUN_AGAIN : PH_RUN_WAIT;
}

static ph_run server_run(ph_sys *s, ph_proc *p) {
  (void)s;
  lph_proc *lp = p->data;
  lph_task *t = lp->task;
  if (lp->exit_reason && !t) { /* a coroutine of the user's called process.exit in its name */
    ph_bytes *reason = lp->exit_reason;
    lp->exit_reason = NULL;
    lp->stop = reason;
    if (begin(lp, terminate_body)) return resume(lp, 4);
    lp->stop = NULL;
    return lph_end(lp, reason);
  }
  if (t) {
    if (t->waits && !t->over && !(t->receiving && lph_unseen(lp)) && !lp->exit_reason)
      return PH_RUN_WAIT;
    if (lp->exit_reason) return after(lp, LUA_YIELD, 0);
    int nargs = t->nargs;
    t->nargs = 0;
    return resume(lp, nargs);
  }
  if (!p->mailbox.head) return PH_RUN_WAIT;
  /* without memory for a coroutine the messages wait */
  return begin(lp, serve_body) ? resume(lp, 4) : PH_RUN_AGAIN;
}

static void server_ended(ph_sys *s, ph_proc *p, ph_bytes *reason) {
  (void)s;
  lph_proc *lp = p->data;
  tell_starter(lp, reason);
  lph_proc_free(lp);
}

const ph_behaviour lph_server_bh = {"gen_server", server_run, server_ended};
