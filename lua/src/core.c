/* luaopen_phub_core: the context of a Lua state, its runtime, errors, and the way in for callbacks
 * of the core. */
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lsched.h"

static const char context_key = 0, service_key = 0;
const char lph_waiting_key = 0;

/* Bumped in a forked child, where the standby thread is missing and the sockets are the parent's.
 */
static int fork_generation;

static void forked(void) {
  fork_generation++;
}

/* The contexts of this OS process, for its exit without lua_close. */
static struct {
  pthread_mutex_t mutex;
  ph_list list; /* lph_ctx.all */
} contexts = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void at_exit(void) {
  pthread_mutex_lock(&contexts.mutex);
  for (ph_list *l = contexts.list.next; l != &contexts.list; l = l->next) {
    lph_ctx *ctx = PH_CONTAINER(l, lph_ctx, all);
    if (ctx->fork_gen == fork_generation) ph_rt_exit(ctx->rt);
  }
  pthread_mutex_unlock(&contexts.mutex);
}

/* libcrypto's own handler comes first, so that it runs last: the standby thread may be inside. */
static void once_a_process(void) {
  ph_list_init(&contexts.list);
  pthread_atfork(NULL, NULL, forked);
  OPENSSL_init_crypto(0, NULL);
  atexit(at_exit);
}

static void remember(lph_ctx *ctx, bool on) {
  pthread_mutex_lock(&contexts.mutex);
  if (on)
    ph_list_push(&contexts.list, &ctx->all);
  else
    ph_list_remove(&ctx->all);
  pthread_mutex_unlock(&contexts.mutex);
}

void lph_check_fork(lua_State *L, lph_ctx *ctx) {
  if (ctx->fork_gen != fork_generation) luaL_error(L, "phub cannot be used after a fork");
  if (ctx->closing) luaL_error(L, "phub is closed");
}

lph_ctx *lph_get(lua_State *L) {
  lph_ctx *ctx = lua_touserdata(L, lua_upvalueindex(1));
  if (ctx->fork_gen != fork_generation || ctx->closing) lph_check_fork(L, ctx);
  atomic_store_explicit(ctx->stir, true, memory_order_relaxed);
  return ctx;
}

ph_rt *lph_rt(lph_ctx *ctx) {
  return ctx->rt;
}

ph_node *lph_node(lph_ctx *ctx) {
  return ctx->node;
}

ph_sys *lph_sys(lph_ctx *ctx) {
  return ctx->sys;
}

const ph_env *lph_env(lph_ctx *ctx) {
  return ctx->env;
}

lua_State *lph_main(lph_ctx *ctx) {
  return ctx->main;
}

bool lph_closing(lph_ctx *ctx) {
  return ctx->closing;
}

ph_pid lph_self(lph_ctx *ctx) {
  return ctx->cur->self;
}

void lph_pushfunction(lph_ctx *ctx, lua_State *L, lua_CFunction fn) {
  lua_pushlightuserdata(L, ctx);
  lua_pushcclosure(L, fn, 1);
}

void lph_setfuncs(lph_ctx *ctx, lua_State *L, const luaL_Reg *fns) {
  lua_pushlightuserdata(L, ctx);
  luaL_setfuncs(L, fns, 1);
}

/* ---- Errors -------------------------------------------------------------------------------- */

static void push_error(lua_State *L, const char *code, const char *message) {
  luaL_checkstack(L, 4, NULL);
  lua_createtable(L, 0, 2);
  lua_pushstring(L, code);
  lua_setfield(L, -2, "code");
  lua_pushstring(L, message);
  lua_setfield(L, -2, "message");
  lua_rawgetp(L, LUA_REGISTRYINDEX, &context_key);
  lph_ctx *ctx = lua_touserdata(L, -1);
  lua_pop(L, 1);
  lph_kind_push(ctx, L, LPH_KIND_ERROR);
  lua_setmetatable(L, -2);
}

static void push_verror(lua_State *L, int err, const char *fmt, va_list ap) {
  char text[512];
  if (fmt)
    vsnprintf(text, sizeof text, fmt, ap);
  else
    snprintf(text, sizeof text, "%s", ph_err_text(err));
  push_error(L, ph_err_code(err), text);
}

void lph_push_error(lua_State *L, int err, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  push_verror(L, err, fmt, ap);
  va_end(ap);
}

void lph_push_error_code(lua_State *L, const char *code, const char *message) {
  push_error(L, code, message);
}

int lph_error(lua_State *L, int err, const char *fmt, ...) {
  luaL_checkstack(L, 6, NULL);
  lua_pushnil(L);
  va_list ap;
  va_start(ap, fmt);
  push_verror(L, err, fmt, ap);
  va_end(ap);
  return 2;
}

int lph_raise(lua_State *L, int err, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  push_verror(L, err, fmt, ap);
  va_end(ap);
  return lua_error(L);
}

/* ---- Uncaught errors ------------------------------------------------------------------------ */

