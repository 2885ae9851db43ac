#include "hubsim.h"

ph_op_options hs_options = {.timeout = 10000, .await_timeout = 60000, .check_existing = true};

static void on_log(void *ctx, int level, const char *line) {
  hs_node *n = PH_CONTAINER(ctx, hs_node, te);
  if (getenv("SIM_LOG"))
    fprintf(stderr, "%10.3f ms %s [%d] %s\n", (double)ph_memnet_now(n->s->net) / 1e6, n->name,
            level, line);
}

/* ---- Children */

typedef struct kid {
  hs_node *n;
  int id;
  bool deaf;
} kid;

static ph_run kid_run(ph_sys *s, ph_proc *p) {
  ph_msg *m;
  while ((m = ph_recv(p))) ph_msg_free(s, m);
  return PH_RUN_WAIT;
}

/* SIM_ID=n: tells of that child */
static void trace(const hs_node *n, int id, const char *what) {
  const char *wanted = getenv("SIM_ID");
  if (wanted && atoi(wanted) == id)
    fprintf(stderr, "%10.3f ms %s: c%d %s\n", (double)ph_memnet_now(n->s->net) / 1e6, n->name, id,
            what);
}

static void kid_ended(ph_sys *s, ph_proc *p, ph_bytes *reason) {
  kid *k = p->data;
  (void)s;
  (void)reason;
  trace(k->n, k->id, "ended");
  k->n->s->live[k->n->host][k->id]--;
  k->n->s->runs[k->id]--;
  k->n->s->running--;
  ph_free(k->n->node.env, k);
}

static const ph_behaviour kid_behaviour = {"kid", kid_run, kid_ended};

static ph_pid kid_new(hs_node *n, int id, bool deaf) {
  kid *k = ph_zalloc(&n->env, sizeof *k);
  if (!k) return 0;
  ph_proc *p = ph_spawn(&n->node.sys, &kid_behaviour, k);
  if (!p) {
    ph_free(&n->env, k);
    return 0;
  }
  *k = (kid){n, id, deaf};
  p->trap_exit = deaf;
  hs *s = n->s;
  s->live[n->host][id]++;
  s->running++;
  trace(n, id, "runs");
  s->starts[id]++;
  if (++s->runs[id] > s->most[id]) s->most[id] = s->runs[id];
  return p->pid;
}

typedef struct slow {
  ph_list list;
  ph_timer timer;
  hs_node *n;
  ph_hub *hub;
  uint64_t token;
  int id;
  bool never;
} slow;

static void slow_end(slow *w, ph_pid pid) {
  hs_node *n = w->n;
  uint64_t token = w->token;
  ph_timer_stop(&n->node.sys.timers, &w->timer);
  ph_list_remove(&w->list);
  ph_hub *hub = w->hub;
  ph_free(&n->env, w);
  ph_hub_started(hub, token, pid, NULL);
}

static void slow_forget(hs_node *n, const ph_hub *hub) { /* NULL: of all hubs */
  for (ph_list *l = n->slow.next, *next; l != &n->slow; l = next) {
    slow *w = PH_CONTAINER(l, slow, list);
    next = l->next;
    if (hub && w->hub != hub) continue;
    ph_timer_stop(&n->node.sys.timers, &w->timer);
    ph_list_remove(&w->list);
    ph_free(&n->env, w);
  }
}

static void slow_ready(ph_timer *t) {
  slow *w = PH_CONTAINER(t, slow, timer);
  slow_end(w, kid_new(w->n, w->id, false));
}

static int id_of(const char *id, size_t n) {
  char text[16] = "";
  assert_true(n > 1 && n < sizeof text);
  memcpy(text, id + 1, n - 1);
  return atoi(text);
}

static void host_start(void *ctx, ph_hub *hub, const char *id, size_t len, const ph_spec *spec,
                       uint64_t token) {
  hs_node *n = ctx;
  int i = id_of(id, len);
  char f = spec->function[0];
  if (f == 's' || f == 'n') {
    slow *w = ph_zalloc(&n->env, sizeof *w);
    if (!w) {
      ph_hub_started(hub, token, 0, NULL);
      return;
    }
    *w = (slow){.n = n, .hub = hub, .token = token, .id = i, .never = f == 'n'};
    ph_timer_init(&w->timer, slow_ready);
    ph_list_push(&n->slow, &w->list);
    if (f == 's' && ph_timer_start(&n->node.sys.timers, &w->timer, ph_due(&n->env, 200)))
      slow_end(w, 0);
    return;
  }
  ph_pid pid = f == 'f' ? 0 : kid_new(n, i, f == 'd');
  ph_hub_started(hub, token, pid, pid ? NULL : ph_reason_str(&n->node.sys, "will not", 8));
}

