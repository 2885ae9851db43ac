/* coroutine.resume, wrap, close and status, pcall and xpcall, with the semantics they have in Lua,
 * and two things more.
 *
 * When a process ends itself (process.exit) inside a coroutine of the user's, what resumed that
 * gives way too, level by level, innermost first, until the scheduler ends the process.
 *
 * Where it ends itself and cannot give way (below a sort, say), that is an error, which pcall and
 * xpcall do not keep: they give way, or raise it again.
 *
 * When a process is preempted there, its coroutines stop in the same way and go on in the opposite
 * order, and none of them notices. Meanwhile they look suspended to Lua, but other processes must
 * not resume or close them: they are still what they were, running or normal. */
#include "lsched.h"

int lph_closethread(lua_State *co, lua_State *from) {
#if LUA_VERSION_RELEASE_NUM >= 50406
  return lua_closethread(co, from);
#else
  (void)from;
  return lua_resetthread(co);
#endif
}

static lua_State *getco(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  luaL_argexpected(L, co, 1, "coroutine");
  return co;
}

/* ---- Coroutines that preemption has stopped ---------------------------------------------------
 */

static int co_resume(lua_State *L);
static int wrapped(lua_State *L);

/* What co, which has yielded, was resuming when it did. */
static lua_State *resumed_by(lua_State *co) {
  lua_Debug ar;
  if (!lua_checkstack(co, 1) || !lua_getstack(co, 0, &ar)) return NULL;
  lua_getinfo(co, "f", &ar);
  lua_CFunction f = lua_tocfunction(co, -1);
  lua_pop(co, 1);
  if (f == co_resume) return lua_tothread(co, 1);
  return f == wrapped ? lua_tothread(co, lua_upvalueindex(2)) : NULL;
}

/* Coroutines yield inside functions of C, but for the one that a hook has stopped, and not inside
 * these two, but when they pass it on. */
static bool is_frozen(lph_ctx *ctx, lua_State *co) {
  lua_Debug ar;
  if (!ctx->frozen || lua_status(co) != LUA_YIELD) return false;
  if (!lua_getstack(co, 0, &ar) || !lua_getinfo(co, "S", &ar)) return false;
  return ar.what[0] != 'C' || resumed_by(co);
}

int lph_close_chain(lph_ctx *ctx, lua_State *co, lua_State *from) {
  lua_State *inner = lua_status(co) == LUA_YIELD ? resumed_by(co) : NULL;
  if (inner && lua_status(inner) == LUA_YIELD) {
    lph_level level;
    lph_level_enter(ctx, &level, inner, co);
    if (lph_close_chain(ctx, inner, co) != LUA_OK) lph_log_raised(ctx, inner);
    (void)lph_level_leave(ctx, &level);
  }
  return lph_closethread(co, from);
}

/* ---- resume and wrap --------------------------------------------------------------------------
 */

enum { FAILED = -1, PREEMPTED = -2 };

/* the number of results on L; FAILED, with the error there; PREEMPTED */
static int resume(lua_State *L, lph_ctx *ctx, lua_State *co, int nargs) {
  int n;
  lph_level level;
  lph_level_enter(ctx, &level, co, L);
  int status = lua_resume(co, L, nargs, &n);
  if (lph_level_leave(ctx, &level)) {
    lua_pop(co, n);
    return PREEMPTED;
  }
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_xmove(co, L, 1);
    return FAILED;
  }
  if (!lua_checkstack(L, n + 1)) {
    lua_pop(co, n);
    lua_pushliteral(L, "too many results to resume");
    return FAILED;
  }
  lua_xmove(co, L, n);
  return n;
}

/* with the nargs values on the top as arguments */
static int resume_first(lua_State *L, lph_ctx *ctx, lua_State *co, int nargs) {
  if (is_frozen(ctx, co)) {
    lua_pushliteral(L, "cannot resume non-suspended coroutine");
    return FAILED;
  }
  if (!lua_checkstack(co, nargs)) {
    lua_pushliteral(L, "too many arguments to resume");
    return FAILED;
  }
  lua_xmove(L, co, nargs);
  return resume(L, ctx, co, nargs);
}

/* What runs now has to end: closes the coroutine where it stands. The mark is unset meanwhile, so
 * that <close> variables can use coroutines. */
static int leave(lua_State *L, lph_ctx *ctx, lua_State *co) {
  lph_task *t = ctx->cur;
  ph_bytes **mark = t->proc ? &t->proc->exit_reason : &t->exit_reason, *reason = *mark;
  *mark = NULL;
  if (lua_status(co) == LUA_YIELD) {
    lph_level level;
    lph_level_enter(ctx, &level, co, L);
    lph_closethread(co, L);
    (void)lph_level_leave(ctx, &level);
  }
  ph_bytes_unref(ctx->env, *mark);
  *mark = reason;
  return lph_yield_exit(L);
}

static int resume_over(lua_State *L, lph_ctx *ctx, int n);

static int resume_again(lua_State *L, int status, lua_KContext k) {
  lph_ctx *ctx = (lph_ctx *)k;
  (void)status;
  return resume_over(L, ctx, resume(L, ctx, lua_tothread(L, 1), 0));
}

static int resume_over(lua_State *L, lph_ctx *ctx, int n) {
  if (n == PREEMPTED) return lua_yieldk(L, 0, (lua_KContext)ctx, resume_again);
  if (lph_exiting(ctx)) return leave(L, ctx, lua_tothread(L, 1));
  lua_pushboolean(L, n >= 0);
  if (n < 0) {
    lua_insert(L, -2);
    return 2;
  }
  lua_insert(L, -(n + 1));
  return n + 1;
}