void lph_push_message(lua_State *L, int idx) {
  int type = lua_type(L, idx);
  bool travels = type == LUA_TSTRING || type == LUA_TNUMBER || type == LUA_TBOOLEAN ||
                 type == LUA_TLIGHTUSERDATA ||
                 (type == LUA_TTABLE && lph_table_kind(lph_of(L), L, idx) >= 0);
  if (travels)
    lua_pushvalue(L, idx);
  else
    luaL_tolstring(L, idx, NULL);
}

int lph_msgh(lua_State *L) {
  lua_settop(L, 1);
  lua_createtable(L, 3, 1);
  lua_pushliteral(L, "error");
  lua_rawseti(L, 2, 1);
  lph_push_message(L, 1);
  lua_rawseti(L, 2, 2);
  luaL_traceback(L, L, NULL, 1);
  lua_rawseti(L, 2, 3);
  lua_pushvalue(L, 1);
  lua_rawseti(L, 2, 0);
  lph_mark_unyieldable(L, 1, 2);
  return 1;
}

/* one line: a traceback's lines become "a <- b" */
static void one_line(char *out, size_t size, const char *text) {
  size_t n = 0;
  for (; *text && n + 5 < size; text++) {
    if (*text != '\n') {
      out[n++] = *text;
      continue;
    }
    while (text[1] == '\t' || text[1] == ' ') text++;
    memcpy(out + n, " <- ", 4);
    n += 4;
  }
  out[n] = '\0';
}

static void field_text(lua_State *L, int idx, int field, char *out, size_t size) {
  char text[LPH_TEXT];
  lua_rawgeti(L, idx, field);
  lph_text(L, -1, text, sizeof text);
  lua_pop(L, 1);
  one_line(out, size, text);
}

void lph_log_error(lph_ctx *ctx, lua_State *L, int idx, ph_pid pid) {
  if (!lua_checkstack(L, 3)) return;
  idx = lua_absindex(L, idx);
  char message[300], trace[700];
  if (!lua_istable(L, idx)) {
    lph_text(L, idx, message, sizeof message);
    ph_logf(ctx->env, PH_LOG_ERROR, "an error: %s", message);
    return;
  }
  field_text(L, idx, 2, message, sizeof message);
  field_text(L, idx, 3, trace, sizeof trace);
  if (pid)
    ph_logf(ctx->env, PH_LOG_ERROR, "process <%s.%llu> ended by an error: %s; %s",
            ctx->sys->nodes[PH_SELF]->name, (unsigned long long)ph_id_serial(pid), message, trace);
  else
    ph_logf(ctx->env, PH_LOG_ERROR, "an error in a callback: %s; %s", message, trace);
}

int lph_protected(lph_ctx *ctx, lua_CFunction fn, void *arg) {
  lua_State *L = ctx->service;
  if (!lua_checkstack(L, 8)) return PH_ENOMEM;
  lph_task *cur = ctx->cur;
  ctx->cur = &ctx->main_task;
  lua_pushcfunction(L, lph_msgh);
  int base = lua_gettop(L);
  lua_pushcfunction(L, fn);
  lua_pushlightuserdata(L, arg);
  int status = lua_pcall(L, 1, 0, base);
  ctx->cur = cur;
  if (status != LUA_OK && status != LUA_ERRMEM) lph_log_error(ctx, L, -1, 0);
  lua_settop(L, base - 1);
  return status == LUA_OK ? 0 : status == LUA_ERRMEM ? PH_ENOMEM : PH_EINVAL;
}

/* ---- Opening and closing ---------------------------------------------------------------------
 */

/* Runs in lua_close alone: whatever else refers to the context is going too, so nothing of Lua is
 * touched any more. */
static int context_gc(lua_State *L) {
  lph_ctx *ctx = lua_touserdata(L, 1);
  if (ctx->closing) return 0;
  ctx->closing = true;
  if (!ctx->rt) return 0;
  remember(ctx, false);
  if (ctx->fork_gen != fork_generation) return 0; /* the parent's */
  lph_drop_foreign(&ctx->orphans);
  for (ph_list *l; (l = ph_list_pop(&ctx->starts));) {
    lph_task *t = PH_CONTAINER(l, lph_task, list);
    ph_wait_cancel(&t->w);
    t->done(ctx, t->arg, NULL, LPH_ABANDONED, 0);
    lph_task_put(t, false);
  }
  if (ctx->main_task.ctx) lph_wait_drop(&ctx->main_task);
  if (ctx->spare) lph_task_put(ctx->spare, false);
  for (lph_task *t; (t = ctx->pool);) {
    ctx->pool = t->next;
    ph_free(ctx->env, t);
  }
  ph_bytes_unref(ctx->env, ctx->main_ended);
  ph_bytes_unref(ctx->env, ctx->run_reason);
  ph_bytes_unref(ctx->env, ctx->taken);
  lph_slots_free(ctx);
  ph_free(ctx->env, ctx->connects);
  ph_free(ctx->env, ctx->owed);
  ph_rt_free(ctx->rt); /* the processes' records go with it */
  ctx->rt = NULL;
  return 0;
}

