/* Preemption, the part that knows Lua.
 *
 * Levels. Each coroutine that runs by phub's doing (lph_resume, coroutine.resume and wrap, a close)
 * has a record on the C stack; ctx->level is the innermost. `base` is the level of the task that a
 * level belongs to, if there is an unbroken chain of them up to it and the task may be preempted:
 * Lua code in the name of the main chunk, and callbacks of the core, have none.
 *
 * The hook. The handler of the signal arms a count hook on the innermost level's coroutine, and
 * nothing else: from there on all happens inside that hook, between two instructions of Lua. It
 * gives way if somebody waits and every level up to the base can yield. Each level then yields in
 * turn (coroutine.c), and on its next turn the task resumes its way back in. No hook is armed
 * normally, and none stays armed past the resume of its coroutine.
 *
 * Stretches. Where Lua cannot yield (below a sort, a gsub, a metamethod called by C) a task gets
 * LIMIT_MS of CPU time, then an error. What is looked at now and then is always below some sort in
 * a task that sorts small tables one after the other, so from WATCH_MS on the ends of functions are
 * hooked too: a stretch that has ended since does not count. Errors may be caught: from the
 * RELENTLESS-th on the hook strikes at each instruction until Lua can yield again, or the resume is
 * over.
 *
 * The user's own hook (debug.sethook) stays: for calls, returns and lines it is called from phub's
 * for the few instructions that this is armed. A count of instructions could not be taken up where
 * it stood: a coroutine with such a hook is not preempted.
 *
 * phub's own Lua code gives way only where it waits: its functions rely on that. */
#include <string.h>

#include "lsched.h"
#include "net/tcp/loop.h"

enum { LIMIT_MS = 1000, WATCH_MS = 500, RELENTLESS = 3, PATIENT = 256 };

static const char context_key = 0;

static void on_hook(lua_State *L, lua_Debug *ar);

/* ---- Hooks of a level -------------------------------------------------------------------------
 */

static int mask_of(const lph_level *v) {
  return v->user_mask | (v->counts ? LUA_MASKCOUNT : 0) | (v->watched ? LUA_MASKRET : 0);
}

/* Sets what v->counts and v->watched say. The handler keeps out meanwhile. */
static void set_hook(lph_ctx *ctx, lph_level *v) {
  if (!v->counts && !v->watched)
    lua_sethook(v->L, v->user, v->user_mask, v->user_count);
  else
    lua_sethook(v->L, on_hook, mask_of(v), v->counts ? v->counts : 1);
  if (v == ctx->level) ph_slice_armed(ctx->loop, v->counts != 0);
}

/* Before the first set_hook: is there room beside the user's hook? */
static bool keep_user(lph_level *v) {
  lua_Hook hook = lua_gethook(v->L);
  if (hook == on_hook) {
    if (v->counts || v->watched) return true;
    hook = NULL; /* a copy, in a coroutine made while it was armed */
  }
  v->counts = 0;
  v->watched = false;
  int mask = hook ? lua_gethookmask(v->L) : 0;
  if (mask & LUA_MASKCOUNT) return false;
  v->user = hook;
  v->user_mask = mask;
  v->user_count = lua_gethookcount(v->L);
  return true;
}

/* Strikes after that many instructions. */
static void arm(lph_ctx *ctx, lph_level *v, int count) {
  ctx->arming = true;
  if (keep_user(v)) {
    v->counts = count;
    set_hook(ctx, v);
  }
  ctx->arming = false;
}

static void watch(lph_ctx *ctx, lph_level *v) {
  ctx->arming = true;
  if (keep_user(v)) {
    v->watched = true;
    set_hook(ctx, v);
  }
  ctx->arming = false;
}

static void disarm(lph_ctx *ctx, lph_level *v, bool watches) {
  if (lua_gethook(v->L) != on_hook) return; /* it was not armed, or the user has set another */
  ctx->arming = true;
  v->counts = 0;
  if (!watches) v->watched = false;
  set_hook(ctx, v);
  ctx->arming = false;
}