static int co_resume(lua_State *L) {
  lph_ctx *ctx = lua_touserdata(L, lua_upvalueindex(1));
  lua_State *co = getco(L);
  return resume_over(L, ctx, resume_first(L, ctx, co, lua_gettop(L) - 1));
}

static int raise_of(lua_State *L, lph_ctx *ctx, lua_State *co) {
  int status = lua_status(co);
  if (status != LUA_OK && status != LUA_YIELD) { /* it died: its <close> variables run */
    lph_level level;
    lph_level_enter(ctx, &level, co, L);
    status = lph_closethread(co, L);
    (void)lph_level_leave(ctx, &level);
    lua_xmove(co, L, 1);
  }
  if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

static int wrapped_over(lua_State *L, lph_ctx *ctx, lua_State *co, int n);

static int wrapped_again(lua_State *L, int status, lua_KContext k) {
  lph_ctx *ctx = (lph_ctx *)k;
  lua_State *co = lua_tothread(L, lua_upvalueindex(2));
  (void)status;
  return wrapped_over(L, ctx, co, resume(L, ctx, co, 0));
}

static int wrapped_over(lua_State *L, lph_ctx *ctx, lua_State *co, int n) {
  if (n == PREEMPTED) return lua_yieldk(L, 0, (lua_KContext)ctx, wrapped_again);
  if (lph_exiting(ctx)) return leave(L, ctx, co);
  return n >= 0 ? n : raise_of(L, ctx, co);
}

static int wrapped(lua_State *L) {
  lph_ctx *ctx = lua_touserdata(L, lua_upvalueindex(1));
  lua_State *co = lua_tothread(L, lua_upvalueindex(2));
  return wrapped_over(L, ctx, co, resume_first(L, ctx, co, lua_gettop(L)));
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

/* ---- close and status -------------------------------------------------------------------------
 */

static const char *state_of(lua_State *L, lph_ctx *ctx, lua_State *co) {
  lua_Debug ar;
  if (L == co) return "running";
  if (lua_status(co) == LUA_YIELD) return is_frozen(ctx, co) ? "normal" : "suspended";
  if (lua_status(co) != LUA_OK) return "dead";
  if (lua_getstack(co, 0, &ar)) return "normal";
  return lua_gettop(co) == 0 ? "dead" : "suspended";
}

static int co_status(lua_State *L) {
  lph_ctx *ctx = lua_touserdata(L, lua_upvalueindex(1));
  lua_pushstring(L, state_of(L, ctx, getco(L)));
  return 1;
}

static int co_close(lua_State *L) {
  lph_ctx *ctx = lua_touserdata(L, lua_upvalueindex(1));
  lua_State *co = getco(L);
  const char *state = state_of(L, ctx, co);
  if (state[0] != 's' && state[0] != 'd')
    return luaL_error(L, "cannot close a %s coroutine", state);
  lph_level level;
  lph_level_enter(ctx, &level, co, L);
  int status = lph_closethread(co, L);
  (void)lph_level_leave(ctx, &level);
  if (lph_exiting(ctx)) return lph_yield_exit(L);
  if (status == LUA_OK) {
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushboolean(L, 0);
  lua_xmove(co, L, 1);
  return 2;
}

/* ---- pcall and xpcall -------------------------------------------------------------------------
 */

static bool went_wrong(int status) {
  return status != LUA_OK && status != LUA_YIELD;
}

/* stack: true, results; or ..., error */
static int pcall_over(lua_State *L, int status, lua_KContext k) {
  lph_ctx *ctx = (lph_ctx *)k;
  if (!went_wrong(status)) return lua_gettop(L);
  if (lph_exiting(ctx) && lph_has_code(L, -1, PH_EEXIT)) return lph_yield_exit(L);
  lua_pushboolean(L, 0);
  lua_insert(L, -2);
  return 2;
}

static int safe_pcall(lua_State *L) {
  lua_KContext k = (lua_KContext)lua_touserdata(L, lua_upvalueindex(1));
  luaL_checkany(L, 1);
  lua_pushboolean(L, 1);
  lua_insert(L, 1);
  return pcall_over(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, k, pcall_over), k);
}

/* stack: function, handler, true, results; or ..., what the handler made of the error */
static int xpcall_over(lua_State *L, int status, lua_KContext k) {
  lph_ctx *ctx = (lph_ctx *)k;
  if (!went_wrong(status)) return lua_gettop(L) - 2;
  if (lph_exiting(ctx)) return lph_yield_exit(L);
  lua_pushboolean(L, 0);
  lua_insert(L, -2);
  return 2;
}

static int safe_xpcall(lua_State *L) {
  lua_KContext k = (lua_KContext)lua_touserdata(L, lua_upvalueindex(1));
  int n = lua_gettop(L);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_pushboolean(L, 1);
  lua_pushvalue(L, 1);
  lua_rotate(L, 3, 2);
  return xpcall_over(L, lua_pcallk(L, n - 2, LUA_MULTRET, 2, k, xpcall_over), k);
}

static const luaL_Reg base_functions[] = {
    {"pcall", safe_pcall}, {"xpcall", safe_xpcall}, {NULL, NULL}};

static const luaL_Reg functions[] = {{"resume", co_resume},
                                     {"wrap", co_wrap},
                                     {"close", co_close},
                                     {"status", co_status},
                                     {NULL, NULL}};

static void replace(lph_ctx *ctx, lua_State *L, const char *library, const luaL_Reg *with) {
  if (lua_getfield(L, -1, library) == LUA_TTABLE) lph_setfuncs(ctx, L, with);
  lua_pop(L, 1);
}

void lph_open_coroutine(lph_ctx *ctx, lua_State *L) {
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  replace(ctx, L, "coroutine", functions);
  replace(ctx, L, LUA_GNAME, base_functions);
  lua_pop(L, 1);
}
