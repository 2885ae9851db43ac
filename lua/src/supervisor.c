/* phub.supervisor: the machine of core/proc/supervisor.h with start functions in Lua.
 *
 * A child is one table in a slot: what lua/phub/supervisor.lua has made of its spec (id, fn or
 * module and func, args, restart, shutdown, type, modules), and at [1] the hub that runs for it. */
#include "starter.h"

#include <math.h>
#include <string.h>

#include "lsched.h"
#include "proc/supervisor.h"

typedef struct starting starting;

typedef struct sup_child { /* ph_sup_child.user */
  lph_ctx *ctx;
  uint32_t slot;
  lph_hub *hub; /* runs as the child; NULL: the child is a process */
  starting *starting;
} sup_child;

struct starting { /* a start function under way */
  lph_ctx *ctx;
  sup_child *child; /* NULL: nobody waits for it any more */
  ph_sup *sup;
  uint64_t token;
  lph_task *task;
};

/* ---- Start functions ------------------------------------------------------------------------- */

static int field(lua_State *L, int idx, const char *key) {
  lua_pushstring(L, key);
  return lua_rawget(L, idx);
}

/* the arguments of the table at idx, { n = , ... } [-0, +n] */
static int push_args(lua_State *L, int idx) {
  field(L, idx, "args");
  int list = lua_gettop(L);
  field(L, list, "n");
  int n = (int)lua_tointeger(L, -1);
  lua_pop(L, 1);
  luaL_checkstack(L, n + 1, "too many arguments");
  for (int i = 1; i <= n; i++) lua_rawgeti(L, list, i);
  lua_remove(L, list);
  return n;
}

static int prepare(lua_State *L) {
  starting *st = lua_touserdata(L, 1);
  lua_settop(L, 0);
  lph_slot_push(st->ctx, L, st->child->slot);
  if (field(L, 1, "fn") == LUA_TNIL) {
    size_t m, f;
    field(L, 1, "module");
    field(L, 1, "func");
    const char *module = lua_tolstring(L, -2, &m), *func = lua_tolstring(L, -1, &f);
    int err = lph_start_push(L, module, m, func, f);
    if (err) return lph_start_refuse(L, err);
  }
  return 1 + push_args(L, 1);
}

/* The hub is the child's own unless it is somebody's already: then the machine refuses it. */
static void take_hub(sup_child *sc, lua_State *L, lph_hub *hub) {
  ph_proc *p = ph_proc_find(lph_sys(sc->ctx), ph_hub_pid(hub->h));
  if (!p || p->on_exit) return;
  sc->hub = hub;
  lph_slot_push(sc->ctx, L, sc->slot);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, 1); /* the place is there: it cannot fail */
}

static void answer(starting *st, ph_pid pid, ph_bytes *reason) {
  sup_child *sc = st->child;
  ph_sup *sup = st->sup;
  uint64_t token = st->token;
  const ph_env *env = lph_env(st->ctx);
  ph_free(env, st);
  if (!sc) {
    ph_bytes_unref(env, reason);
    return;
  }
  sc->starting = NULL;
  ph_sup_started(sup, token, pid, reason);
}

static void started(lph_ctx *ctx, void *arg, lua_State *L, int status, int n) {
  starting *st = arg;
  lph_hub *hub;
  ph_bytes *reason;
  ph_pid pid = lph_start_result(ctx, L, status, n, &hub, &reason);
  if (hub && st->child) take_hub(st->child, L, hub);
  answer(st, pid, reason);
}

static void child_start(void *arg, ph_sup *sup, ph_sup_child *c, uint64_t token) {
  lph_ctx *ctx = arg;
  sup_child *sc = c->user;
  starting *st = lph_closing(ctx) ? NULL : ph_zalloc(lph_env(ctx), sizeof *st);
  if (!st) {
    ph_sup_started(sup, token, 0, NULL);
    return;
  }
  *st = (starting){.ctx = ctx, .child = sc, .sup = sup, .token = token};
  sc->starting = st;
  lph_task *task = NULL;
  int err = lph_start(ctx, ph_sup_proc(sup)->pid, prepare, st, started, &task);
  if (err)
    answer(st, 0, lph_start_reason(ctx, err));
  else if (task)
    st->task = task;
}

