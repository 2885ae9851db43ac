/* Values as one readable line: for logs, for errors that are printed, and in the place of an error
 * value that cannot travel. */
#include <stdio.h>
#include <string.h>

#include "lsched.h"

enum { MAX_TABLES = 4 }; /* tables within tables that are shown */

/* What does not fit is left out; the last bytes then say so. */
typedef struct text {
  lph_ctx *ctx;
  lua_State *L;
  int tables; /* around the value that is written */
  char *out;
  size_t n, size; /* size: without the final NUL */
  bool full;
} text;

static void put(text *t, const char *s, size_t n) {
  size_t room = t->size - t->n;
  if (n > room) {
    t->full = true;
    n = room;
  }
  memcpy(t->out + t->n, s, n);
  t->n += n;
}

static void puts_(text *t, const char *s) {
  put(t, s, strlen(s));
}

static void put_quoted(text *t, const char *s, size_t n) {
  puts_(t, "\"");
  for (size_t i = 0; i < n && !t->full; i++) {
    unsigned char c = (unsigned char)s[i];
    char escaped[8];
    if (c == '\n')
      puts_(t, "\\n");
    else if (c == '"' || c == '\\')
      put(t, (char[]){'\\', (char)c}, 2);
    else if (c >= ' ' && c != 127)
      put(t, &s[i], 1);
    else
      put(t, escaped, (size_t)snprintf(escaped, sizeof escaped, "\\x%02x", c));
  }
  puts_(t, "\"");
}

static void put_value(text *t, int idx, bool inside);

/* the value at idx is a key */
static void put_key(text *t, int idx) {
  size_t n;
  const char *s = lua_type(t->L, idx) == LUA_TSTRING ? lua_tolstring(t->L, idx, &n) : NULL;
  if (s && lph_is_name(s, n)) {
    put(t, s, n);
  } else {
    puts_(t, "[");
    put_value(t, idx, true);
    puts_(t, "]");
  }
  puts_(t, " = ");
}

static void put_table(text *t, int idx) {
  lua_State *L = t->L;
  int top = lua_gettop(L);
  lua_Integer len = (lua_Integer)lua_rawlen(L, idx), shown = 0;
  puts_(t, "{");
  for (lua_Integer i = 1; i <= len && !t->full; i++) {
    if (shown++) puts_(t, ", ");
    lua_rawgeti(L, idx, i);
    put_value(t, top + 1, true);
    lua_settop(L, top);
  }
  lua_pushnil(L);
  while (!t->full && lua_next(L, idx)) {
    bool listed = lua_isinteger(L, top + 1) && lua_tointeger(L, top + 1) >= 1 &&
                  lua_tointeger(L, top + 1) <= len;
    if (!listed) {
      if (shown++) puts_(t, ", ");
      put_key(t, top + 1);
      put_value(t, top + 2, true);
    }
    lua_settop(L, top + 1);
  }
  lua_settop(L, top);
  puts_(t, "}");
}

/* Pushes a string field without making a string, which could fail; false [+0]: it has none. */
static bool push_field(lua_State *L, int idx, const char *name) {
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING || strcmp(lua_tostring(L, -2), name) != 0) continue;
    lua_remove(L, -2);
    return true;
  }
  return false;
}

static void put_string_field(text *t, int idx, const char *name) {
  if (!push_field(t->L, idx, name)) return;
  size_t n;
  const char *s = lua_type(t->L, -1) == LUA_TSTRING ? lua_tolstring(t->L, -1, &n) : NULL;
  if (s) put(t, s, n);
  lua_pop(t->L, 1);
}

/* an error of phub's, as phub.error prints it */
static void put_error(text *t, int idx) {
  put_string_field(t, idx, "code");
  puts_(t, ": ");
  put_string_field(t, idx, "message");
  if (!push_field(t->L, idx, "reason")) return;
  puts_(t, " (");
  put_value(t, lua_gettop(t->L), false);
  lua_pop(t->L, 1);
  puts_(t, ")");
}

/* { "error", value, traceback }: the value [-0, +1] */
static bool push_raised(lua_State *L, int idx) {
  lua_rawgeti(L, idx, 1);
  bool yes = lua_type(L, -1) == LUA_TSTRING && strcmp(lua_tostring(L, -1), "error") == 0;
  lua_pop(L, 1);
  if (!yes || lua_rawlen(L, idx) != 3) return false;
  lua_rawgeti(L, idx, 2);
  return true;
}

static void put_any_table(text *t, int idx, bool inside) {
  lua_State *L = t->L;
  if (t->tables >= MAX_TABLES || t->full || !lua_checkstack(L, 8)) {
    puts_(t, "{...}");
    return;
  }
  t->tables++;
  if (lph_table_kind(t->ctx, L, idx) == LPH_KIND_ERROR) {
    put_error(t, idx);
  } else if (!inside && push_raised(L, idx)) {
    put_value(t, lua_gettop(L), false);
    lua_pop(L, 1);
  } else {
    put_table(t, idx);
  }
  t->tables--;
}

static void put_number(text *t, int idx) {
  char s[40];
  if (lua_isinteger(t->L, idx))
    snprintf(s, sizeof s, "%lld", (long long)lua_tointeger(t->L, idx));
  else
    snprintf(s, sizeof s, "%.14g", lua_tonumber(t->L, idx));
  puts_(t, s);
}

static void put_value(text *t, int idx, bool inside) {
  lua_State *L = t->L;
  size_t n;
  const char *s;
  char id[LPH_ID_TEXT];
  switch (lua_type(L, idx)) {
  case LUA_TTABLE:
    put_any_table(t, idx, inside);
    return;
  case LUA_TSTRING:
    s = lua_tolstring(L, idx, &n);
    if (inside)
      put_quoted(t, s, n);
    else
      put(t, s, n);
    return;
  case LUA_TNUMBER:
    put_number(t, idx);
    return;
  case LUA_TBOOLEAN:
    puts_(t, lua_toboolean(L, idx) ? "true" : "false");
    return;
  case LUA_TLIGHTUSERDATA:
    puts_(t, lph_id_text(t->ctx, L, idx, id) ? id : "userdata");
    return;
  default:
    puts_(t, luaL_typename(L, idx));
  }
}

size_t lph_text(lua_State *L, int idx, char *out, size_t size) {
  text t = {.ctx = lph_of(L), .L = L, .out = out, .size = size - 1};
  if (lua_checkstack(L, 4)) put_value(&t, lua_absindex(L, idx), false);
  if (t.full) memcpy(out + t.n - 3, "...", 3);
  out[t.n] = '\0';
  return t.n;
}

/* text(value): it as one line */
static int core_text(lua_State *L) {
  char out[LPH_TEXT];
  luaL_checkany(L, 1);
  size_t n = lph_text(L, 1, out, sizeof out);
  lua_pushlstring(L, out, n);
  return 1;
}

static const luaL_Reg functions[] = {{"text", core_text}, {NULL, NULL}};

void lph_open_text(lph_ctx *ctx, lua_State *L) {
  lph_setfuncs(ctx, L, functions);
}
