/* phub.node: the C side of phub/node.lua, which checks and completes the options. */
#include <string.h>

#include "lsched.h"
#include "net/tcp/loop.h"

static const char event_key = 0;

/* ---- start
 * ------------------------------------------------------------------------------------------- */

static uint64_t field_ms(lua_State *L, const char *key) {
  uint64_t ms = 0;
  lua_getfield(L, 1, key);
  if (lph_to_ms(L, -1, &ms) < 0) luaL_error(L, "%s must be milliseconds", key);
  lua_pop(L, 1);
  return ms;
}

static size_t field_size(lua_State *L, const char *key) {
  lua_getfield(L, 1, key);
  size_t n = (size_t)luaL_checkinteger(L, -1);
  lua_pop(L, 1);
  return n;
}

/* the string stays in the table at index 1; NULL when there is none */
static const char *field_text(lua_State *L, const char *key, size_t *n) {
  lua_getfield(L, 1, key);
  const char *s = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, n) : NULL;
  lua_pop(L, 1);
  return s;
}

/* node_start(config): name, listen, advertise, cookie, times, limits; all checked */
static int node_start(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  ph_cluster_config c = {0};
  size_t n;
  luaL_checktype(L, 1, LUA_TTABLE);
  c.name = field_text(L, "name", &n);
  c.listen = field_text(L, "listen", &n);
  c.advertise = field_text(L, "advertise", &n);
  c.cookie = field_text(L, "cookie", &c.cookie_len);
  c.heartbeat_interval = field_ms(L, "heartbeat_interval");
  c.heartbeat_timeout = field_ms(L, "heartbeat_timeout");
  c.stall_timeout = field_ms(L, "stall_timeout");
  c.handshake_timeout = field_ms(L, "handshake_timeout");
  c.max_message = field_size(L, "max_message");
  c.max_queue = field_size(L, "max_queue");
  c.max_unproven = (uint32_t)field_size(L, "max_unproven");
  if (!c.name || !c.listen) return luaL_error(L, "name and listen must be strings");
  if (!c.cookie) c.cookie = "";
  int rc = ph_rt_start(ctx->rt, &c);
  if (rc < 0) return lph_error(L, rc, NULL);
  ctx->max_message = c.max_message;
  ph_loop_time_slice(ph_rt_loop(ctx->rt), field_ms(L, "time_slice"));
  rc = lph_signals(ctx);
  if (rc < 0) {
    ph_rt_node_end(ctx->rt);
    return lph_error(L, rc, "signals cannot be handled: %s", ph_err_text(rc));
  }
  lua_pushboolean(L, 1);
  return 1;
}

static int node_started(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lua_pushboolean(L, ph_rt_started(ctx->rt));
  return 1;
}

/* Dials again and again; hubs wait for the outcome of the first try, but not long. */
static int node_join(lua_State *L) {
  enum { FIRST_MS = 2000 };
  lph_ctx *ctx = lph_get(L);
  const char *target = luaL_checkstring(L, 1);
  uint64_t request;
  int rc = ph_rt_join(ctx->rt, target);
  if (rc == 0) rc = ph_rt_connect(ctx->rt, target, FIRST_MS, &request);
  if (rc == 0) rc = ph_node_joining(ctx->node, request);
  if (rc < 0) return lph_error(L, rc, NULL);
  lua_pushboolean(L, 1);
  return 1;
}

/* ---- what there is
 * ---------------------------------------------------------------------------------------
 */

static int node_self(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  const ph_nodeent *e = ph_sys_node_at(ctx->sys, PH_SELF);
  lua_pushlstring(L, e->name, e->name_len);
  return 1;
}

static int node_address(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lua_pushstring(L, ph_rt_address(ctx->rt)); /* NULL: nil */
  return 1;
}

