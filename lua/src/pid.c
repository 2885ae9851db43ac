/* Pids and refs as light userdata, and arguments: pids, times, destinations.
 *
 * Lua knows one metatable for all light userdata: for one that is not phub's (its top bit is clear)
 * it does what Lua does without. */
#include <math.h>
#include <stdio.h>

#include "lsched.h"

void lph_push_pid(lua_State *L, ph_pid pid) {
  if (pid)
    lua_pushlightuserdata(L, (void *)(uintptr_t)pid);
  else
    lua_pushnil(L);
}

static uint64_t to_id(lua_State *L, int idx) {
  return lua_type(L, idx) == LUA_TLIGHTUSERDATA ? (uint64_t)(uintptr_t)lua_touserdata(L, idx) : 0;
}

bool lph_to_pid(lua_State *L, int idx, ph_pid *out) {
  *out = to_id(L, idx);
  return ph_is_pid(*out);
}

bool lph_to_ref(lua_State *L, int idx, ph_ref *out) {
  *out = to_id(L, idx);
  return ph_is_ref(*out);
}

ph_pid lph_check_pid(lua_State *L, int arg) {
  ph_pid pid;
  if (!lph_to_pid(L, arg, &pid)) luaL_typeerror(L, arg, "pid");
  return pid;
}

/* ---- Times ------------------------------------------------------------------------------------
 */

int lph_to_ms(lua_State *L, int idx, uint64_t *out) {
  if (lua_type(L, idx) != LUA_TNUMBER) return PH_EOPTION;
  double v = lua_tonumber(L, idx);
  if (!(v >= 0)) return PH_EOPTION;
  /* past 2^53 ms, which is for ever, a double has no fractions to round */
  *out = v < 9007199254740992.0 ? (uint64_t)ceil(v) : UINT64_MAX;
  return 0;
}

uint64_t lph_check_ms(lua_State *L, int arg, uint64_t def) {
  uint64_t ms;
  if (lua_isnoneornil(L, arg)) return def;
  if (lua_type(L, arg) != LUA_TNUMBER) luaL_typeerror(L, arg, "number of milliseconds");
  if (lph_to_ms(L, arg, &ms) < 0) luaL_argerror(L, arg, "milliseconds must be at least 0");
  return ms;
}

uint64_t lph_due(lph_ctx *ctx, uint64_t ms) {
  return ms == UINT64_MAX ? PH_NEVER : ph_due(ctx->env, ms);
}

/* ---- Destinations ------------------------------------------------------------------------------
 */

/* { name, node }: the strings stay anchored by the table, which nobody changes meanwhile */
static void named_dest(lph_ctx *ctx, lua_State *L, int arg, lph_dest *out) {
  size_t node_len;
  lua_rawgeti(L, arg, 1);
  lua_rawgeti(L, arg, 2);
  if (lua_type(L, -1) != LUA_TSTRING || lua_type(L, -2) != LUA_TSTRING)
    luaL_argerror(L, arg, "{ name, node } must hold two strings");
  const char *node = lua_tolstring(L, -1, &node_len);
  out->name = lua_tolstring(L, -2, &out->len);
  out->node = ph_sys_node_named(ctx->sys, node, node_len);
  lua_pop(L, 2);
  if (!out->node)
    out->err = PH_ENOCONN;
  else
    out->remote = out->node->index != PH_SELF;
}

void lph_check_dest(lph_ctx *ctx, lua_State *L, int arg, lph_dest *out) {
  *out = (lph_dest){0};
  switch (lua_type(L, arg)) {
  case LUA_TLIGHTUSERDATA:
    if (!lph_to_pid(L, arg, &out->pid)) break;
    out->remote = ph_id_node(out->pid) != PH_SELF;
    return;
  case LUA_TSTRING:
    out->name = lua_tolstring(L, arg, &out->len);
    return;
  case LUA_TTABLE:
    named_dest(ctx, L, arg, out);
    return;
  default:
    break;
  }
  luaL_typeerror(L, arg, "pid, name or { name, node }");
}

/* ---- The metatable ------------------------------------------------------------------------------
 */

bool lph_id_text(lph_ctx *ctx, lua_State *L, int idx, char out[LPH_ID_TEXT]) {
  uint64_t id = to_id(L, idx);
  if (!(id >> 63) || ctx->closing) return false;
  const ph_nodeent *e = ph_sys_node_at(ctx->sys, ph_id_node(id));
  snprintf(out, LPH_ID_TEXT, ph_is_pid(id) ? "<%s.%llu>" : "<ref %s.%llu>", e ? e->name : "?",
           (unsigned long long)ph_id_serial(id));
  return true;
}

static int id_tostring(lua_State *L) {
  lph_ctx *ctx = lua_touserdata(L, lua_upvalueindex(1));
  char text[LPH_ID_TEXT];
  if (lph_id_text(ctx, L, 1, text))
    lua_pushstring(L, text);
  else
    lua_pushfstring(L, "userdata: %p", lua_touserdata(L, 1));
  return 1;
}

static int id_index(lua_State *L) {
  lph_ctx *ctx = lua_touserdata(L, lua_upvalueindex(1));
  uint64_t id = to_id(L, 1);
  if (!(id >> 63)) return luaL_error(L, "attempt to index a userdata value");
  const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
  if (ctx->closing || key[0] != 'n' || key[1] != 'o' || key[2] != 'd' || key[3] != 'e' || key[4])
    return 0;
  const ph_nodeent *e = ph_sys_node_at(ctx->sys, ph_id_node(id));
  if (!e) return 0;
  lua_pushlstring(L, e->name, e->name_len);
  return 1;
}

static int core_is_pid(lua_State *L) {
  ph_pid pid;
  lua_pushboolean(L, lph_to_pid(L, 1, &pid));
  return 1;
}

static int core_is_ref(lua_State *L) {
  ph_ref ref;
  lua_pushboolean(L, lph_to_ref(L, 1, &ref));
  return 1;
}

static int core_new_ref(lua_State *L) {
  lph_push_pid(L, ph_ref_new(lph_get(L)->sys));
  return 1;
}

static const luaL_Reg functions[] = {
    {"is_pid", core_is_pid}, {"is_ref", core_is_ref}, {"new_ref", core_new_ref}, {NULL, NULL}};

void lph_open_pid(lph_ctx *ctx, lua_State *L) {
  lph_setfuncs(ctx, L, functions);
  lua_pushlightuserdata(L, ctx);
  lua_createtable(L, 0, 4);
  lph_pushfunction(ctx, L, id_tostring);
  lua_setfield(L, -2, "__tostring");
  lph_pushfunction(ctx, L, id_index);
  lua_setfield(L, -2, "__index");
  lua_pushliteral(L, "phub.id");
  lua_setfield(L, -2, "__name");
  lua_setmetatable(L, -2);
  lua_pop(L, 1);
}
