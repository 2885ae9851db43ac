/* Waiting, in the three places where Lua code can be.
 *
 * In the coroutine that a task runs: it yields to the scheduler. In the main chunk: it drives the
 * loop until the wait is over. In any other coroutine: it yields phub.future.waiting to whoever
 * resumed it, and the loop resumes it when the wait is over. */
#include <string.h>

#include "lsched.h"

enum { OWED_MS = 10 }; /* between tries to resolve futures that there was no memory for */

/* ---- Where nobody can wait ----------------------------------------------------------------------
 */

void lph_cannot_wait(lua_State *L) {
  lph_raise(L, PH_ECANNOTWAIT, NULL);
}

static lua_CFunction library_function(lua_State *L, const char *lib, const char *name) {
  lua_CFunction f = NULL;
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, lib) == LUA_TTABLE) {
    lua_getfield(L, -1, name);
    f = lua_tocfunction(L, -1);
    lua_pop(L, 1);
  }
  lua_pop(L, 2);
  return f;
}

/* The main chunk cannot yield anywhere, so Lua does not tell where it may not wait: not below a
 * comparator, a replacement or a finalizer. */
static bool main_may_wait(lua_State *L) {
  lua_Debug ar;
  lua_CFunction sort = library_function(L, "table", "sort");
  lua_CFunction gsub = library_function(L, "string", "gsub");
  for (int level = 1; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Snf", &ar);
    lua_CFunction f = lua_tocfunction(L, -1);
    lua_pop(L, 1);
    if (f && (f == sort || f == gsub)) return false;
    if (ar.namewhat[0] == 'm' && ar.name &&
        (strcmp(ar.name, "gc") == 0 || strcmp(ar.name, "__gc") == 0))
      return false;
  }
  return true;
}

bool lph_can_wait(lua_State *L, lph_ctx *ctx) {
  if (L == ctx->service) return false;
  if (ctx->cur->proc && ctx->cur->proc->matching) return false;
  if (L != ctx->main) return lua_isyieldable(L);
  return !ctx->driving && ctx->cur == &ctx->main_task && main_may_wait(L);
}

/* ---- Beginning
 * ------------------------------------------------------------------------------------
 */

static void on_done(ph_waiter *w, int err, ph_msg *msg, ph_bytes *reason) {
  lph_task *t = (lph_task *)w;
  t->err = err;
  t->msg = msg;
  t->reason = ph_bytes_ref(reason);
  t->over = true;
  if (t->kind == LPH_T_PROC)
    ph_ready(t->proc->p);
  else if (t->kind == LPH_T_MAIN)
    lph_main_woken(t->ctx);
  else
    lph_go_on(t);
}

/* The next coroutine of the user's that waits gets this record. It is made before the wait begins
 * and becomes a part of it only when it yields: so raising in between leaks nothing. */
static lph_task *spare(lph_ctx *ctx, lua_State *L) {
  lph_task *t = ctx->spare;
  if (!t) {
    lua_pushboolean(L, 0);
    uint32_t slot = lph_slot_new(ctx, L);
    t = ph_zalloc(ctx->env, sizeof *t);
    if (!t) {
      lph_slot_drop(ctx, slot);
      luaL_error(L, "not enough memory");
    }
    t->ctx = ctx;
    t->slot = slot;
    t->kind = LPH_T_FOREIGN;
    ph_list_init(&t->list);
    ctx->spare = t;
  }
  t->L = L;
  t->self = ctx->cur->self;
  t->proc = ctx->cur->proc;
  return t;
}

lph_task *lph_wait_begin(lua_State *L, lph_ctx *ctx) {
  luaL_checkstack(L, 10, NULL);
  if (!lph_can_wait(L, ctx)) lph_cannot_wait(L);
  if (L == ctx->main) lph_main_check(ctx, L);
  lph_task *t = ctx->cur->L == L ? ctx->cur : spare(ctx, L);
  lph_wait_drop(t); /* what an error may have left */
  t->over = t->receiving = false;
  t->user = NULL;
  t->err = 0;
  ph_waiter_init(ctx->sys, &t->w, on_done);
  return t;
}

ph_waiter *lph_waiter(lph_task *t) {
  return &t->w;
}

void **lph_wait_user(lph_task *t) {
  return &t->user;
}

void lph_wait_drop(lph_task *t) {
  ph_wait_cancel(&t->w);
  lph_task_clear(t);
}