static void host_abandon(void *ctx, ph_hub *hub, uint64_t token) {
  hs_node *n = ctx;
  for (ph_list *l = n->slow.next; l != &n->slow; l = l->next) {
    slow *w = PH_CONTAINER(l, slow, list);
    if (w->hub != hub || w->token != token) continue;
    if (w->never && ph_timer_start(&n->node.sys.timers, &w->timer, 0)) slow_end(w, 0);
    return;
  }
}

static void no_drop(void *ctx, uint64_t host) {
  (void)ctx;
  (void)host;
}

static int no_pack(void *ctx, uint64_t host, ph_buf *out) {
  (void)ctx;
  (void)host;
  (void)out;
  return PH_ENOTSERIAL;
}

/* ---- Nodes */

static void host_end(void *ctx, ph_hub *h) {
  hs_node *n = ctx;
  assert_ptr_equal(n->hub, h);
  hs_hub_free(n->s, n->host);
  n->replaced = true;
}

static int command(void *ctx, uint32_t type, uint64_t a, uint64_t b, const void *p, size_t n) {
  hs_node *node = ctx;
  node->resets += type == PH_CMD_RESET;
  return node->c ? ph_cluster_command(node->c, type, a, b, p, n) : 0;
}

static void emit(void *ctx, uint32_t type, uint64_t a, uint64_t b, const void *p, size_t n) {
  hs_node *node = ctx;
  assert_int_equal(ph_handoff_put(&node->inbox, type, a, b, p, n, NULL, 0), 0);
}

static uint64_t env_now(void *ctx) {
  return ph_now(&((hs_node *)ctx)->lower);
}

static uint64_t env_wall(void *ctx) {
  return ph_wall(&((hs_node *)ctx)->lower);
}

static void env_random(void *ctx, void *out, size_t n) {
  hs_node *node = ctx;
  node->lower.random(node->lower.ctx, out, n);
}

static void *env_realloc(void *ctx, void *p, size_t n) {
  return te__realloc(&((hs_node *)ctx)->mem, p, n);
}

static void env_log(void *ctx, int level, const char *line) {
  on_log(&((hs_node *)ctx)->te, level, line);
}

void hs_init(hs *s, uint64_t seed) {
  memset(s, 0, sizeof *s);
  te_init(&s->te, seed);
  s->net = ph_memnet_new(&s->te.env, seed);
  s->hb_timeout = 8000;
  s->config = (ph_hub_config){.hub_id = "h",
                              .hub_id_len = 1,
                              .strategies = 1,
                              .strategies_text = "defaults",
                              .discover_interval = 10000,
                              .sync_interval = 15000,
                              .max_restarts = 100,
                              .max_seconds = 4,
                              .shutdown_timeout = 60000,
                              .max_concurrent_starts = 1000};
  assert_non_null(s->net);
}

static void node_up(hs *s, int i) {
  hs_node *n = &s->n[i];
  te_init(&n->te, te_random64(&s->te));
  te_init(&n->mem, 0);
  n->te.env.log = on_log;
  ph_memnet_env(s->net, n->host, &n->te.env, &n->lower);
  n->env = (ph_env){.ctx = n,
                    .now = env_now,
                    .wall = env_wall,
                    .random = env_random,
                    .realloc = env_realloc,
                    .log = env_log,
                    .log_level = PH_LOG_DEBUG};
  ph_list_init(&n->slow);
  assert_int_equal(ph_handoff_init(&n->inbox, &n->te.env), 0);
  ph_cluster_config cfg = {.name = n->name,
                           .incarnation = n->incarnation,
                           .listen = "127.0.0.1:0",
                           .cookie = "x",
                           .cookie_len = 1,
                           .heartbeat_interval = s->hb_timeout / 8,
                           .heartbeat_timeout = s->hb_timeout,
                           .stall_timeout = 60000,
                           .max_message = 64 << 20};
  assert_int_equal(ph_cluster_new(&n->lower, n->t, &cfg, emit, n, &n->c), 0);
  ph_sys_host sh = {n, no_drop, no_pack};
  ph_hub_host hh = {n, host_start, host_abandon, host_end};
  ph_port port = {n, command};
  assert_int_equal(ph_node_init(&n->node, &n->env, &sh, &hh, &port), 0);
  if (!s->nameless)
    assert_int_equal(ph_node_name(&n->node, n->name, strlen(n->name), n->incarnation), 0);
  n->up = true;
  n->paused = n->stopped = false;
}

