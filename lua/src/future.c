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

/* Room to remember one more future that cannot be resolved at once. */
static void reserve(lph_ctx *ctx, lua_State *L) {
  if (ctx->futures < ctx->owed_cap) return;
  uint32_t cap = ctx->owed_cap ? ctx->owed_cap * 2 : 16;
  struct lph_owed *grown = ph_realloc(ctx->env, ctx->owed, cap * sizeof *grown);
  if (!grown) luaL_error(L, "not enough memory");
  ctx->owed = grown;
  ctx->owed_cap = cap;
}

uint32_t lph_future_new(lph_ctx *ctx, lua_State *L) {
  luaL_checkstack(L, 4, NULL);
  reserve(ctx, L);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &new_key) != LUA_TFUNCTION)
    luaL_error(L, "phub.future is not loaded");
  lua_call(L, 0, 1);
  lua_pushvalue(L, -1);
  uint32_t future = lph_slot_new(ctx, L);
  ctx->futures++;
  return future;
}

void lph_future_drop(lph_ctx *ctx, uint32_t future) {
  if (!future) return;
  lph_slot_drop(ctx, future);
  ctx->futures--;
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

static int make_nomem(lua_State *L) {
  return lph_error(L, PH_ENOMEM, NULL);
}

static bool resolve(lph_ctx *ctx, uint32_t future, lua_CFunction make, void *arg) {
  settling s = {ctx, future, make, arg};
  if (!ctx->closing && lph_protected(ctx, settle, &s) == PH_ENOMEM) return false;
  lph_future_drop(ctx, future);
  return true;
}

void lph_future_resolve(lph_ctx *ctx, uint32_t future, lua_CFunction make, void *arg) {
  if (resolve(ctx, future, make, arg)) return;
  if (arg) make = make_nomem;
  if (!resolve(ctx, future, make, NULL))
    ctx->owed[ctx->owed_count++] = (struct lph_owed){future, make};
}

bool lph_futures_settle(lph_ctx *ctx) {
  while (ctx->owed_count) {
    struct lph_owed o = ctx->owed[--ctx->owed_count];
    if (resolve(ctx, o.future, o.make, NULL)) continue;
    ctx->owed[ctx->owed_count++] = o;
    return false;
  }
  return true;
}

static const luaL_Reg functions[] = {{"future_functions", future_functions}, {NULL, NULL}};

void lph_open_future(lph_ctx *ctx, lua_State *L) {
  lph_setfuncs(ctx, L, functions);
}
