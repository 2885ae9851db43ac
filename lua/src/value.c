/* Values between Lua and the core: copied from Lua to Lua, packed (msgpack) and unpacked. */
#include <stdio.h>
#include <string.h>

#include "lsched.h"

/* ---- Where a value that cannot travel stands ------------------------------------------------- */

static int refuse(lph_ctx *ctx, int err, const char *what) {
  ctx->what = what;
  ctx->trail[0] = '\0';
  return err;
}

/* puts one more step before the trail; a trail that is too long loses its end */
static void trail_prepend(lph_ctx *ctx, const char *step) {
  size_t n = strlen(step), old = strlen(ctx->trail), max = sizeof ctx->trail - 1;
  if (n > max) n = max;
  if (old > max - n) old = max - n;
  memmove(ctx->trail + n, ctx->trail, old);
  memcpy(ctx->trail, step, n);
  ctx->trail[n + old] = '\0';
}

bool lph_is_name(const char *s, size_t n) {
  if (n == 0 || n > 64 || (*s >= '0' && *s <= '9')) return false;
  for (; n; n--, s++) {
    bool letter = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z');
    if (!letter && *s != '_' && !(*s >= '0' && *s <= '9')) return false;
  }
  return true;
}

/* the key at idx as a step of the trail; the key is not converted in place */
static void trail_key(lph_ctx *ctx, lua_State *L, int idx) {
  char step[100];
  size_t n = 0;
  const char *s = lua_type(L, idx) == LUA_TSTRING ? lua_tolstring(L, idx, &n) : NULL;
  if (s && lph_is_name(s, n))
    snprintf(step, sizeof step, ".%s", s);
  else if (s)
    snprintf(step, sizeof step, "[\"%.64s\"]", s);
  else if (lua_isinteger(L, idx))
    snprintf(step, sizeof step, "[%lld]", (long long)lua_tointeger(L, idx));
  else if (lua_type(L, idx) == LUA_TNUMBER)
    snprintf(step, sizeof step, "[%.14g]", (double)lua_tonumber(L, idx));
  else if (lua_isboolean(L, idx))
    snprintf(step, sizeof step, "[%s]", lua_toboolean(L, idx) ? "true" : "false");
  else
    snprintf(step, sizeof step, "[%s]", lua_typename(L, lua_type(L, idx)));
  trail_prepend(ctx, step);
}

void lph_path_error(lph_ctx *ctx, int err, char *path, size_t path_size) {
  if (!path || (err != PH_ENOTSERIAL && err != PH_ETOOLARGE)) {
    if (path) snprintf(path, path_size, "%s", ph_err_text(err));
    return;
  }
  char text[LPH_PATH];
  snprintf(text, sizeof text, "%.180s: %.70s", ctx->trail, ctx->what);
  size_t n = strlen(path);
  snprintf(path + n, path_size - n, "%s", text);
}

/* ---- Tables ---------------------------------------------------------------------------------- */

static bool key_travels(lua_State *L, int idx) {
  int type = lua_type(L, idx);
  return type == LUA_TSTRING || type == LUA_TNUMBER || type == LUA_TBOOLEAN;
}

static bool is_id(lua_State *L, int idx) {
  return (uint64_t)(uintptr_t)lua_touserdata(L, idx) >> 63;
}

int lph_table_kind(lph_ctx *ctx, lua_State *L, int idx) {
  if (!lua_getmetatable(L, idx)) return 0;
  const void *mt = lua_topointer(L, -1);
  lua_pop(L, 1);
  for (int k = LPH_KIND_ERROR; k < LPH_KIND_COUNT; k++)
    if (ctx->kinds[k] == mt) return k;
  return -1;
}

static const char too_deep[] = "nested deeper than 64 levels, or in a cycle";
static const char has_meta[] = "table with a metatable";

/* What no copy of the value at idx can be made of. */
static int refuse_value(lph_ctx *ctx, lua_State *L, int idx) {
  return refuse(ctx, PH_ENOTSERIAL, lua_typename(L, lua_type(L, idx)));
}

