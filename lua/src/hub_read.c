/* What a hub knows of one child, and of itself: this node's registry, no network. */
#include <string.h>

#include "hub_int.h"

/* ---- Pieces of what is handed out ------------------------------------------------------------ */

void lph_instances_get(ph_hub *h, const ph_row *r, lph_instances *out) {
  out->count = 0;
  while (out->count < LPH_MAX_INSTANCES &&
         ph_row_instance(h, r, out->count, &out->at[out->count].pid, &out->at[out->count].node))
    out->count++;
}

void lph_instances_push(lua_State *L, const lph_instances *in) {
  lua_createtable(L, 0, (int)in->count);
  for (size_t i = 0; i < in->count; i++) {
    lua_pushlstring(L, in->at[i].node->name, in->at[i].node->name_len);
    lph_push_pid(L, in->at[i].pid);
    lua_rawset(L, -3);
  }
}

void lph_metadata_push(lph_ctx *ctx, lua_State *L, const ph_bytes *b) {
  if (b)
    lph_unpack_bytes(ctx, L, b);
  else
    lua_newtable(L);
}

static int push_nothing(lua_State *L) {
  lua_pushnil(L);
  return 1;
}

/* ---- child_lookup ---------------------------------------------------------------------------- */

/* A row taken apart before anything is pushed: making Lua values may run the collector, and a
 * finaliser may change the hub. */
typedef struct entry {
  lph_ctx *ctx;
  ph_spec *spec;
  ph_bytes *metadata;
  const char *waiting;
  bool with_metadata;
  lph_instances instances;
} entry;

/* The strings that every answer is made of are upvalues, so that none is looked up again. */
enum { UP_CTX = 1, UP_KEYS, UP_NAME = UP_KEYS + LPH_SPEC_FIELDS };

/* one instance: the name of its node is kept for the next answer [-0, +1] */
static void push_one(lua_State *L, ph_pid pid, const ph_nodeent *node) {
  size_t n = 0;
  const char *last = lua_tolstring(L, lua_upvalueindex(UP_NAME), &n);
  lua_createtable(L, 0, 1);
  if (last && n == node->name_len && memcmp(last, node->name, n) == 0) {
    lua_pushvalue(L, lua_upvalueindex(UP_NAME));
  } else {
    lua_pushlstring(L, node->name, node->name_len);
    lua_copy(L, -1, lua_upvalueindex(UP_NAME));
  }
  lph_push_pid(L, pid);
  lua_rawset(L, -3);
}

/* (id, entry) -> spec, instances[, metadata, waiting] */
static int push_entry(lua_State *L) {
  const entry *e = lua_touserdata(L, 2);
  lua_settop(L, 1);
  lph_spec_push(e->ctx, L, e->spec, lua_upvalueindex(UP_KEYS));
  if (e->instances.count == 1)
    push_one(L, e->instances.at[0].pid, e->instances.at[0].node);
  else
    lph_instances_push(L, &e->instances);
  if (!e->with_metadata) return 2;
  lph_metadata_push(e->ctx, L, e->metadata);
  lua_pushstring(L, e->waiting); /* nil when it does not wait */
  return 4;
}

/* The option `key` of the table at idx: 0, or 2 with nil, err pushed. Any other key is an error. */
static int flag_option(lua_State *L, int idx, const char *key, bool *out) {
  *out = false;
  if (lua_isnoneornil(L, idx)) return 0;
  luaL_checktype(L, idx, LUA_TTABLE);
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    if (strcmp(name, key) != 0) return lph_refuse(L, PH_EOPTION, name, "there is no such option");
    if (!lua_isboolean(L, -1)) return lph_refuse(L, PH_EOPTION, name, "a boolean expected");
    *out = lua_toboolean(L, -1);
  }
  return 0;
}