/* The signal has come. */
static void interrupt(void *p) {
  lph_ctx *ctx = p;
  lph_level *v = ctx->level;
  if (!v || !v->base || ctx->arming) return;
  ctx->wanted = ph_slice_number(ctx->loop);
  arm(ctx, v, 1);
}

/* ---- Levels ------------------------------------------------------------------------------------
 */

#define HANDLER() atomic_signal_fence(memory_order_seq_cst)

static bool may_preempt(lph_ctx *ctx, const lph_task *t) {
  if (t->kind == LPH_T_FOREIGN) return t->proc && t->proc != &ctx->main_proc;
  return t->kind != LPH_T_MAIN;
}

/* The rest means something at a base, or once a hook is set. */
static void set_up(lph_level *v, lua_State *L, lph_level *up) {
  v->L = L;
  v->up = up;
  v->counts = v->waited = 0;
  v->fixed = v->watched = false;
  v->raises = 0;
}

static void push(lph_ctx *ctx, lph_level *v) {
  HANDLER();
  ctx->level = v;
}

static void pop(lph_ctx *ctx, lph_level *v) {
  ctx->level = v->up;
  HANDLER();
  if (!v->counts && !v->watched) return;
  disarm(ctx, v, false);
  ph_slice_armed(ctx->loop, false);
}

void lph_level_enter(lph_ctx *ctx, lph_level *v, lua_State *L, lua_State *from) {
  lph_level *up = ctx->level;
  set_up(v, L, up);
  v->base = up && up->L == from ? up->base : NULL;
  push(ctx, v);
}

bool lph_level_leave(lph_ctx *ctx, lph_level *v) {
  pop(ctx, v);
  if (v->base && v->base->raises >= RELENTLESS) arm(ctx, v->up, 1);
  if (!ctx->gives_way) return false;
  ctx->unwound++;
  return true;
}

void lph_task_enter(lph_task *t, lph_level *v, bool fixed) {
  lph_ctx *ctx = t->ctx;
  bool may = may_preempt(ctx, t);
  set_up(v, t->L, ctx->level);
  v->base = may ? v : NULL;
  v->fixed = fixed;
  v->stuck_cpu = v->watch_cpu = 0;
  ctx->arming = false;
  lph_task_thaw(t);
  if (may && ctx->slices++ == 0) ph_rt_slice_begin(ctx->rt, ph_id_serial(t->self));
  push(ctx, v);
}

void lph_task_leave(lph_task *t, lph_level *v) {
  lph_ctx *ctx = t->ctx;
  pop(ctx, v);
  if (v->base && --ctx->slices == 0) ph_slice_end(ctx->loop);
  ctx->sent = 0;
  ctx->loses = false;
  if (!ctx->gives_way) return;
  ctx->gives_way = false;
  t->frozen = ctx->unwound + 1;
  ctx->unwound = 0;
  ctx->frozen += t->frozen;
}

void lph_task_thaw(lph_task *t) {
  t->ctx->frozen -= t->frozen;
  t->frozen = 0;
}

static bool can_yield(const lph_level *v) {
  for (;; v = v->up) {
    if (v->fixed || !lua_isyieldable(v->L)) return false;
    if (v == v->base) return true;
  }
}

/* ---- The hook ----------------------------------------------------------------------------------
 */

static void watch_all(lph_ctx *ctx, lph_level *v) {
  v->base->watch_cpu = ph_slice_cpu();
  for (;; v = v->up) {
    if (!lua_isyieldable(v->L)) watch(ctx, v);
    if (v == v->base) return;
  }
}

/* Lua can yield: what it spent where it could not is forgiven. */
static void out_of_stretch(lph_ctx *ctx, lph_level *v) {
  lph_level *base = v->base;
  base->stuck_cpu = 0;
  base->raises = 0;
  if (!base->watch_cpu) return;
  base->watch_cpu = 0;
  for (;; v = v->up) {
    if (v->watched) {
      ctx->arming = true;
      v->watched = false;
      if (lua_gethook(v->L) == on_hook) set_hook(ctx, v);
      ctx->arming = false;
    }
    if (v == base) return;
  }
}

