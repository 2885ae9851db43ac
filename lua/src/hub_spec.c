#include <string.h>

#include "hub_int.h"

/* The fields of a spec in the order in which they are packed: equal specs give equal bytes. */
enum { F_ID, F_START, F_RESTART, F_SHUTDOWN, F_TYPE, F_MODULES, F_COUNT = LPH_SPEC_FIELDS };
static const char *const field_names[F_COUNT] = {"id",       "start", "restart",
                                                 "shutdown", "type",  "modules"};

/* Modules whose functions run commands, read files or reach into the interpreter: no start. */
static const char *const forbidden[] = {"_G",    "bit",     "bit32",  "coroutine", "debug",
                                        "ffi",   "io",      "jit",    "math",      "os",
                                        "posix", "package", "string", "table",     "utf8"};

static int wrong(lph_spec_error *e, int err, const char *key, const char *message) {
  e->err = err;
  e->key = key;
  snprintf(e->message, sizeof e->message, "%s", message);
  return err;
}

bool lph_module_forbidden(const char *name, size_t n) {
  const char *dot = memchr(name, '.', n);
  if (dot) n = (size_t)(dot - name);
  for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
    if (strlen(forbidden[i]) == n && memcmp(forbidden[i], name, n) == 0) return true;
  return false;
}

static int field_of(const char *key, size_t n) {
  for (int f = 0; f < F_COUNT; f++)
    if (field_names[f][0] == *key && strlen(field_names[f]) == n &&
        memcmp(field_names[f], key, n) == 0)
      return f;
  return -1;
}

/* Spreads the table at idx over the F_COUNT slots that begin at `base`. */
static int spread(lua_State *L, int idx, int base, lph_spec_error *e) {
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    size_t n;
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tolstring(L, -2, &n) : NULL;
    int f = key ? field_of(key, n) : -1;
    if (f < 0) {
      if (key)
        snprintf(e->unknown, sizeof e->unknown, "%s", key);
      else if (lua_isinteger(L, -2))
        snprintf(e->unknown, sizeof e->unknown, LUA_INTEGER_FMT, lua_tointeger(L, -2));
      else
        snprintf(e->unknown, sizeof e->unknown, "a %s", luaL_typename(L, -2));
      lua_pop(L, 2);
      return wrong(e, PH_ESPEC, e->unknown, "a child spec has no such field");
    }
    lua_replace(L, base + f);
  }
  return 0;
}

static size_t count_pairs(lua_State *L, int idx) {
  size_t n = 0;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) n++;
  return n;
}

/* Arguments are a list, or a table with a field `n` (it may have holes). */
static int pack_args(lph_ctx *ctx, lua_State *L, int idx, ph_buf *out, lph_spec_error *e) {
  char path[LPH_PATH] = "args";
  size_t from = ph_buf_size(out);
  int err = lph_pack(ctx, L, idx, out, path, sizeof path);
  if (err) return wrong(e, err, "start", err == PH_ENOMEM ? ph_err_text(err) : path);
  ph_reader r;
  ph_token t;
  ph_reader_init(&r, ph_buf_at(out) + from, ph_buf_size(out) - from);
  if (ph_r_next(&r, &t)) return wrong(e, PH_ENOMEM, NULL, ph_err_text(PH_ENOMEM));
  if (t.type == PH_T_ARRAY || (t.type == PH_T_MAP && t.len == 0)) return 0;
  lua_pushliteral(L, "n");
  int kind = lua_rawget(L, idx);
  bool counted = kind == LUA_TNUMBER && lua_isinteger(L, -1) && lua_tointeger(L, -1) >= 0 &&
                 lua_tointeger(L, -1) <= 250;
  lua_pop(L, 1);
  return counted ? 0 : wrong(e, PH_ESPEC, "start", "the arguments must be a list");
}

