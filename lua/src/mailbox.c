/* Sending and receiving. */
#include <math.h>
#include <string.h>

#include "lsched.h"

enum {
  SEND_TIMEOUT = 5000,
  LOOK_EACH = 256, /* messages of one slice after which the receiver's mailbox is looked at */
  LONG_MAILBOX = 1000
};

/* ---- send
 * ----------------------------------------------------------------------------------------
 */

static int send_to(lph_ctx *ctx, const lph_dest *to, ph_msg *m) {
  if (to->err) return to->err;
  if (!to->name) return ph_send(ctx->sys, to->pid, m, false);
  return ph_send_named(ctx->sys, to->name, to->len, to->node, m, false);
}

static int unsent(lua_State *L, const lph_dest *to, int rc) {
  if (rc == PH_ENOPROC) return lph_error(L, rc, "no process is registered as '%s'", to->name);
  return lph_error(L, rc, NULL);
}

/* The stack of one that waits: dest, message, -, sender. The message is packed again when there is
 * way. */
typedef struct sender {
  ph_class cls;
  uint64_t due;
} sender;

static int try_send(lph_ctx *ctx, lua_State *L, const lph_dest *to, ph_class cls, uint64_t due);

static int sent_xon(lua_State *L, int status, lua_KContext k) {
  (void)status;
  lph_task *t = (lph_task *)k;
  sender *s = lua_touserdata(L, 4);
  if (t->err == PH_ETIMEOUT) return lph_error(L, PH_EBUSY, NULL);
  if (t->err < 0) return lph_error(L, t->err, NULL);
  lph_dest to;
  lph_check_dest(t->ctx, L, 1, &to);
  return try_send(t->ctx, L, &to, s->cls, s->due);
}

/* A sender on this node never waits for a receiver, but whoever is ahead of it gives way. A sender
 * to another node sees between its messages that the way is full; the main chunk, which never loses
 * its slice, looks here. */
static void give_way(lph_ctx *ctx, lua_State *L, const lph_dest *to) {
  if (to->remote) {
    lph_main_turn(ctx, L);
    return;
  }
  ph_pid pid = to->name ? ph_whereis(ctx->sys, to->name, to->len) : to->pid;
  const ph_proc *p = ph_proc_find(ctx->sys, pid);
  if (p && p->mailbox.count >= LONG_MAILBOX) lph_lose_slice(ctx, L);
}

void lph_sent(lph_ctx *ctx, lua_State *L, ph_pid pid) {
  lph_dest to = {.pid = pid, .remote = ph_id_node(pid) != PH_SELF};
  if (++ctx->sent % LOOK_EACH == 0) give_way(ctx, L, &to);
}

/* stack: dest, message, -, [sender] */
static int wait_for_way(lph_ctx *ctx, lua_State *L, const lph_dest *to, ph_class cls,
                        uint64_t due) {
  if (!lph_can_wait(L, ctx) || due <= ph_now(ctx->env)) return lph_error(L, PH_EBUSY, NULL);
  if (lua_gettop(L) < 4) {
    sender *s = lua_newuserdatauv(L, sizeof *s, 0);
    *s = (sender){cls, due};
  }
  lph_task *t = lph_wait_begin(L, ctx);
  int rc = to->name ? ph_wait_room_named(lph_waiter(t), to->name, to->len, to->node, due)
                    : ph_wait_room(lph_waiter(t), to->pid, due);
  if (rc < 0) return lph_error(L, rc, NULL);
  return lph_wait(L, t, sent_xon);
}

static int try_send(lph_ctx *ctx, lua_State *L, const lph_dest *to, ph_class cls, uint64_t due) {
  int rc;
  char path[LPH_PATH];
  memcpy(path, "message", sizeof "message");
  ph_msg *m = lph_msg(ctx, L, 2, cls, to->remote, path, sizeof path, &rc);
  if (!m) return lph_error(L, rc, "%s", path);
  rc = send_to(ctx, to, m);
  if (rc == 0) {
    if (++ctx->sent % LOOK_EACH == 0) give_way(ctx, L, to);
    lua_pushboolean(L, 1);
    return 1;
  }
  ph_msg_free(ctx->sys, m);
  return rc == PH_EBUSY ? wait_for_way(ctx, L, to, cls, due) : unsent(L, to, rc);
}

