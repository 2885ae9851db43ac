#include <string.h>

#include "hub_int.h"

/* What became of one id. */
typedef struct row {
  size_t id_at;
  uint16_t id_len;
  bool done;
  int err;
  ph_pid pid;
  const ph_nodeent *node;
  ph_bytes *reason;
} row;

/* Outlives its op and its hub: a future may be awaited at any time, and each await gets a table of
 * its own. */
struct lph_result {
  ph_op_kind kind;
  bool rollback;
  int form;
  size_t count, done;
  char *ids;
  row rows[];
};

enum { MANY = 10000 }; /* rows from which on the collector rests while a table is built */

/* The userdata that holds a result for the closure below. */
typedef struct holder {
  lph_ctx *ctx;
  lph_result *r;
} holder;
#define HOLDER "phub.op_result"

void lph_result_free(lph_ctx *ctx, lph_result *r) {
  if (!r) return;
  for (size_t i = 0; i < r->count; i++) ph_bytes_unref(lph_env(ctx), r->rows[i].reason);
  ph_free(lph_env(ctx), r->ids);
  ph_free(lph_env(ctx), r);
}

static size_t copy_rows(lph_result *r, const ph_op *op, size_t n) {
  size_t bytes = 0;
  for (size_t i = 0; i < n; i++) {
    ph_op_row from;
    row *to = &r->rows[i];
    ph_op_row_get(op, i, &from);
    to->done = from.status == PH_ROW_DONE;
    to->err = from.status == PH_ROW_WAITS ? PH_ENODETIMEOUT : from.err;
    to->pid = from.pid;
    to->node = from.node;
    to->reason = from.status == PH_ROW_ERROR ? ph_bytes_ref(from.reason) : NULL;
    to->id_len = (uint16_t)from.id_len;
    to->id_at = bytes;
    r->done += to->done;
    bytes += from.id_len;
  }
  return bytes;
}

static void copy_ids(lph_result *r, const ph_op *op, size_t n) {
  for (size_t i = 0; i < n; i++) {
    ph_op_row from;
    ph_op_row_get(op, i, &from);
    memcpy(r->ids + r->rows[i].id_at, from.id, from.id_len);
  }
}

/* `lost` holds packed strings. */
static void add_lost(lph_ctx *ctx, lph_result *r, const ph_buf *lost, size_t from, size_t at) {
  ph_reader in;
  ph_reader_init(&in, ph_buf_at(lost), ph_buf_size(lost));
  for (size_t i = from; i < r->count; i++) {
    const char *id;
    size_t n;
    row *to = &r->rows[i];
    if (ph_r_str(&in, &id, &n, UINT16_MAX)) n = 0;
    to->err = PH_ENOTFOUND;
    to->node = ph_sys_node_at(lph_sys(ctx), PH_SELF);
    to->id_at = at;
    to->id_len = (uint16_t)n;
    if (n) memcpy(r->ids + at, id, n);
    at += n;
  }
}

lph_result *lph_result_new(lph_ctx *ctx, ph_op_kind kind, const ph_op *op, const ph_buf *lost,
                           size_t lost_count) {
  size_t n = op ? ph_op_count(op) : 0, count = n + lost_count;
  lph_result *r = ph_zalloc(lph_env(ctx), sizeof *r + count * sizeof(row));
  if (!r) return NULL;
  r->kind = kind;
  r->count = count;
  r->rollback = op && ph_op_rolled_back(op);
  size_t bytes = copy_rows(r, op, n);
  r->ids = ph_alloc(lph_env(ctx), bytes + (lost_count ? ph_buf_size(lost) : 0) + 1);
  if (!r->ids) {
    lph_result_free(ctx, r);
    return NULL;
  }
  copy_ids(r, op, n);
  if (lost_count) add_lost(ctx, r, lost, n, bytes);
  return r;
}

void lph_result_allow_running(lph_ctx *ctx, lph_result *r) {
  if (r->rollback) return;
  for (size_t i = 0; i < r->count; i++) {
    row *w = &r->rows[i];
    if (w->done || w->err != PH_EALREADY || !w->pid) continue;
    w->done = true;
    w->err = 0;
    w->node = ph_sys_node_at(lph_sys(ctx), ph_id_node(w->pid));
    r->done++;
  }
}

size_t lph_result_errors(const lph_result *r) {
  return r->count - r->done;
}

