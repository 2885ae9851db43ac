/* Tasks and their coroutines, plain processes, and work in the name of other processes. */
#include <string.h>

#include "lsched.h"

/* For handing on the results of a start: the call cannot fail for want of stack, and lose them. */
enum { START_STACK = 3 * LUA_MINSTACK };

/* ---- Tasks ------------------------------------------------------------------------------------
 */

static int make_thread(lua_State *L) {
  lph_task *t = lua_touserdata(L, 1);
  t->L = lua_newthread(L);
  t->slot = lph_slot_new(t->ctx, L);
  return 0;
}

static lph_task *task_new(lph_ctx *ctx) {
  lph_task *t = ph_alloc(ctx->env, sizeof *t);
  if (!t) return NULL;
  *t = (lph_task){.ctx = ctx};
  if (lph_protected(ctx, make_thread, t) == 0) return t;
  ph_free(ctx->env, t);
  return NULL;
}

lph_task *lph_task_get(lph_ctx *ctx, lph_kind kind) {
  lph_task *t = ctx->pool;
  if (t) {
    ctx->pool = t->next;
    ctx->pooled--;
    *t = (lph_task){.ctx = ctx, .L = t->L, .slot = t->slot};
  } else if (!(t = task_new(ctx))) {
    return NULL;
  }
  t->kind = (uint8_t)kind;
  ph_list_init(&t->list);
  return t;
}

void lph_task_clear(lph_task *t) {
  lph_ctx *ctx = t->ctx;
  ph_msg_free(ctx->sys, t->msg);
  ph_bytes_unref(ctx->env, t->reason);
  t->msg = NULL;
  t->reason = NULL;
}

void lph_task_put(lph_task *t, bool clean) {
  lph_ctx *ctx = t->ctx;
  ph_wait_cancel(&t->w);
  lph_task_clear(t);
  ph_bytes_unref(ctx->env, t->exit_reason);
  ph_list_remove(&t->list);
  lph_task_thaw(t);
  if (clean && ctx->pooled < LPH_MAX_POOL && !ctx->closing) {
    lua_settop(t->L, 0);
    t->exit_reason = NULL;
    t->next = ctx->pool;
    ctx->pool = t;
    ctx->pooled++;
    return;
  }
  lph_slot_drop(ctx, t->slot);
  ph_free(ctx->env, t);
}

lua_State *lph_resumer(lph_ctx *ctx) {
  return ctx->driving ? ctx->driving : ctx->main;
}

int lph_resume(lph_task *t, lua_State *from, int nargs, int *nres) {
  lph_ctx *ctx = t->ctx;
  lph_task *cur = ctx->cur;
  lph_level level;
  ctx->cur = t;
  ctx->depth++;
  t->waits = false;
  lph_task_enter(t, &level, t->hold);
  int status = lua_resume(t->L, from, nargs, nres);
  lph_task_leave(t, &level);
  ctx->depth--;
  ctx->cur = cur;
  return status;
}

static int log_raised(lua_State *L) {
  lua_State *co = lua_touserdata(L, 1);
  lua_xmove(co, L, 1);
  const char *text = luaL_tolstring(L, -1, NULL);
  ph_logf(lph_of(L)->env, PH_LOG_ERROR, "an error in a <close> variable: %s", text);
  return 0;
}

void lph_log_raised(lph_ctx *ctx, lua_State *co) {
  if (lua_gettop(co)) (void)lph_protected(ctx, log_raised, co);
}

void lph_close(lph_task *t) {
  lph_ctx *ctx = t->ctx;
  ph_wait_cancel(&t->w);
  lph_task_clear(t);
  if (ctx->closing) return;
  int before = lua_status(t->L);
  if (before != LUA_OK) {
    lph_task *cur = ctx->cur;
    lph_level level;
    ctx->cur = t;
    lph_task_enter(t, &level, true);
    if (lph_close_chain(ctx, t->L, lph_resumer(ctx)) != LUA_OK && before == LUA_YIELD)
      lph_log_raised(ctx, t->L);
    lph_task_leave(t, &level);
    ctx->cur = cur;
  }
  lua_settop(t->L, 0);
}

