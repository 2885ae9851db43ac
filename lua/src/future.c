/* Futures for C: phub.future's objects, made and resolved by the hub's binding. */
#include "lsched.h"

static const char new_key = 0, settle_key = 0;

/* future_functions(new, settle), from phub/future.lua: new() makes one; settle(f, value, second)
 * resolves it with value; with nil and an error rejects it; with a function and true keeps the
 * function to make a value for each await */
static int future_functions(lua_State *L) {
  lph_get(L);
  luaL_checktype(L, 1, LUA_TFUNCTION);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &settle_key);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &new_key);
  return 0;
}

uint32_t lph_future_new(lph_ctx *ctx, lua_State *L) {
  luaL_checkstack(L, 4, NULL);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &new_key) != LUA_TFUNCTION)
    luaL_error(L, "phub.future is not loaded");
  lua_call(L, 0, 1);
  lua_pushvalue(L, -1);
  return lph_slot_new(ctx, L);
}

typedef struct settling {
  lph_ctx *ctx;
  uint32_t slot;
  lua_CFunction make;
  void *arg;
} settling;

static int settle(lua_State *L) {
  settling *s = lua_touserdata(L, 1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &settle_key);
  lph_slot_push(s->ctx, L, s->slot);
  int n = lua_gettop(L);
  lua_pushcfunction(L, s->make);
  lua_pushlightuserdata(L, s->arg);
  lua_call(L, 1, LUA_MULTRET);
  lua_settop(L, n + 2);
  lua_call(L, 3, 0);
  return 0;
}

int lph_future_resolve(lph_ctx *ctx, uint32_t future, lua_CFunction make, void *arg) {
  settling s = {ctx, future, make, arg};
  int rc = ctx->closing ? 0 : lph_protected(ctx, settle, &s);
  lph_slot_drop(ctx, future);
  return rc;
}

static const luaL_Reg functions[] = {{"future_functions", future_functions}, {NULL, NULL}};

void lph_open_future(lph_ctx *ctx, lua_State *L) {
  lph_setfuncs(ctx, L, functions);
}
