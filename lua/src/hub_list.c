/* What a hub knows of many children: this node's registry, no network but for surveys. */
#include <string.h>

#include "hub_int.h"

/* Stack of all that walk: the hub's userdata at 1; they run while the collector rests. */

static lph_hub *walked(lua_State *L) {
  return lua_touserdata(L, 1);
}

static void push_id(lua_State *L, const ph_row *r) {
  size_t n;
  const char *id = ph_row_id(r, &n);
  lua_pushlstring(L, id, n);
}

static void push_name(lua_State *L, const ph_nodeent *node) {
  lua_pushlstring(L, node->name, node->name_len);
}

static int walk(lph_ctx *ctx, lua_State *L, lph_hub *hub, lua_CFunction fn) {
  lph_hub_push(L, hub);
  lua_replace(L, 1);
  return lph_resting(ctx, L, fn);
}

static int scope(lua_State *L, int arg, const char *def) {
  static const char *const names[] = {"global", "local", NULL};
  return luaL_checkoption(L, arg, def, names);
}

/* { [node] = pid } [-0, +1] */
static void push_instances(lua_State *L, ph_hub *h, const ph_row *r) {
  lph_instances in;
  lph_instances_get(h, r, &in);
  lph_instances_push(L, &in);
}

/* ---- Processes ------------------------------------------------------------------------------- */

static int walk_global(lua_State *L) {
  ph_hub *h = walked(L)->h;
  ph_index_iter it = {0};
  lua_createtable(L, 0, (int)ph_hub_count(h));
  for (ph_row *r; (r = ph_hub_next(h, &it));) {
    push_id(L, r);
    push_instances(L, h, r);
    lua_rawset(L, -3);
  }
  return 1;
}

static int walk_local(lua_State *L) {
  ph_hub *h = walked(L)->h;
  lua_newtable(L);
  for (ph_row *r = NULL; (r = ph_hub_next_local(h, r));) {
    push_id(L, r);
    lph_push_pid(L, ph_row_pid(h, r));
    lua_rawset(L, -3);
  }
  return 1;
}

static int process_list(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lph_hub *hub = lph_hub_arg(L, ctx, 1);
  bool local = scope(L, 2, "global") == 1;
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  return walk(ctx, L, hub, local ? walk_local : walk_global);
}

/* the tag at 2 */
static int walk_tagged(lua_State *L) {
  ph_hub *h = walked(L)->h;
  size_t n;
  const char *tag = lua_tolstring(L, 2, &n);
  lua_createtable(L, 0, (int)ph_hub_tagged(h, tag, n));
  for (ph_row *r = NULL; (r = ph_hub_next_tagged(h, tag, n, r));) {
    push_id(L, r);
    push_instances(L, h, r);
    lua_rawset(L, -3);
  }
  return 1;
}

static int tag_query(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lph_hub *hub = lph_hub_arg(L, ctx, 1);
  luaL_checktype(L, 2, LUA_TSTRING);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  return walk(ctx, L, hub, walk_tagged);
}

/* ---- The whole registry ---------------------------------------------------------------------- */

static int dump(lua_State *L, bool with_metadata) {
  lph_ctx *ctx = lph_get(L);
  ph_hub *h = walked(L)->h;
  ph_index_iter it = {0};
  int keys = lua_gettop(L) + 1;
  lph_spec_push_keys(L);
  lua_createtable(L, 0, (int)ph_hub_count(h));
  for (ph_row *r; (r = ph_hub_next(h, &it));) {
    push_id(L, r);
    lua_createtable(L, 0, with_metadata ? 3 : 2);
    lua_pushvalue(L, -2);
    lph_spec_push(ctx, L, ph_row_spec(r), keys);
    lua_setfield(L, -2, "spec");
    push_instances(L, h, r);
    lua_setfield(L, -2, "instances");
    if (with_metadata) {
      lph_metadata_push(ctx, L, ph_row_metadata(r));
      lua_setfield(L, -2, "metadata");
    }
    lua_rawset(L, -3);
  }
  return 1;
}

static int walk_registry(lua_State *L) {
  return dump(L, true);
}

static int walk_plain_registry(lua_State *L) {
  return dump(L, false);
}

static int registry(lua_State *L, lua_CFunction fn) {
  lph_ctx *ctx = lph_get(L);
  lph_hub *hub = lph_hub_arg(L, ctx, 1);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  return walk(ctx, L, hub, fn);
}