void lph_kind_set(lph_ctx *ctx, lua_State *L, int kind) {
  ctx->kinds[kind] = lua_topointer(L, -1);
  if (ctx->kind_slots[kind])
    lph_slot_set(ctx, L, ctx->kind_slots[kind]);
  else
    ctx->kind_slots[kind] = lph_slot_new(ctx, L);
}

void lph_kind_push(lph_ctx *ctx, lua_State *L, int kind) {
  if (kind > 0 && kind < LPH_KIND_COUNT && ctx->kind_slots[kind])
    lph_slot_push(ctx, L, ctx->kind_slots[kind]);
  else
    lua_pushnil(L);
}

/* ---- Copying --------------------------------------------------------------------------------- */

static int copy_table(lph_ctx *ctx, lua_State *L, int src, int depth);

/* Each value counts at least a byte of max_message, a table 16: so a graph of shared tables, which
 * becomes a tree here, cannot grow without bound. */
enum { TABLE_COST = 16 };

static int copy_value(lph_ctx *ctx, lua_State *L, int idx, int depth) {
  switch (lua_type(L, idx)) {
  case LUA_TTABLE:
    return copy_table(ctx, L, idx, depth);
  case LUA_TSTRING:
    ctx->copied -= (int64_t)lua_rawlen(L, idx);
    break;
  case LUA_TNIL:
  case LUA_TBOOLEAN:
  case LUA_TNUMBER:
    break;
  case LUA_TLIGHTUSERDATA:
    if (is_id(L, idx)) break; /* fall through */
  default:
    return refuse_value(ctx, L, idx);
  }
  if (--ctx->copied < 0) return refuse(ctx, PH_ETOOLARGE, "larger than max_message");
  lua_pushvalue(L, idx);
  return 0;
}

static int count_pairs(lua_State *L, int src) {
  int n = 0;
  for (lua_pushnil(L); lua_next(L, src); lua_pop(L, 1)) n++;
  return n;
}

/* stack: copy, key, value -> copy, key */
static int copy_pair(lph_ctx *ctx, lua_State *L, int dst, int depth) {
  if (!key_travels(L, dst + 1)) {
    int rc = refuse(ctx, PH_ENOTSERIAL, "a key of this type");
    trail_key(ctx, L, dst + 1);
    return rc;
  }
  if (lua_type(L, dst + 1) == LUA_TSTRING) ctx->copied -= (int64_t)lua_rawlen(L, dst + 1);
  int rc = copy_value(ctx, L, dst + 2, depth);
  if (rc < 0) {
    trail_key(ctx, L, dst + 1);
    return rc;
  }
  if (lua_isinteger(L, dst + 1)) {
    lua_rawseti(L, dst, lua_tointeger(L, dst + 1));
    lua_pop(L, 1);
  } else {
    lua_replace(L, dst + 2);
    lua_pushvalue(L, dst + 1);
    lua_insert(L, dst + 2);
    lua_rawset(L, dst);
  }
  return 0;
}

static int copy_table(lph_ctx *ctx, lua_State *L, int src, int depth) {
  if (depth > PH_MAX_DEPTH) return refuse(ctx, PH_ENOTSERIAL, too_deep);
  if (!lua_checkstack(L, 8)) return PH_ENOMEM;
  int kind = lph_table_kind(ctx, L, src);
  if (kind < 0) return refuse(ctx, PH_ENOTSERIAL, has_meta);
  if ((ctx->copied -= TABLE_COST) < 0) return refuse(ctx, PH_ETOOLARGE, "larger than max_message");
  int array = (int)(lua_rawlen(L, src) & 0x7fffffff);
  lua_createtable(L, array, array ? 0 : count_pairs(L, src));
  int dst = lua_gettop(L);
  lua_pushnil(L);
  while (lua_next(L, src)) {
    int rc = copy_pair(ctx, L, dst, depth + 1);
    if (rc < 0) {
      lua_settop(L, dst - 1);
      return rc;
    }
  }
  if (kind) {
    lph_kind_push(ctx, L, kind);
    lua_setmetatable(L, dst);
  }
  return 0;
}