static int pack_start(lph_ctx *ctx, lua_State *L, int idx, ph_buf *out, lph_spec_error *e) {
  static const char want[] = "start must be { \"module\", \"function\", {args...} }";
  if (!lua_istable(L, idx)) return wrong(e, PH_ESPEC, "start", want);
  if (lua_getmetatable(L, idx)) {
    lua_pop(L, 1);
    return wrong(e, PH_ENOTSERIAL, "start", "start: a table with a metatable");
  }
  int base = lua_gettop(L);
  size_t given = lua_rawgeti(L, idx, 3) == LUA_TNIL ? 2 : 3;
  lua_rawgeti(L, idx, 1);
  lua_rawgeti(L, idx, 2);
  int err = 0;
  size_t mlen = 0, flen = 0;
  const char *m = lua_type(L, base + 2) == LUA_TSTRING ? lua_tolstring(L, base + 2, &mlen) : NULL;
  const char *f = lua_type(L, base + 3) == LUA_TSTRING ? lua_tolstring(L, base + 3, &flen) : NULL;
  if (!m || !f || mlen == 0 || flen == 0 || mlen > PH_MAX_ID || flen > PH_MAX_ID ||
      (given == 3 && !lua_istable(L, base + 1)) || count_pairs(L, idx) != given)
    err = wrong(e, PH_ESPEC, "start", want);
  else if (lph_module_forbidden(m, mlen)) {
    err = wrong(e, PH_ESPEC, "start", "");
    snprintf(e->message, sizeof e->message, "the module %s cannot start children", m);
  } else {
    ph_w_array(out, (uint32_t)given);
    ph_w_str(out, m, mlen);
    ph_w_str(out, f, flen);
    if (given == 3) err = pack_args(ctx, L, base + 1, out, e);
  }
  lua_settop(L, base);
  return err;
}

/* restart, shutdown, type: a string or a number; which ones, ph_spec_get knows. */
static int pack_scalar(lua_State *L, int idx, ph_buf *out, lph_spec_error *e, const char *key) {
  size_t n;
  if (lua_type(L, idx) == LUA_TSTRING) {
    const char *s = lua_tolstring(L, idx, &n);
    ph_w_str(out, s, n);
  } else if (lua_isinteger(L, idx)) {
    ph_w_int(out, lua_tointeger(L, idx));
  } else if (lua_type(L, idx) == LUA_TNUMBER) {
    ph_w_double(out, lua_tonumber(L, idx));
  } else {
    return wrong(e, PH_ESPEC, key, "a string or a number is expected here");
  }
  return 0;
}

static int pack_modules(lua_State *L, int idx, ph_buf *out, lph_spec_error *e) {
  static const char want[] = "modules must be a list of module names";
  size_t n = lua_istable(L, idx) ? lua_rawlen(L, idx) : 0;
  if (!lua_istable(L, idx) || count_pairs(L, idx) != n || n > UINT16_MAX)
    return wrong(e, PH_ESPEC, "modules", want);
  ph_w_array(out, (uint32_t)n);
  for (size_t i = 1; i <= n; i++) {
    size_t len;
    if (lua_rawgeti(L, idx, (lua_Integer)i) != LUA_TSTRING) {
      lua_pop(L, 1);
      return wrong(e, PH_ESPEC, "modules", want);
    }
    const char *s = lua_tolstring(L, -1, &len);
    ph_w_str(out, s, len);
    lua_pop(L, 1);
  }
  return 0;
}

static int pack_fields(lph_ctx *ctx, lua_State *L, int base, ph_buf *out, lph_spec_error *e) {
  uint32_t given = 0;
  for (int f = F_START; f < F_COUNT; f++) given += !lua_isnil(L, base + f);
  ph_w_map(out, given);
  for (int f = F_START; f < F_COUNT; f++) {
    if (lua_isnil(L, base + f)) continue;
    ph_w_cstr(out, field_names[f]);
    int err = f == F_START     ? pack_start(ctx, L, base + f, out, e)
              : f == F_MODULES ? pack_modules(L, base + f, out, e)
                               : pack_scalar(L, base + f, out, e, field_names[f]);
    if (err) return err;
  }
  return out->oom ? wrong(e, PH_ENOMEM, NULL, ph_err_text(PH_ENOMEM)) : 0;
}

static const char *check_id(lua_State *L, int idx, size_t *n, lph_spec_error *e) {
  if (lua_type(L, idx) != LUA_TSTRING) {
    wrong(e, PH_ESPEC, "id", "a child id is a string");
    return NULL;
  }
  const char *id = lua_tolstring(L, idx, n);
  if (!lph_id_fits(*n)) {
    wrong(e, PH_ESPEC, "id", "a child id has 1 to 1,024 bytes");
    return NULL;
  }
  e->has_id = true;
  return id;
}

/* An error about a spec with an unknown field names its child all the same, if it can. */
static void named(lua_State *L, int idx, int slot, lph_spec_error *e) {
  lua_pushliteral(L, "id");
  e->has_id = lua_rawget(L, idx) == LUA_TSTRING && lph_id_fits(lua_rawlen(L, -1));
  lua_replace(L, slot);
}