typedef struct shown {
  lph_ctx *ctx;
  const ph_bytes *reason;
  char text[300];
} shown;

static int show_reason(lua_State *L) {
  shown *s = lua_touserdata(L, 1);
  lph_unpack_bytes(s->ctx, L, s->reason);
  lph_text(L, -1, s->text, sizeof s->text);
  return 0;
}

void lph_result_log(lph_ctx *ctx, const lph_result *r, const char *hub_id) {
  for (size_t i = 0; i < r->count; i++) {
    const row *w = &r->rows[i];
    if (w->done) continue;
    shown s = {ctx, w->reason, "for a reason that there is no memory to show"};
    if (!w->err) (void)lph_protected(ctx, show_reason, &s);
    ph_logf(lph_env(ctx), PH_LOG_WARN, "hub %s: %zu of %zu children did not %s; %.*s: %s", hub_id,
            lph_result_errors(r), r->count, r->kind == PH_OP_START ? "start" : "stop",
            (int)(w->id_len < 100 ? w->id_len : 100), r->ids + w->id_at,
            w->err ? ph_err_code(w->err) : s.text);
    return;
  }
}

/* ---- Tables ---------------------------------------------------------------------------------- */

/* Stack slots that a build uses over and over: the keys, and the name of the last node. */
enum { K_ID = 1, K_INSTANCES, K_NODES, K_NODE, K_NAME, K_LAST = K_NAME };

static void push_keys(lua_State *L) {
  lua_settop(L, 0);
  luaL_checkstack(L, 16, "result");
  lua_pushliteral(L, "id");
  lua_pushliteral(L, "instances");
  lua_pushliteral(L, "nodes");
  lua_pushliteral(L, "node");
  lua_pushnil(L);
}

static void push_name(lua_State *L, const ph_nodeent **last, const ph_nodeent *node) {
  if (*last != node) {
    lua_pushlstring(L, node->name, node->name_len);
    lua_replace(L, K_NAME);
    *last = node;
  }
  lua_pushvalue(L, K_NAME);
}

static void set_id(lua_State *L, const lph_result *r, const row *w) {
  lua_pushvalue(L, K_ID);
  lua_pushlstring(L, r->ids + w->id_at, w->id_len);
  lua_rawset(L, -3);
}

/* { id=, instances={[node]=pid} } or { id=, nodes={...} } [-0, +1] */
static void push_done(lua_State *L, const lph_result *r, const row *w, const ph_nodeent **last) {
  bool start = r->kind == PH_OP_START;
  lua_createtable(L, 0, 2);
  set_id(L, r, w);
  lua_pushvalue(L, start ? K_INSTANCES : K_NODES);
  lua_createtable(L, start ? 0 : 1, start ? 1 : 0);
  if (w->node) {
    push_name(L, last, w->node);
    if (start) {
      lph_push_pid(L, w->pid);
      lua_rawset(L, -3);
    } else {
      lua_rawseti(L, -2, 1);
    }
  }
  lua_rawset(L, -3);
}

/* { id=, node=, reason=, pid= } [-0, +1] */
static void push_failed(lph_ctx *ctx, lua_State *L, const lph_result *r, const row *w,
                        const ph_nodeent **last) {
  lua_createtable(L, 0, 4);
  set_id(L, r, w);
  if (w->node) {
    lua_pushvalue(L, K_NODE);
    push_name(L, last, w->node);
    lua_rawset(L, -3);
  }
  if (w->err)
    lua_pushstring(L, ph_err_code(w->err));
  else
    lph_unpack_bytes(ctx, L, w->reason);
  lua_setfield(L, -2, "reason");
  if (w->pid) {
    lph_push_pid(L, w->pid);
    lua_setfield(L, -2, "pid");
  }
}

/* the list of those done, or of the others [-0, +1] */
static void push_list(lph_ctx *ctx, lua_State *L, const lph_result *r, bool done) {
  const ph_nodeent *last = NULL;
  lua_Integer at = 0;
  size_t n = done ? r->done : r->count - r->done;
  lua_createtable(L, n < INT32_MAX ? (int)n : INT32_MAX, 0);
  for (size_t i = 0; i < r->count; i++) {
    const row *w = &r->rows[i];
    if (w->done != done) continue;
    if (done)
      push_done(L, r, w, &last);
    else
      push_failed(ctx, L, r, w, &last);
    lua_rawseti(L, -2, ++at);
  }
}

