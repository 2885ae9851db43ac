/* Starts and stops: operations, from the call to the answer. */
#include <string.h>

#include "hub_int.h"

/* ---- What a call holds until it is over -------------------------------------------------------
 */

#define GUARD "phub.op_guard"
typedef struct guard { /* a userdata: an error raised halfway frees it all */
  lph_ctx *ctx;
  ph_op *op;
  ph_bytes *metadata;
  ph_buf scratch;
  ph_buf lost; /* ids that no child can have, as packed strings */
  size_t lost_count;
} guard;

static void guard_release(guard *g) {
  if (g->op) ph_op_free(g->op);
  g->op = NULL;
  ph_bytes_unref(lph_env(g->ctx), g->metadata);
  g->metadata = NULL;
  ph_buf_deinit(&g->scratch);
  ph_buf_deinit(&g->lost);
}

static int guard_gc(lua_State *L) {
  guard_release(lua_touserdata(L, 1));
  return 0;
}

static guard *guard_new(lua_State *L, lph_ctx *ctx) {
  guard *g = lua_newuserdatauv(L, sizeof *g, 0);
  memset(g, 0, sizeof *g);
  g->ctx = ctx;
  ph_buf_init(&g->scratch, lph_env(ctx));
  ph_buf_init(&g->lost, lph_env(ctx));
  luaL_setmetatable(L, GUARD);
  return g;
}

