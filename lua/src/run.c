/* The main chunk as a process, phub.run and phub.halt, and how a program ends. */
#include <string.h>
#include <unistd.h>

#include "lsched.h"

static const char os_exit_key = 0, leave_key = 0;

/* ---- The main chunk's process -------------------------------------------------------------------
 */

static ph_run main_run(ph_sys *s, ph_proc *p) {
  (void)s;
  lph_proc *lp = p->data;
  if (lp->task->receiving) lph_main_woken(lp->ctx);
  return PH_RUN_WAIT;
}

/* An exit signal has ended it. The main chunk itself cannot be stopped from outside: its next wait
 * raises. */
static void main_ended(ph_sys *s, ph_proc *p, ph_bytes *reason) {
  (void)s;
  lph_proc *lp = p->data;
  lph_ctx *ctx = lp->ctx;
  lp->p = NULL;
  lph_proc_free(lp);
  if (!ctx->closing && !ctx->main_ended) ctx->main_ended = ph_bytes_ref(reason);
  lph_main_woken(ctx);
}

static const ph_behaviour main_bh = {"main", main_run, main_ended};

void lph_main_start(lph_ctx *ctx, lua_State *L) {
  lph_task *t = &ctx->main_task;
  lph_proc *lp = &ctx->main_proc;
  ph_proc *p = ph_spawn(ctx->sys, &main_bh, lp);
  if (!p) luaL_error(L, "not enough memory");
  *lp = (lph_proc){.ctx = ctx, .p = p, .task = t, .parent = p->pid};
  ph_list_init(&lp->foreign);
  if (!t->ctx) {
    t->ctx = ctx;
    t->L = ctx->main;
    t->kind = LPH_T_MAIN;
    t->proc = lp;
    ph_list_init(&t->list);
  }
  t->scan = NULL;
  t->self = p->pid;
}

void lph_main_check(lph_ctx *ctx, lua_State *L) {
  ph_bytes *reason = ctx->main_ended;
  if (!reason) return;
  lph_main_start(ctx, L);
  ctx->main_ended = NULL;
  lph_take_reason(ctx, L, reason);
  lph_push_error(L, PH_EEXIT, "the process of the main chunk was ended");
  lua_insert(L, -2);
  lua_setfield(L, -2, "reason");
  lua_error(L);
}

/* ---- The end of the program
 * ----------------------------------------------------------------------
 */

bool lph_drive_ends(lph_ctx *ctx) {
  return ctx->exits;
}

void lph_os_exit(lph_ctx *ctx, lua_State *L, int code) {
  (void)ctx;
  luaL_checkstack(L, 4, NULL);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &os_exit_key);
  lua_pushinteger(L, code);
  lua_pushboolean(L, 1);
  lua_call(L, 2, 0);
}

static void on_signal(void *p, int signum) {
  lph_ctx *ctx = p;
  if (ctx->signal) _exit(128 + signum); /* the second one */
  ctx->signal = signum;
}

int lph_signals(lph_ctx *ctx) {
  if (ctx->signals_on || ctx->signals_off) return 0;
  int rc = ph_rt_signals(ctx->rt, on_signal, ctx);
  ctx->signals_on = rc == 0;
  return rc;
}

/* node.stop, in a process of its own */
static int start_leaver(lua_State *L) {
  lph_ctx *ctx = lua_touserdata(L, 1);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &leave_key) == LUA_TFUNCTION)
    ctx->leaver = lph_spawn(ctx, L, 0);
  return 0;
}

void lph_drive_turn(lph_ctx *ctx) {
  if (ctx->end_node) {
    ctx->end_node = false;
    ph_rt_node_end(ctx->rt);
    ph_waiter *w = ph_waiter_find(ctx->sys, ctx->end_waiter);
    if (w) ph_wake(w, 0, NULL);
  }
  if (!ctx->signal) return;
  if (!ctx->leaves) {
    ctx->leaves = true;
    (void)lph_protected(ctx, start_leaver, ctx); /* a failure is logged, and the program ends */
  }
  if (ctx->leaver) return;
  ctx->exits = true;
  ctx->exit_code = 128 + ctx->signal;
}

static int core_handle_signals(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  luaL_checktype(L, 1, LUA_TBOOLEAN);
  ctx->signals_off = !lua_toboolean(L, 1);
  int rc = 0;
  if (!ctx->signals_off) {
    rc = lph_signals(ctx);
  } else if (ctx->signals_on) {
    rc = ph_rt_signals(ctx->rt, NULL, NULL);
    ctx->signals_on = false;
  }
  if (rc < 0) return lph_error(L, rc, NULL);
  lua_pushboolean(L, 1);
  return 1;
}

/* leave_with(fn): what a signal that ends the program runs first, in a process */
static int core_leave_with(lua_State *L) {
  lph_get(L);
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &leave_key);
  return 0;
}

