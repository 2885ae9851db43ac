/* Messages by child id: call, cast, send.
 *
 * Most of the time the child's pid is known at once and this is as good as sending to the pid. A
 * call without one waits for its route, then calls. A cast or send to a known child is accepted: it
 * waits in the hub's hands (a `mail`), and those of one sender stay in order because the core
 * answers the routes of an id in order and what is accepted goes out as its route is answered.
 *
 * A call is sent once. Only when its target turns out to have been dead already (noproc), so that
 * nobody has seen it, it is routed again, within its timeout. */
#include <string.h>

#include "hub_int.h"
#include "lsched.h"

enum { A_HUB = 1, A_ID, A_MSG, A_TIMEOUT, A_ROUTE };
enum { MAX_MAILS = 100000, WAIT_MS = 5000, AGAIN_MS = 5 };
#define ROUTE "phub.route"

/* ---- A route that a coroutine waits for ------------------------------------------------------ */

/* A userdata on the waiting function's stack. The task may be gone when the answer comes, so it is
 * looked up by its ref. */
typedef struct waiting {
  ph_route route;
  ph_sys *sys;
  ph_ref ref;
  ph_pid pid;
  int err;
  bool armed;
} waiting;

static void waiting_done(ph_route *r, int err, ph_pid pid) {
  waiting *w = PH_CONTAINER(r, waiting, route);
  w->armed = false;
  w->err = err;
  w->pid = pid;
  ph_waiter *task = ph_waiter_find(w->sys, w->ref);
  if (task) ph_wake(task, 0, NULL);
}

static int waiting_gc(lua_State *L) {
  waiting *w = lua_touserdata(L, 1);
  if (w->armed) ph_route_cancel(&w->route);
  w->armed = false;
  return 0;
}