static void child_abandon(void *arg, ph_sup_child *c) {
  (void)arg;
  sup_child *sc = c->user;
  starting *st = sc->starting;
  if (!st) return; /* the scheduler has dropped it: the state is being closed */
  sc->starting = NULL;
  st->child = NULL;
  if (st->task) lph_start_abandon(st->task);
}

/* ---- Hubs as children ------------------------------------------------------------------------ */

static bool child_stop(void *arg, ph_sup_child *c) {
  sup_child *sc = c->user;
  if (lph_closing(arg) || !sc->hub || !sc->hub->h) return false;
  lph_hub_leave(sc->hub);
  return true;
}

/* A hub whose process was killed, or that has lost its supervisor, goes at once. */
static void child_release(void *arg, ph_sup_child *c) {
  lph_ctx *ctx = arg;
  sup_child *sc = c->user;
  lph_hub *hub = sc->hub;
  sc->hub = NULL;
  if (!hub || lph_closing(ctx)) return;
  if (hub->h) lph_hub_kill(hub);
  lua_State *L = ctx->service;
  if (!lua_checkstack(L, 3)) return; /* the object stays with the spec */
  lph_slot_push(ctx, L, sc->slot);
  lua_pushboolean(L, 0);
  lua_rawseti(L, -2, 1);
  lua_pop(L, 1);
}

static void child_drop(void *arg, void *user) {
  lph_ctx *ctx = arg;
  sup_child *sc = user;
  lph_slot_drop(ctx, sc->slot);
  ph_free(lph_env(ctx), sc);
}

/* ---- which_children, count_children ---------------------------------------------------------- */

typedef struct look {
  lph_ctx *ctx;
  ph_sup *sup;
  ph_sup_op op;
  ph_msg *reply;
} look;

static void push_child(lph_ctx *ctx, lua_State *L, const ph_sup_child *c) {
  const sup_child *sc = c->user;
  lua_createtable(L, 0, 4);
  lph_slot_push(ctx, L, sc->slot);
  int spec = lua_gettop(L);
  field(L, spec, "id");
  lua_setfield(L, spec - 1, "id");
  field(L, spec, "modules");
  lua_setfield(L, spec - 1, "modules");
  lua_pop(L, 1);
  lua_pushstring(L, c->supervisor ? "supervisor" : "worker");
  lua_setfield(L, -2, "type");
  if (c->restarting)
    lua_pushliteral(L, "restarting");
  else
    lph_push_pid(L, c->proc ? c->proc->pid : 0);
  lua_setfield(L, -2, "pid");
}

static void push_count(lua_State *L, const char *key, lua_Integer n) {
  lua_pushinteger(L, n);
  lua_setfield(L, -2, key);
}

/* (look): makes the reply, a copy in Lua's memory */
static int make_reply(lua_State *L) {
  look *k = lua_touserdata(L, 1);
  lua_Integer n = 0, active = 0, supervisors = 0;
  int err;
  luaL_checkstack(L, 10, NULL);
  lua_newtable(L);
  for (ph_sup_child *c = NULL; (c = ph_sup_next(k->sup, c)); n++) {
    active += c->proc != NULL;
    supervisors += c->supervisor;
    if (k->op == PH_SUP_COUNT) continue;
    push_child(k->ctx, L, c);
    lua_rawseti(L, -2, n + 1);
  }
  if (k->op == PH_SUP_COUNT) {
    push_count(L, "specs", n);
    push_count(L, "active", active);
    push_count(L, "supervisors", supervisors);
    push_count(L, "workers", n - supervisors);
  }
  char path[LPH_PATH] = "children";
  k->reply = lph_msg(k->ctx, L, lua_gettop(L), PH_C_REPLY, false, path, sizeof path, &err);
  return 0;
}