/* Stack: [spec fields: F_COUNT] while it runs; the id stays. */
const char *lph_spec_pack(lph_ctx *ctx, lua_State *L, int idx, ph_buf *out, size_t *id_len,
                          lph_spec_error *e) {
  int top = lua_gettop(L), base = top + 1;
  e->err = 0;
  e->has_id = false;
  if (!lua_istable(L, idx)) {
    wrong(e, PH_ESPEC, NULL, "a child spec is a table");
    return NULL;
  }
  if (lua_getmetatable(L, idx)) {
    lua_pop(L, 1);
    wrong(e, PH_ENOTSERIAL, NULL, "a child spec has no metatable");
    return NULL;
  }
  luaL_checkstack(L, F_COUNT + 12, "child spec");
  lua_settop(L, top + F_COUNT);
  ph_buf_reset(out);
  int err = spread(L, idx, base, e);
  if (err) named(L, idx, base + F_ID, e);
  const char *id = err ? NULL : check_id(L, base + F_ID, id_len, e);
  if (id && lua_isnil(L, base + F_START)) wrong(e, PH_ESPEC, "start", "start is missing");
  if (id && !e->err) pack_fields(ctx, L, base, out, e);
  lua_settop(L, base);
  if (!e->err) return id;
  if (!e->has_id) lua_pop(L, 1); /* else the id stays for the error */
  return NULL;
}

/* ---- Lists of specs ------------------------------------------------------------------------ */

int lph_list_length(lua_State *L, int idx, size_t *n) {
  *n = lua_rawlen(L, idx);
  size_t pairs = count_pairs(L, idx);
  if (pairs == 0) return PH_ENOCHILDREN;
  return pairs == *n ? 0 : PH_ENOTLIST;
}

/* nil, err for what lph_spec_pack found; index 0: not from a list. With e->has_id the id is on the
 * top of the stack. */
static int refuse_spec(lua_State *L, const lph_spec_error *e, size_t index) {
  int id = e->has_id ? lua_gettop(L) : 0;
  lua_pushnil(L);
  lph_push_error(L, e->err, "%s: %s", ph_err_text(e->err), e->message);
  lph_field(L, "key", e->key);
  if (index) {
    lua_pushinteger(L, (lua_Integer)index);
    lua_setfield(L, -2, "index");
  }
  if (id) {
    lua_pushvalue(L, id);
    lua_setfield(L, -2, "id");
  }
  return 2;
}

static int refuse_duplicate(lua_State *L, const char *id, size_t n, size_t index) {
  lua_pushnil(L);
  lph_push_error(L, PH_EDUPID, NULL);
  lua_pushlstring(L, id, n);
  lua_setfield(L, -2, "id");
  lua_pushinteger(L, (lua_Integer)index);
  lua_setfield(L, -2, "index");
  return 2;
}

/* The spec on the top of the stack: packed, checked and interned; its id is left on the top. */
static const char *take_spec(lph_ctx *ctx, lua_State *L, int idx, ph_specs *specs, ph_buf *scratch,
                             size_t *id_len, ph_spec **spec, lph_spec_error *e) {
  const char *id = lph_spec_pack(ctx, L, idx, scratch, id_len, e);
  if (!id) return NULL;
  const char *key = NULL;
  int err = ph_spec_get(specs, ph_buf_at(scratch), ph_buf_size(scratch), spec, &key);
  if (!err) return id;
  wrong(e, err, err == PH_ESPEC ? key : NULL, err == PH_ESPEC && key ? key : ph_err_text(err));
  return NULL;
}

int lph_specs_check(lph_ctx *ctx, lua_State *L, int idx) {
  size_t n = lua_rawlen(L, idx), id_len;
  ph_specs specs;
  ph_buf scratch;
  lph_spec_error e;
  int results = 0;
  lua_createtable(L, 0, (int)n); /* room for all: nothing raises while there are specs */
  int seen = lua_gettop(L);
  ph_specs_init(&specs, lph_env(ctx), 0);
  ph_buf_init(&scratch, lph_env(ctx));
  for (size_t i = 1; i <= n && !results; i++) {
    ph_spec *s;
    lua_rawgeti(L, idx, (lua_Integer)i);
    const char *id = take_spec(ctx, L, lua_gettop(L), &specs, &scratch, &id_len, &s, &e);
    if (!id) {
      results = refuse_spec(L, &e, i);
      continue;
    }
    ph_spec_unref(&specs, s);
    lua_pushvalue(L, -1);
    if (lua_rawget(L, seen) != LUA_TNIL) results = refuse_duplicate(L, id, id_len, i);
    if (results) continue;
    lua_pushboolean(L, true);
    lua_replace(L, -2);
    lua_rawset(L, seen);
    lua_pop(L, 1);
  }
  ph_buf_deinit(&scratch);
  ph_specs_deinit(&specs);
  return results;
}