static lph_ctx *context_new(lua_State *L) {
  lph_ctx *ctx = lua_newuserdatauv(L, sizeof *ctx, 0);
  memset(ctx, 0, sizeof *ctx);
  ctx->fork_gen = fork_generation;
  ctx->max_message = 64 << 20;
  ph_list_init(&ctx->starts);
  ph_list_init(&ctx->orphans);
  ph_list_init(&ctx->chunks_free);
  ph_list_init(&ctx->chunks_vacant);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, context_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  ctx->main = lua_tothread(L, -1);
  lua_pop(L, 1);
  ctx->service = lua_newthread(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &service_key);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &context_key);
  return ctx;
}

static void context_start(lph_ctx *ctx, lua_State *L) {
  ph_sys_host sys_host;
  ph_hub_host hub_host;
  lph_sys_host(ctx, &sys_host);
  lph_hub_host(ctx, &hub_host);
  int rc = ph_rt_new(&sys_host, &hub_host, &ctx->rt);
  if (rc < 0) luaL_error(L, "phub cannot start: %s", ph_err_text(rc));
  ctx->node = ph_rt_node(ctx->rt);
  ctx->sys = ph_rt_sys(ctx->rt);
  ctx->env = ph_rt_env(ctx->rt);
  ctx->cur = &ctx->main_task;
  lph_preempt_start(ctx);
  remember(ctx, true);
  if (!lua_checkstack(ctx->service, 64)) luaL_error(L, "not enough memory");
}

static int waiting_tostring(lua_State *L) {
  lua_pushliteral(L, "phub.future.waiting");
  return 1;
}

/* the value that a coroutine of the user's yields while it waits [-0, +1] */
static void push_waiting(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &lph_waiting_key) != LUA_TNIL) return;
  lua_pop(L, 1);
  lua_createtable(L, 0, 0);
  lua_createtable(L, 0, 2);
  lua_pushcfunction(L, waiting_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pushliteral(L, "phub.future.waiting");
  lua_setfield(L, -2, "__name");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &lph_waiting_key);
}

static int core_object(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lua_Integer kind = luaL_checkinteger(L, 1);
  luaL_argcheck(L, kind >= LPH_KIND_ERROR && kind < LPH_KIND_COUNT, 1, "unknown kind");
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  lph_kind_set(ctx, L, (int)kind);
  return 0;
}

static int core_error(lua_State *L) {
  lph_get(L);
  lph_push_error_code(L, luaL_checkstring(L, 1), luaL_checkstring(L, 2));
  return 1;
}

static int core_copy(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  luaL_checkany(L, 1);
  char path[LPH_PATH];
  snprintf(path, sizeof path, "%s", luaL_optstring(L, 2, "value"));
  int rc = lph_copy(ctx, L, 1, path, sizeof path);
  return rc < 0 ? lph_error(L, rc, "%s", path) : 1;
}

static int core_log(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  static const char *const levels[] = {"error", "warn", "info", "debug", NULL};
  int level = luaL_checkoption(L, 1, NULL, levels);
  char line[1000];
  one_line(line, sizeof line, luaL_checkstring(L, 2));
  ph_logf(ctx->env, level, "%s", line);
  return 0;
}

static const luaL_Reg functions[] = {{"object", core_object},
                                     {"error", core_error},
                                     {"copy", core_copy},
                                     {"log", core_log},
                                     {NULL, NULL}};

/* The module's parts; another open (package.loaded cleared by the user) makes them again. */
static void open_parts(lph_ctx *ctx, lua_State *L) {
  lua_newtable(L);
  lph_setfuncs(ctx, L, functions);
  lua_pushliteral(L, PH_VERSION);
  lua_setfield(L, -2, "version");
  push_waiting(L);
  lua_setfield(L, -2, "waiting");
  lph_open_text(ctx, L);
  lph_open_pid(ctx, L);
  lph_open_process(ctx, L);
  lph_open_mailbox(ctx, L);
  lph_open_gen_server(ctx, L);
  lph_open_supervisor(ctx, L);
  lph_open_wait(ctx, L);
  lph_open_preempt(ctx, L);
  lph_open_future(ctx, L);
  lph_open_run(ctx, L);
  lph_open_node(ctx, L);
  lph_hub_open(ctx, L);
}

__attribute__((visibility("default"))) int luaopen_phub_core(lua_State *L);

/* A step that fails for lack of memory leaves the others to the next attempt. */
int luaopen_phub_core(lua_State *L) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, once_a_process);
  luaL_checkversion(L);
  luaL_checkstack(L, 20, NULL);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &context_key);
  lph_ctx *ctx = lua_touserdata(L, -1);
  if (!ctx) ctx = context_new(L);
  if (!ctx->rt) context_start(ctx, L);
  if (!ctx->main_task.ctx) lph_main_start(ctx, L);
  if (!ctx->kind_slots[LPH_KIND_ERROR]) {
    lua_newtable(L);
    lph_kind_set(ctx, L, LPH_KIND_ERROR);
  }
  open_parts(ctx, L);
  lph_open_coroutine(ctx, L);
  return 1;
}