void lph_msg_open(lua_State *L) {
  luaL_newmetatable(L, ROUTE);
  lua_pushcfunction(L, waiting_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}

static void probe_done(ph_route *r, int err, ph_pid pid) {
  (void)r, (void)err, (void)pid;
}

/* PH_EAGAIN: it is not known now; nothing waits. */
static int route_now(lua_State *L, lph_hub *hub, ph_pid *pid) {
  size_t n;
  ph_route probe;
  const char *id = lua_tolstring(L, A_ID, &n);
  if (!lph_id_fits(n)) return PH_ENOCHILD;
  ph_list_init(&probe.list);
  probe.done = probe_done;
  int rc = ph_hub_route(hub->h, id, n, PH_NEVER, &probe, pid);
  if (rc == PH_EAGAIN) ph_route_cancel(&probe);
  return rc;
}

/* Waits until the route is known, then k goes on with the `waiting` at A_ROUTE. The message is
 * copied first: it is as it was when it was sent. */
static int route_wait(lua_State *L, lph_ctx *ctx, lph_hub *hub, uint64_t due, lua_KFunction k) {
  char path[LPH_PATH] = "message";
  size_t n;
  const char *id = lua_tolstring(L, A_ID, &n);
  lua_settop(L, A_TIMEOUT);
  waiting *w = lua_newuserdatauv(L, sizeof *w, 0);
  memset(w, 0, sizeof *w);
  luaL_setmetatable(L, ROUTE);
  int err = lph_copy(ctx, L, A_MSG, path, sizeof path);
  if (err) return lph_error(L, err, "%s", path);
  lua_replace(L, A_MSG);
  lph_task *t = lph_wait_begin(L, ctx);
  *lph_wait_user(t) = (void *)(uintptr_t)due;
  err = ph_wait(lph_waiter(t), PH_NEVER);
  if (!err) {
    w->sys = lph_sys(ctx);
    w->ref = lph_waiter(t)->obj.ref;
    ph_list_init(&w->route.list);
    w->route.done = waiting_done;
    err = ph_hub_route(hub->h, id, n, due, &w->route, &w->pid);
  }
  if (err == PH_EAGAIN) {
    w->armed = true;
    return lph_wait(L, t, k);
  }
  lph_wait_drop(t);
  return lph_error(L, err ? err : PH_EAGAIN, NULL);
}

static uint64_t due_of(lua_KContext k) {
  return (uint64_t)(uintptr_t)*lph_wait_user((lph_task *)k);
}

/* What every continuation begins with: the hub may have ended meanwhile. */
static lph_hub *hub_still(lua_State *L, lph_ctx *ctx) {
  return lph_hub_to(L, ctx, A_HUB);
}

static int wait_xon(lua_State *L, lph_task *t, ph_pid pid, uint64_t due, lua_KFunction k) {
  *lph_wait_user(t) = (void *)(uintptr_t)due;
  int err = ph_wait_room(lph_waiter(t), pid, due);
  if (!err) return lph_wait(L, t, k);
  lph_wait_drop(t);
  return lph_error(L, err, NULL);
}

static lph_hub *check_args(lua_State *L, lph_ctx *ctx) {
  size_t n;
  lph_hub *hub = lph_hub_arg(L, ctx, A_HUB);
  (void)lph_id_arg(L, A_ID, &n);
  luaL_argexpected(L, !lua_isnoneornil(L, A_MSG), A_MSG, "message (not nil)");
  return hub;
}

/* ---- call ------------------------------------------------------------------------------------ */

static int call_route(lua_State *L, lph_ctx *ctx, lph_hub *hub, uint64_t due);

static int call_again(lua_State *L, int status, lua_KContext k) {
  (void)status;
  lph_ctx *ctx = lph_get(L);
  uint64_t due = due_of(k);
  lph_hub *hub = hub_still(L, ctx);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  if (due != PH_NEVER && ph_now(lph_env(ctx)) >= due) return lph_error(L, PH_ETIMEOUT, NULL);
  return call_route(L, ctx, hub, due);
}

/* The registry will know soon that the instance is gone. */
static int call_later(lua_State *L, lph_ctx *ctx, uint64_t due) {
  lph_task *t = lph_wait_begin(L, ctx);
  uint64_t soon = lph_due(ctx, AGAIN_MS);
  *lph_wait_user(t) = (void *)(uintptr_t)due;
  int err = ph_wait(lph_waiter(t), soon < due ? soon : due);
  if (!err) return lph_wait(L, t, call_again);
  lph_wait_drop(t);
  return lph_error(L, err, NULL);
}

static int call_over(lua_State *L, int status, lua_KContext k) {
  (void)status;
  lph_task *t = (lph_task *)k;
  if (lph_wait_result(t, NULL, NULL) != PH_ENOPROC) return lph_wait_reply(L, t);
  return call_later(L, lph_get(L), due_of(k));
}

static int call_pid(lua_State *L, lph_ctx *ctx, ph_pid pid, uint64_t due) {
  char path[LPH_PATH] = "message";
  int err = 0;
  lph_task *t = lph_wait_begin(L, ctx);
  ph_msg *m =
      lph_msg(ctx, L, A_MSG, PH_C_CALL, ph_id_node(pid) != PH_SELF, path, sizeof path, &err);
  if (!m) {
    lph_wait_drop(t);
    return lph_error(L, err, "%s", path);
  }
  *lph_wait_user(t) = (void *)(uintptr_t)due;
  err = ph_call(lph_sys(ctx), lph_self(ctx), pid, m, lph_waiter(t), due);
  if (!err) return lph_wait(L, t, call_over);
  ph_msg_free(lph_sys(ctx), m);
  if (err == PH_EBUSY) return wait_xon(L, t, pid, due, call_again);
  lph_wait_drop(t);
  return lph_error(L, err, NULL);
}

static int call_routed(lua_State *L, int status, lua_KContext k) {
  (void)status;
  const waiting *w = lua_touserdata(L, A_ROUTE);
  return w->err ? lph_error(L, w->err, NULL) : call_pid(L, lph_get(L), w->pid, due_of(k));
}

static int call_route(lua_State *L, lph_ctx *ctx, lph_hub *hub, uint64_t due) {
  ph_pid pid;
  int err = route_now(L, hub, &pid);
  if (!err) return call_pid(L, ctx, pid, due);
  if (err == PH_EAGAIN) return route_wait(L, ctx, hub, due, call_routed);
  return lph_error(L, err, NULL);
}

int lph_hub_call(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lph_hub *hub = check_args(L, ctx);
  uint64_t due = lph_due(ctx, lph_check_ms(L, A_TIMEOUT, WAIT_MS));
  lua_settop(L, A_TIMEOUT);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  return call_route(L, ctx, hub, due);
}

/* ---- cast and send --------------------------------------------------------------------------- */

typedef struct mail { /* accepted; its child is being started, moved, or waits */
  ph_list list;       /* lph_hub.mails */
  ph_route route;
  lph_hub *hub;
  ph_msg *m;
} mail;

static void mail_free(mail *x) {
  lph_ctx *ctx = x->hub->ctx;
  ph_list_remove(&x->list);
  x->hub->mail_count--;
  ph_msg_free(lph_sys(ctx), x->m);
  ph_free(lph_env(ctx), x);
}

static void mail_done(ph_route *r, int err, ph_pid pid) {
  mail *x = PH_CONTAINER(r, mail, route);
  lph_ctx *ctx = x->hub->ctx;
  x->m->by_id = true;
  if (!err) err = ph_send(lph_sys(ctx), pid, x->m, true);
  if (!err)
    x->m = NULL;
  else
    ph_logf(lph_env(ctx), PH_LOG_DEBUG, "hub %s: a message to a child was dropped: %s", x->hub->id,
            ph_err_text(err));
  mail_free(x);
}

void lph_mails_drop(lph_hub *hub) {
  while (!ph_list_empty(&hub->mails)) {
    mail *x = PH_CONTAINER(hub->mails.next, mail, list);
    if (hub->h) ph_route_cancel(&x->route); /* else the hub has answered them all */
    mail_free(x);
  }
}

static int mail_new(lua_State *L, lph_ctx *ctx, lph_hub *hub, ph_class cls) {
  char path[LPH_PATH] = "message";
  size_t n;
  int err = 0;
  ph_pid pid;
  const char *id = lua_tolstring(L, A_ID, &n);
  if (hub->mail_count >= MAX_MAILS) return lph_error(L, PH_EBUSY, NULL);
  ph_msg *m = lph_msg(ctx, L, A_MSG, cls, false, path, sizeof path, &err);
  if (!m) return lph_error(L, err, "%s", path);
  mail *x = ph_zalloc(lph_env(ctx), sizeof *x);
  if (!x) {
    ph_msg_free(lph_sys(ctx), m);
    return lph_error(L, PH_ENOMEM, NULL);
  }
  x->hub = hub;
  x->m = m;
  ph_list_push(&hub->mails, &x->list);
  hub->mail_count++;
  ph_list_init(&x->route.list);
  x->route.done = mail_done;
  err = ph_hub_route(hub->h, id, n, PH_NEVER, &x->route, &pid);
  if (err != PH_EAGAIN) {
    mail_free(x);
    return lph_error(L, err ? err : PH_EAGAIN, NULL);
  }
  lua_pushboolean(L, 1);
  return 1;
}

static int post_route(lua_State *L, lph_ctx *ctx, lph_hub *hub, ph_class cls, uint64_t due);

/* The class of a message survives a wait in the slot of the timeout that it does not have. */
static int post_again(lua_State *L, int status, lua_KContext k) {
  (void)status;
  lph_ctx *ctx = lph_get(L);
  lph_hub *hub = hub_still(L, ctx);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  if (lph_wait_result((lph_task *)k, NULL, NULL) == PH_ETIMEOUT)
    return lph_error(L, PH_EBUSY, NULL);
  return post_route(L, ctx, hub, (ph_class)lua_tointeger(L, A_TIMEOUT), due_of(k));
}

static int post_pid(lua_State *L, lph_ctx *ctx, ph_pid pid, ph_class cls, uint64_t due) {
  char path[LPH_PATH] = "message";
  int err = 0;
  ph_msg *m = lph_msg(ctx, L, A_MSG, cls, ph_id_node(pid) != PH_SELF, path, sizeof path, &err);
  if (!m) return lph_error(L, err, "%s", path);
  m->by_id = true;
  err = ph_send(lph_sys(ctx), pid, m, false);
  if (!err) {
    lph_sent(ctx, L, pid);
    lua_pushboolean(L, 1);
    return 1;
  }
  ph_msg_free(lph_sys(ctx), m);
  if (err == PH_EBUSY && lph_can_wait(L, ctx))
    return wait_xon(L, lph_wait_begin(L, ctx), pid, due, post_again);
  return lph_error(L, err, NULL);
}

static int post_routed(lua_State *L, int status, lua_KContext k) {
  (void)status;
  const waiting *w = lua_touserdata(L, A_ROUTE);
  if (w->err) return lph_error(L, w->err, NULL);
  return post_pid(L, lph_get(L), w->pid, (ph_class)lua_tointeger(L, A_TIMEOUT), due_of(k));
}

static int post_route(lua_State *L, lph_ctx *ctx, lph_hub *hub, ph_class cls, uint64_t due) {
  ph_pid pid;
  size_t n;
  int err = route_now(L, hub, &pid);
  if (!err) return post_pid(L, ctx, pid, cls, due);
  if (err != PH_EAGAIN) return lph_error(L, err, NULL);
  const char *id = lua_tolstring(L, A_ID, &n);
  if (ph_hub_find(hub->h, id, n) || !lph_can_wait(L, ctx)) return mail_new(L, ctx, hub, cls);
  return route_wait(L, ctx, hub, due, post_routed); /* does it exist at all? */
}

static int post(lua_State *L, ph_class cls) {
  lph_ctx *ctx = lph_get(L);
  lph_hub *hub = check_args(L, ctx);
  lua_settop(L, A_MSG);
  lua_pushinteger(L, cls);
  if (!hub) return lph_error(L, PH_ENOTALIVE, NULL);
  return post_route(L, ctx, hub, cls, lph_due(ctx, WAIT_MS));
}

int lph_hub_cast(lua_State *L) {
  return post(L, PH_C_CAST);
}

int lph_hub_send(lua_State *L) {
  return post(L, PH_C_INFO);
}

const luaL_Reg lph_msg_functions[] = {{"hub_call", lph_hub_call},
                                      {"hub_cast", lph_hub_cast},
                                      {"hub_send", lph_hub_send},
                                      {NULL, NULL}};