/* ---- run and halt
 * -----------------------------------------------------------------------------------
 */

void lph_run_over(lph_proc *lp, lua_State *co, int n, ph_bytes *reason) {
  lph_ctx *ctx = lp->ctx;
  if (!ctx->run_over && !ctx->closing) {
    lua_State *L = ctx->driving;
    ctx->run_over = true;
    ctx->run_n = n;
    if (!co || !L) {
      ctx->run_n = -2;
      ctx->run_reason = ph_bytes_ref(reason);
    } else if (n < 0) { /* the error value itself, which lph_msgh kept */
      if (lua_istable(co, -1))
        lua_rawgeti(co, -1, 0);
      else
        lua_pushvalue(co, -1);
      lua_xmove(co, L, 1);
    } else if (lua_checkstack(L, n)) {
      lua_xmove(co, L, n);
    } else {
      ctx->run_n = -1;
      lua_pushliteral(L, "too many results");
    }
    lph_main_woken(ctx);
  }
  if (!co) ctx->run_proc = NULL;
}

static bool run_is_over(lph_ctx *ctx, void *arg) {
  (void)arg;
  return ctx->run_over || ctx->halted;
}

static int run_ended(lph_ctx *ctx, lua_State *L) {
  ph_bytes *reason = ctx->run_reason;
  ctx->run_reason = NULL;
  bool normal = !reason || ph_reason_is(reason, "normal") || ph_reason_is(reason, "shutdown");
  lph_take_reason(ctx, L, reason);
  if (normal) return 0;
  lph_push_error(L, PH_EEXIT, "the function given to run ended its process");
  lua_insert(L, -2);
  lua_setfield(L, -2, "reason");
  return lua_error(L);
}

/* stack: fn, args -> [+0], or a process to wait for; returns 0, or the number of results */
static int run_spawn(lph_ctx *ctx, lua_State *L) {
  int n = lua_gettop(L);
  if (n == 0) return 0;
  luaL_checktype(L, 1, LUA_TFUNCTION);
  luaL_checkstack(L, n + 4, "too many arguments");
  lua_pushvalue(L, 1);
  for (int i = 2; i <= n; i++) {
    char path[LPH_PATH];
    lua_pushfstring(L, "args[%d]", i - 1);
    strncpy(path, lua_tostring(L, -1), sizeof path - 1);
    path[sizeof path - 1] = '\0';
    lua_pop(L, 1);
    int rc = lph_copy(ctx, L, i, path, sizeof path);
    if (rc < 0) return lph_error(L, rc, "%s", path);
  }
  ctx->run_proc = lph_spawn(ctx, L, n - 1);
  return ctx->run_proc ? 0 : lph_error(L, PH_ENOMEM, NULL);
}

static int core_run(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  if (lua_gettop(L) == 1 && lua_isnil(L, 1)) lua_settop(L, 0);
  if (ctx->driving || ctx->cur != &ctx->main_task)
    return luaL_error(L, "phub.run: the loop runs already");
  lph_main_check(ctx, L);
  ctx->run_over = false;
  ctx->run_n = 0;
  int failed = run_spawn(ctx, L);
  if (failed) return failed;
  int rc = lph_signals(ctx);
  if (rc < 0) return lph_error(L, rc, "signals cannot be handled: %s", ph_err_text(rc));
  int top = lua_gettop(L);
  lph_drive(ctx, L, run_is_over, NULL);
  ph_rt_rest(ctx->rt);
  ctx->halted = false;
  ctx->run_proc = NULL;
  if (ctx->main_ended) lph_main_check(ctx, L);
  if (!ctx->run_over) return 0;
  if (ctx->run_n == -1) return lua_error(L);
  if (ctx->run_n == -2) return run_ended(ctx, L);
  return lua_gettop(L) - top;
}

static int core_halt(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  bool coded = !lua_isnoneornil(L, 1);
  int code = (int)luaL_optinteger(L, 1, 0);
  if (!coded) {
    ctx->halted = true;
  } else if (!ctx->driving) {
    lph_os_exit(ctx, L, code);
  } else {
    ctx->exits = true;
    ctx->exit_code = code;
  }
  lph_main_woken(ctx);
  return 0;
}

static const luaL_Reg functions[] = {{"run", core_run},
                                     {"halt", core_halt},
                                     {"handle_signals", core_handle_signals},
                                     {"leave_with", core_leave_with},
                                     {NULL, NULL}};

void lph_open_run(lph_ctx *ctx, lua_State *L) {
  lph_setfuncs(ctx, L, functions);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &os_exit_key) == LUA_TNIL) {
    lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    if (lua_getfield(L, -1, "os") != LUA_TTABLE) luaL_error(L, "phub needs the os library");
    lua_getfield(L, -1, "exit");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &os_exit_key);
    lua_pop(L, 2);
  }
  lua_pop(L, 1);
}