/* unsorted; Lua sorts */
static int node_list(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lph_main_turn(ctx, L);
  ph_index_iter it = {0};
  lua_Integer n = 0;
  lua_createtable(L, (int)ph_index_count(&ctx->sys->ups), 0);
  for (ph_nodeent *e; (e = ph_index_next(&ctx->sys->ups, &it));) {
    lua_pushlstring(L, e->name, e->name_len);
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

/* ---- connect
 * ------------------------------------------------------------------------------------------------
 */

static void on_connected(void *p, uint64_t request, int err, const char *name, size_t len) {
  lph_ctx *ctx = p;
  (void)name;
  (void)len;
  for (size_t i = 0; i < ctx->nconnects; i++) {
    if (ctx->connects[i].request != request) continue;
    ph_waiter *w = ph_waiter_find(ctx->sys, ctx->connects[i].ref);
    ctx->connects[i] = ctx->connects[--ctx->nconnects];
    if (w) ph_wake(w, err, NULL);
    return;
  }
}

static int room_for_connect(lph_ctx *ctx) {
  if (ctx->nconnects < ctx->connects_cap) return 0;
  size_t cap = ctx->connects_cap ? ctx->connects_cap * 2 : 8;
  void *grown = ph_realloc(ctx->env, ctx->connects, cap * sizeof *ctx->connects);
  if (!grown) return PH_ENOMEM;
  ctx->connects = grown;
  ctx->connects_cap = cap;
  return 0;
}

static int connected(lua_State *L, int status, lua_KContext k) {
  (void)status;
  lph_task *t = (lph_task *)k;
  if (t->err < 0) return lph_error(L, t->err, "%s: %s", lua_tostring(L, 1), ph_err_text(t->err));
  lua_pushboolean(L, 1);
  return 1;
}

/* node_connect(target, timeout): the cluster answers at the latest after the timeout */
static int node_connect(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  luaL_checktype(L, 1, LUA_TSTRING);
  const char *target = lua_tostring(L, 1);
  uint64_t request, ms = lph_check_ms(L, 2, 5000);
  lph_task *t = lph_wait_begin(L, ctx);
  int rc = room_for_connect(ctx);
  if (rc == 0) rc = ph_rt_connect(ctx->rt, target, ms, &request);
  if (rc == 0) rc = ph_wait(lph_waiter(t), PH_NEVER);
  if (rc < 0) {
    lph_wait_drop(t);
    return lph_error(L, rc, NULL);
  }
  ctx->connects[ctx->nconnects].request = request;
  ctx->connects[ctx->nconnects++].ref = t->w.obj.ref;
  return lph_wait(L, t, connected);
}

static int node_disconnect(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  int rc = ph_rt_disconnect(ctx->rt, luaL_checkstring(L, 1));
  if (rc < 0) return lph_error(L, rc, NULL);
  lua_pushboolean(L, 1);
  return 1;
}

/* ---- events
 * ---------------------------------------------------------------------------------------------------
 */

typedef struct event {
  const char *kind;
  const char *name;
  size_t n;
} event;

static int call_event(lua_State *L) {
  const event *e = lua_touserdata(L, 1);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &event_key) != LUA_TFUNCTION) return 0;
  lua_pushstring(L, e->kind);
  lua_pushlstring(L, e->name, e->n);
  lua_call(L, 2, 0);
  return 0;
}

static void on_node(void *p, bool up, const char *name, size_t n) {
  lph_ctx *ctx = p;
  event e = {up ? "nodeup" : "nodedown", name, n};
  if (ctx->closing) return;
  (void)lph_protected(ctx, call_event, &e); /* a failure is logged */
}

static void on_replaced(void *p, uint64_t incarnation) {
  lph_ctx *ctx = p;
  const ph_nodeent *self = ph_sys_node_at(ctx->sys, PH_SELF);
  event e = {"replaced", self->name, self->name_len};
  (void)incarnation;
  if (ctx->closing) return;
  (void)lph_protected(ctx, call_event, &e);
}

/* node_events(fn): fn(event, name) for each nodeup and nodedown, and "replaced" when another
 * process is known by this node's name, from the loop: it must not wait */
static int node_events(lua_State *L) {
  lph_get(L);
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &event_key);
  return 0;
}

/* ---- leave
 * -----------------------------------------------------------------------------------------------------
 */

static int node_leave(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  int rc = ph_rt_leave(ctx->rt);
  if (rc < 0) return lph_error(L, rc, NULL);
  lua_pushboolean(L, 1);
  return 1;
}

static int node_left(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lua_pushboolean(L, ph_rt_left(ctx->rt));
  return 1;
}

static int ended(lua_State *L, int status, lua_KContext k) {
  (void)status;
  (void)k;
  lua_pushboolean(L, 1);
  return 1;
}

/* Ends the cluster machine: outside the loop's step, so whoever asks waits for that. */
static int node_end(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lph_task *t = lph_wait_begin(L, ctx);
  int rc = ph_wait(lph_waiter(t), PH_NEVER);
  if (rc < 0) return lph_error(L, rc, NULL);
  ctx->end_node = true;
  ctx->end_waiter = t->w.obj.ref;
  lph_main_woken(ctx);
  if (!ctx->driving) ph_rt_wake(ctx->rt);
  return lph_wait(L, t, ended);
}

static const luaL_Reg functions[] = {{"node_start", node_start},
                                     {"node_started", node_started},
                                     {"node_join", node_join},
                                     {"node_self", node_self},
                                     {"node_address", node_address},
                                     {"node_list", node_list},
                                     {"node_connect", node_connect},
                                     {"node_disconnect", node_disconnect},
                                     {"node_events", node_events},
                                     {"node_leave", node_leave},
                                     {"node_left", node_left},
                                     {"node_end", node_end},
                                     {NULL, NULL}};

void lph_open_node(lph_ctx *ctx, lua_State *L) {
  lph_setfuncs(ctx, L, functions);
  ctx->node->on_node = on_node;
  ctx->node->on_node_ctx = ctx;
  ctx->node->on_replaced = on_replaced;
  ctx->node->on_replaced_ctx = ctx;
  ctx->node->on_connected = on_connected;
  ctx->node->on_connected_ctx = ctx;
}
