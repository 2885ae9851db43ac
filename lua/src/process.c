/* phub.process, but for messages (mailbox.c). */
#include <stdio.h>
#include <string.h>

#include "lsched.h"

/* the record of the process in whose name L runs; raises when it has ended */
static ph_proc *self_proc(lua_State *L, lph_ctx *ctx) {
  lph_task *t = ctx->cur;
  ph_proc *p = t->proc ? t->proc->p : ph_proc_find(ctx->sys, t->self);
  if (!p && t->proc == &ctx->main_proc) lph_main_check(ctx, L);
  if (!p) lph_raise(L, PH_ENOPROC, "the process in whose name this runs has ended");
  return p;
}

static int result(lua_State *L, int rc) {
  if (rc < 0) return lph_error(L, rc, NULL);
  lua_pushboolean(L, 1);
  return 1;
}

/* ---- spawn
 * ----------------------------------------------------------------------------------------
 */

/* stack: fn, args... -> the process, or NULL with nil, err on the stack */
static lph_proc *spawn(lua_State *L, lph_ctx *ctx) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  int n = lua_gettop(L);
  luaL_checkstack(L, n + 8, "too many arguments");
  lua_pushvalue(L, 1);
  for (int i = 2; i <= n; i++) {
    char path[LPH_PATH];
    snprintf(path, sizeof path, "args[%d]", i - 1);
    int rc = lph_copy(ctx, L, i, path, sizeof path);
    if (rc < 0) {
      lph_error(L, rc, "%s", path);
      return NULL;
    }
  }
  lph_proc *lp = lph_spawn(ctx, L, n - 1);
  if (!lp) lph_error(L, PH_ENOMEM, NULL);
  return lp;
}

static int process_spawn(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lph_proc *lp = spawn(L, ctx);
  if (!lp) return 2;
  lph_push_pid(L, lp->p->pid);
  return 1;
}

/* what was spawned is not wanted after all: it has not run yet */
static int unspawn(lua_State *L, lph_proc *lp, int rc) {
  ph_exit(lp->p, ph_reason_get(lp->ctx->sys, PH_REASON_KILLED));
  return lph_error(L, rc, NULL);
}

static int process_spawn_link(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  ph_proc *self = self_proc(L, ctx);
  lph_proc *lp = spawn(L, ctx);
  if (!lp) return 2;
  int rc = ph_link_procs(self, lp->p->pid);
  if (rc < 0) return unspawn(L, lp, rc);
  lph_push_pid(L, lp->p->pid);
  return 1;
}

static int process_spawn_monitor(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  ph_proc *self = self_proc(L, ctx);
  lph_proc *lp = spawn(L, ctx);
  ph_ref ref;
  if (!lp) return 2;
  int rc = ph_monitor(self, lp->p->pid, &ref);
  if (rc < 0) return unspawn(L, lp, rc);
  lph_push_pid(L, lp->p->pid);
  lph_push_pid(L, ref);
  return 2;
}

/* ---- ends
 * -------------------------------------------------------------------------------------------
 */

static int process_self(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  if (ctx->main_ended && ctx->cur == &ctx->main_task) lph_main_check(ctx, L);
  lph_push_pid(L, lph_self(ctx));
  return 1;
}

/* The main chunk's process is the program. */
static int exit_main(lph_ctx *ctx, lua_State *L, ph_bytes *reason) {
  bool well = ph_reason_is(reason, "normal") || ph_reason_is(reason, "shutdown");
  ph_bytes_unref(ctx->env, reason);
  if (!well) {
    luaL_tolstring(L, 1, NULL);
    ph_logf(ctx->env, PH_LOG_ERROR, "the main chunk ended itself: %s", lua_tostring(L, -1));
  }
  lph_os_exit(ctx, L, well ? 0 : 1);
  return 0;
}

static int process_exit(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lph_task *t = ctx->cur;
  int err;
  char path[LPH_PATH];
  memcpy(path, "reason", sizeof "reason");
  lua_settop(L, 1);
  ph_bytes *reason = lph_pack_reason(ctx, L, 1, path, sizeof path, &err);
  if (!reason) return lph_raise(L, err, "%s", path);
  if (t->proc == &ctx->main_proc) return exit_main(ctx, L, reason);
  ph_bytes **mark = t->proc ? &t->proc->exit_reason : &t->exit_reason;
  ph_bytes_unref(ctx->env, *mark);
  *mark = reason;
  return lph_yield_exit(L);
}

