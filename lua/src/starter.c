#include "starter.h"

#include "lsched.h"

#include <string.h>

/* Pushes the module [-0, +1]; false, with nothing pushed, when there is none. */
static bool push_module(lua_State *L, const char *name, size_t n) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_pushlstring(L, name, n);
  if (lua_rawget(L, -2) != LUA_TNIL) {
    lua_remove(L, -2);
    return true;
  }
  lua_pop(L, 2);
  lua_getglobal(L, "require");
  lua_pushlstring(L, name, n);
  lua_pushliteral(L, "module '"); /* what require says when no searcher knows the module */
  lua_pushvalue(L, -2);
  lua_pushliteral(L, "' not found:");
  lua_concat(L, 3);
  lua_insert(L, -3);
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) {
    lua_remove(L, -2);
    return true;
  }
  const char *said = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
  const char *missing = lua_tostring(L, -2);
  if (strncmp(said, missing, strlen(missing)) != 0) lua_error(L);
  lua_pop(L, 2);
  return false;
}

int lph_start_push(lua_State *L, const char *module, size_t module_len, const char *function,
                   size_t function_len) {
  int top = lua_gettop(L);
  luaL_checkstack(L, 8, NULL);
  if (!push_module(L, module, module_len)) return PH_ENOMODULE;
  lua_pushlstring(L, function, function_len);
  if (lua_istable(L, -2) && lua_gettable(L, -2) == LUA_TFUNCTION) {
    lua_replace(L, top + 1);
    lua_settop(L, top + 1);
    return 0;
  }
  lua_settop(L, top);
  return PH_ENOFUNCTION;
}

int lph_start_refuse(lua_State *L, int err) {
  lua_pushnil(L);
  lua_pushstring(L, ph_err_code(err));
  return 2;
}

ph_bytes *lph_start_reason(lph_ctx *ctx, int err) {
  const char *code = ph_err_code(err);
  ph_bytes *b = ph_reason_str(lph_sys(ctx), code, strlen(code));
  return b ? b : ph_bytes_ref(ph_reason_get(lph_sys(ctx), PH_REASON_NOMEM));
}

/* a pid, a hub or nil, reason at the indices 1..n */
static ph_pid judge(lph_ctx *ctx, lua_State *L, int n, lph_hub **hub, ph_bytes **reason) {
  ph_pid pid = 0;
  lph_hub *child;
  int err = 0;
  if (n >= 1 && lph_to_pid(L, 1, &pid)) {
    if (ph_id_node(pid) == PH_SELF) return pid;
    *reason = lph_start_reason(ctx, PH_EBADRESULT);
    return 0;
  }
  if (n >= 1 && (child = lph_hub_to(L, ctx, 1)) && lua_isuserdata(L, 1)) {
    if (hub) *hub = child;
    return ph_hub_pid(child->h);
  }
  if (n >= 2 && lua_isnil(L, 1) && !lua_isnil(L, 2))
    *reason = lph_pack_reason(ctx, L, 2, NULL, 0, &err);
  if (!*reason) *reason = lph_start_reason(ctx, err == PH_ENOMEM ? err : PH_EBADRESULT);
  return 0;
}

ph_pid lph_start_result(lph_ctx *ctx, lua_State *L, int status, int n, lph_hub **hub,
                        ph_bytes **reason) {
  int err = 0;
  if (hub) *hub = NULL;
  *reason = NULL;
  if (status == LPH_DONE) return judge(ctx, L, n, hub, reason);
  if (status == LPH_FAILED) {
    *reason = lua_istable(L, 1) ? lph_error_pack(ctx, L, 1, &err)
                                : lph_pack_reason(ctx, L, 1, NULL, 0, &err);
    if (!*reason) *reason = lph_start_reason(ctx, err);
  } else {
    *reason = ph_bytes_ref(ph_reason_get(lph_sys(ctx), PH_REASON_SHUTDOWN));
  }
  return 0;
}
