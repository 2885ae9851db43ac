/* phub.gen_server: starting servers, calling them, stopping them. */
#include <stdio.h>
#include <string.h>

#include "lsched.h"

enum { CALL_TIMEOUT = 5000 };

static const char stopping_key = 0;

/* ---- start
 * ------------------------------------------------------------------------------------------
 */

typedef struct options {
  const char *name; /* to register */
  size_t name_len;
} options;

static int bad_option(lua_State *L, const char *key, const char *what) {
  lph_error(L, PH_EOPTION, "%s: %s", key, what);
  lua_pushstring(L, key);
  lua_setfield(L, -2, "key");
  return 2;
}

/* 0, or 2 with nil, err on the stack; the strings stay in the table */
static int read_options(lua_State *L, int arg, options *o) {
  *o = (options){0};
  if (lua_isnoneornil(L, arg)) return 0;
  luaL_checktype(L, arg, LUA_TTABLE);
  for (lua_pushnil(L); lua_next(L, arg); lua_pop(L, 1)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    if (strcmp(key, "name") != 0) return bad_option(L, key, "unknown option");
    if (lua_type(L, -1) != LUA_TSTRING) return bad_option(L, key, "a string expected");
    o->name = lua_tolstring(L, -1, &o->name_len);
    if (o->name_len == 0 || o->name_len > 255)
      return bad_option(L, key, "a name has 1 to 255 bytes");
  }
  return 0;
}

static int taken(lua_State *L, lph_ctx *ctx, const options *o) {
  lph_error(L, PH_EREGISTERED, "the name '%s' is in use", o->name);
  lph_push_pid(L, ph_whereis(ctx->sys, o->name, o->name_len));
  lua_setfield(L, -2, "pid");
  return 2;
}

/* Links and registers it before init runs. */
static int prepare(lph_ctx *ctx, lph_proc *lp, const options *o, bool link) {
  ph_proc *self = link ? ph_proc_find(ctx->sys, lph_self(ctx)) : NULL;
  if (o->name) {
    int rc = ph_register(lp->p, o->name, o->name_len);
    if (rc < 0) return rc;
  }
  if (!self) return 0;
  int rc = ph_link_procs(lp->p, self->pid);
  lp->linked = rc == 0;
  return rc;
}

static int refused(lua_State *L, lph_ctx *ctx, ph_bytes *reason) {
  lua_pushnil(L);
  lph_take_reason(ctx, L, reason);
  return 2;
}

static int started(lua_State *L, int status, lua_KContext k) {
  (void)status;
  lph_task *t = (lph_task *)k;
  if (t->err < 0) return lph_error(L, t->err, NULL);
  if (!t->msg) {
    lph_push_pid(L, (ph_pid)(uintptr_t)*lph_wait_user(t));
    return 1;
  }
  lua_pushnil(L);
  if (lph_msg_push(t->ctx, L, t->msg, true) < 0) lua_pushnil(L);
  return 2;
}

/* init waits: so does whoever starts the server */
static int await_init(lua_State *L, lph_ctx *ctx, lph_proc *lp) {
  ph_pid pid = lp->p->pid;
  int rc = PH_ECANNOTWAIT;
  lph_task *t = NULL;
  if (lph_can_wait(L, ctx)) {
    t = lph_wait_begin(L, ctx);
    rc = ph_wait(lph_waiter(t), PH_NEVER);
  }
  if (rc < 0) {
    if (lp->linked) ph_unlink(lp->p, lp->parent);
    ph_bytes *kill = ph_reason_get(ctx->sys, PH_REASON_KILL);
    int killed = ph_signal(ctx->sys, lph_self(ctx), pid, kill, true);
    return lph_raise(L, killed < 0 ? killed : rc, NULL);
  }
  lp->starter = t->w.obj.ref;
  *lph_wait_user(t) = (void *)(uintptr_t)pid;
  return lph_wait(L, t, started);
}

/* stack: module, args, opts */
static int start(lua_State *L, bool link) {
  lph_ctx *ctx = lph_get(L);
  options o;
  char path[LPH_PATH];
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 3);
  if (lua_getfield(L, 1, "init") != LUA_TFUNCTION)
    luaL_argerror(L, 1, "the module has no function init");
  lua_pop(L, 1);
  int n = read_options(L, 3, &o);
  if (n) return n;
  if (o.name && ph_whereis(ctx->sys, o.name, o.name_len)) return taken(L, ctx, &o);
  memcpy(path, "args", sizeof "args");
  int rc = lph_copy(ctx, L, 2, path, sizeof path);
  if (rc < 0) return lph_error(L, rc, "%s", path);
  lph_proc *lp = lph_server_new(ctx, L, lph_self(ctx));
  if (!lp) return lph_error(L, PH_ENOMEM, NULL);
  /* the main chunk's process stands for the OS process: it is linked to nothing by a start */
  rc = prepare(ctx, lp, &o, link && ctx->cur->proc != &ctx->main_proc);
  if (rc < 0) {
    ph_exit(lp->p, ph_reason_get(ctx->sys, PH_REASON_KILLED));
    return lph_error(L, rc, NULL);
  }
  ph_pid pid = lp->p->pid;
  ph_bytes *reason = NULL;
  rc = lph_server_init(lp, L, &reason);
  if (rc < 0) return refused(L, ctx, reason);
  if (rc == 0) return await_init(L, ctx, lp);
  lph_push_pid(L, pid);
  return 1;
}