/* upvalue 2: push_entry */
static int child_lookup(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  entry e;
  size_t n;
  lph_hub *hub = lph_hub_arg(L, ctx, 1);
  const char *id = lph_id_arg(L, 2, &n);
  int refused = flag_option(L, 3, "with_metadata", &e.with_metadata);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  if (refused) return refused;
  ph_row *r = lph_id_fits(n) ? ph_hub_find(hub->h, id, n) : NULL;
  if (!r) return push_nothing(L);
  ph_specs *specs = ph_hub_specs(hub->h);
  e.ctx = ctx;
  e.spec = ph_spec_ref(ph_row_spec(r));
  e.metadata = e.with_metadata ? ph_bytes_ref(ph_row_metadata(r)) : NULL;
  e.waiting = e.with_metadata ? ph_row_waiting(hub->h, r) : NULL;
  lph_instances_get(hub->h, r, &e.instances);
  lua_settop(L, 2);
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 2);
  lua_pushlightuserdata(L, &e);
  int rc = lua_pcall(L, 2, LUA_MULTRET, 0);
  ph_bytes_unref(lph_env(ctx), e.metadata);
  ph_spec_unref(specs, e.spec);
  return rc == LUA_OK ? lua_gettop(L) - 1 : lua_error(L);
}

/* ---- Pids ------------------------------------------------------------------------------------ */

static int get_pid(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  size_t n;
  lph_hub *hub = lph_hub_arg(L, ctx, 1);
  const char *id = lph_id_arg(L, 2, &n);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  ph_row *r = lph_id_fits(n) ? ph_hub_find(hub->h, id, n) : NULL;
  lph_push_pid(L, r ? ph_row_pid(hub->h, r) : 0);
  return 1;
}

static int get_pids(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  size_t n;
  lph_instances in = {.count = 0};
  lph_hub *hub = lph_hub_arg(L, ctx, 1);
  const char *id = lph_id_arg(L, 2, &n);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  ph_row *r = lph_id_fits(n) ? ph_hub_find(hub->h, id, n) : NULL;
  if (r) lph_instances_get(hub->h, r, &in);
  lua_createtable(L, (int)in.count, 0);
  for (size_t i = 0; i < in.count; i++) {
    lph_push_pid(L, in.at[i].pid);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

/* ---- The hub itself -------------------------------------------------------------------------- */

static int nodes(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  bool include_local;
  lph_hub *hub = lph_hub_arg(L, ctx, 1);
  int refused = flag_option(L, 2, "include_local", &include_local);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  if (refused) return refused;
  const ph_nodeent *self = lph_sys(ctx)->nodes[PH_SELF], *m;
  lua_Integer n = 0;
  lua_newtable(L);
  for (size_t i = 0; (m = ph_hub_member(hub->h, i)); i++) {
    if (m == self && !include_local) continue;
    lua_pushlstring(L, m->name, m->name_len);
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

static int is_alive(lua_State *L) {
  lua_pushboolean(L, lph_hub_arg(L, lph_get(L), 1) != NULL);
  return 1;
}

static int is_locked(lua_State *L) {
  lph_hub *hub = lph_hub_arg(L, lph_get(L), 1);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  lua_pushboolean(L, ph_hub_locked(hub->h));
  return 1;
}

/* Under divergence, the one strategy there is, a hub never is. */
static int is_partitioned(lua_State *L) {
  lph_hub *hub = lph_hub_arg(L, lph_get(L), 1);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  lua_pushboolean(L, false);
  return 1;
}

static const luaL_Reg functions[] = {{"get_pid", get_pid},
                                     {"get_pids", get_pids},
                                     {"nodes", nodes},
                                     {"is_alive", is_alive},
                                     {"is_locked", is_locked},
                                     {"is_partitioned", is_partitioned},
                                     {NULL, NULL}};

void lph_read_open(lph_ctx *ctx, lua_State *L) {
  luaL_checkstack(L, LPH_SPEC_FIELDS + 6, NULL);
  lph_setfuncs(ctx, L, functions);
  lua_pushlightuserdata(L, ctx);
  lua_pushlightuserdata(L, ctx);
  lph_spec_push_keys(L);
  lua_pushnil(L);
  lua_pushcclosure(L, push_entry, LPH_SPEC_FIELDS + 2);
  lua_pushcclosure(L, child_lookup, 2);
  lua_setfield(L, -2, "child_lookup");
}