bool lph_exiting(lph_ctx *ctx) {
  lph_task *t = ctx->cur;
  if (!t->proc) return t->exit_reason != NULL;
  const ph_proc *p = t->proc->p;
  return t->proc->exit_reason || (p && p->running && p->killed);
}

int lph_yield_exit(lua_State *L) {
  if (lua_isyieldable(L)) return lua_yield(L, 0);
  return lph_raise(L, PH_EEXIT, "the process has to end");
}

/* ---- Errors that end a task --------------------------------------------------------------------
 */

/* { "error", message, trace } */
static ph_bytes *error_reason(lph_ctx *ctx, const char *message, size_t message_len,
                              const char *trace, size_t trace_len) {
  ph_buf b;
  ph_buf_init(&b, ctx->env);
  ph_w_array(&b, 3);
  ph_w_cstr(&b, "error");
  ph_w_str(&b, message, message_len);
  ph_w_str(&b, trace, trace_len);
  ph_bytes *reason = b.oom ? NULL : ph_bytes_new(ctx->env, ph_buf_at(&b), ph_buf_size(&b));
  ph_buf_deinit(&b);
  return reason;
}

/* An error that lph_msgh could not make a table of: there was no memory for it, or it failed. */
static ph_bytes *bare_reason(lph_ctx *ctx, lua_State *L) {
  char text[LPH_TEXT];
  size_t n = lph_text(L, -1, text, sizeof text);
  return strcmp(text, "not enough memory") == 0 ? NULL : error_reason(ctx, text, n, "", 0);
}

/* { "error", text, traceback } of one whose message cannot travel */
static ph_bytes *text_reason(lph_ctx *ctx, lua_State *L, int idx) {
  char message[LPH_TEXT], trace[4 * LPH_TEXT];
  lua_rawgeti(L, idx, 2);
  size_t message_len = lph_text(L, -1, message, sizeof message);
  lua_rawgeti(L, idx, 3);
  size_t trace_len = lph_text(L, -1, trace, sizeof trace);
  lua_pop(L, 2);
  return error_reason(ctx, message, message_len, trace, trace_len);
}

ph_bytes *lph_error_pack(lph_ctx *ctx, lua_State *L, int idx, int *err) {
  *err = PH_ENOMEM;
  if (!lua_checkstack(L, 2)) return NULL;
  idx = lua_absindex(L, idx);
  bool unyieldable = lua_rawgeti(L, idx, LPH_UNYIELDABLE) != LUA_TNIL;
  lua_pop(L, 1);
  if (unyieldable) return ph_bytes_ref(ph_reason_get(ctx->sys, PH_REASON_UNYIELDABLE));
  lua_pushnil(L);
  lua_rawseti(L, idx, 0); /* the error value itself stays here */
  ph_bytes *reason = lph_pack_reason(ctx, L, idx, NULL, 0, err);
  if (*err != PH_ENOTSERIAL && *err != PH_ETOOLARGE) return reason;
  reason = text_reason(ctx, L, idx);
  *err = reason ? 0 : PH_ENOMEM;
  return reason;
}

ph_bytes *lph_error_reason(lph_ctx *ctx, lua_State *L, ph_pid pid) {
  int err;
  lph_log_error(ctx, L, -1, pid);
  ph_bytes *reason = lua_istable(L, -1) ? lph_error_pack(ctx, L, -1, &err) : bare_reason(ctx, L);
  return reason ? reason : ph_bytes_ref(ph_reason_get(ctx->sys, PH_REASON_NOMEM));
}

typedef struct dead {
  lph_task *task;
  ph_bytes *reason;
} dead;

static int describe_dead(lua_State *L) {
  dead *d = lua_touserdata(L, 1);
  lua_State *co = d->task->L;
  luaL_checkstack(L, 8, NULL);
  lua_xmove(co, L, 1);
  lua_createtable(L, 3, 0);
  lua_pushliteral(L, "error");
  lua_rawseti(L, 3, 1);
  lph_push_message(L, 2);
  lua_rawseti(L, 3, 2);
  luaL_traceback(L, co, NULL, 0);
  lua_rawseti(L, 3, 3);
  lph_mark_unyieldable(L, 2, 3);
  d->reason = lph_error_reason(d->task->ctx, L, d->task->self);
  return 0;
}

