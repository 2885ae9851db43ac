/* What a hub knows: this node's registry, no network. */
#include <string.h>

#include "hub_int.h"

enum { MAX_INSTANCES = 1024 };

/* A row taken apart before anything is pushed: making Lua values may run the collector, and a
 * finaliser may change the hub. */
typedef struct entry {
  lph_ctx *ctx;
  ph_hub *h;
  const char *id; /* Lua's */
  size_t id_len;
  ph_spec *spec;
  ph_bytes *metadata;
  const char *waiting;
  bool with_metadata;
  size_t count;
  struct {
    ph_pid pid;
    const ph_nodeent *node;
  } at[MAX_INSTANCES];
} entry;

static void gather(ph_hub *h, const ph_row *r, entry *e) {
  e->count = 0;
  while (e->count < MAX_INSTANCES &&
         ph_row_instance(h, r, e->count, &e->at[e->count].pid, &e->at[e->count].node))
    e->count++;
}

static void push_instances(lua_State *L, const entry *e) {
  lua_createtable(L, 0, (int)e->count);
  for (size_t i = 0; i < e->count; i++) {
    lua_pushlstring(L, e->at[i].node->name, e->at[i].node->name_len);
    lph_push_pid(L, e->at[i].pid);
    lua_rawset(L, -3);
  }
}

/* the metadata of a row: its own table, {} for none [-0, +1] */
static void push_metadata(lph_ctx *ctx, lua_State *L, const ph_bytes *b) {
  if (b)
    lph_unpack_bytes(ctx, L, b);
  else
    lua_newtable(L);
}

static int push_nothing(lua_State *L) {
  lua_pushnil(L);
  return 1;
}

/* ---- One child ------------------------------------------------------------------------------- */