int lph_copy(lph_ctx *ctx, lua_State *L, int idx, char *path, size_t path_size) {
  luaL_checkstack(L, 3, NULL);
  ctx->copied = (int64_t)ctx->max_message;
  int rc = copy_value(ctx, L, lua_absindex(L, idx), 1);
  if (rc < 0) lph_path_error(ctx, rc, path, path_size);
  return rc;
}

/* ---- Packing --------------------------------------------------------------------------------- */

typedef struct packer {
  lph_ctx *ctx;
  lua_State *L;
  ph_buf *out;
  size_t limit; /* of out->len */
} packer;

static int pack_value(packer *pk, int idx, int depth);

static int check_room(packer *pk, size_t more) {
  if (pk->out->oom) return PH_ENOMEM;
  if (more > pk->limit || pk->out->len > pk->limit - more)
    return refuse(pk->ctx, PH_ETOOLARGE, "larger than max_message");
  return 0;
}

/* Counts the pairs of the table at idx; *array when its keys are exactly 1..n (none: 1..0). */
static int shape(lua_State *L, int idx, uint32_t *pairs, bool *array) {
  lua_Unsigned len = lua_rawlen(L, idx);
  lua_Unsigned n = 0, inside = 0;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    n++;
    if (lua_isinteger(L, -2) && (lua_Unsigned)lua_tointeger(L, -2) - 1 < len) inside++;
  }
  if (n > UINT32_MAX) return PH_ETOOLARGE;
  *pairs = (uint32_t)n;
  *array = n == len && inside == n;
  return 0;
}

static int pack_array(packer *pk, int idx, uint32_t n, int depth) {
  ph_w_array(pk->out, n);
  for (uint32_t i = 1; i <= n; i++) {
    lua_pushinteger(pk->L, i);
    lua_rawgeti(pk->L, idx, i);
    int top = lua_gettop(pk->L);
    int rc = pack_value(pk, top, depth);
    if (rc < 0) trail_key(pk->ctx, pk->L, top - 1);
    lua_settop(pk->L, top - 2);
    if (rc < 0) return rc;
  }
  return 0;
}

static int pack_map(packer *pk, int idx, uint32_t n, int depth) {
  lua_State *L = pk->L;
  ph_w_map(pk->out, n);
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    int key = lua_gettop(L) - 1, rc;
    if (!key_travels(L, key))
      rc = refuse(pk->ctx, PH_ENOTSERIAL, "a key of this type");
    else
      rc = pack_value(pk, key, depth);
    if (rc == 0) rc = pack_value(pk, key + 1, depth);
    if (rc < 0) {
      trail_key(pk->ctx, L, key);
      lua_settop(L, key - 1);
      return rc;
    }
    lua_settop(L, key);
  }
  return 0;
}

static int pack_plain(packer *pk, int idx, int depth) {
  uint32_t n;
  bool array;
  int rc = shape(pk->L, idx, &n, &array);
  if (rc < 0) return refuse(pk->ctx, rc, "larger than max_message");
  if ((rc = check_room(pk, n)) < 0) return rc;
  return array ? pack_array(pk, idx, n, depth) : pack_map(pk, idx, n, depth);
}

/* An object: its length comes first, so it is packed apart. */
static int pack_object(packer *pk, int idx, int kind, int depth) {
  ph_buf inner, *out = pk->out;
  size_t limit = pk->limit;
  ph_buf_init(&inner, out->env);
  pk->out = &inner;
  pk->limit = limit > out->len ? limit - out->len : 0;
  ph_w_uint(&inner, (uint64_t)kind);
  int rc = pack_plain(pk, idx, depth);
  pk->out = out;
  pk->limit = limit;
  if (rc == 0 && inner.oom) rc = PH_ENOMEM;
  if (rc == 0) ph_w_ext(out, PH_EXT_OBJECT, ph_buf_at(&inner), ph_buf_size(&inner));
  ph_buf_deinit(&inner);
  return rc;
}