static void in_stretch(lph_ctx *ctx, lua_State *L, lph_level *v) {
  lph_level *base = v->base;
  uint64_t cpu = ph_slice_cpu();
  if (!base->stuck_cpu) base->stuck_cpu = cpu;
  if (cpu - base->stuck_cpu < PH_MS(WATCH_MS)) return;
  if (!base->watch_cpu) watch_all(ctx, v);
  if (cpu - base->stuck_cpu < PH_MS(LIMIT_MS)) return;
  if (cpu < base->watch_cpu + PH_MS(LIMIT_MS - WATCH_MS) / 2) return;
  if (base->raises < RELENTLESS) base->raises++;
  if (base->raises == RELENTLESS) arm(ctx, v, 1);
  lph_raise(L, PH_EUNYIELDABLE, NULL);
}

/* Is this a function of phub's own? */
static bool own_code(lph_ctx *ctx, lua_State *L, lua_Debug *ar) {
  if (!ctx->own_len || !lua_getinfo(L, "S", ar)) return false;
  return ar->srclen >= ctx->own_len && memcmp(ar->source, ctx->own, ctx->own_len) == 0;
}

/* Counts that meet, sooner or later, each part of a loop that is phub's in the most. */
static int patience(lph_level *v) {
  if (v->waited < PATIENT) {
    v->waited++;
    return 1;
  }
  v->waited++;
  return 64 + v->waited * 29 % 64;
}

static void struck(lph_ctx *ctx, lua_State *L, lph_level *v, lua_Debug *ar) {
  lph_level *base = v->base;
  bool relentless = base && base->raises >= RELENTLESS, loses = ctx->loses;
  bool wanted = ctx->wanted == ph_slice_number(ctx->loop);
  if (!base || !(wanted || loses || relentless)) {
    disarm(ctx, v, true);
    return;
  }
  if (!can_yield(v)) {
    ctx->loses = false;
    if (!relentless) disarm(ctx, v, true);
    if (wanted || relentless) in_stretch(ctx, L, v);
    return;
  }
  out_of_stretch(ctx, v);
  if (own_code(ctx, L, ar)) {
    arm(ctx, v, patience(v));
    return;
  }
  disarm(ctx, v, false);
  v->waited = 0;
  ctx->wanted = 0;
  ctx->loses = false;
  if (!loses && !ph_rt_wanted(ctx->rt)) return;
  ctx->gives_way = true;
  lua_yield(L, 0);
}

/* A function has ended in a coroutine that could not yield. */
static void ended(lph_ctx *ctx, lph_level *v) {
  if (!v->watched || !can_yield(v)) return;
  out_of_stretch(ctx, v);
  if (!ph_rt_wanted(ctx->rt)) return;
  ctx->wanted = ph_slice_number(ctx->loop);
  arm(ctx, v, 1);
}

lph_ctx *lph_of(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &context_key);
  lph_ctx *ctx = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return ctx;
}

/* Where the user hooks lines, the hook for a line comes after that for a count, even if that has
 * yielded; and what it calls would then yield too, inside the hook. Loops pass a line each time. */
static int strikes_at(const lph_level *v) {
  return v->user_mask & LUA_MASKLINE ? LUA_HOOKLINE : LUA_HOOKCOUNT;
}

static void on_hook(lua_State *L, lua_Debug *ar) {
  lph_ctx *ctx = lph_of(L);
  lph_level *v = ctx->level;
  if (!v || v->L != L || !(v->counts || v->watched)) { /* a copy */
    lua_sethook(L, NULL, 0, 0);
    return;
  }
  int event = ar->event;
  int bit = event == LUA_HOOKTAILCALL ? LUA_MASKCALL : 1 << event;
  if (v->user_mask & bit) v->user(L, ar);
  if (event == LUA_HOOKRET)
    ended(ctx, v);
  else if (event == strikes_at(v) && v->counts)
    struck(ctx, L, v, ar);
}