int lph_pause(lph_task *t) {
  lph_task_clear(t);
  t->over = t->receiving = false;
  ph_waiter_init(t->ctx->sys, &t->w, on_done);
  int rc = ph_wait(&t->w, 0);
  t->waits = rc == 0;
  return rc;
}

/* ---- Yielding and going on
 * ------------------------------------------------------------------------
 */

static int go_on(lua_State *L, int status, lua_KContext k) {
  lph_task *t = (lph_task *)k;
  (void)status;
  if (!t->over) return lua_yieldk(L, 0, k, go_on); /* a spurious turn */
  int n = t->k(L, LUA_OK, k);
  lph_task_clear(t);
  return n;
}

static int yield_waiting(lua_State *L, lph_task *t);

static int foreign_go_on(lua_State *L, int status, lua_KContext k) {
  lph_task *t = (lph_task *)k;
  (void)status;
  if (!t->over) { /* resumed by the user: it still waits */
    lua_rawgetp(L, LUA_REGISTRYINDEX, &lph_waiting_key);
    return lua_yieldk(L, 1, k, foreign_go_on);
  }
  int n = t->k(L, LUA_OK, k);
  lph_task_clear(t);
  return n;
}

static int yield_waiting(lua_State *L, lph_task *t) {
  lph_ctx *ctx = t->ctx;
  if (t == ctx->spare) {
    ctx->spare = NULL;
    lua_pushthread(L);
    lph_slot_set(ctx, L, t->slot);
    ph_list_push(t->proc ? &t->proc->foreign : &ctx->orphans, &t->list);
  }
  t->waits = true;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &lph_waiting_key);
  return lua_yieldk(L, 1, (lua_KContext)t, foreign_go_on);
}

static bool main_over(lph_ctx *ctx, void *arg) {
  (void)ctx;
  return ((lph_task *)arg)->over;
}

static int wait_in_main(lua_State *L, lph_task *t) {
  lph_ctx *ctx = t->ctx;
  t->waits = true;
  lph_drive(ctx, L, main_over, t);
  t->waits = false;
  if (!t->over) { /* the main chunk's process was ended */
    lph_wait_drop(t);
    lph_main_check(ctx, L);
  }
  int n = t->k(L, LUA_OK, (lua_KContext)t);
  lph_task_clear(t);
  return n;
}

int lph_wait(lua_State *L, lph_task *t, lua_KFunction k) {
  t->k = k;
  if (t->kind == LPH_T_MAIN) return wait_in_main(L, t);
  if (t->kind == LPH_T_FOREIGN) return yield_waiting(L, t);
  t->waits = true;
  return lua_yieldk(L, 0, (lua_KContext)t, go_on);
}

int lph_wait_result(lph_task *t, ph_msg **m, ph_bytes **reason) {
  if (m) *m = t->msg;
  if (reason) *reason = t->reason;
  return t->err;
}

int lph_wait_reply(lua_State *L, lph_task *t) {
  lph_ctx *ctx = t->ctx;
  if (t->err == 0 && t->msg) {
    int rc = lph_msg_push(ctx, L, t->msg, true);
    return rc < 0 ? lph_error(L, rc, NULL) : 1;
  }
  if (t->err == 0) {
    lua_pushnil(L);
    return 1;
  }
  lph_error(L, t->err, NULL);
  if (t->err == PH_EEXIT) {
    lph_unpack_bytes(ctx, L, t->reason);
    lua_setfield(L, -2, "reason");
  }
  return 2;
}

/* ---- Until the view is known
 * ------------------------------------------------------
 */

static int look_again(lua_State *L, lph_ctx *ctx, lua_KFunction k);

/* stack: ..., mark */
static int looked(lua_State *L, int status, lua_KContext kctx) {
  lph_task *t = (lph_task *)kctx;
  lph_ctx *ctx = t->ctx;
  lua_KFunction k = (lua_KFunction)t->user;
  (void)status;
  if (!ph_rt_handled(ctx->rt, (uint64_t)lua_tointeger(L, -1))) return look_again(L, ctx, k);
  lua_pop(L, 1);
  return k(L, LUA_OK, 0);
}

static int look_again(lua_State *L, lph_ctx *ctx, lua_KFunction k) {
  lph_task *t = lph_wait_begin(L, ctx);
  int rc = ph_wait(lph_waiter(t), 0);
  if (rc < 0) return lph_error(L, rc, NULL);
  t->user = (void *)k;
  return lph_wait(L, t, looked);
}