static int push_entry(lua_State *L) {
  const entry *e = lua_touserdata(L, 1);
  lph_spec_push(e->ctx, L, e->id, e->id_len, e->spec);
  push_instances(L, e);
  if (!e->with_metadata) return 2;
  push_metadata(e->ctx, L, e->metadata);
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

static int child_lookup(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  entry e;
  lph_hub *hub = lph_hub_arg(L, ctx, 1);
  e.id = lph_id_arg(L, 2, &e.id_len);
  int refused = flag_option(L, 3, "with_metadata", &e.with_metadata);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  if (refused) return refused;
  ph_row *r = lph_id_fits(e.id_len) ? ph_hub_find(hub->h, e.id, e.id_len) : NULL;
  if (!r) return push_nothing(L);
  ph_specs *specs = ph_hub_specs(hub->h);
  e.ctx = ctx;
  e.h = hub->h;
  e.spec = ph_spec_ref(ph_row_spec(r));
  e.metadata = e.with_metadata ? ph_bytes_ref(ph_row_metadata(r)) : NULL;
  e.waiting = e.with_metadata ? ph_row_waiting(hub->h, r) : NULL;
  gather(hub->h, r, &e);
  lua_settop(L, 2);
  lua_pushcfunction(L, push_entry);
  lua_pushlightuserdata(L, &e);
  int rc = lua_pcall(L, 1, LUA_MULTRET, 0);
  ph_bytes_unref(lph_env(ctx), e.metadata);
  ph_spec_unref(specs, e.spec);
  return rc == LUA_OK ? lua_gettop(L) - 2 : lua_error(L);
}

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
  entry e;
  lph_hub *hub = lph_hub_arg(L, ctx, 1);
  const char *id = lph_id_arg(L, 2, &n);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  ph_row *r = lph_id_fits(n) ? ph_hub_find(hub->h, id, n) : NULL;
  e.count = 0;
  if (r) gather(hub->h, r, &e);
  lua_createtable(L, (int)e.count, 0);
  for (size_t i = 0; i < e.count; i++) {
    lph_push_pid(L, e.at[i].pid);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

/* ---- All children ---------------------------------------------------------------------------- */

/* Stack of all of these: the hub's userdata at 1; they run while the collector rests. */

static lph_hub *walked(lua_State *L) {
  return lua_touserdata(L, 1);
}

static void push_id(lua_State *L, const ph_row *r) {
  size_t n;
  const char *id = ph_row_id(r, &n);
  lua_pushlstring(L, id, n);
}

static ph_row *next_row(ph_hub *h, ph_index_iter *it, ph_row *row, bool local) {
  return local ? ph_hub_next_local(h, row) : ph_hub_next(h, it);
}

static int walk_processes(lua_State *L) {
  ph_hub *h = walked(L)->h;
  bool local = lua_toboolean(L, 2);
  ph_index_iter it = {0};
  entry e;
  lua_createtable(L, 0, local ? 0 : (int)ph_hub_count(h));
  for (ph_row *r = NULL; (r = next_row(h, &it, r, local));) {
    push_id(L, r);
    if (local) {
      lph_push_pid(L, ph_row_pid(h, r));
    } else {
      gather(h, r, &e);
      push_instances(L, &e);
    }
    lua_rawset(L, -3);
  }
  return 1;
}

static int walk_registry(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  ph_hub *h = walked(L)->h;
  bool with_metadata = lua_toboolean(L, 2);
  ph_index_iter it = {0};
  entry e;
  lua_createtable(L, 0, (int)ph_hub_count(h));
  for (ph_row *r; (r = ph_hub_next(h, &it));) {
    size_t n;
    const char *id = ph_row_id(r, &n);
    lua_pushlstring(L, id, n);
    lua_createtable(L, 0, with_metadata ? 3 : 2);
    lph_spec_push(ctx, L, id, n, ph_row_spec(r));
    lua_setfield(L, -2, "spec");
    gather(h, r, &e);
    push_instances(L, &e);
    lua_setfield(L, -2, "instances");
    if (with_metadata) {
      push_metadata(ctx, L, ph_row_metadata(r));
      lua_setfield(L, -2, "metadata");
    }
    lua_rawset(L, -3);
  }
  return 1;
}

/* { id=, pid=, type=, modules= } [-0, +1] */
static void push_child(lph_ctx *ctx, lua_State *L, ph_hub *h, ph_row *r) {
  const ph_spec *s = ph_row_spec(r);
  lua_createtable(L, 0, 4);
  push_id(L, r);
  lua_setfield(L, -2, "id");
  lph_push_pid(L, ph_row_pid(h, r));
  lua_setfield(L, -2, "pid");
  lua_pushstring(L, s->supervisor ? "supervisor" : "worker");
  lua_setfield(L, -2, "type");
  lph_spec_push_modules(ctx, L, s);
  lua_setfield(L, -2, "modules");
}

static int walk_children(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  ph_hub *h = walked(L)->h;
  lua_Integer n = 0;
  lua_createtable(L, 0, 2);
  const ph_nodeent *self = lph_sys(ctx)->nodes[PH_SELF];
  lua_pushlstring(L, self->name, self->name_len);
  lua_setfield(L, -2, "node");
  lua_newtable(L);
  for (ph_row *r = NULL; (r = ph_hub_next_local(h, r));) {
    push_child(ctx, L, h, r);
    lua_rawseti(L, -2, ++n);
  }
  lua_setfield(L, -2, "children");
  return 1;
}

static int walk(lph_ctx *ctx, lua_State *L, lph_hub *hub, bool flag, lua_CFunction fn) {
  lua_settop(L, 0);
  lph_hub_push(L, hub);
  lua_pushboolean(L, flag);
  return lph_resting(ctx, L, fn);
}

static int scope(lua_State *L, int arg, const char *def) {
  static const char *const names[] = {"global", "local", NULL};
  return luaL_checkoption(L, arg, def, names);
}

static int process_list(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lph_hub *hub = lph_hub_arg(L, ctx, 1);
  bool local = scope(L, 2, "global") == 1;
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  return walk(ctx, L, hub, local, walk_processes);
}

static int registry_dump(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lph_hub *hub = lph_hub_arg(L, ctx, 1);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  return walk(ctx, L, hub, true, walk_registry);
}

static int process_registry(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lph_hub *hub = lph_hub_arg(L, ctx, 1);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  return walk(ctx, L, hub, false, walk_registry);
}

static int which_children(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lph_hub *hub = lph_hub_arg(L, ctx, 1);
  bool local = scope(L, 2, "local") == 1;
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  if (!local) return lph_error(L, PH_ENOTSUP, "which_children of other nodes is not supported yet");
  return walk(ctx, L, hub, false, walk_children);
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

const luaL_Reg lph_read_functions[] = {{"child_lookup", child_lookup},
                                       {"get_pid", get_pid},
                                       {"get_pids", get_pids},
                                       {"process_list", process_list},
                                       {"registry_dump", registry_dump},
                                       {"process_registry", process_registry},
                                       {"which_children", which_children},
                                       {"nodes", nodes},
                                       {"is_alive", is_alive},
                                       {"is_locked", is_locked},
                                       {"is_partitioned", is_partitioned},
                                       {NULL, NULL}};
