/* Options of starts and stops: what Lua gives, checked. */
#include <string.h>

#include "hub_int.h"

static void wrong(lph_options *o, int err, const char *key, const char *message) {
  if (o->err) return;
  o->err = err;
  snprintf(o->key, sizeof o->key, "%s", key);
  snprintf(o->message, sizeof o->message, "%s", message);
}

static void read_bool(lua_State *L, lph_options *o, const char *key, bool *out) {
  if (lua_isboolean(L, -1))
    *out = lua_toboolean(L, -1);
  else
    wrong(o, PH_EOPTION, key, "a boolean expected");
}

static void read_ms(lua_State *L, lph_options *o, const char *key, uint64_t *out) {
  if (lph_to_ms(L, -1, out)) wrong(o, PH_EOPTION, key, "milliseconds (a number >= 0) expected");
}

static void read_failure(lua_State *L, lph_options *o) {
  const char *s = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
  o->op.rollback = strcmp(s, "rollback") == 0;
  if (!o->op.rollback && strcmp(s, "continue") != 0)
    wrong(o, PH_EOPTION, "on_failure", "\"continue\" or \"rollback\" expected");
}

const char *lph_metadata_wrong(lua_State *L, int idx, const char **key) {
  *key = "metadata";
  if (!lua_istable(L, idx)) return "a table expected";
  idx = lua_absindex(L, idx);
  lua_pushliteral(L, "tag");
  int type = lua_rawget(L, idx);
  lua_pop(L, 1);
  *key = "metadata.tag";
  return type == LUA_TNIL || type == LUA_TSTRING ? NULL : "a string expected";
}

static void read_metadata(lua_State *L, lph_options *o, int slot) {
  const char *key, *message = lph_metadata_wrong(L, -1, &key);
  if (message) {
    wrong(o, PH_EOPTION, key, message);
    return;
  }
  lua_pushnil(L);
  bool empty = lua_next(L, -2) == 0;
  if (empty) return;
  lua_pop(L, 2);
  lua_copy(L, -1, slot);
  o->metadata = slot;
}

/* Options that a start alone has; false: there is no such option. */
static bool read_start_option(lua_State *L, lph_options *o, const char *key, int slot) {
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

static bool read_option(lua_State *L, lph_options *o, const char *key, int slot, ph_op_kind kind) {
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

void lph_options_read(lua_State *L, int idx, int slot, ph_op_kind kind, lph_options *o) {
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