/* stack: dest, message, timeout */
static int send_now(lua_State *L, ph_class cls) {
  lph_ctx *ctx = lph_get(L);
  lph_dest to;
  lph_check_dest(ctx, L, 1, &to);
  /* the clock is read only where the way is full: for almost all sends it is not */
  return try_send(ctx, L, &to, cls,
                  to.remote ? lph_due(ctx, lph_check_ms(L, 3, SEND_TIMEOUT)) : PH_NEVER);
}

static int info_now(lua_State *L, int status, lua_KContext k) {
  (void)status, (void)k;
  return send_now(L, PH_C_INFO);
}

static int cast_now(lua_State *L, int status, lua_KContext k) {
  (void)status, (void)k;
  return send_now(L, PH_C_CAST);
}

/* stack: dest, message[, timeout] */
int lph_send(lua_State *L, ph_class cls) {
  lph_ctx *ctx = lph_get(L);
  if (lua_isnoneornil(L, 2)) luaL_argerror(L, 2, "a message cannot be nil");
  (void)lph_check_ms(L, 3, SEND_TIMEOUT);
  lua_settop(L, 3);
  lph_dest to;
  lph_check_dest(ctx, L, 1, &to);
  if (!to.remote && !to.err) return try_send(ctx, L, &to, cls, PH_NEVER);
  return lph_when_seen(L, ctx, &to, cls == PH_C_CAST ? cast_now : info_now);
}

static int process_send(lua_State *L) {
  return lph_send(L, PH_C_INFO);
}

/* ---- receive
 * ---------------------------------------------------------------------------------------
 */

static int receive(lua_State *L, lph_task *t);

/* stack: match or nil, timeout */
static int receive_goes_on(lua_State *L, int status, lua_KContext k) {
  (void)status;
  return receive(L, (lph_task *)k);
}

static int received(lph_ctx *ctx, lua_State *L, lph_task *t, ph_msg *m, bool pushed) {
  ph_wait_cancel(&t->w);
  t->receiving = false;
  t->scan = NULL;
  t->msg = m; /* the task's until it is freed: pushing may raise */
  bool ok = pushed || lph_push_event(ctx, L, m, true);
  lph_task_clear(t);
  if (!ok) return lph_error(L, PH_EMALFORMED, "a message from another node is malformed");
  return 1;
}

/* Asks match about the message [-0, +1: the message's value when it answers true]. While it runs
 * nothing may wait or take messages: the mailbox stands still, but for its tail. */
static bool matches(lph_ctx *ctx, lua_State *L, lph_task *t, ph_msg *m) {
  if (!lph_push_event(ctx, L, m, false)) return false;
  lua_pushvalue(L, 1);
  lua_pushvalue(L, -2);
  t->proc->matching = true;
  int status = lua_pcall(L, 1, 1, 0);
  t->proc->matching = false;
  if (status != LUA_OK) {
    lph_wait_drop(t);
    t->receiving = false;
    lua_error(L);
  }
  bool yes = lua_toboolean(L, -1);
  lua_pop(L, yes ? 1 : 2);
  return yes;
}

/* A gen_server.stop for a process that is no gen_server is an exit signal that it can trap. */
static bool stops(lph_proc *lp, ph_msg *m) {
  return m->cls == PH_C_STOP && !lp->p->trap_exit && lp != &lp->ctx->main_proc;
}

static int stop_now(lua_State *L, lph_proc *lp, ph_msg *m) {
  lp->exit_reason =
      ph_bytes_ref(m->reason ? m->reason : ph_reason_get(lp->ctx->sys, PH_REASON_NORMAL));
  ph_msg_free(lp->ctx->sys, m);
  return lph_yield_exit(L);
}

static ph_msg *next_message(lph_proc *lp, lph_task *t) {
  return t->scan ? t->scan->next : lp->p->mailbox.head;
}

/* results, or -1: nothing for it there */
static int scan_mailbox(lua_State *L, lph_ctx *ctx, lph_task *t) {
  lph_proc *lp = t->proc;
  bool match = !lua_isnil(L, 1);
  for (ph_msg *m; lp->p && (m = next_message(lp, t)); t->scan = m) {
    if (stops(lp, m)) return stop_now(L, lp, ph_recv_at(lp->p, t->scan));
    if (!match) return received(ctx, L, t, ph_recv(lp->p), false);
    if (matches(ctx, L, t, m)) return received(ctx, L, t, ph_recv_at(lp->p, t->scan), true);
  }
  return -1;
}