int hs_add_bare(hs *s) {
  char name[16];
  snprintf(name, sizeof name, "n%d@sim", s->count);
  return hs_add_named(s, name, 100);
}

int hs_add_named(hs *s, const char *name, uint64_t incarnation) {
  int i = s->count++;
  hs_node *n = &s->n[i];
  assert_true(i < HS_NODES);
  n->s = s;
  n->incarnation = incarnation;
  snprintf(n->name, sizeof n->name, "%s", name);
  n->host = ph_memnet_host(s->net, &n->t);
  assert_int_equal(n->host, i);
  node_up(s, i);
  return i;
}

void hs_hub(hs *s, int i) {
  hs_node *n = &s->n[i];
  assert_null(n->hub);
  n->stopped = false;
  assert_int_equal(ph_hub_new(&n->node, &s->config, &n->hub), 0);
}

void hs_hub_free(hs *s, int i) {
  hs_node *n = &s->n[i];
  ph_hub *h = n->hub;
  n->hub = NULL;
  ph_hub_free(h);
  slow_forget(n, h);
}

int hs_add_alone(hs *s) {
  int i = hs_add_bare(s);
  hs_hub(s, i);
  return i;
}

void hs_join(hs *s, int i, int to) {
  char address[16];
  snprintf(address, sizeof address, "mem:%d", to);
  assert_int_equal(ph_cluster_command(s->n[i].c, PH_CMD_JOIN, 0, 0, address, strlen(address)), 0);
}

int hs_add(hs *s) {
  int i = hs_add_alone(s);
  if (i > 0) hs_join(s, i, 0);
  return i;
}

static void node_down(hs_node *n) {
  ph_cluster *c = n->c;
  n->c = NULL;
  n->up = false;
  te_fail_in(&n->mem, 0);
  slow_forget(n, NULL);
  ph_node_deinit(&n->node);
  n->hub = NULL;
  ph_cluster_free(c);
  ph_handoff_deinit(&n->inbox);
}

void hs_crash(hs *s, int i) {
  ph_memnet_crash(s->net, s->n[i].host);
  node_down(&s->n[i]);
}

/* operations of the old node were freed before */
void hs_restart(hs *s, int i) {
  hs_node *n = &s->n[i];
  assert_false(n->up);
  TE_END(&n->mem);
  TE_END(&n->te);
  n->incarnation++;
  assert_int_equal(ph_memnet_restart(s->net, n->host, &n->t), 0);
  node_up(s, i);
  hs_hub(s, i);
}

void hs_end(hs *s) {
  for (int i = 0; i < s->count; i++) {
    if (s->n[i].up) node_down(&s->n[i]);
    TE_END(&s->n[i].mem);
    TE_END(&s->n[i].te);
  }
  ph_memnet_free(s->net);
  TE_END(&s->te);
}

void hs_cut_way(hs *s, int from, int to, bool cut) {
  (cut ? ph_memnet_cut : ph_memnet_heal)(s->net, from, to);
}

void hs_cut(hs *s, int a, int b, bool cut) {
  hs_cut_way(s, a, b, cut);
  hs_cut_way(s, b, a, cut);
}

void hs_pause(hs *s, int i, bool paused) {
  s->n[i].paused = paused;
  ph_memnet_pause(s->net, s->n[i].host, paused);
}

static void left(void *ctx) {
  hs_node *n = ctx;
  slow_forget(n, n->hub);
  n->stopped = true;
  n->hub = NULL;
}

void hs_leave(hs *s, int i) {
  ph_hub_stop(s->n[i].hub, left, &s->n[i]);
}