static int pack_table(packer *pk, int idx, int depth) {
  if (depth > PH_MAX_DEPTH) return refuse(pk->ctx, PH_ENOTSERIAL, too_deep);
  if (!lua_checkstack(pk->L, 8)) return PH_ENOMEM;
  int kind = lph_table_kind(pk->ctx, pk->L, idx);
  if (kind < 0) return refuse(pk->ctx, PH_ENOTSERIAL, has_meta);
  return kind ? pack_object(pk, idx, kind, depth + 1) : pack_plain(pk, idx, depth + 1);
}

static int pack_value(packer *pk, int idx, int depth) {
  lua_State *L = pk->L;
  size_t n = 0;
  const char *s;
  switch (lua_type(L, idx)) {
  case LUA_TTABLE:
    return pack_table(pk, idx, depth);
  case LUA_TSTRING:
    s = lua_tolstring(L, idx, &n);
    if (check_room(pk, n) < 0) return check_room(pk, n);
    ph_w_str(pk->out, s, n);
    break;
  case LUA_TNUMBER:
    if (lua_isinteger(L, idx))
      ph_w_int(pk->out, lua_tointeger(L, idx));
    else
      ph_w_double(pk->out, lua_tonumber(L, idx));
    break;
  case LUA_TBOOLEAN:
    ph_w_bool(pk->out, lua_toboolean(L, idx));
    break;
  case LUA_TNIL:
    ph_w_nil(pk->out);
    break;
  case LUA_TLIGHTUSERDATA:
    if (!is_id(L, idx)) return refuse_value(pk->ctx, L, idx);
    ph_w_id(pk->ctx->sys, pk->out, (uint64_t)(uintptr_t)lua_touserdata(L, idx));
    break;
  default:
    return refuse_value(pk->ctx, L, idx);
  }
  return check_room(pk, 0);
}

int lph_pack(lph_ctx *ctx, lua_State *L, int idx, ph_buf *out, char *path, size_t path_size) {
  packer pk = {ctx, L, out, out->len + ctx->max_message};
  int rc = lua_checkstack(L, 8) ? pack_value(&pk, lua_absindex(L, idx), 1) : PH_ENOMEM;
  if (rc == 0 && out->oom) rc = PH_ENOMEM;
  if (rc < 0) lph_path_error(ctx, rc, path, path_size);
  return rc;
}

ph_bytes *lph_pack_reason(lph_ctx *ctx, lua_State *L, int idx, char *path, size_t path_size,
                          int *err) {
  *err = 0;
  if (lua_isnoneornil(L, idx)) return ph_bytes_ref(ph_reason_get(ctx->sys, PH_REASON_NORMAL));
  ph_buf b;
  ph_buf_init(&b, ctx->env);
  *err = lph_pack(ctx, L, idx, &b, path, path_size);
  ph_bytes *reason = NULL;
  if (*err == 0) {
    reason = ph_bytes_new(ctx->env, ph_buf_at(&b), ph_buf_size(&b));
    if (!reason) *err = PH_ENOMEM;
  }
  ph_buf_deinit(&b);
  return reason;
}

/* ---- Unpacking --------------------------------------------------------------------------------
 */

static int unpack_value(lph_ctx *ctx, lua_State *L, ph_reader *r, int depth);

static int unpack_array(lph_ctx *ctx, lua_State *L, ph_reader *r, uint32_t n, int depth) {
  lua_createtable(L, (int)n, 0);
  int at = lua_gettop(L);
  for (uint32_t i = 1; i <= n; i++) {
    int rc = unpack_value(ctx, L, r, depth + 1);
    if (rc < 0) {
      lua_settop(L, at - 1);
      return rc;
    }
    lua_rawseti(L, at, i);
  }
  return 0;
}

static bool good_key(lua_State *L, int idx) {
  if (lua_type(L, idx) != LUA_TNUMBER) return key_travels(L, idx);
  lua_Number v = lua_tonumber(L, idx);
  return v == v; /* a NaN is no key */
}

