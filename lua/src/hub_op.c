#include <string.h>

#include "hub_int.h"

/* ---- Options ----------------------------------------------------------------------------------
 */

typedef struct options {
  ph_op_options op;
  bool awaitable, formatted, quiet;
  int metadata; /* stack index, 0: none */
  int err; /* the first thing that is wrong, reported once the children are known to be right */
  char key[64];
  char message[96];
} options;

static void wrong(options *o, int err, const char *key, const char *message) {
  if (o->err) return;
  o->err = err;
  snprintf(o->key, sizeof o->key, "%s", key);
  snprintf(o->message, sizeof o->message, "%s", message);
}

static void read_bool(lua_State *L, options *o, const char *key, bool *out) {
  if (lua_isboolean(L, -1))
    *out = lua_toboolean(L, -1);
  else
    wrong(o, PH_EOPTION, key, "a boolean expected");
}

static void read_ms(lua_State *L, options *o, const char *key, uint64_t *out) {
  if (lph_to_ms(L, -1, out)) wrong(o, PH_EOPTION, key, "milliseconds (a number >= 0) expected");
}

static void read_failure(lua_State *L, options *o) {
  const char *s = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
  o->op.rollback = strcmp(s, "rollback") == 0;
  if (!o->op.rollback && strcmp(s, "continue") != 0)
    wrong(o, PH_EOPTION, "on_failure", "\"continue\" or \"rollback\" expected");
}

static void read_metadata(lua_State *L, options *o, int slot) {
  if (!lua_istable(L, -1)) {
    wrong(o, PH_EOPTION, "metadata", "a table expected");
    return;
  }
  lua_pushliteral(L, "tag");
  int type = lua_rawget(L, -2);
  lua_pop(L, 1);
  if (type != LUA_TNIL && type != LUA_TSTRING)
    wrong(o, PH_EOPTION, "metadata.tag", "a string expected");
  lua_pushnil(L);
  bool empty = lua_next(L, -2) == 0;
  if (empty) return;
  lua_pop(L, 2);
  lua_copy(L, -1, slot);
  o->metadata = slot;
}

/* Options that a start alone has; false: there is no such option. */
static bool read_start_option(lua_State *L, options *o, const char *key, int slot) {
  if (strcmp(key, "check_existing") == 0)
    read_bool(L, o, key, &o->op.check_existing);
  else if (strcmp(key, "on_failure") == 0)
    read_failure(L, o);
  else if (strcmp(key, "metadata") == 0)
    read_metadata(L, o, slot);
  else if (strcmp(key, "disable_logging") == 0)
    read_bool(L, o, key, &o->quiet);
  else if (strcmp(key, "init_cids") == 0) { /* the call sets it by itself */
    if (!lua_istable(L, -1)) wrong(o, PH_EOPTION, key, "a table expected");
  } else if (strcmp(key, "child_mapping") == 0)
    wrong(o, PH_ENOTSUP, key, "the distribution strategy takes no child_mapping");
  else
    return false;
  return true;
}

static bool read_option(lua_State *L, options *o, const char *key, int slot, ph_op_kind kind) {
  if (strcmp(key, "awaitable") == 0)
    read_bool(L, o, key, &o->awaitable);
  else if (strcmp(key, "async_wait") == 0)
    read_bool(L, o, key, &o->formatted);
  else if (strcmp(key, "timeout") == 0)
    read_ms(L, o, key, &o->op.timeout);
  else if (strcmp(key, "await_timeout") == 0)
    read_ms(L, o, key, &o->op.await_timeout);
  else
    return kind == PH_OP_START && read_start_option(L, o, key, slot);
  return true;
}

/* Reads the table at idx (or nil); `slot` is a stack slot for what it holds on to. */
static void read_options(lua_State *L, int idx, int slot, ph_op_kind kind, options *o) {
  memset(o, 0, sizeof *o);
  o->op.timeout = 10000;
  o->op.await_timeout = 60000;
  o->op.check_existing = true;
  if (lua_isnil(L, idx)) return;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
    if (!key)
      wrong(o, PH_EOPTION, "?", "names of options are strings");
    else if (!read_option(L, o, key, slot, kind))
      wrong(o, PH_EOPTION, key, "there is no such option");
  }
}

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
  bool quiet;
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

static flight *flight_new(lph_ctx *ctx, lph_hub *hub, ph_op_kind kind, const options *o,
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

static int begin(flight *f, guard *g, const options *o) {
  if (ph_op_count(g->op) > 0 || g->lost_count == 0) return ph_op_submit(g->op, &o->op, op_done, f);
  ph_waiter_init(lph_sys(f->ctx), &f->waiter, nothing_done);
  int err = ph_wait(&f->waiter, PH_NEVER);
  if (!err) ph_wake(&f->waiter, 0, NULL);
  return err;
}

/* Hands the op to the hub; the function's results. */
static int submit(lua_State *L, lph_hub *hub, guard *g, const options *o, ph_op_kind kind,
                  bool single) {
  lph_ctx *ctx = g->ctx;
  uint32_t future = 0;
  if (o->awaitable || o->formatted)
    future = lph_future_new(ctx, L);
  else
    lua_pushstring(L, kind == PH_OP_START ? "start_initiated" : "stop_initiated");
  flight *f = flight_new(ctx, hub, kind, o, single);
  if (f) {
    f->future = future;
    ph_buf_swap(&f->lost, &g->lost);
    f->lost_count = g->lost_count;
  }
  int err = f ? begin(f, g, o) : PH_ENOMEM;
  if (err) {
    lph_slot_drop(ctx, future);
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

static int pack_metadata(lua_State *L, guard *g, const options *o) {
  char path[LPH_PATH] = "metadata";
  if (!o->metadata || o->err) return 0;
  ph_buf_reset(&g->scratch);
  int err = lph_pack(g->ctx, L, o->metadata, &g->scratch, path, sizeof path);
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
  options o;
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
  read_options(L, A_OPTIONS, A_SLOT, PH_OP_START, &o);
  g->op = ph_op_new(hub->h, PH_OP_START, n);
  if (!g->op) return lph_error(L, PH_ENOMEM, NULL);
  int meta_refused = pack_metadata(L, g, &o); /* said after what is wrong with the children */
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
  return submit(L, hub, g, &o, PH_OP_START, single);
}

static int start_child(lua_State *L) {
  return start(L, true);
}

static int start_children(lua_State *L) {
  return start(L, false);
}

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
  options o;
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
  read_options(L, A_OPTIONS, A_SLOT, PH_OP_STOP, &o);
  g->op = ph_op_new(hub->h, PH_OP_STOP, n);
  if (!g->op) return lph_error(L, PH_ENOMEM, NULL);
  int refused = add_ids(L, g, n, single);
  if (!refused && o.err) refused = lph_refuse(L, o.err, o.key, o.message);
  if (refused) {
    guard_release(g);
    return refused;
  }
  return submit(L, hub, g, &o, PH_OP_STOP, single);
}

static int stop_child(lua_State *L) {
  return stop(L, true);
}

static int stop_children(lua_State *L) {
  return stop(L, false);
}

const luaL_Reg lph_op_functions[] = {{"start_child", start_child},
                                     {"start_children", start_children},
                                     {"stop_child", stop_child},
                                     {"stop_children", stop_children},
                                     {NULL, NULL}};