ph_bytes *lph_dead_reason(lph_task *t, int status) {
  lph_ctx *ctx = t->ctx;
  dead d = {t, NULL};
  if (status != LUA_ERRMEM) (void)lph_protected(ctx, describe_dead, &d);
  return d.reason ? d.reason : ph_bytes_ref(ph_reason_get(ctx->sys, PH_REASON_NOMEM));
}

/* ---- Processes ---------------------------------------------------------------------------------
 */

lph_proc *lph_proc_new(lph_ctx *ctx, const ph_behaviour *bh, ph_pid parent) {
  lph_proc *lp = ph_zalloc(ctx->env, sizeof *lp);
  if (!lp) return NULL;
  lp->ctx = ctx;
  lp->parent = parent;
  ph_list_init(&lp->foreign);
  lp->p = ph_spawn(ctx->sys, bh, lp);
  if (!lp->p) {
    ph_free(ctx->env, lp);
    return NULL;
  }
  if (ctx->slices) ph_rt_standby(ctx->rt); /* there is somebody to give way to */
  return lp;
}

void lph_proc_free(lph_proc *lp) {
  lph_ctx *ctx = lp->ctx;
  lph_drop_foreign(&lp->foreign);
  if (lp->task && lp->task != &ctx->main_task) {
    bool clean = !ctx->closing && lua_status(lp->task->L) <= LUA_YIELD;
    lph_close(lp->task);
    lph_task_put(lp->task, clean);
    lp->task = NULL;
  }
  if (lp->module) lph_server_release(lp);
  ph_msg_free(ctx->sys, lp->msg);
  ph_bytes_unref(ctx->env, lp->exit_reason);
  ph_bytes_unref(ctx->env, lp->stop);
  lp->msg = NULL;
  lp->exit_reason = lp->stop = NULL;
  if (lp != &ctx->main_proc) ph_free(ctx->env, lp);
}

/* Ends the process of its own accord, unless a signal was first; takes the reference to reason. */
ph_run lph_end(lph_proc *lp, ph_bytes *reason) {
  const ph_env *env = lp->ctx->env;
  ph_exit(lp->p, lp->p->killed ? lp->p->killed : reason);
  ph_bytes_unref(env, reason);
  return PH_RUN_WAIT;
}

/* It has called process.exit. The mark goes first: <close> variables that run now may use
 * coroutines, which must not take them for a part of what ends. */
static ph_run end_exit(lph_proc *lp) {
  ph_bytes *reason = lp->exit_reason;
  lp->exit_reason = NULL;
  return lph_end(lp, reason);
}

static int plain_over(lua_State *L, int status, lua_KContext k) {
  lph_task *t = (lph_task *)k;
  t->failed = status != LUA_OK && status != LUA_YIELD;
  return t->failed ? 1 : lua_gettop(L) - 2;
}

/* stack: msgh, task, function, arguments */
static int plain_body(lua_State *L) {
  lph_task *t = lua_touserdata(L, 2);
  int status = lua_pcallk(L, lua_gettop(L) - 3, LUA_MULTRET, 1, (lua_KContext)t, plain_over);
  return plain_over(L, status, (lua_KContext)t);
}

static ph_run plain_done(lph_proc *lp, int status, int n) {
  lph_ctx *ctx = lp->ctx;
  lph_task *t = lp->task;
  if (status != LUA_OK) return lph_end(lp, lph_dead_reason(t, status));
  if (lp == ctx->run_proc) lph_run_over(lp, t->L, t->failed ? -1 : n, NULL);
  if (t->failed) return lph_end(lp, lph_error_reason(ctx, t->L, t->self));
  return lph_end(lp, ph_bytes_ref(ph_reason_get(ctx->sys, PH_REASON_NORMAL)));
}

bool lph_unseen(lph_proc *lp) {
  ph_msg *scan = lp->task->scan;
  return scan ? scan->next != NULL : lp->p->mailbox.head != NULL;
}