static int server_start(lua_State *L) {
  return start(L, false);
}

static int server_start_link(lua_State *L) {
  return start(L, true);
}

/* ---- destinations by child id
 * --------------------------------------------------------------------------
 */

/* { hub =, child = } at index 1: the two take its place [+1] */
static bool by_child(lua_State *L) {
  if (lua_type(L, 1) != LUA_TTABLE) return false;
  if (lua_getfield(L, 1, "hub") == LUA_TNIL) {
    lua_pop(L, 1);
    return false;
  }
  lua_getfield(L, 1, "child");
  lua_remove(L, 1);
  lua_insert(L, 1); /* child */
  lua_insert(L, 1); /* hub */
  return true;
}

/* ---- call
 * ------------------------------------------------------------------------------------------------
 */

static int call(lua_State *L, lph_ctx *ctx, uint64_t due);

static int answered(lua_State *L, int status, lua_KContext k) {
  (void)status;
  return lph_wait_reply(L, (lph_task *)k);
}

static int call_xon(lua_State *L, int status, lua_KContext k) {
  (void)status;
  lph_task *t = (lph_task *)k;
  if (t->err == PH_ETIMEOUT) return lph_error(L, PH_EBUSY, NULL);
  if (t->err < 0) return lph_error(L, t->err, NULL);
  return call(L, t->ctx, (uint64_t)lua_tointeger(L, 4));
}

/* The way to the node is full: the stack keeps the due time meanwhile. */
static int call_later(lua_State *L, lph_ctx *ctx, const lph_dest *to, uint64_t due) {
  lua_settop(L, 3);
  lua_pushinteger(L, (lua_Integer)due);
  lph_task *t = lph_wait_begin(L, ctx);
  int rc = to->name ? ph_wait_room_named(lph_waiter(t), to->name, to->len, to->node, due)
                    : ph_wait_room(lph_waiter(t), to->pid, due);
  if (rc < 0) return lph_error(L, rc, NULL);
  return lph_wait(L, t, call_xon);
}

/* stack: dest, message, timeout, [due] */
static int call(lua_State *L, lph_ctx *ctx, uint64_t due) {
  lph_dest to;
  int rc;
  char path[LPH_PATH];
  lph_check_dest(ctx, L, 1, &to);
  if (to.err) return lph_error(L, to.err, NULL);
  lph_task *t = lph_wait_begin(L, ctx);
  memcpy(path, "message", sizeof "message");
  ph_msg *m = lph_msg(ctx, L, 2, PH_C_CALL, to.remote, path, sizeof path, &rc);
  if (!m) return lph_error(L, rc, "%s", path);
  if (to.name)
    rc = ph_call_named(ctx->sys, lph_self(ctx), to.name, to.len, to.node, m, &t->w, due);
  else
    rc = ph_call(ctx->sys, lph_self(ctx), to.pid, m, &t->w, due);
  if (rc == 0) return lph_wait(L, t, answered);
  ph_msg_free(ctx->sys, m);
  return rc == PH_EBUSY ? call_later(L, ctx, &to, due) : lph_error(L, rc, NULL);
}

static int call_now(lua_State *L, int status, lua_KContext k) {
  lph_ctx *ctx = lph_get(L);
  (void)status, (void)k;
  return call(L, ctx, lph_due(ctx, lph_check_ms(L, 3, CALL_TIMEOUT)));
}

static int server_call(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  if (lua_isnoneornil(L, 2)) luaL_argerror(L, 2, "a message cannot be nil");
  (void)lph_check_ms(L, 3, CALL_TIMEOUT);
  lua_settop(L, 3);
  if (by_child(L)) return lph_hub_call(L);
  lph_dest to;
  lph_check_dest(ctx, L, 1, &to);
  return lph_when_seen(L, ctx, &to, call_now);
}

static int server_cast(lua_State *L) {
  lph_get(L);
  if (lua_isnoneornil(L, 2)) luaL_argerror(L, 2, "a message cannot be nil");
  lua_settop(L, 3);
  if (by_child(L)) {
    lua_settop(L, 3);
    return lph_hub_cast(L);
  }
  return lph_send(L, PH_C_CAST);
}