static void answer_look(void *arg, ph_sup *sup, ph_sup_op op, ph_pid from, ph_ref ref) {
  lph_ctx *ctx = arg;
  look k = {ctx, sup, op, NULL};
  int err = lph_closing(ctx) ? PH_ENOMEM : lph_protected(ctx, make_reply, &k);
  if (k.reply && err == 0 && ph_reply(lph_sys(ctx), from, ref, k.reply) == 0) return;
  ph_msg_free(lph_sys(ctx), k.reply);
  ph_waiter *w = ph_waiter_find(lph_sys(ctx), ref);
  if (w) ph_wake(w, PH_ENOMEM, NULL);
}

/* ---- Children from tables -------------------------------------------------------------------- */

static ph_restart restart_of(const char *name) {
  if (strcmp(name, "transient") == 0) return PH_RESTART_TRANSIENT;
  return strcmp(name, "temporary") == 0 ? PH_RESTART_TEMPORARY : PH_RESTART_PERMANENT;
}

static uint64_t shutdown_of(lua_State *L, int idx) {
  uint64_t ms = PH_SHUTDOWN_BRUTAL;
  if (lua_type(L, idx) == LUA_TNUMBER) {
    (void)!lph_to_ms(L, idx, &ms); /* Lua has checked it */
    return ms;
  }
  return strcmp(lua_tostring(L, idx), "infinity") == 0 ? PH_SHUTDOWN_INFINITY : ms;
}

/* The table at idx becomes a child: 0 or PH_ENOMEM; raises for the same. */
static int child_new(lph_ctx *ctx, lua_State *L, int idx, ph_sup *sup, ph_sup_child **out) {
  ph_sup_spec spec = {0};
  int top = lua_gettop(L);
  luaL_checkstack(L, 10, NULL);
  idx = lua_absindex(L, idx);
  field(L, idx, "id");
  spec.id = lua_tolstring(L, -1, &spec.id_len);
  field(L, idx, "restart");
  spec.restart = restart_of(lua_tostring(L, -1));
  field(L, idx, "type");
  spec.supervisor = strcmp(lua_tostring(L, -1), "supervisor") == 0;
  field(L, idx, "shutdown");
  spec.shutdown = shutdown_of(L, -1);
  lua_pushvalue(L, idx);
  uint32_t slot = lph_slot_new(ctx, L);
  sup_child *sc = ph_alloc(lph_env(ctx), sizeof *sc);
  int err = PH_ENOMEM;
  if (sc) {
    *sc = (sup_child){.ctx = ctx, .slot = slot};
    spec.user = sc;
    err = ph_sup_child_new(sup, &spec, out);
  }
  if (err) {
    lph_slot_drop(ctx, slot);
    ph_free(lph_env(ctx), sc);
  }
  lua_settop(L, top);
  return err;
}

/* ---- start_link ------------------------------------------------------------------------------ */

static ph_sup_strategy strategy_of(const char *name) {
  if (strcmp(name, "one_for_all") == 0) return PH_ONE_FOR_ALL;
  return strcmp(name, "rest_for_one") == 0 ? PH_REST_FOR_ONE : PH_ONE_FOR_ONE;
}

static void read_config(lua_State *L, int idx, ph_sup_config *c) {
  field(L, idx, "strategy");
  c->strategy = strategy_of(luaL_checkstring(L, -1));
  field(L, idx, "max_restarts");
  c->max_restarts = (uint32_t)luaL_checkinteger(L, -1);
  field(L, idx, "max_seconds");
  double ns = ceil(luaL_checknumber(L, -1) * 1e9);
  c->period = ns >= 9e18 ? PH_NEVER : (uint64_t)ns;
  lua_pop(L, 3);
}