void lph_op_open(lua_State *L) {
  luaL_newmetatable(L, GUARD);
  lua_pushcfunction(L, guard_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}

/* ---- An operation under way -------------------------------------------------------------------
 */

typedef struct flight {
  lph_ctx *ctx;
  ph_op_kind kind;
  uint32_t future; /* 0: nobody wants to know */
  int form;
  bool quiet, redistribution;
  ph_buf lost;
  size_t lost_count;
  ph_waiter waiter; /* of one that asks no hub */
  char hub_id[128];
} flight;

static void flight_free(flight *f) {
  ph_buf_deinit(&f->lost);
  ph_free(lph_env(f->ctx), f);
}

static void finish(flight *f, const ph_op *op) {
  lph_ctx *ctx = f->ctx;
  if (!lph_closing(ctx)) {
    lph_result *r = lph_result_new(ctx, f->kind, op, &f->lost, f->lost_count);
    if (r && f->redistribution) lph_result_allow_running(ctx, r);
    if (!f->future && !f->quiet && r && lph_result_errors(r) > 0) lph_result_log(ctx, r, f->hub_id);
    if (f->future)
      lph_result_resolve(ctx, f->future, r, f->form);
    else
      lph_result_free(ctx, r);
  }
  flight_free(f);
}

static void op_done(void *arg, ph_op *op) {
  finish(arg, op);
  ph_op_free(op);
}

static void nothing_done(ph_waiter *w, int err, ph_msg *m, ph_bytes *reason) {
  (void)err, (void)m, (void)reason;
  finish(PH_CONTAINER(w, flight, waiter), NULL);
}

static flight *flight_new(lph_ctx *ctx, lph_hub *hub, ph_op_kind kind, const lph_options *o,
                          bool single) {
  flight *f = ph_zalloc(lph_env(ctx), sizeof *f);
  if (!f) return NULL;
  f->ctx = ctx;
  f->kind = kind;
  f->form = !o->formatted ? LPH_AS_RESULT : single ? LPH_AS_ENTRY : LPH_AS_LIST;
  f->quiet = o->quiet;
  ph_buf_init(&f->lost, lph_env(ctx));
  snprintf(f->hub_id, sizeof f->hub_id, "%s", hub->id);
  return f;
}

/* err.children: the ids that run already, in the order asked [-0, +2] */
static int refuse_already(lua_State *L, const ph_op *op) {
  lua_Integer at = 0;
  lua_pushnil(L);
  lph_push_error(L, PH_EALREADY, "some of these children are started already");
  lua_newtable(L);
  for (size_t i = 0; i < ph_op_count(op); i++) {
    ph_op_row row;
    ph_op_row_get(op, i, &row);
    if (row.status != PH_ROW_ERROR) continue;
    lua_pushlstring(L, row.id, row.id_len);
    lua_rawseti(L, -2, ++at);
  }
  lua_setfield(L, -2, "children");
  return 2;
}

static int refuse_submit(lua_State *L, lph_hub *hub, const ph_op *op, int err) {
  const char *why = NULL;
  if (err == PH_EALREADY) return refuse_already(L, op);
  if (err == PH_EMISMATCH && hub->h) (void)!ph_hub_state(hub->h, &why);
  return why ? lph_error(L, err, "%s", why) : lph_error(L, err, NULL);
}

static int begin(flight *f, guard *g, const lph_options *o) {
  if (ph_op_count(g->op) > 0 || g->lost_count == 0) return ph_op_submit(g->op, &o->op, op_done, f);
  ph_waiter_init(lph_sys(f->ctx), &f->waiter, nothing_done);
  int err = ph_wait(&f->waiter, PH_NEVER);
  if (!err) ph_wake(&f->waiter, 0, NULL);
  return err;
}

typedef enum form { ONE_START, STARTS, ONE_STOP, STOPS, REDISTRIBUTION } form;

/* Hands the op to the hub; the function's results. */
static int submit(lua_State *L, lph_hub *hub, guard *g, const lph_options *o, form what) {
  static const char *const initiated[] = {"start_initiated", "start_initiated", "stop_initiated",
                                          "stop_initiated", "redistribution_initiated"};
  lph_ctx *ctx = g->ctx;
  uint32_t future = 0;
  if (o->awaitable || o->formatted)
    future = lph_future_new(ctx, L);
  else
    lua_pushstring(L, initiated[what]);
  flight *f = flight_new(ctx, hub, what == ONE_STOP || what == STOPS ? PH_OP_STOP : PH_OP_START, o,
                         what == ONE_START || what == ONE_STOP);
  if (f) {
    f->redistribution = what == REDISTRIBUTION;
    f->future = future;
    ph_buf_swap(&f->lost, &g->lost);
    f->lost_count = g->lost_count;
  }
  int err = f ? begin(f, g, o) : PH_ENOMEM;
  if (err) {
    lph_future_drop(ctx, future);
    if (f) flight_free(f);
    int n = refuse_submit(L, hub, g->op, err);
    guard_release(g);
    return n;
  }
  if (ph_op_count(g->op) > 0 || g->lost_count == 0) g->op = NULL; /* op_done frees it */
  guard_release(g);
  return 1;
}

/* ---- Starts -----------------------------------------------------------------------------------
 */

enum { A_HUB = 1, A_WHAT, A_OPTIONS, A_GUARD, A_SLOT };

/* the table at idx as g->metadata; else 2 results */
static int pack_metadata(lua_State *L, guard *g, int idx) {
  char path[LPH_PATH] = "metadata";
  ph_buf_reset(&g->scratch);
  int err = lph_pack(g->ctx, L, idx, &g->scratch, path, sizeof path);
  if (!err) {
    g->metadata = ph_bytes_new(lph_env(g->ctx), ph_buf_at(&g->scratch), ph_buf_size(&g->scratch));
    if (!g->metadata) err = PH_ENOMEM;
  }
  if (!err) return 0;
  return lph_refuse(L, err, "metadata", err == PH_ENOMEM ? ph_err_text(err) : path);
}

static int add_children(lua_State *L, lph_hub *hub, guard *g, size_t n, bool single) {
  ph_specs *specs = ph_hub_specs(hub->h);
  return single ? lph_specs_add_one(g->ctx, L, A_WHAT, specs, g->op, g->metadata, &g->scratch)
                : lph_specs_add(g->ctx, L, A_WHAT, n, specs, g->op, g->metadata, &g->scratch);
}

static void check_types(lua_State *L, bool table) {
  if (table) luaL_checktype(L, A_WHAT, LUA_TTABLE);
  if (!lua_isnoneornil(L, A_OPTIONS)) luaL_checktype(L, A_OPTIONS, LUA_TTABLE);
  lua_settop(L, A_OPTIONS);
}

static int start(lua_State *L, bool single) {
  lph_ctx *ctx = lph_get(L);
  lph_options o;
  size_t n = 1;
  lph_hub *hub = lph_hub_arg(L, ctx, A_HUB);
  check_types(L, true);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  if (!single) {
    int err = lph_list_length(L, A_WHAT, &n);
    if (err) return lph_error(L, err, NULL);
  }
  guard *g = guard_new(L, ctx);
  lua_settop(L, A_SLOT);
  lph_options_read(L, A_OPTIONS, A_SLOT, PH_OP_START, &o);
  g->op = ph_op_new(hub->h, PH_OP_START, n);
  if (!g->op) return lph_error(L, PH_ENOMEM, NULL);
  int meta_refused = 0; /* said after what is wrong with the children */
  if (o.metadata && !o.err) meta_refused = pack_metadata(L, g, o.metadata);
  int refused = add_children(L, hub, g, n, single);
  if (!refused && meta_refused) {
    lua_settop(L, A_SLOT + meta_refused);
    refused = meta_refused;
  }
  if (!refused && o.err) refused = lph_refuse(L, o.err, o.key, o.message);
  if (refused) {
    guard_release(g);
    return refused;
  }
  return submit(L, hub, g, &o, single ? ONE_START : STARTS);
}

static int start_child(lua_State *L) {
  return start(L, true);
}

static int start_children(lua_State *L) {
  return start(L, false);
}

/* ---- Redistribution: { spec=, metadata= } ... ------------------------------------------------ */

enum { R_HUB = 1, R_NODE, R_WHAT, R_OPTIONS, R_GUARD, R_SLOT, R_ENTRY };

static int refuse_entry(lua_State *L, size_t index, const char *key, const char *message) {
  int n = lph_refuse(L, PH_ESPEC, key, message);
  lua_pushinteger(L, (lua_Integer)index);
  lua_setfield(L, -2, "index");
  return n;
}

/* no other field than these */
static const char *stranger(lua_State *L) {
  for (lua_pushnil(L); lua_next(L, R_ENTRY); lua_pop(L, 1)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    if (strcmp(key, "spec") != 0 && strcmp(key, "metadata") != 0) return key;
  }
  return NULL;
}

/* The metadata of the entry, else that of all: in g->metadata. 0, or 2 results. */
static int entry_metadata(lua_State *L, guard *g, const lph_options *o, size_t index) {
  const char *key;
  ph_bytes_unref(lph_env(g->ctx), g->metadata);
  g->metadata = NULL;
  lua_pushliteral(L, "metadata");
  if (lua_rawget(L, R_ENTRY) == LUA_TNIL)
    return o->metadata && !o->err ? pack_metadata(L, g, o->metadata) : 0;
  const char *message = lph_metadata_wrong(L, -1, &key);
  if (message) return refuse_entry(L, index, key, message);
  lua_pushnil(L);
  if (!lua_next(L, -2)) return 0; /* {} */
  lua_pop(L, 2);
  int refused = pack_metadata(L, g, lua_gettop(L));
  if (!refused) return 0;
  lua_pushinteger(L, (lua_Integer)index);
  lua_setfield(L, -2, "index");
  return refused;
}

static int add_entry(lua_State *L, lph_hub *hub, guard *g, const lph_options *o, size_t index) {
  lua_settop(L, R_SLOT);
  if (lua_rawgeti(L, R_WHAT, (lua_Integer)index) != LUA_TTABLE)
    return refuse_entry(L, index, NULL, "{ spec =, metadata = } expected");
  const char *key = stranger(L);
  if (key) return refuse_entry(L, index, key, "there is no such field");
  int refused = entry_metadata(L, g, o, index);
  if (refused) return refused;
  lua_settop(L, R_ENTRY);
  lua_pushliteral(L, "spec");
  lua_rawget(L, R_ENTRY);
  return lph_specs_add_at(g->ctx, L, ph_hub_specs(hub->h), g->op, g->metadata, &g->scratch, index);
}

/* children_redist(hub, node, children_data, options). Whatever node is named, the distribution
 * strategy says where a child goes; the requests travel by themselves. */
static int children_redist(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lph_options o;
  size_t n, len;
  lph_hub *hub = lph_hub_arg(L, ctx, R_HUB);
  (void)lph_id_arg(L, R_NODE, &len);
  luaL_checktype(L, R_WHAT, LUA_TTABLE);
  if (!lua_isnoneornil(L, R_OPTIONS)) luaL_checktype(L, R_OPTIONS, LUA_TTABLE);
  lua_settop(L, R_OPTIONS);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  int err = lph_list_length(L, R_WHAT, &n);
  if (err == PH_ENOTLIST) return lph_error(L, err, NULL);
  guard *g = guard_new(L, ctx);
  lua_settop(L, R_SLOT);
  lph_options_read(L, R_OPTIONS, R_SLOT, PH_OP_START, &o);
  o.op.check_existing = false; /* what runs already is where it should be */
  if (n == 0 && !o.err) {
    lua_pushliteral(L, "no_children_to_redistribute");
    return 1;
  }
  g->op = ph_op_new(hub->h, PH_OP_START, n);
  if (!g->op) return lph_error(L, PH_ENOMEM, NULL);
  int refused = 0;
  for (size_t i = 1; i <= n && !refused; i++) refused = add_entry(L, hub, g, &o, i);
  if (!refused && o.err) refused = lph_refuse(L, o.err, o.key, o.message);
  if (refused) {
    guard_release(g);
    return refused;
  }
  return submit(L, hub, g, &o, REDISTRIBUTION);
}

/* ---- Static children ------------------------------------------------------------------------- */

int lph_propose(lph_ctx *ctx, lua_State *L, int idx, ph_hub *h) {
  size_t n = lua_rawlen(L, idx);
  if (n == 0) return 0;
  int top = lua_gettop(L);
  guard *g = guard_new(L, ctx);
  g->op = ph_op_new(h, PH_OP_START, n);
  if (!g->op) return lph_error(L, PH_ENOMEM, NULL);
  int refused = lph_specs_add(ctx, L, idx, n, ph_hub_specs(h), g->op, NULL, &g->scratch);
  if (!refused) {
    ph_hub_propose(h, g->op);
    g->op = NULL;
    lua_settop(L, top);
  }
  guard_release(g);
  return refused;
}

/* ---- Stops ------------------------------------------------------------------------------------
 */

/* Adds the id on the top of the stack (popped). An id asked for twice is stopped once. */
static int add_id(lua_State *L, guard *g) {
  size_t n;
  const char *id = lua_tolstring(L, -1, &n);
  int err = 0;
  if (lph_id_fits(n)) {
    err = ph_op_add(g->op, id, n, NULL, NULL);
    if (err == PH_EDUPID) err = 0;
  } else {
    size_t most = n < 2 * PH_MAX_ID ? n : 2 * PH_MAX_ID;
    ph_w_str(&g->lost, id, most);
    if (g->lost.oom) err = PH_ENOMEM;
    g->lost_count++;
  }
  lua_pop(L, 1);
  return err;
}

static int add_ids(lua_State *L, guard *g, size_t n, bool single) {
  for (size_t i = 1; i <= n; i++) {
    if (single)
      lua_pushvalue(L, A_WHAT);
    else
      lua_rawgeti(L, A_WHAT, (lua_Integer)i);
    if (lua_type(L, -1) != LUA_TSTRING) {
      lua_pushnil(L);
      lph_push_error(L, PH_ENOTLIST, "a child id is a string, number %d of the list is a %s",
                     (int)i, luaL_typename(L, -2));
      lua_pushinteger(L, (lua_Integer)i);
      lua_setfield(L, -2, "index");
      return 2;
    }
    int err = add_id(L, g);
    if (err) return lph_error(L, err, NULL);
  }
  return 0;
}

static int stop(lua_State *L, bool single) {
  lph_ctx *ctx = lph_get(L);
  lph_options o;
  size_t n = 1;
  lph_hub *hub = lph_hub_arg(L, ctx, A_HUB);
  if (single) (void)lph_id_arg(L, A_WHAT, &n);
  n = 1;
  check_types(L, !single);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  if (!single) {
    int err = lph_list_length(L, A_WHAT, &n);
    if (err) return lph_error(L, err, NULL);
  }
  guard *g = guard_new(L, ctx);
  lua_settop(L, A_SLOT);
  lph_options_read(L, A_OPTIONS, A_SLOT, PH_OP_STOP, &o);
  g->op = ph_op_new(hub->h, PH_OP_STOP, n);
  if (!g->op) return lph_error(L, PH_ENOMEM, NULL);
  int refused = add_ids(L, g, n, single);
  if (!refused && o.err) refused = lph_refuse(L, o.err, o.key, o.message);
  if (refused) {
    guard_release(g);
    return refused;
  }
  return submit(L, hub, g, &o, single ? ONE_STOP : STOPS);
}

static int stop_child(lua_State *L) {
  return stop(L, true);
}

static int stop_children(lua_State *L) {
  return stop(L, false);
}

const luaL_Reg lph_op_functions[] = {
    {"start_child", start_child},         {"start_children", start_children},
    {"stop_child", stop_child},           {"stop_children", stop_children},
    {"children_redist", children_redist}, {NULL, NULL}};