/* ---- debug.gethook and sethook -----------------------------------------------------------------
 * They see and set the user's hook: phub's is out of the way while they run. */

static lph_level *level_of(lph_ctx *ctx, lua_State *L) {
  lph_level *v = ctx->level;
  while (v && v->L != L) v = v->up;
  return v;
}

static int without_hook(lua_State *L) {
  lph_ctx *ctx = lua_touserdata(L, lua_upvalueindex(1));
  lua_CFunction f = lua_tocfunction(L, lua_upvalueindex(2));
  lph_level *v = level_of(ctx, lua_isthread(L, 1) ? lua_tothread(L, 1) : L);
  ctx->arming = true; /* an error leaves it so, until the next resume of a task */
  if (v && (v->counts || v->watched)) lua_sethook(v->L, v->user, v->user_mask, v->user_count);
  int n = f(L);
  ctx->arming = false;
  if (!v || !(v->counts || v->watched)) return n;
  int counts = v->counts;
  bool watched = v->watched;
  if (watched) watch(ctx, v);
  if (counts) arm(ctx, v, counts);
  return n;
}

static void wrap(lph_ctx *ctx, lua_State *L, const char *name) {
  lua_pushlightuserdata(L, ctx);
  lua_getfield(L, -2, name);
  if (lua_iscfunction(L, -1) && !lua_getupvalue(L, -1, 1)) {
    lua_pushcclosure(L, without_hook, 2);
    lua_setfield(L, -2, name);
  }
}

static void open_debug(lph_ctx *ctx, lua_State *L) {
  int top = lua_gettop(L);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, "debug") == LUA_TTABLE) {
    wrap(ctx, L, "gethook");
    lua_settop(L, top + 2);
    wrap(ctx, L, "sethook");
  }
  lua_settop(L, top);
}

/* ---- For the rest of the binding --------------------------------------------------------------
 */

void lph_lose_slice(lph_ctx *ctx, lua_State *L) {
  lph_level *v = ctx->level;
  if (!v || v->L != L || !v->base || v->counts || !can_yield(v)) return;
  ctx->loses = true;
  arm(ctx, v, 1);
}

bool lph_has_code(lua_State *L, int idx, int err) {
  lph_ctx *ctx = lph_of(L);
  idx = lua_absindex(L, idx);
  if (!lua_istable(L, idx) || lph_table_kind(ctx, L, idx) != LPH_KIND_ERROR) return false;
  lua_pushliteral(L, "code");
  lua_rawget(L, idx);
  const char *code = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
  bool yes = strcmp(code, ph_err_code(err)) == 0;
  lua_pop(L, 1);
  return yes;
}

void lph_mark_unyieldable(lua_State *L, int idx, int t) {
  if (!lph_has_code(L, idx, PH_EUNYIELDABLE)) return;
  lua_pushboolean(L, 1);
  lua_rawseti(L, t, LPH_UNYIELDABLE);
}

/* own(): the files of the calling function's folder are phub's */
static int core_own(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lua_Debug ar;
  if (!lua_getstack(L, 1, &ar) || !lua_getinfo(L, "S", &ar)) return 0;
  const char *slash = strrchr(ar.source, '/');
  size_t n = slash ? (size_t)(slash - ar.source) + 1 : 0;
  if (n == 0 || n > sizeof ctx->own) return 0;
  memcpy(ctx->own, ar.source, n);
  ctx->own_len = n;
  return 0;
}

static const luaL_Reg functions[] = {{"own", core_own}, {NULL, NULL}};

void lph_open_preempt(lph_ctx *ctx, lua_State *L) {
  lph_setfuncs(ctx, L, functions);
  lua_pushlightuserdata(L, ctx);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &context_key);
  open_debug(ctx, L);
}

void lph_preempt_start(lph_ctx *ctx) {
  ctx->loop = ph_rt_loop(ctx->rt);
  ph_loop_preempt(ctx->loop, interrupt, ctx);
  ctx->stir = ph_slice_stir(ctx->loop);
}