static int unpack_map(lph_ctx *ctx, lua_State *L, ph_reader *r, uint32_t n, int depth) {
  lua_createtable(L, 0, (int)n);
  int at = lua_gettop(L);
  for (; n; n--) {
    int rc = unpack_value(ctx, L, r, depth + 1);
    if (rc == 0 && !good_key(L, at + 1)) rc = PH_EMALFORMED;
    if (rc == 0) rc = unpack_value(ctx, L, r, depth + 1);
    if (rc < 0) {
      lua_settop(L, at - 1);
      return rc;
    }
    lua_rawset(L, at);
  }
  return 0;
}

static int unpack_object(lph_ctx *ctx, lua_State *L, const ph_token *t, int depth) {
  ph_reader r;
  uint64_t kind;
  ph_reader_init(&r, t->ptr, t->len);
  int rc = ph_r_uint(&r, &kind);
  if (rc == 0) rc = unpack_value(ctx, L, &r, depth);
  if (rc < 0) return rc;
  if (ph_reader_left(&r)) {
    lua_pop(L, 1);
    return PH_EMALFORMED;
  }
  /* one of a kind that this version does not know stays a plain table */
  if (lua_istable(L, -1) && kind < LPH_KIND_COUNT) {
    lph_kind_push(ctx, L, (int)kind);
    lua_setmetatable(L, -2);
  }
  return 0;
}

static int unpack_ext(lph_ctx *ctx, lua_State *L, const ph_token *t, int depth) {
  if (t->ext == PH_EXT_OBJECT) return unpack_object(ctx, L, t, depth);
  uint64_t id;
  int rc = ph_id_from_ext(ctx->sys, t->ext, t->ptr, t->len, &id);
  if (rc == 0) lph_push_pid(L, id);
  return rc;
}

static int unpack_value(lph_ctx *ctx, lua_State *L, ph_reader *r, int depth) {
  ph_token t;
  int rc = ph_r_next(r, &t);
  if (rc < 0) return rc;
  if (depth > PH_MAX_DEPTH + 1) return PH_EMALFORMED;
  luaL_checkstack(L, 6, NULL);
  switch (t.type) {
  case PH_T_NIL:
    lua_pushnil(L);
    return 0;
  case PH_T_BOOL:
    lua_pushboolean(L, t.b);
    return 0;
  case PH_T_UINT:
    if (t.u > INT64_MAX) return PH_EMALFORMED;
    lua_pushinteger(L, (lua_Integer)t.u);
    return 0;
  case PH_T_INT:
    lua_pushinteger(L, t.i);
    return 0;
  case PH_T_DOUBLE:
    lua_pushnumber(L, t.d);
    return 0;
  case PH_T_STR:
  case PH_T_BIN:
    lua_pushlstring(L, (const char *)t.ptr, t.len);
    return 0;
  case PH_T_ARRAY:
    return unpack_array(ctx, L, r, t.len, depth);
  case PH_T_MAP:
    return unpack_map(ctx, L, r, t.len, depth);
  case PH_T_EXT:
    return unpack_ext(ctx, L, &t, depth);
  }
  return PH_EMALFORMED;
}

int lph_unpack(lph_ctx *ctx, lua_State *L, ph_reader *r) {
  return unpack_value(ctx, L, r, 1);
}

void lph_unpack_bytes(lph_ctx *ctx, lua_State *L, const ph_bytes *b) {
  ph_reader r;
  if (b) ph_reader_init(&r, b->data, b->len);
  if (!b || lph_unpack(ctx, L, &r) < 0) lua_pushnil(L);
}

void lph_take_reason(lph_ctx *ctx, lua_State *L, ph_bytes *reason) {
  ph_bytes_unref(ctx->env, ctx->taken); /* of one that raised */
  ctx->taken = reason;
  lph_unpack_bytes(ctx, L, reason);
  ctx->taken = NULL;
  ph_bytes_unref(ctx->env, reason);
}