static bool main_received(lph_ctx *ctx, void *arg) {
  lph_task *t = arg;
  return t->over || (ctx->main_proc.p && next_message(&ctx->main_proc, t));
}

static int receive(lua_State *L, lph_task *t) {
  lph_ctx *ctx = t->ctx;
  for (;;) {
    int n = scan_mailbox(L, ctx, t);
    if (n >= 0) return n;
    if (t->over) break;
    if (t->kind != LPH_T_MAIN) {
      t->waits = true;
      return lua_yieldk(L, 0, (lua_KContext)t, receive_goes_on);
    }
    lph_drive(ctx, L, main_received, t);
    if (ctx->main_ended) {
      lph_wait_drop(t);
      t->receiving = false;
      lph_main_check(ctx, L);
    }
  }
  t->receiving = false;
  t->scan = NULL;
  return lph_error(L, t->err ? t->err : PH_ETIMEOUT, NULL);
}

static int process_receive(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  if (lua_type(L, 1) != LUA_TFUNCTION && lua_gettop(L) < 2) {
    uint64_t check = lph_check_ms(L, 1, 0); /* receive(timeout) */
    (void)check;
    lua_settop(L, 1);
    lua_pushnil(L);
    lua_insert(L, 1);
  } else if (!lua_isnil(L, 1)) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
  }
  uint64_t ms = lph_check_ms(L, 2, UINT64_MAX);
  lua_settop(L, 2);
  lph_task *t = ctx->cur;
  if (t->L != L || !t->proc || t->kind == LPH_T_FOREIGN) lph_cannot_wait(L);
  t = lph_wait_begin(L, ctx);
  t->receiving = true;
  t->scan = NULL;
  int n = scan_mailbox(L, ctx, t);
  if (n >= 0) return n;
  if (ms == 0) {
    t->receiving = false;
    return lph_error(L, PH_ETIMEOUT, NULL);
  }
  int rc = ms == UINT64_MAX ? 0 : ph_wait(lph_waiter(t), lph_due(ctx, ms));
  if (rc < 0) {
    t->receiving = false;
    return lph_error(L, rc, NULL);
  }
  return receive(L, t);
}

/* ---- timers
 * -----------------------------------------------------------------------------------------
 */

static int process_send_after(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lph_dest to;
  ph_ref ref;
  int rc;
  char path[LPH_PATH] = "message";
  if (lua_isnoneornil(L, 1)) luaL_typeerror(L, 1, "number of milliseconds");
  uint64_t ms = lph_check_ms(L, 1, 0);
  lph_check_dest(ctx, L, 2, &to);
  if (lua_isnoneornil(L, 3)) luaL_argerror(L, 3, "a message cannot be nil");
  if (to.err) return lph_error(L, to.err, NULL);
  ph_msg *m = lph_msg(ctx, L, 3, PH_C_INFO, to.remote, path, sizeof path, &rc);
  if (!m) return lph_error(L, rc, "%s", path);
  uint64_t due = lph_due(ctx, ms);
  if (to.name)
    rc = ph_send_after_named(ctx->sys, due, to.name, to.len, to.node, m, &ref);
  else
    rc = ph_send_after(ctx->sys, due, to.pid, m, &ref);
  if (rc < 0) {
    ph_msg_free(ctx->sys, m);
    return lph_error(L, rc, NULL);
  }
  lph_push_pid(L, ref);
  return 1;
}

static int process_cancel_timer(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  ph_ref ref;
  uint64_t left;
  if (!lph_to_ref(L, 1, &ref)) luaL_typeerror(L, 1, "timer");
  if (!ph_cancel_timer(ctx->sys, ref, &left))
    lua_pushboolean(L, 0);
  else if (left == UINT64_MAX)
    lua_pushnumber(L, (lua_Number)HUGE_VAL);
  else
    lua_pushinteger(L, (lua_Integer)left);
  return 1;
}

static const luaL_Reg functions[] = {{"send", process_send},
                                     {"receive", process_receive},
                                     {"send_after", process_send_after},
                                     {"cancel_timer", process_cancel_timer},
                                     {NULL, NULL}};

void lph_open_mailbox(lph_ctx *ctx, lua_State *L) {
  lph_setfuncs(ctx, L, functions);
}