int lph_when_seen(lua_State *L, lph_ctx *ctx, const lph_dest *to, lua_KFunction k) {
  const ph_nodeent *e = to->node;
  if (to->remote && !to->name) e = ph_sys_node_at(ctx->sys, ph_id_node(to->pid));
  bool hidden = to->err || (to->remote && !(e && e->peer));
  uint64_t mark = hidden ? ph_rt_events(ctx->rt) : 0;
  if (!mark || !lph_can_wait(L, ctx)) return k(L, LUA_OK, 0);
  lua_pushinteger(L, (lua_Integer)mark);
  return look_again(L, ctx, k);
}

/* coroutines of the user's that waited in the name of a process that ends: never resumed again */
void lph_drop_foreign(ph_list *list) {
  for (ph_list *l; (l = ph_list_pop(list));) lph_task_put(PH_CONTAINER(l, lph_task, list), false);
}

/* ---- Driving the loop
 * -----------------------------------------------------------------------------
 */

void lph_drive(lph_ctx *ctx, lua_State *L, bool (*over)(lph_ctx *ctx, void *arg), void *arg) {
  ctx->driving = L;
  while (!lph_drive_ends(ctx) && (ctx->leaver || (!over(ctx, arg) && !ctx->main_ended))) {
    bool owes = !lph_futures_settle(ctx);
    ph_rt_step(ctx->rt, owes ? lph_due(ctx, OWED_MS) : PH_NEVER);
    lph_drive_turn(ctx);
  }
  ctx->driving = NULL;
  if (lph_drive_ends(ctx)) lph_os_exit(ctx, L, ctx->exit_code);
}

void lph_main_turn(lph_ctx *ctx, lua_State *L) {
  if (L != ctx->main || ctx->driving || ctx->cur != &ctx->main_task) return;
  if (ph_now(ctx->env) - ctx->looked < PH_MS(1) || !main_may_wait(L)) return;
  ctx->driving = L;
  (void)lph_futures_settle(ctx);
  ph_rt_step(ctx->rt, 0);
  lph_drive_turn(ctx);
  ctx->driving = NULL;
  ctx->looked = ph_now(ctx->env);
  if (lph_drive_ends(ctx)) lph_os_exit(ctx, L, ctx->exit_code);
}

void lph_main_woken(lph_ctx *ctx) {
  if (ctx->driving) ph_rt_wake(ctx->rt);
}

/* ---- Parking: what futures in Lua are made of
 * ------------------------------------------------------
 */

static int parked(lua_State *L, int status, lua_KContext k) {
  (void)status;
  lph_task *t = (lph_task *)k;
  lua_pushboolean(L, t->err == 0);
  lph_push_pid(L, t->w.obj.ref);
  return 2;
}

/* park(list, timeout): appends a ref to list and waits for wake(ref); true, or false on timeout,
 * and the ref */
static int core_park(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  uint64_t ms = lph_check_ms(L, 2, UINT64_MAX);
  lph_task *t = lph_wait_begin(L, ctx);
  lua_pushinteger(L, (lua_Integer)lua_rawlen(L, 1) + 1);
  lua_pushboolean(L, 0);
  lua_rawset(L, 1); /* room for the ref: setting it later cannot fail */
  int rc = ph_wait(lph_waiter(t), lph_due(ctx, ms));
  if (rc < 0) {
    lph_wait_drop(t);
    return lph_raise(L, rc, NULL);
  }
  lph_push_pid(L, t->w.obj.ref);
  lua_rawseti(L, 1, (lua_Integer)lua_rawlen(L, 1));
  return lph_wait(L, t, parked);
}

static int core_wake(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  ph_ref ref;
  ph_waiter *w = lph_to_ref(L, 1, &ref) ? ph_waiter_find(ctx->sys, ref) : NULL;
  if (w && w->done == on_done) ph_wake(w, 0, NULL);
  return 0;
}

/* can_wait(): false where waiting raises */
static int core_can_wait(lua_State *L) {
  lua_pushboolean(L, lph_can_wait(L, lph_get(L)));
  return 1;
}

static const luaL_Reg functions[] = {
    {"park", core_park}, {"wake", core_wake}, {"can_wait", core_can_wait}, {NULL, NULL}};

void lph_open_wait(lph_ctx *ctx, lua_State *L) {
  lph_setfuncs(ctx, L, functions);
}