static ph_run plain_run(ph_sys *s, ph_proc *p) {
  (void)s;
  lph_proc *lp = p->data;
  lph_task *t = lp->task;
  if (lp->exit_reason) return end_exit(lp);
  if (t->waits && !t->over && !(t->receiving && lph_unseen(lp))) return PH_RUN_WAIT;
  int n, nargs = t->nargs;
  t->nargs = 0;
  int status = lph_resume(t, lph_resumer(lp->ctx), nargs, &n);
  if (lp->exit_reason) return end_exit(lp);
  if (status != LUA_YIELD) return plain_done(lp, status, n);
  lua_pop(t->L, n); /* a bare coroutine.yield gives way, its values go nowhere */
  return t->waits && !t->over ? PH_RUN_WAIT : PH_RUN_AGAIN;
}

static void plain_ended(ph_sys *s, ph_proc *p, ph_bytes *reason) {
  (void)s;
  lph_proc *lp = p->data;
  if (lp == lp->ctx->run_proc) lph_run_over(lp, NULL, 0, reason);
  if (lp == lp->ctx->leaver) {
    lp->ctx->leaver = NULL;
    lph_main_woken(lp->ctx);
  }
  lph_proc_free(lp);
}

const ph_behaviour lph_plain_bh = {"lua", plain_run, plain_ended};

lph_proc *lph_spawn(lph_ctx *ctx, lua_State *L, int nargs) {
  lph_task *t = lph_task_get(ctx, LPH_T_PROC);
  lph_proc *lp =
      t && lua_checkstack(t->L, nargs + 8) ? lph_proc_new(ctx, &lph_plain_bh, lph_self(ctx)) : NULL;
  if (!lp) {
    if (t) lph_task_put(t, true);
    lua_pop(L, nargs + 1);
    return NULL;
  }
  lp->task = t;
  t->proc = lp;
  t->self = lp->p->pid;
  lua_pushcfunction(t->L, plain_body);
  lua_pushcfunction(t->L, lph_msgh);
  lua_pushlightuserdata(t->L, t);
  lua_xmove(L, t->L, nargs + 1);
  t->nargs = nargs + 3;
  ph_ready(lp->p);
  return lp;
}

/* ---- Work in the name of another process -------------------------------------------------------
 */

static int start_over(lua_State *L, int status, lua_KContext k) {
  lph_task *t = (lph_task *)k;
  t->failed = status != LUA_OK && status != LUA_YIELD;
  return t->failed ? 1 : lua_gettop(L) - 2;
}

static int start_prepared(lua_State *L, int status, lua_KContext k) {
  bool failed = status != LUA_OK && status != LUA_YIELD;
  if (!failed && lua_isfunction(L, 3))
    status = lua_pcallk(L, lua_gettop(L) - 3, LUA_MULTRET, 1, k, start_over);
  return start_over(L, status, k);
}

/* stack: msgh, task, prepare, arg */
static int start_body(lua_State *L) {
  lua_KContext k = (lua_KContext)lua_touserdata(L, 2);
  return start_prepared(L, lua_pcallk(L, 1, LUA_MULTRET, 1, k, start_prepared), k);
}

typedef struct outcome {
  lph_task *task;
  int status;
} outcome;

/* stack: outcome, results */
static int hand_over(lua_State *L) {
  outcome *o = lua_touserdata(L, 1);
  lph_task *t = o->task;
  lua_remove(L, 1);
  if (o->status == LPH_FAILED && t->exit_reason) {
    lua_settop(L, 0);
    lph_unpack_bytes(t->ctx, L, t->exit_reason);
  }
  t->done(t->ctx, t->arg, L, o->status, lua_gettop(L));
  return 0;
}