static int process_kill(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  ph_pid pid = lph_check_pid(L, 1);
  int err;
  char path[LPH_PATH];
  memcpy(path, "reason", sizeof "reason");
  ph_bytes *reason = lph_pack_reason(ctx, L, 2, path, sizeof path, &err);
  if (!reason) return lph_error(L, err, "%s", path);
  err = ph_signal(ctx->sys, lph_self(ctx), pid, reason, true);
  ph_bytes_unref(ctx->env, reason);
  /* a signal to itself has come when this returns: as after exit, nothing else runs */
  if (err >= 0 && pid == lph_self(ctx) && lph_exiting(ctx)) return lph_yield_exit(L);
  return result(L, err);
}

/* ---- links and monitors
 * --------------------------------------------------------------------------------
 */

static int process_link(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  ph_pid pid = lph_check_pid(L, 1);
  return result(L, ph_link_procs(self_proc(L, ctx), pid));
}

static int process_unlink(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  ph_pid pid = lph_check_pid(L, 1);
  ph_unlink(self_proc(L, ctx), pid);
  return result(L, 0);
}

static int process_monitor(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lph_dest to;
  ph_ref ref;
  lph_check_dest(ctx, L, 1, &to);
  if (to.err) return lph_error(L, to.err, NULL);
  ph_proc *p = self_proc(L, ctx);
  int rc =
      to.name ? ph_monitor_named(p, to.name, to.len, to.node, &ref) : ph_monitor(p, to.pid, &ref);
  if (rc < 0) return lph_error(L, rc, NULL);
  lph_push_pid(L, ref);
  return 1;
}

static int process_demonitor(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  ph_ref ref;
  if (!lph_to_ref(L, 1, &ref)) luaL_typeerror(L, 1, "ref");
  lph_task *t = ctx->cur;
  /* its DOWN leaves the mailbox, and may be where a receive stands (a coroutine of the user's may
   * call this while its process receives): that looks at all again */
  if (t->proc && t->proc->task) t->proc->task->scan = NULL;
  ph_demonitor(self_proc(L, ctx), ref);
  return result(L, 0);
}

static int process_trap_exit(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  luaL_checktype(L, 1, LUA_TBOOLEAN);
  ph_proc *p = self_proc(L, ctx);
  bool before = p->trap_exit;
  p->trap_exit = lua_toboolean(L, 1);
  lua_pushboolean(L, before);
  return 1;
}

/* ---- names
 * -------------------------------------------------------------------------------------------------
 */

static const char *check_name(lua_State *L, int arg, size_t *n) {
  luaL_checktype(L, arg, LUA_TSTRING);
  const char *name = lua_tolstring(L, arg, n);
  luaL_argcheck(L, *n > 0 && *n <= 255, arg, "a name has 1 to 255 bytes");
  return name;
}

static int process_register(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  size_t n;
  const char *name = check_name(L, 1, &n);
  ph_proc *p;
  if (lua_isnoneornil(L, 2)) {
    p = self_proc(L, ctx);
  } else {
    ph_pid pid = lph_check_pid(L, 2);
    if (ph_id_node(pid) != PH_SELF)
      return lph_error(L, PH_EINVAL, "a name stands for a process of its own node");
    p = ph_proc_find(ctx->sys, pid);
    if (!p) return lph_error(L, PH_ENOPROC, NULL);
  }
  int rc = ph_register(p, name, n);
  if (rc == PH_EREGISTERED) return lph_error(L, rc, "the name '%s' is in use", name);
  return result(L, rc);
}

static int process_unregister(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  size_t n;
  const char *name = check_name(L, 1, &n);
  int rc = ph_unregister(ctx->sys, name, n);
  if (rc == PH_ENOPROC) return lph_error(L, rc, "no process is registered as '%s'", name);
  return result(L, rc);
}

static int process_whereis(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  size_t n;
  luaL_checktype(L, 1, LUA_TSTRING);
  const char *name = lua_tolstring(L, 1, &n);
  lph_push_pid(L, ph_whereis(ctx->sys, name, n));
  return 1;
}

/* ---- state
 * -----------------------------------------------------------------------------------------------------
 */