void hs_mark(hs *s) {
  memcpy(s->most, s->runs, sizeof s->most);
}

/* ---- Running */

static bool events(hs_node *n) {
  const uint8_t *p;
  const ph_record *r;
  bool any = false;
  while (ph_handoff_take(&n->inbox)) {
    any = true;
    while ((r = ph_handoff_next(&n->inbox, &p))) {
      uint64_t peer = r->a, bytes = r->b;
      bool is_frame = r->type == PH_EV_FRAME;
      ph_node_event(&n->node, r->type, r->a, r->b, p, r->n);
      if (is_frame)
        assert_int_equal(ph_cluster_command(n->c, PH_CMD_CONSUMED, peer, bytes, NULL, 0), 0);
    }
  }
  return any;
}

static uint64_t settle(hs *s) {
  for (int round = 0;; round++) {
    assert_true(round < 100000); /* machines that want turns without end */
    uint64_t now = ph_memnet_now(s->net), next = ph_memnet_next(s->net);
    bool again = false;
    for (int i = 0; i < s->count; i++) {
      hs_node *n = &s->n[i];
      if (!n->up || n->paused) continue;
      ph_cluster_alive(n->c, now);
      if (events(n)) again = true;
      if (ph_sys_run(&n->node.sys, PH_NEVER) || ph_sys_next(&n->node.sys) <= now) again = true;
      if (ph_cluster_next(n->c) <= now) {
        ph_cluster_turn(n->c);
        again = true;
      }
      uint64_t a = ph_cluster_next(n->c), b = ph_sys_next(&n->node.sys);
      if (a < next) next = a;
      if (b < next) next = b;
    }
    if (!again) return next;
  }
}

bool hs_until(hs *s, bool (*cond)(hs *s, void *arg), void *arg, uint64_t ms) {
  uint64_t end = ph_memnet_now(s->net) + PH_MS(ms);
  for (;;) {
    uint64_t next = settle(s);
    if (cond && cond(s, arg)) return true;
    if (ph_memnet_now(s->net) >= end) return false;
    ph_memnet_advance(s->net, next < end ? next : end);
  }
}

void hs_ms(hs *s, uint64_t ms) {
  (void)hs_until(s, NULL, NULL, ms);
}

/* ---- Looking */

static int hubs_up(hs *s) {
  int n = 0;
  for (int i = 0; i < s->count; i++) n += s->n[i].up && s->n[i].hub;
  return n;
}

bool hs_formed(hs *s, void *arg) {
  (void)arg;
  uint64_t view = 0;
  for (int i = 0; i < s->count; i++) {
    ph_hub *h = s->n[i].up ? s->n[i].hub : NULL;
    if (!h) continue;
    if (!h->agreed || !h->settled || (int)h->others != hubs_up(s) - 1) return false;
    if (view && h->view != view) return false;
    view = h->view;
  }
  return true;
}

static int facts_of(ph_hub *h) {
  int n = 0;
  for (size_t b = 0; b < PH_BUCKETS; b++)
    for (ph_list *l = h->buckets[b].next; l != &h->buckets[b]; l = l->next)
      for (ph_fact *f = PH_CONTAINER(l, ph_row, bucket)->facts; f; f = f->next) n++;
  return n;
}

/* Each live row runs once, on the node that every ring names; nothing else runs. */
static bool rows_right(hs *s, ph_hub *h, int *count) {
  ph_index_iter it = {0};
  ph_row *r;
  *count = 0;
  while ((r = ph_hub_next(h, &it))) {
    int id = id_of(r->id, r->id_len);
    ph_member *first = ph__first(h, r->hash);
    int host = atoi(first->node->name + 1);
    ++*count;
    if (s->runs[id] != 1 || s->live[host][id] != 1) return false;
    if (r->live->next && ph__member(h, h->sys->nodes[r->live->num.node])) return false;
    if (!r->facts || r->facts->next || r->facts->state != PH_FACT_RUNNING ||
        r->facts->owner != first)
      return false;
  }
  return true;
}

