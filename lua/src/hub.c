/* Hubs as Lua sees them: objects, their start and end. */
#include <string.h>

#include "hub_int.h"
#include "proc/supervisor.h"

#define HUB "phub.hub"
enum { MAX_SECONDS = 1000000000 }; /* in ns it still fits 64 bits */

/* ---- Objects --------------------------------------------------------------------------------- */

lph_hub *lph_hub_to(lua_State *L, lph_ctx *ctx, int idx) {
  if (lua_type(L, idx) == LUA_TSTRING) {
    size_t n;
    const char *id = lua_tolstring(L, idx, &n);
    ph_hub *h = ph_node_hub(lph_node(ctx), id, n);
    return h ? ph_hub_user(h) : NULL;
  }
  lph_hub *hub = luaL_testudata(L, idx, HUB);
  return hub && hub->h ? hub : NULL;
}

lph_hub *lph_hub_arg(lua_State *L, lph_ctx *ctx, int arg) {
  lph_main_turn(ctx, L);
  lph_hub *hub = lph_hub_to(L, ctx, arg);
  if (!hub && lua_type(L, arg) != LUA_TSTRING && !luaL_testudata(L, arg, HUB))
    luaL_typeerror(L, arg, "hub or its id");
  return hub;
}

void lph_hub_push(lua_State *L, lph_hub *hub) {
  lph_slot_push(hub->ctx, L, hub->slot);
}

const char *lph_id_arg(lua_State *L, int arg, size_t *len) {
  luaL_checktype(L, arg, LUA_TSTRING); /* a number would do for luaL_checklstring */
  return lua_tolstring(L, arg, len);
}

void lph_field(lua_State *L, const char *key, const char *value) {
  if (!value) return;
  lua_pushstring(L, value);
  lua_setfield(L, -2, key);
}

int lph_refuse(lua_State *L, int err, const char *key, const char *message) {
  lua_pushnil(L);
  if (key)
    lph_push_error(L, err, "%s: %s: %s", ph_err_text(err), key, message);
  else
    lph_push_error(L, err, "%s: %s", ph_err_text(err), message);
  lph_field(L, "key", key);
  return 2;
}

int lph_resting(lph_ctx *ctx, lua_State *L, lua_CFunction fn) {
  bool runs = lua_gc(L, LUA_GCISRUNNING, 0);
  lph_pushfunction(ctx, L, fn);
  lua_insert(L, 1);
  if (runs) lua_gc(L, LUA_GCSTOP, 0);
  int rc = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
  if (runs) lua_gc(L, LUA_GCRESTART, 0);
  return rc == LUA_OK ? lua_gettop(L) : lua_error(L);
}

/* hub.hub_id, hub.pid, and the methods in upvalue 1 */
static int hub_index(lua_State *L) {
  lph_hub *hub = luaL_checkudata(L, 1, HUB);
  lua_settop(L, 2);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL || lua_type(L, 2) != LUA_TSTRING) return 1;
  const char *key = lua_tostring(L, 2);
  if (strcmp(key, "hub_id") == 0) {
    lua_pushlstring(L, hub->id, hub->id_len);
    return 1;
  }
  if (strcmp(key, "pid") == 0) {
    lph_push_pid(L, hub->h ? ph_hub_pid(hub->h) : hub->pid);
    return 1;
  }
  lua_pushnil(L);
  return 1;
}

static int hub_tostring(lua_State *L) {
  lph_hub *hub = luaL_checkudata(L, 1, HUB);
  lua_pushfstring(L, "phub.hub: %s%s", hub->id, hub->h ? "" : " (ended)");
  return 1;
}

/* An object that has ended, or any in lua_close: the hubs themselves go with the runtime, later. */
static int hub_gc(lua_State *L) {
  lph_hub *hub = luaL_checkudata(L, 1, HUB);
  lph_mails_drop(hub);
  ph_free(lph_env(hub->ctx), hub->waiting);
  hub->waiting = NULL;
  hub->waiting_count = 0;
  return 0;
}

/* ---- Start ----------------------------------------------------------------------------------- */

static uint64_t field_ms(lua_State *L, int idx, const char *key) {
  uint64_t ms = 0;
  lua_getfield(L, idx, key);
  if (lph_to_ms(L, -1, &ms)) luaL_error(L, "%s must be milliseconds", key);
  lua_pop(L, 1);
  return ms;
}