static void push_result(lph_ctx *ctx, lua_State *L, const lph_result *r) {
  bool start = r->kind == PH_OP_START;
  lua_createtable(L, 0, 4);
  lua_pushstring(L, r->done == r->count ? "ok" : "error");
  lua_setfield(L, -2, "status");
  push_list(ctx, L, r, true);
  lua_setfield(L, -2, start ? "started" : "stopped");
  push_list(ctx, L, r, false);
  lua_setfield(L, -2, "errors");
  if (start) {
    lua_pushboolean(L, r->rollback);
    lua_setfield(L, -2, "rollback");
  }
  lph_kind_push(ctx, L, start ? LPH_KIND_START_RESULT : LPH_KIND_STOP_RESULT);
  lua_setmetatable(L, -2);
}

/* nil and the error of `format` [-0, +2] */
static void push_format_error(lph_ctx *ctx, lua_State *L, const lph_result *r) {
  bool start = r->kind == PH_OP_START;
  lua_pushnil(L);
  lph_push_error(L, start ? PH_ESTARTFAILED : PH_ESTOPFAILED, NULL);
  push_list(ctx, L, r, true);
  lua_setfield(L, -2, start ? "started" : "stopped");
  push_list(ctx, L, r, false);
  lua_setfield(L, -2, "errors");
  if (!start) return;
  lua_pushboolean(L, r->rollback);
  lua_setfield(L, -2, "rollback");
}

static int build(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  const lph_result *r = lua_touserdata(L, 1);
  push_keys(L);
  if (r->form == LPH_AS_RESULT) {
    push_result(ctx, L, r);
    return 1;
  }
  if (r->done < r->count) {
    push_format_error(ctx, L, r);
    return 2;
  }
  if (r->form == LPH_AS_ENTRY && r->count > 0) {
    const ph_nodeent *last = NULL;
    push_done(L, r, &r->rows[0], &last);
  } else {
    push_list(ctx, L, r, true);
  }
  return 1;
}

/* What each await calls, with the context as upvalue 1 and the holder as upvalue 2. */
static int make_value(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  holder *o = lua_touserdata(L, lua_upvalueindex(2));
  lua_settop(L, 0);
  lua_pushlightuserdata(L, o->r);
  if (o->r->count >= MANY) return lph_resting(ctx, L, build);
  lph_pushfunction(ctx, L, build);
  lua_insert(L, 1);
  lua_call(L, 1, LUA_MULTRET);
  return lua_gettop(L);
}

static int holder_gc(lua_State *L) {
  holder *o = lua_touserdata(L, 1);
  lph_result_free(o->ctx, o->r);
  o->r = NULL;
  return 0;
}

void lph_result_open(lua_State *L) {
  luaL_newmetatable(L, HOLDER);
  lua_pushcfunction(L, holder_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}

/* The future's value: a function and true, or nil and the error of a formatted result. Takes the
 * result out of `arg` once it has a holder. */
static int make_future(lua_State *L) {
  holder *from = lua_touserdata(L, 1);
  if (from->r->form != LPH_AS_RESULT && from->r->done < from->r->count) {
    lph_pushfunction(from->ctx, L, build);
    lua_pushlightuserdata(L, from->r);
    lua_call(L, 1, 2);
    return 2;
  }
  holder *o = lua_newuserdatauv(L, sizeof *o, 0);
  o->ctx = from->ctx;
  o->r = NULL;
  luaL_setmetatable(L, HOLDER);
  o->r = from->r;
  from->r = NULL;
  lua_pushlightuserdata(L, o->ctx);
  lua_insert(L, -2);
  lua_pushcclosure(L, make_value, 2);
  lua_pushboolean(L, true);
  return 2;
}

static int make_nomem(lua_State *L) {
  return lph_error(L, PH_ENOMEM, NULL);
}

void lph_result_resolve(lph_ctx *ctx, uint32_t future, lph_result *r, int form) {
  holder from = {ctx, r};
  if (!r) {
    lph_future_resolve(ctx, future, make_nomem, NULL);
    return;
  }
  r->form = form;
  lph_future_resolve(ctx, future, make_future, &from);
  lph_result_free(ctx, from.r);
}