/* (supervisor, list): adds the children; may raise */
static int add_children(lua_State *L) {
  ph_sup *sup = lua_touserdata(L, 1);
  lph_ctx *ctx = lua_touserdata(L, 2);
  size_t n = lua_rawlen(L, 3);
  int err = 0;
  for (size_t i = 1; i <= n && !err; i++) {
    ph_sup_child *c;
    lua_rawgeti(L, 3, (lua_Integer)i);
    err = child_new(ctx, L, -1, sup, &c);
    if (!err && (err = ph_sup_add(sup, c))) ph_sup_child_free(c);
    lua_pop(L, 1);
  }
  lua_pushinteger(L, err);
  return 1;
}

/* the children of the list at idx: 0 or an error; never raises */
static int populate(lph_ctx *ctx, lua_State *L, int idx, ph_sup *sup) {
  lua_pushcfunction(L, add_children);
  lua_pushlightuserdata(L, sup);
  lua_pushlightuserdata(L, ctx);
  lua_pushvalue(L, idx);
  int err = lua_pcall(L, 3, 1, 0) == LUA_OK ? (int)lua_tointeger(L, -1) : PH_ENOMEM;
  lua_pop(L, 1);
  return err;
}

/* what a supervisor answered [-0, +1 or 2] */
static int push_answer(lua_State *L, lph_ctx *ctx, const ph_msg *m, bool gives_pid) {
  ph_sup_answer a;
  ph_reader r;
  ph_sup_answer_read(m, &a);
  if (a.err == 0) {
    if (gives_pid)
      lph_push_pid(L, a.pid);
    else
      lua_pushboolean(L, 1);
    return 1;
  }
  if (a.err != PH_ESTARTFAILED) {
    lph_error(L, a.err, NULL);
    if (a.pid) {
      lph_push_pid(L, a.pid);
      lua_setfield(L, -2, "pid");
    }
    return 2;
  }
  lph_error(L, a.err, "child %.*s did not start", (int)a.id_len, a.id);
  lua_pushlstring(L, a.id, a.id_len);
  lua_setfield(L, -2, "id");
  ph_reader_init(&r, a.reason, a.reason_len);
  if (lph_unpack(ctx, L, &r) == 0) lua_setfield(L, -2, "reason");
  return 2;
}

static int answered(lua_State *L, int status, lua_KContext k) {
  (void)status;
  lph_task *t = (lph_task *)k;
  ph_msg *m;
  ph_sup_op op = (ph_sup_op)(uintptr_t)*lph_wait_user(t);
  int err = lph_wait_result(t, &m, NULL);
  if (err || op == PH_SUP_WHICH || op == PH_SUP_COUNT) return lph_wait_reply(L, t);
  bool gives_pid = op == PH_SUP_INIT || op == PH_SUP_ADD || op == PH_SUP_RESTART;
  return push_answer(L, t->ctx, m, gives_pid);
}

/* sup_start(config, children) -> pid or nil, err */
static int sup_start(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  ph_sup_config cfg;
  ph_sup *sup;
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checktype(L, 2, LUA_TTABLE);
  read_config(L, 1, &cfg);
  ph_sup_host host = {.ctx = ctx,
                      .start = child_start,
                      .abandon = child_abandon,
                      .stop = child_stop,
                      .release = child_release,
                      .drop = child_drop,
                      .look = answer_look};
  luaL_checkstack(L, 10, NULL);
  lph_task *t = lph_wait_begin(L, ctx);
  int err = ph_sup_new(ctx->sys, &cfg, &host, lph_self(ctx), &sup);
  if (err) return lph_error(L, err, NULL);
  ph_proc *p = ph_sup_proc(sup);
  /* the main chunk's process stands for the OS process: it is linked to nothing by a start */
  ph_proc *self = ctx->cur->proc == &ctx->main_proc ? NULL : ph_proc_find(ctx->sys, lph_self(ctx));
  err = populate(ctx, L, 2, sup);
  if (!err && self) err = ph_link_procs(p, self->pid);
  if (!err) err = ph_sup_ask(sup, lph_self(ctx), PH_SUP_INIT, NULL, 0, NULL, lph_waiter(t));
  if (err) {
    if (self) ph_unlink(p, self->pid);
    ph_exit(p, ph_reason_get(ctx->sys, PH_REASON_KILLED));
    return lph_error(L, err, NULL);
  }
  *lph_wait_user(t) = (void *)(uintptr_t)PH_SUP_INIT;
  return lph_wait(L, t, answered);
}

