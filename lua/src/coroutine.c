/* coroutine.resume, wrap and close, with the semantics they have in Lua, and one thing more: when a
 * process ends itself (process.exit) inside a coroutine of the user's, what resumed that gives way
 * too, level by level, innermost first, until the scheduler ends the process. */
#include "lsched.h"

static lua_State *getco(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  luaL_argexpected(L, co, 1, "coroutine");
  return co;
}

static int closethread(lua_State *co, lua_State *from) {
#if LUA_VERSION_RELEASE_NUM >= 50406
  return lua_closethread(co, from);
#else
  (void)from;
  return lua_resetthread(co);
#endif
}

/* results on L, or -1 with the error there */
static int resume(lua_State *L, lua_State *co, int nargs) {
  int n;
  if (!lua_checkstack(co, nargs)) {
    lua_pushliteral(L, "too many arguments to resume");
    return -1;
  }
  lua_xmove(L, co, nargs);
  int status = lua_resume(co, L, nargs, &n);
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_xmove(co, L, 1);
    return -1;
  }
  if (!lua_checkstack(L, n + 1)) {
    lua_pop(co, n);
    lua_pushliteral(L, "too many results to resume");
    return -1;
  }
  lua_xmove(co, L, n);
  return n;
}

/* What runs now has to end: closes the coroutine where it stands. The mark is unset meanwhile, so
 * that <close> variables can use coroutines. */
static int leave(lua_State *L, lph_ctx *ctx, lua_State *co) {
  lph_task *t = ctx->cur;
  ph_bytes **mark = t->proc ? &t->proc->exit_reason : &t->exit_reason, *reason = *mark;
  *mark = NULL;
  if (lua_status(co) == LUA_YIELD) closethread(co, L);
  ph_bytes_unref(ctx->env, *mark);
  *mark = reason;
  return lph_yield_exit(L);
}

static int co_resume(lua_State *L) {
  lph_ctx *ctx = lua_touserdata(L, lua_upvalueindex(1));
  lua_State *co = getco(L);
  int n = resume(L, co, lua_gettop(L) - 1);
  if (lph_exiting(ctx)) return leave(L, ctx, co);
  lua_pushboolean(L, n >= 0);
  if (n < 0) {
    lua_insert(L, -2);
    return 2;
  }
  lua_insert(L, -(n + 1));
  return n + 1;
}

static int wrapped(lua_State *L) {
  lph_ctx *ctx = lua_touserdata(L, lua_upvalueindex(1));
  lua_State *co = lua_tothread(L, lua_upvalueindex(2));
  int n = resume(L, co, lua_gettop(L));
  if (lph_exiting(ctx)) return leave(L, ctx, co);
  if (n >= 0) return n;
  int status = lua_status(co);
  if (status != LUA_OK && status != LUA_YIELD) { /* it died: its <close> variables run */
    status = closethread(co, L);
    lua_xmove(co, L, 1);
  }
  if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

static int co_wrap(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_State *co = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  lua_pushcclosure(L, wrapped, 2);
  return 1;
}

static const char *state_of(lua_State *L, lua_State *co) {
  lua_Debug ar;
  if (L == co) return "running";
  if (lua_status(co) == LUA_OK && lua_getstack(co, 0, &ar)) return "normal";
  return NULL; /* suspended or dead */
}

static int co_close(lua_State *L) {
  lph_ctx *ctx = lua_touserdata(L, lua_upvalueindex(1));
  lua_State *co = getco(L);
  const char *state = state_of(L, co);
  if (state) return luaL_error(L, "cannot close a %s coroutine", state);
  int status = closethread(co, L);
  if (lph_exiting(ctx)) return lph_yield_exit(L);
  if (status == LUA_OK) {
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushboolean(L, 0);
  lua_xmove(co, L, 1);
  return 2;
}

static const luaL_Reg functions[] = {
    {"resume", co_resume}, {"wrap", co_wrap}, {"close", co_close}, {NULL, NULL}};

/* Functions of the library that the user has not replaced are left as they are but for these. */
void lph_open_coroutine(lph_ctx *ctx, lua_State *L) {
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, "coroutine") == LUA_TTABLE) lph_setfuncs(ctx, L, functions);
  lua_pop(L, 2);
}