bool hs_quiet(hs *s, void *arg) {
  int rows = -1;
  uint64_t top = 0;
  if (!hs_formed(s, arg)) return false;
  for (int i = 0; i < s->count; i++) {
    ph_hub *h = s->n[i].up ? s->n[i].hub : NULL;
    int n;
    if (!h) continue;
    if (rows >= 0 && h->top != top) return false;
    top = h->top;
    if (!rows_right(s, h, &n) || n != s->running || facts_of(h) != n) return false;
    if (h->starting || h->moving || !ph_list_empty(&h->ops)) return false;
    rows = n;
  }
  return true;
}

static void dump_row(hs *s, const ph_hub *h, const ph_row *r) {
  static const char *const states[] = {"?", "starting", "running", "stopping", "backoff", "failed"};
  int ended = 0;
  for (const ph_ended *e = r->ended; e; e = e->next) ended++;
  fprintf(stderr, "  %.*s: runs %d, child %d, reqs %d, ended %d", (int)r->id_len, r->id,
          (int)s->runs[id_of(r->id, r->id_len)], r->child ? r->child->state : -1, r->reqs != NULL,
          ended);
  for (const ph_intent *in = r->live; in; in = in->next)
    fprintf(stderr, ", live %s %llx%s%s", h->sys->nodes[in->num.node]->name,
            (unsigned long long)in->num.counter, in->confirmed ? " confirmed" : "",
            in->fresh ? " fresh" : "");
  for (const ph_fact *f = r->facts; f; f = f->next)
    fprintf(stderr, ", %s at %s of %s %llx", states[f->state], f->owner->node->name,
            h->sys->nodes[f->num.node]->name, (unsigned long long)f->num.counter);
  fprintf(stderr, "\n");
}

void hs_dump(hs *s) {
  for (int i = 0; i < s->count; i++) {
    ph_hub *h = s->n[i].up ? s->n[i].hub : NULL;
    if (!h) continue;
    fprintf(stderr,
            "n%d: agreed %d settled %d meeting %d others %zu view %llx top %llx live %zu children "
            "%zu moving %zu starting %zu ops %d dirty %d homeless %d lossy %d\n",
            i, h->agreed, h->settled, h->meeting, h->others, (unsigned long long)h->view,
            (unsigned long long)h->top, h->live_count, h->child_count, h->moving, h->starting,
            !ph_list_empty(&h->ops), !ph_list_empty(&h->dirty), !ph_list_empty(&h->homeless),
            h->lossy);
    for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
      const ph_member *m = PH_CONTAINER(l, ph_member, all);
      fprintf(stderr,
              "  %s: hello %d nohub %d snap %d rows %d ready %d included %d leaving %d view %llx\n",
              m->node->name, m->hello, m->nohub, m->snap_ok, m->rows_ok, m->ready, m->included,
              m->leaving, (unsigned long long)m->view);
    }
    int shown = 0;
    for (size_t b = 0; b < PH_BUCKETS; b++)
      for (ph_list *l = h->buckets[b].next; l != &h->buckets[b]; l = l->next) {
        ph_row *r = PH_CONTAINER(l, ph_row, bucket);
        bool fine = r->live ? !r->live->next && r->facts && !r->facts->next &&
                                  r->facts->state == PH_FACT_RUNNING &&
                                  r->facts->owner == ph__first(h, r->hash)
                            : !r->facts && s->runs[id_of(r->id, r->id_len)] == 0;
        if (!fine && shown++ < 10) dump_row(s, h, r);
      }
  }
}

int hs_known(hs *s, int node) {
  return (int)ph_hub_count(s->n[node].hub);
}

/* ---- Operations */

static void op_done(void *ctx, ph_op *op) {
  hs_op *o = ctx;
  o->done = true;
  o->t[1] = ph_memnet_now(o->s->net);
  for (size_t i = 0; i < ph_op_count(op); i++) {
    ph_op_row r;
    ph_op_row_get(op, i, &r);
    assert_int_not_equal(r.status, PH_ROW_WAITS);
    o->ok[i] = r.status == PH_ROW_DONE ? 1 : 2;
    o->err[i] = (int8_t)r.err;
    if (r.status == PH_ROW_ERROR)
      o->failed++;
    else
      o->started++;
  }
  o->stopped = o->started;
}