/* ---- Requests -------------------------------------------------------------------------------- */

/* The supervisor at index 1; NULL: nil, err are on the stack. Raises for what is no destination. */
static ph_sup *sup_arg(lua_State *L, lph_ctx *ctx) {
  lph_dest to;
  lph_check_dest(ctx, L, 1, &to);
  ph_pid pid = to.pid;
  if (to.err) {
    lph_error(L, to.err, NULL);
    return NULL;
  }
  if (to.remote) {
    lph_error(L, PH_ENOTSUP, "a supervisor of another node");
    return NULL;
  }
  if (to.name) pid = ph_whereis(ctx->sys, to.name, to.len);
  ph_sup *sup = ph_sup_find(ctx->sys, pid);
  if (sup && pid == lph_self(ctx))
    lph_raise(L, PH_ECANNOTWAIT, "a start function cannot wait for its own supervisor");
  if (sup) return sup;
  if (ph_proc_find(ctx->sys, pid))
    lph_error(L, PH_EINVAL, "this process is no supervisor");
  else
    lph_error(L, PH_ENOPROC, NULL);
  return NULL;
}

static int request(lua_State *L, ph_sup_op op) {
  lph_ctx *ctx = lph_get(L);
  size_t n = 0;
  const char *id = NULL;
  bool by_id = op == PH_SUP_TERMINATE || op == PH_SUP_RESTART || op == PH_SUP_DELETE;
  ph_sup *sup = sup_arg(L, ctx);
  if (by_id) id = lph_id_arg(L, 2, &n);
  if (!sup) return 2;
  ph_sup_child *c = NULL;
  lph_task *t = lph_wait_begin(L, ctx);
  int err = op == PH_SUP_ADD ? child_new(ctx, L, 2, sup, &c) : 0;
  if (!err) err = ph_sup_ask(sup, lph_self(ctx), op, id, n, c, lph_waiter(t));
  if (err) {
    if (c) ph_sup_child_free(c);
    return lph_error(L, err, NULL);
  }
  *lph_wait_user(t) = (void *)(uintptr_t)op;
  return lph_wait(L, t, answered);
}

/* sup_start_child(supervisor, child): a table as Lua has made it */
static int sup_start_child(lua_State *L) {
  luaL_checktype(L, 2, LUA_TTABLE);
  return request(L, PH_SUP_ADD);
}

static int sup_terminate_child(lua_State *L) {
  return request(L, PH_SUP_TERMINATE);
}

static int sup_restart_child(lua_State *L) {
  return request(L, PH_SUP_RESTART);
}

static int sup_delete_child(lua_State *L) {
  return request(L, PH_SUP_DELETE);
}

static int sup_which_children(lua_State *L) {
  return request(L, PH_SUP_WHICH);
}

static int sup_count_children(lua_State *L) {
  return request(L, PH_SUP_COUNT);
}

/* start_module(name): may start functions of children be in it? */
static int start_module(lua_State *L) {
  size_t n;
  const char *name = luaL_checklstring(L, 1, &n);
  lua_pushboolean(L, !lph_module_forbidden(name, n));
  return 1;
}

static const luaL_Reg functions[] = {{"sup_start", sup_start},
                                     {"sup_start_child", sup_start_child},
                                     {"sup_terminate_child", sup_terminate_child},
                                     {"sup_restart_child", sup_restart_child},
                                     {"sup_delete_child", sup_delete_child},
                                     {"sup_which_children", sup_which_children},
                                     {"sup_count_children", sup_count_children},
                                     {"start_module", start_module},
                                     {NULL, NULL}};

void lph_open_supervisor(lph_ctx *ctx, lua_State *L) {
  lph_setfuncs(ctx, L, functions);
}