static int server_reply(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  ph_ref ref;
  int rc;
  char path[LPH_PATH];
  if (!lph_to_ref(L, 1, &ref)) luaL_typeerror(L, 1, "from (of handle_call)");
  lua_settop(L, 2);
  memcpy(path, "reply", sizeof "reply");
  ph_msg *m = lph_msg(ctx, L, 2, PH_C_REPLY, ph_id_node(ref) != PH_SELF, path, sizeof path, &rc);
  if (!m) return lph_error(L, rc, "%s", path);
  rc = ph_reply(ctx->sys, 0, ref, m);
  if (rc < 0) {
    ph_msg_free(ctx->sys, m);
    return lph_error(L, rc, NULL);
  }
  lua_pushboolean(L, 1);
  return 1;
}

/* ---- stop
 * --------------------------------------------------------------------------------------------------
 */

static bool same(const ph_bytes *a, const ph_bytes *b) {
  return a && b && a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

/* The end that was asked for is success, another one an error. */
static int stopped(lua_State *L, int status, lua_KContext k) {
  (void)status;
  lph_task *t = (lph_task *)k;
  int err;
  if (t->err == PH_EEXIT) {
    ph_bytes *asked = lph_pack_reason(t->ctx, L, 2, NULL, 0, &err);
    bool as_asked = same(asked, t->reason);
    ph_bytes_unref(t->ctx->env, asked);
    if (as_asked) {
      lua_pushboolean(L, 1);
      return 1;
    }
  }
  return lph_wait_reply(L, t);
}

/* stack: dest, reason */
static int stop(lua_State *L, lph_ctx *ctx) {
  lph_dest to;
  int rc;
  char path[LPH_PATH];
  lph_check_dest(ctx, L, 1, &to);
  if (to.err) return lph_error(L, to.err, NULL);
  memcpy(path, "reason", sizeof "reason");
  lph_task *t = lph_wait_begin(L, ctx);
  ph_bytes *reason = lph_pack_reason(ctx, L, 2, path, sizeof path, &rc);
  if (!reason) return lph_error(L, rc, "%s", path);
  ph_msg *m = ph_msg_bytes(ctx->sys, PH_C_STOP, NULL, 0);
  if (!m) {
    ph_bytes_unref(ctx->env, reason);
    return lph_error(L, PH_ENOMEM, NULL);
  }
  m->reason = reason;
  if (to.name)
    rc = ph_call_named(ctx->sys, lph_self(ctx), to.name, to.len, to.node, m, &t->w, PH_NEVER);
  else
    rc = ph_call(ctx->sys, lph_self(ctx), to.pid, m, &t->w, PH_NEVER);
  if (rc == 0) return lph_wait(L, t, stopped);
  ph_msg_free(ctx->sys, m);
  return lph_error(L, rc, NULL);
}

/* { hub, child }: the pid that runs now is the one to stop */
static int stop_child(lua_State *L, lph_ctx *ctx) {
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, -1, "phub");
  lua_getfield(L, -1, "get_pid");
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  lua_call(L, 2, 2);
  if (lua_isnil(L, -2)) return lua_isnil(L, -1) ? lph_error(L, PH_ENOCHILD, NULL) : 2;
  lua_pop(L, 1);
  lua_replace(L, 1); /* pid, child, reason */
  lua_settop(L, 3);
  lua_remove(L, 2);
  return stop(L, ctx);
}

static int stop_now(lua_State *L, int status, lua_KContext k) {
  (void)status, (void)k;
  return stop(L, lph_get(L));
}

static int server_stop(lua_State *L) {
  lph_ctx *ctx = lph_get(L);
  lua_settop(L, 2);
  if (by_child(L)) return stop_child(L, ctx);
  lph_dest to;
  lph_check_dest(ctx, L, 1, &to);
  return lph_when_seen(L, ctx, &to, stop_now);
}

/* stopping(reason[, reply]): { reason, reply, is there a reply } */
static int server_stopping(lua_State *L) {
  lph_get(L);
  bool replies = lua_gettop(L) >= 2;
  lua_settop(L, 2);
  lua_createtable(L, 3, 0);
  lua_pushvalue(L, 1);
  lua_rawseti(L, 3, 1);
  lua_pushvalue(L, 2);
  lua_rawseti(L, 3, 2);
  lua_pushboolean(L, replies);
  lua_rawseti(L, 3, 3);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &stopping_key);
  lua_setmetatable(L, 3);
  return 1;
}

static const luaL_Reg functions[] = {
    {"server_start", server_start}, {"server_start_link", server_start_link},
    {"server_call", server_call},   {"server_cast", server_cast},
    {"server_reply", server_reply}, {"server_stop", server_stop},
    {"stopping", server_stopping},  {NULL, NULL}};

void lph_open_gen_server(lph_ctx *ctx, lua_State *L) {
  lph_setfuncs(ctx, L, functions);
  lua_pushlightuserdata(L, (void *)&lph_noreply_key);
  lua_setfield(L, -2, "noreply");
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &stopping_key) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushliteral(L, "phub.gen_server.stopping");
    lua_setfield(L, -2, "__name");
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &stopping_key);
  }
  ctx->stopping = lua_topointer(L, -1);
  lua_pop(L, 1);
}