static uint32_t field_count(lua_State *L, int idx, const char *key) {
  lua_getfield(L, idx, key);
  lua_Integer n = luaL_checkinteger(L, -1);
  lua_pop(L, 1);
  return n < 0 ? 0 : n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

/* an interval of 0 would never let the loop rest */
static uint64_t at_least_one(uint64_t ms) {
  return ms ? ms : 1;
}

/* A table that Lua has checked and completed; the strings stay in it. */
static void read_config(lua_State *L, int idx, ph_hub_config *c) {
  size_t n;
  memset(c, 0, sizeof *c);
  lua_getfield(L, idx, "hub_id");
  c->hub_id = luaL_checklstring(L, -1, &c->hub_id_len);
  lua_getfield(L, idx, "strategies");
  c->strategies_text = luaL_checklstring(L, -1, &n);
  c->strategies = ph_hash(c->strategies_text, n, 0);
  lua_pop(L, 2);
  c->discover_interval = at_least_one(field_ms(L, idx, "hubs_discover_interval"));
  c->sync_interval = at_least_one(field_ms(L, idx, "sync_interval"));
  c->max_restarts = field_count(L, idx, "dsup_max_restarts");
  c->max_seconds = field_ms(L, idx, "dsup_max_seconds"); /* rounded up alike */
  if (c->max_seconds > MAX_SECONDS) c->max_seconds = MAX_SECONDS;
  lua_getfield(L, idx, "restart_all");
  c->restart_all = lua_toboolean(L, -1);
  lua_pop(L, 1);
  c->shutdown_timeout = field_ms(L, idx, "dsup_shutdown_timeout");
  c->max_concurrent_starts = field_count(L, idx, "max_concurrent_starts");
}

static void hub_ended(lph_hub *hub);

static lph_hub *new_object(lua_State *L, lph_ctx *ctx, const ph_hub_config *c) {
  lph_hub *hub = lua_newuserdatauv(L, sizeof *hub + c->hub_id_len + 1, 0);
  memset(hub, 0, sizeof *hub);
  hub->ctx = ctx;
  ph_list_init(&hub->starts);
  ph_list_init(&hub->mails);
  hub->id_len = c->hub_id_len;
  memcpy(hub->id, c->hub_id, c->hub_id_len);
  hub->id[hub->id_len] = '\0';
  luaL_setmetatable(L, HUB);
  lua_pushvalue(L, -1);
  hub->slot = lph_slot_new(ctx, L);
  return hub;
}

/* (list, hub) -> nothing, or nil, err */
static int propose(lua_State *L) {
  lph_hub *hub = lua_touserdata(L, 2);
  return lph_propose(hub->ctx, L, 1, hub->h);
}

/* Proposes the list at index 2. Number of results, nil and err; or -1 and the error to raise. A hub
 * that has begun is nobody's until the start has returned: it must not stay when that fails. */
static int start_children(lua_State *L, lph_hub *hub) {
  int top = lua_gettop(L);
  lua_pushcfunction(L, propose);
  lua_pushvalue(L, 2);
  lua_pushlightuserdata(L, hub);
  int status = lua_pcall(L, 2, LUA_MULTRET, 0), n = lua_gettop(L) - top;
  if (status == LUA_OK && n == 0) return 0;
  ph_hub_free(hub->h);
  hub_ended(hub);
  return status == LUA_OK ? n : -1;
}

/* hub_start(config, child_specs) -> hub or nil, err */
static int hub_start(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  ph_hub_config c;
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  read_config(L, 1, &c);
  int refused = lph_specs_check(ctx, L, 2);
  if (refused) return refused;
  lph_hub *hub = new_object(L, ctx, &c);
  int err = ph_hub_new(lph_node(ctx), &c, &hub->h);
  if (err) {
    lph_slot_drop(ctx, hub->slot);
    hub->h = NULL;
    if (err == PH_EALREADY) return lph_error(L, err, "a hub %s runs on this node", hub->id);
    return lph_error(L, err, NULL);
  }
  hub->pid = ph_hub_pid(hub->h);
  ph_hub_user_set(hub->h, hub);
  int object = lua_gettop(L);
  refused = start_children(L, hub);
  if (refused < 0) return lua_error(L);
  if (refused) return refused;
  lua_settop(L, object);
  return 1;
}

/* ---- End ------------------------------------------------------------------------------------- */

static int make_true(lua_State *L) {
  lua_pushboolean(L, true);
  return 1;
}

static void hub_ended(lph_hub *hub) {
  lph_ctx *ctx = hub->ctx;
  hub->h = NULL; /* its routes are answered, its children gone */
  lph_mails_drop(hub);
  if (lph_closing(ctx)) return;
  lph_children_forget(hub);
  uint32_t *waiting = hub->waiting, slot = hub->slot;
  size_t n = hub->waiting_count;
  hub->waiting = NULL;
  hub->waiting_count = 0;
  for (size_t i = 0; i < n; i++) lph_future_resolve(ctx, waiting[i], make_true, NULL);
  ph_free(lph_env(ctx), waiting);
  lph_slot_drop(ctx, slot);
}

static void stop_done(void *arg) {
  hub_ended(arg);
}

void lph_hub_leave(lph_hub *hub) {
  if (!ph_hub_stopping(hub->h)) ph_hub_stop(hub->h, stop_done, hub);
}

void lph_hub_kill(lph_hub *hub) {
  ph_hub_free(hub->h);
  hub_ended(hub);
}

/* a supervisor that has it as a child is not to start it again */
static void hold(lph_ctx *ctx, const lph_hub *hub) {
  ph_proc *p = ph_proc_find(lph_sys(ctx), ph_hub_pid(hub->h));
  ph_sup_child *c = p ? ph_sup_child_of(p) : NULL;
  if (c) ph_sup_hold(c);
}

/* hub_stop(hub[, for_good]) -> a future of its end, or nil, err */
static int hub_stop(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lph_hub *hub = lph_hub_arg(L, ctx, 1);
  bool for_good = lua_toboolean(L, 2);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  size_t n = hub->waiting_count;
  uint32_t *more = ph_realloc(lph_env(ctx), hub->waiting, (n + 1) * sizeof *more);
  if (!more) return lph_error(L, PH_ENOMEM, NULL);
  hub->waiting = more;
  more[n] = lph_future_new(ctx, L);
  hub->waiting_count = n + 1;
  if (for_good) hold(ctx, hub);
  lph_hub_leave(hub);
  return 1;
}

/* ---- Opening --------------------------------------------------------------------------------- */

/* another node has taken this one's place */
static void end_at_once(void *arg, ph_hub *h) {
  lph_hub *hub = ph_hub_user(h);
  hold(arg, hub);
  lph_hub_kill(hub);
}

void lph_hub_host(lph_ctx *ctx, ph_hub_host *out) {
  out->ctx = ctx;
  out->end = end_at_once;
  out->start = lph_child_start;
  out->abandon = lph_child_abandon;
}

/* fields given as errors to Lua code: refuse(code, key, message) -> nil, err */
static int refuse(lua_State *L) {
  lph_get(L);
  const char *code = luaL_checkstring(L, 1);
  const char *key = luaL_optstring(L, 2, NULL);
  return lph_refuse(L, ph_err_number(code), key, luaL_checkstring(L, 3));
}

static int is_hub(lua_State *L) {
  lua_pushboolean(L, luaL_testudata(L, 1, HUB) != NULL);
  return 1;
}

/* hubs() -> a list of the hubs of this node */
static int hubs(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lua_Integer n = 0;
  lua_newtable(L);
  for (ph_hub *h = NULL; (h = ph_node_hub_next(lph_node(ctx), h));) {
    lph_hub *hub = ph_hub_user(h);
    if (!hub) continue;
    lph_hub_push(L, hub);
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

static const luaL_Reg functions[] = {{"hub_start", hub_start}, {"hub_stop", hub_stop},
                                     {"hubs", hubs},           {"refuse", refuse},
                                     {"is_hub", is_hub},       {NULL, NULL}};

/* `hub_methods` in the module table: Lua adds what is written there. */
static void open_objects(lua_State *L) {
  lua_newtable(L);
  luaL_newmetatable(L, HUB);
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, hub_index, 1);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, hub_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pushcfunction(L, hub_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
  lua_setfield(L, -2, "hub_methods");
}

void lph_hub_open(lph_ctx *ctx, lua_State *L) {
  luaL_checkstack(L, 8, NULL);
  lph_op_open(L);
  lph_result_open(L);
  lph_msg_open(L);
  open_objects(L);
  lph_setfuncs(ctx, L, functions);
  lph_setfuncs(ctx, L, lph_op_functions);
  lph_read_open(ctx, L);
  lph_setfuncs(ctx, L, lph_list_functions);
  lph_setfuncs(ctx, L, lph_msg_functions);
}