/* Adds the spec at the top (popped). Returns 0, PH_EDUPID, or 2 results pushed. */
static int add(lph_ctx *ctx, lua_State *L, ph_specs *specs, ph_op *op, ph_bytes *metadata,
               ph_buf *scratch, size_t index) {
  lph_spec_error e;
  ph_spec *spec;
  size_t id_len;
  int at = lua_gettop(L);
  const char *id = take_spec(ctx, L, at, specs, scratch, &id_len, &spec, &e);
  if (!id) return refuse_spec(L, &e, index);
  int err = ph_op_add(op, id, id_len, spec, metadata);
  if (err) ph_spec_unref(specs, spec);
  if (err && err != PH_EDUPID) return lph_error(L, err, NULL);
  lua_settop(L, at - 1);
  return err;
}

int lph_specs_add(lph_ctx *ctx, lua_State *L, int idx, size_t n, ph_specs *specs, ph_op *op,
                  ph_bytes *metadata, ph_buf *scratch) {
  size_t duplicate = 0;
  for (size_t i = 1; i <= n; i++) {
    lua_rawgeti(L, idx, (lua_Integer)i);
    int rc = add(ctx, L, specs, op, metadata, scratch, i);
    if (rc > 0) return rc;
    if (rc == PH_EDUPID && !duplicate) duplicate = i; /* a wrong spec further on comes first */
  }
  if (!duplicate) return 0;
  size_t len;
  lua_rawgeti(L, idx, (lua_Integer)duplicate);
  lua_getfield(L, -1, "id");
  const char *id = lua_tolstring(L, -1, &len);
  return refuse_duplicate(L, id, len, duplicate);
}

int lph_specs_add_at(lph_ctx *ctx, lua_State *L, ph_specs *specs, ph_op *op, ph_bytes *metadata,
                     ph_buf *scratch, size_t index) {
  size_t len = 0;
  const char *id = NULL;
  int spec = lua_gettop(L);
  lua_pushvalue(L, spec);
  int rc = add(ctx, L, specs, op, metadata, scratch, index);
  if (rc == PH_EDUPID) {
    lua_getfield(L, spec, "id");
    id = lua_tolstring(L, -1, &len);
    rc = refuse_duplicate(L, id, len, index);
  }
  if (!rc) lua_settop(L, spec - 1);
  return rc;
}

int lph_specs_add_one(lph_ctx *ctx, lua_State *L, int idx, ph_specs *specs, ph_op *op,
                      ph_bytes *metadata, ph_buf *scratch) {
  lua_pushvalue(L, idx);
  return lph_specs_add_at(ctx, L, specs, op, metadata, scratch, 0);
}

/* ---- Back to Lua ---------------------------------------------------------------------------- */

void lph_spec_push_keys(lua_State *L) {
  luaL_checkstack(L, F_COUNT, "child spec");
  for (int f = 0; f < F_COUNT; f++) lua_pushstring(L, field_names[f]);
}

/* a spec that came from a peer may name its fields in any order */
static int push_key(lua_State *L, ph_reader *r, int keys) {
  ph_token t;
  if (ph_r_next(r, &t)) return PH_EMALFORMED;
  int f = t.type == PH_T_STR ? field_of((const char *)t.ptr, t.len) : -1;
  if (f < 0) return PH_EMALFORMED; /* ph_spec_get knows no other */
  lua_pushvalue(L, keys > 0 ? keys + f : keys - f);
  return 0;
}

void lph_spec_push(lph_ctx *ctx, lua_State *L, const ph_spec *s, int keys) {
  ph_reader r;
  uint32_t n = 0;
  luaL_checkstack(L, 6, "child spec");
  ph_reader_init(&r, s->blob, s->blob_len);
  if (ph_r_map(&r, &n)) n = 0;
  lua_createtable(L, 0, (int)n + 1);
  lua_insert(L, -2);
  lua_pushvalue(L, keys > 0 ? keys + F_ID : keys - F_ID);
  lua_insert(L, -2);
  lua_rawset(L, -3);
  for (uint32_t i = 0; i < n; i++) {
    if (push_key(L, &r, keys)) return;
    if (lph_unpack(ctx, L, &r)) {
      lua_pop(L, 1);
      return;
    }
    lua_rawset(L, -3);
  }
}

void lph_spec_push_modules(lph_ctx *ctx, lua_State *L, const ph_spec *s) {
  ph_reader r;
  if (s->modules) {
    ph_reader_init(&r, s->modules, s->modules_len);
    if (lph_unpack(ctx, L, &r)) lua_newtable(L);
    return;
  }
  lua_createtable(L, 1, 0);
  lua_pushlstring(L, s->module, s->module_len);
  lua_rawseti(L, -2, 1);
}