static ph_op *make_op(ph_hub *h, ph_op_kind kind, int from, int n, ph_spec *spec) {
  ph_op *op = ph_op_new(h, kind, (size_t)n);
  for (int i = 0; op && i < n; i++) {
    char id[16];
    snprintf(id, sizeof id, "c%d", from + i);
    int err = ph_op_add(op, id, strlen(id), ph_spec_ref(spec), NULL);
    if (!err) continue;
    assert_int_equal(err, PH_ENOMEM);
    ph_spec_unref(ph_hub_specs(h), spec);
    ph_op_free(op);
    op = NULL;
  }
  return op;
}

static int submit(hs *s, int node, hs_op *o, ph_op_kind kind, int from, int n, ph_spec *spec) {
  ph_hub *h = s->n[node].hub;
  *o = (hs_op){.s = s,
               .node = node,
               .from = from,
               .n = n,
               .ok = calloc(1, (size_t)n + 1),
               .err = calloc(1, (size_t)n + 1),
               .t = {ph_memnet_now(s->net)}};
  o->op = make_op(h, kind, from, n, spec);
  return o->op ? ph_op_submit(o->op, &hs_options, op_done, o) : PH_ENOMEM;
}

ph_spec *hs_spec(hs *s, ph_hub *h, const char *fn, const char *restart) {
  ph_buf b;
  ph_spec *spec = NULL;
  const char *key;
  ph_buf_init(&b, &s->te.env);
  ph_w_map(&b, 2);
  ph_w_cstr(&b, "start");
  ph_w_array(&b, 2);
  ph_w_cstr(&b, "c");
  ph_w_cstr(&b, fn);
  ph_w_cstr(&b, "restart");
  ph_w_cstr(&b, restart);
  int err = ph_spec_get(ph_hub_specs(h), ph_buf_at(&b), ph_buf_size(&b), &spec, &key);
  assert_true(err == 0 || err == PH_ENOMEM);
  ph_buf_deinit(&b);
  return spec;
}

int hs_start(hs *s, int node, hs_op *o, int from, int n, const char *fn, const char *restart) {
  ph_hub *h = s->n[node].hub;
  ph_spec *spec = hs_spec(s, h, fn, restart);
  if (!spec) {
    *o = (hs_op){.s = s, .node = node, .from = from, .n = n};
    return PH_ENOMEM;
  }
  int err = submit(s, node, o, PH_OP_START, from, n, spec);
  ph_spec_unref(ph_hub_specs(h), spec);
  return err;
}

void hs_propose(hs *s, int node, int from, int n, const char *fn, const char *restart) {
  ph_hub *h = s->n[node].hub;
  ph_spec *spec = hs_spec(s, h, fn, restart);
  assert_non_null(spec);
  ph_op *op = make_op(h, PH_OP_START, from, n, spec);
  assert_non_null(op);
  ph_spec_unref(ph_hub_specs(h), spec);
  ph_hub_propose(h, op);
}

int hs_stop(hs *s, int node, hs_op *o, int from, int n) {
  return submit(s, node, o, PH_OP_STOP, from, n, NULL);
}

ph_row *hs_row(hs *s, int node, int id) {
  char text[16];
  snprintf(text, sizeof text, "c%d", id);
  return ph__row_find(s->n[node].hub, text, strlen(text), ph_ring_hash(text, strlen(text)));
}

static bool is_done(hs *s, void *arg) {
  (void)s;
  return ((hs_op *)arg)->done;
}

void hs_op_wait(hs *s, hs_op *o, uint64_t ms) {
  assert_true(hs_until(s, is_done, o, ms));
}

void hs_op_end(hs_op *o) {
  if (o->op) ph_op_free(o->op);
  o->op = NULL;
  free(o->ok);
  free(o->err);
  o->ok = NULL;
  o->err = NULL;
}

void hs_kill_child(hs *s, int id, const char *reason) {
  char text[16];
  snprintf(text, sizeof text, "c%d", id);
  for (int i = 0; i < s->count; i++) {
    hs_node *n = &s->n[i];
    if (!n->up || !n->hub || !s->live[i][id]) continue;
    ph_row *r = ph_hub_find(n->hub, text, strlen(text));
    assert_non_null(r);
    ph_bytes *why = ph_reason_str(&n->node.sys, reason, strlen(reason));
    int err = why ? ph_signal(&n->node.sys, 0, r->child->proc->pid, why, true) : PH_ENOMEM;
    assert_true(err == 0 || n->mem.failed > 0);
    ph_bytes_unref(&n->env, why);
  }
}