static int registry_dump(lua_State *L) {
  return registry(L, walk_registry);
}

static int process_registry(lua_State *L) {
  return registry(L, walk_plain_registry);
}

/* ---- The children of one node ---------------------------------------------------------------- */

/* { id=, pid=, type=, modules= } [-0, +1] */
static void push_child(lph_ctx *ctx, lua_State *L, const ph_row *r, ph_pid pid) {
  const ph_spec *s = ph_row_spec(r);
  lua_createtable(L, 0, 4);
  push_id(L, r);
  lua_setfield(L, -2, "id");
  lph_push_pid(L, pid);
  lua_setfield(L, -2, "pid");
  lua_pushstring(L, s->supervisor ? "supervisor" : "worker");
  lua_setfield(L, -2, "type");
  lph_spec_push_modules(ctx, L, s);
  lua_setfield(L, -2, "modules");
}

/* the node's name at 2 */
static int walk_children(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  ph_hub *h = walked(L)->h;
  size_t len;
  const char *name = lua_tolstring(L, 2, &len);
  const ph_nodeent *node = ph_sys_node_named(lph_sys(ctx), name, len);
  lua_Integer n = 0;
  ph_pid pid;
  lua_newtable(L);
  for (ph_row *r = NULL; node && (r = ph_hub_next_on(h, node, r, &pid));) {
    push_child(ctx, L, r, pid);
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

/* children_on(hub, node) -> a list */
static int children_on(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lph_hub *hub = lph_hub_arg(L, ctx, 1);
  luaL_checktype(L, 2, LUA_TSTRING);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  return walk(ctx, L, hub, walk_children);
}

/* child_is_here(hub, id) -> does this node hold it: running, being started, or waiting? */
static int child_is_here(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lph_hub *hub = lph_hub_arg(L, ctx, 1);
  size_t n;
  const char *id = lph_id_arg(L, 2, &n);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  ph_row *r = lph_id_fits(n) ? ph_hub_find(hub->h, id, n) : NULL;
  lua_pushboolean(L, r && ph_row_is_here(r));
  return 1;
}

/* ---- Surveys --------------------------------------------------------------------------------- */

typedef struct asking {
  ph_survey survey;
  lph_ctx *ctx;
  uint32_t future;
} asking;

/* { { node=, error= } ... }, or nil, err */
static int make_answers(lua_State *L) {
  const ph_survey *s = lua_touserdata(L, 1);
  if (s->rows[0].err == PH_ENOTALIVE) return lph_error(L, PH_ENOTALIVE, NULL);
  lua_createtable(L, (int)s->count, 0);
  for (size_t i = 0; i < s->count; i++) {
    lua_createtable(L, 0, 2);
    push_name(L, s->rows[i].node);
    lua_setfield(L, -2, "node");
    if (s->rows[i].err) lph_field(L, "error", ph_err_code(s->rows[i].err));
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

static void surveyed(ph_survey *s) {
  asking *a = PH_CONTAINER(s, asking, survey);
  lph_ctx *ctx = a->ctx;
  if (!lph_closing(ctx)) lph_future_resolve(ctx, a->future, make_answers, s);
  ph_survey_end(s);
  ph_free(lph_env(ctx), a);
}

/* survey(hub, ms) -> a future of a list of { node=, error= }, one for each member, by name */
static int survey(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lph_hub *hub = lph_hub_arg(L, ctx, 1);
  uint64_t ms = lph_check_ms(L, 2, 0);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  uint32_t future = lph_future_new(ctx, L);
  asking *a = ph_zalloc(lph_env(ctx), sizeof *a);
  int err = PH_ENOMEM;
  if (a) {
    a->ctx = ctx;
    a->future = future;
    a->survey.done = surveyed;
    err = ph_hub_survey(hub->h, lph_due(ctx, ms), &a->survey);
  }
  if (!err) return 1;
  ph_free(lph_env(ctx), a);
  lph_future_drop(ctx, future);
  return lph_error(L, err, NULL);
}

const luaL_Reg lph_list_functions[] = {{"process_list", process_list},
                                       {"tag_query", tag_query},
                                       {"registry_dump", registry_dump},
                                       {"process_registry", process_registry},
                                       {"children_on", children_on},
                                       {"child_is_here", child_is_here},
                                       {"survey", survey},
                                       {NULL, NULL}};
