/* Running the start functions of children, in the name of the hub's supervisor. */
#include "starter.h"

typedef struct starting {
  ph_list list; /* lph_hub.starts */
  lph_ctx *ctx;
  lph_hub *hub; /* NULL: the hub has ended, nobody waits for the answer */
  uint64_t token;
  lph_task *task;
  bool unwanted;
  const ph_spec *spec; /* good until `prepare` has run */
} starting;

/* ---- What is called -------------------------------------------------------------------------- */

/* Pushes the arguments; returns their number. */
static int push_args(lph_ctx *ctx, lua_State *L, const ph_spec *s) {
  ph_reader r;
  ph_token t;
  if (!s->args) return 0;
  ph_reader_init(&r, s->args, s->args_len);
  ph_reader look = r;
  if (ph_r_next(&look, &t)) return 0;
  if (t.type == PH_T_ARRAY) {
    luaL_checkstack(L, (int)(t.len < INT32_MAX ? t.len : INT32_MAX), "too many arguments");
    for (uint32_t i = 0; i < t.len; i++)
      if (lph_unpack(ctx, L, &look)) return (int)i;
    return (int)t.len;
  }
  if (lph_unpack(ctx, L, &r)) return 0; /* { n = 3, [1] = ..., [3] = ... } */
  lua_getfield(L, -1, "n");
  lua_Integer n = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : 0;
  lua_pop(L, 1);
  if (n < 0 || n > INT16_MAX) n = 0;
  luaL_checkstack(L, (int)n, "too many arguments");
  int list = lua_gettop(L);
  for (lua_Integer i = 1; i <= n; i++) lua_rawgeti(L, list, i);
  lua_remove(L, list);
  return (int)n;
}

static int prepare(lua_State *L) {
  starting *st = lua_touserdata(L, 1);
  lph_ctx *ctx = st->ctx;
  const ph_spec *s = st->spec;
  lua_settop(L, 0);
  int err = lph_start_push(L, s->module, s->module_len, s->function, s->function_len);
  if (err) return lph_start_refuse(L, err);
  return 1 + push_args(ctx, L, s);
}

/* ---- What came of it ---------------------------------------------------------------------------
 */

static void answer(starting *st, ph_pid pid, ph_bytes *reason) {
  lph_ctx *ctx = st->ctx;
  lph_hub *hub = st->hub;
  uint64_t token = st->token;
  ph_list_remove(&st->list);
  ph_free(lph_env(ctx), st);
  if (hub && hub->h)
    ph_hub_started(hub->h, token, pid, reason);
  else
    ph_bytes_unref(lph_env(ctx), reason);
}

static void started(lph_ctx *ctx, void *arg, lua_State *L, int status, int n) {
  starting *st = arg;
  ph_bytes *reason;
  ph_pid pid = lph_start_result(ctx, L, status, n, NULL, &reason);
  answer(st, pid, reason);
}

/* ---- The hub's side ----------------------------------------------------------------------------
 */

void lph_child_start(void *arg, ph_hub *h, const char *id, size_t id_len, const ph_spec *spec,
                     uint64_t token) {
  (void)id, (void)id_len;
  lph_ctx *ctx = arg;
  lph_hub *hub = ph_hub_user(h);
  ph_sys *sys = lph_sys(ctx);
  starting *st = hub && !lph_closing(ctx) ? ph_zalloc(lph_env(ctx), sizeof *st) : NULL;
  if (!st) {
    ph_hub_started(h, token, 0, ph_bytes_ref(ph_reason_get(sys, PH_REASON_NOMEM)));
    return;
  }
  st->ctx = ctx;
  st->hub = hub;
  st->token = token;
  st->spec = spec;
  ph_list_push(&hub->starts, &st->list);
  lph_task *task = NULL;
  int err = lph_start(ctx, ph_hub_pid(h), prepare, st, started, &task);
  if (err)
    answer(st, 0, lph_start_reason(ctx, err));
  else if (task) { /* it waits: `started` comes later, st lives */
    st->task = task;
    if (st->unwanted) lph_start_abandon(task);
  }
}

void lph_child_abandon(void *arg, ph_hub *h, uint64_t token) {
  (void)arg;
  lph_hub *hub = ph_hub_user(h);
  if (!hub) return;
  for (ph_list *e = hub->starts.next; e != &hub->starts; e = e->next) {
    starting *st = PH_CONTAINER(e, starting, list);
    if (st->token != token) continue;
    st->unwanted = true; /* without a task it runs at this moment */
    if (st->task) lph_start_abandon(st->task);
    return;
  }
}

void lph_children_forget(lph_hub *hub) {
  ph_list *e;
  while ((e = ph_list_pop(&hub->starts))) {
    starting *st = PH_CONTAINER(e, starting, list);
    st->hub = NULL;
    st->unwanted = true;
    if (st->task) lph_start_abandon(st->task);
  }
}