static int not_here(lua_State *L) {
  return lph_error(L, PH_ENOTSUP, "a process of another node: monitor it instead");
}

static int process_alive(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  ph_pid pid = lph_check_pid(L, 1);
  if (ph_id_node(pid) != PH_SELF) return not_here(L);
  lua_pushboolean(L, ph_proc_find(ctx->sys, pid) != NULL);
  return 1;
}

static const char *state_of(lph_ctx *ctx, const ph_proc *p) {
  if (p->pid == lph_self(ctx) || p->running) return "running";
  return p->queued ? "runnable" : "waiting";
}

/* The bytes that C holds for it: records and unread messages. Values in Lua's memory (its state,
 * its coroutine's stack, messages of this node) are the collector's to count. */
static size_t memory_of(const ph_proc *p) {
  size_t n = sizeof *p;
  for (const ph_msg *m = p->mailbox.head; m; m = m->next) n += sizeof *m + m->len;
  for (const ph_list *l = p->links.next; l != &p->links; l = l->next) n += offsetof(ph_link, node);
  for (const ph_list *l = p->watching.next; l != &p->watching; l = l->next) n += sizeof(ph_refobj);
  return n;
}

static bool is_lua(const ph_proc *p);

static int process_info(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  ph_pid pid = lph_check_pid(L, 1);
  if (ph_id_node(pid) != PH_SELF) return not_here(L);
  const ph_proc *p = ph_proc_find(ctx->sys, pid);
  if (!p) return lph_error(L, PH_ENOPROC, NULL);
  size_t memory = memory_of(p);
  if (is_lua(p)) {
    const lph_proc *lp = p->data;
    memory += sizeof *lp + (lp->task ? sizeof *lp->task : 0);
  }
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, (lua_Integer)p->mailbox.count);
  lua_setfield(L, -2, "mailbox");
  lua_pushinteger(L, (lua_Integer)memory);
  lua_setfield(L, -2, "memory");
  lua_pushstring(L, state_of(ctx, p));
  lua_setfield(L, -2, "state");
  return 1;
}

static bool is_lua(const ph_proc *p) {
  return p->bh == &lph_plain_bh || p->bh == &lph_server_bh;
}

/* ---- time
 * ----------------------------------------------------------------------------------------------------------
 */

static int slept(lua_State *L, int status, lua_KContext k) {
  (void)L;
  (void)status;
  (void)k;
  return 0;
}

static int wait_until(lua_State *L, lph_ctx *ctx, uint64_t due) {
  lph_task *t = lph_wait_begin(L, ctx);
  int rc = ph_wait(lph_waiter(t), due);
  if (rc < 0) {
    lph_wait_drop(t);
    return lph_raise(L, rc, NULL);
  }
  return lph_wait(L, t, slept);
}

static int process_sleep(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  if (lua_isnoneornil(L, 1)) luaL_typeerror(L, 1, "number of milliseconds");
  return wait_until(L, ctx, lph_due(ctx, lph_check_ms(L, 1, 0)));
}

/* Gives way to what is runnable now. */
static int process_yield(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lph_task *t = ctx->cur;
  if (!lph_can_wait(L, ctx)) lph_cannot_wait(L);
  if (t->L == L && t->kind == LPH_T_PROC) return lua_yield(L, 0);
  return wait_until(L, ctx, 0);
}

static int process_now(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lua_pushnumber(L, (lua_Number)ph_now(ctx->env) / 1e6);
  return 1;
}

static const luaL_Reg functions[] = {{"spawn", process_spawn},
                                     {"spawn_link", process_spawn_link},
                                     {"spawn_monitor", process_spawn_monitor},
                                     {"self", process_self},
                                     {"exit", process_exit},
                                     {"kill", process_kill},
                                     {"link", process_link},
                                     {"unlink", process_unlink},
                                     {"monitor", process_monitor},
                                     {"demonitor", process_demonitor},
                                     {"trap_exit", process_trap_exit},
                                     {"register", process_register},
                                     {"unregister", process_unregister},
                                     {"whereis", process_whereis},
                                     {"alive", process_alive},
                                     {"info", process_info},
                                     {"sleep", process_sleep},
                                     {"yield", process_yield},
                                     {"now", process_now},
                                     {NULL, NULL}};

void lph_open_process(lph_ctx *ctx, lua_State *L) {
  lph_setfuncs(ctx, L, functions);
}