/* The work is over: n results stand alone on its stack. */
static void start_end(lph_task *t, int status, int n, bool clean) {
  lph_ctx *ctx = t->ctx;
  lua_State *L = t->L;
  outcome o = {t, status};
  lua_settop(L, n);
  ph_list_remove(&t->list);
  if (lua_checkstack(L, 8)) {
    lua_pushcfunction(L, hand_over);
    lua_insert(L, 1);
    lua_pushlightuserdata(L, &o);
    lua_insert(L, 2);
    if (lua_pcall(L, n + 1, 0, 0) != LUA_OK) lph_log_error(ctx, L, -1, 0);
  } else {
    t->done(ctx, t->arg, L, LPH_ABANDONED, 0);
  }
  lph_task_put(t, clean);
}

/* true while it goes on later */
static bool start_run(lph_task *t, lua_State *from, int nargs) {
  int n, status = lph_resume(t, from, nargs, &n);
  if (status == LUA_YIELD && !t->exit_reason && !t->abandoned) {
    lua_pop(t->L, n);
    if (t->waits || lph_pause(t) == 0) return true;
  }
  if (status == LUA_YIELD || (status == LUA_OK && t->exit_reason)) {
    ph_bytes *reason = t->exit_reason; /* unset while <close> variables run */
    t->exit_reason = NULL;
    lph_close(t);
    ph_bytes_unref(t->ctx->env, t->exit_reason);
    t->exit_reason = reason;
    start_end(t, reason ? LPH_FAILED : LPH_ABANDONED, 0, true);
  } else if (status != LUA_OK) {
    ph_bytes_unref(t->ctx->env, t->exit_reason);
    t->exit_reason = lph_dead_reason(t, status);
    lph_close(t);
    start_end(t, LPH_FAILED, 0, false);
  } else {
    start_end(t, t->failed ? LPH_FAILED : LPH_DONE, t->failed ? 1 : n, true);
  }
  return false;
}

int lph_start(lph_ctx *ctx, ph_pid in_name_of, lua_CFunction prepare, void *arg, lph_done done,
              lph_task **task) {
  if (task) *task = NULL;
  if (!ph_proc_find(ctx->sys, in_name_of)) return PH_ENOPROC;
  lph_task *t = lph_task_get(ctx, LPH_T_START);
  if (!t) return PH_ENOMEM;
  if (!lua_checkstack(t->L, START_STACK)) {
    lph_task_put(t, true);
    return PH_ENOMEM;
  }
  t->self = in_name_of;
  t->done = done;
  t->arg = arg;
  ph_list_push(&ctx->starts, &t->list);
  lua_pushcfunction(t->L, start_body);
  lua_pushcfunction(t->L, lph_msgh);
  lua_pushlightuserdata(t->L, t);
  lua_pushcfunction(t->L, prepare);
  lua_pushlightuserdata(t->L, arg);
  if (task) *task = t;
  bool waits = start_run(t, lph_resumer(ctx), 4);
  if (task && !waits) *task = NULL;
  return 0;
}

void lph_start_abandon(lph_task *t) {
  if (!t->waits) { /* it runs: done comes when it returns, or waits */
    t->abandoned = true;
    return;
  }
  lph_close(t);
  start_end(t, LPH_ABANDONED, 0, true);
}

/* ---- Waits that are over, outside processes
 * ------------------------------------------------------
 */

static void foreign_go_on(lph_task *t) {
  lph_ctx *ctx = t->ctx;
  int n = 0, status = LUA_OK;
  /* closed by the user meanwhile: nothing to resume */
  if (lua_status(t->L) == LUA_YIELD && !(t->proc && t->proc->exit_reason)) {
    status = lph_resume(t, lph_resumer(ctx), 0, &n);
    if (status > LUA_YIELD)
      ph_bytes_unref(ctx->env, lph_dead_reason(t, status));
    else
      lua_pop(t->L, n);
    if (t->frozen && lph_pause(t) < 0)
      ph_logf(ctx->env, PH_LOG_ERROR, "out of memory: a coroutine does not go on");
  }
  if (t->proc && t->proc->exit_reason && t->proc->p) ph_ready(t->proc->p);
  if (t->waits && status == LUA_YIELD) return;
  lph_task_put(t, false);
}

void lph_go_on(lph_task *t) {
  if (t->kind == LPH_T_START)
    (void)start_run(t, lph_resumer(t->ctx), 0);
  else
    foreign_go_on(t);
}
