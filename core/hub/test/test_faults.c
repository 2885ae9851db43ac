/* Random histories: joins, leaves, crashes, restarts, cuts, pauses and broken links, while starts
 * and stops of the same ids race from all nodes and children end. When all is healed and quiet,
 * every answer that was given holds: exactly one of started and errors names each id; what was
 * started and not stopped since runs, once, where the ring says; what was stopped, or in errors
 * only, runs nowhere. And where no view was ever split, no child ever ran twice.
 *
 * HUB_SEED and HUB_SEEDS look for more; HUB_KIND = 0..3 (cuts 1, hubs end 2). */
#include "hubsim.h"

enum { IDS = 240, OPS = 400, ROUNDS = 24 };
typedef enum { START, STOP, EXIT } kind;

typedef struct event { /* a start, a stop, or a child's own end; of ids [from, from + n) */
  hs_op op;
  kind kind;
  int from, n, node;
  bool unknown; /* nobody heard the answer, or nobody knows what it came to */
  bool fails;   /* a start that fails each time */
  uint64_t t[2];
} event;

typedef struct history {
  hs *s;
  event *e;
  int count, crashes;
  bool cuts, ends; /* of views; of hubs */
  bool cut[HS_NODES][HS_NODES], joined[HS_NODES];
} history;

static int below(history *h, int n) {
  return (int)te_below(&h->s->te, (uint64_t)n);
}

static bool able(const hs *s, int i) {
  return s->n[i].up && !s->n[i].paused && s->n[i].hub && !s->n[i].hub->stopping;
}

static int hubs(const hs *s) {
  int n = 0;
  for (int i = 0; i < s->count; i++) n += able(s, i);
  return n;
}

/* one that can be asked, and is not alone only because it has yet to meet the others */
static int some(history *h) {
  hs *s = h->s;
  for (int i = 0; i < s->count; i++)
    if (able(s, i) && s->n[i].hub->others > 0) h->joined[i] = true;
  for (;;) {
    int i = below(h, s->count);
    if (able(s, i) && h->joined[i]) return i;
  }
}

/* ---- Operations */

static event *add(history *h, kind k, int node, int from, int n) {
  assert_true(h->count < OPS);
  event *e = &h->e[h->count++];
  *e = (event){.kind = k, .node = node, .from = from, .n = n};
  e->t[0] = e->t[1] = ph_memnet_now(h->s->net);
  return e;
}

static void operate(history *h, kind k, int node, int from, int n) {
  static const char *const fns[] = {"ok", "ok", "ok", "slow", "fail"};
  static const char *const restarts[] = {"permanent", "permanent", "transient", "temporary"};
  event *e = add(h, k, node, from, n);
  const char *fn = fns[below(h, 5)], *restart = restarts[below(h, 4)];
  if (k == STOP) {
    assert_int_equal(hs_stop(h->s, node, &e->op, from, n), 0);
    return;
  }
  e->fails = fn[0] == 'f';
  assert_int_equal(hs_start(h->s, node, &e->op, from, n, fn, restart), 0);
}

static void operations(history *h) {
  int from = below(h, IDS - 20), n = 1 + below(h, 20), node = some(h);
  int what = below(h, 8);
  operate(h, what < 6 ? START : STOP, node, from, n);
  if (what == 0) operate(h, START, some(h), from, n); /* the same from two at once */
  if (what == 1 || what == 2) {
    hs_ms(h->s, (uint64_t)below(h, 3));
    operate(h, STOP, some(h), from, n);
  }
}

/* its answers are lost, its operations end in nobody knows what */
static void lost(history *h, int node) {
  for (int i = 0; i < h->count; i++) {
    event *e = &h->e[i];
    if (e->kind != EXIT && e->node == node && !e->op.done) e->unknown = true;
  }
}

static void freed(history *h, int node) {
  for (int i = 0; i < h->count; i++)
    if (h->e[i].kind != EXIT && h->e[i].node == node && h->e[i].op.op) {
      ph_op_free(h->e[i].op.op);
      h->e[i].op.op = NULL;
    }
}

static void child_ends(history *h) {
  static const char *const reasons[] = {"oops", "normal", "shutdown"};
  int id = below(h, IDS);
  for (int i = 0; i < IDS && !h->s->runs[id]; i++) id = (id + 1) % IDS;
  if (!h->s->runs[id]) return;
  for (int i = 0; i < h->s->count; i++) { /* paused ones, or those about to stop: not now */
    if (!h->s->live[i][id]) continue;
    ph_row *r = able(h->s, i) ? hs_row(h->s, i, id) : NULL;
    if (!r || !r->live || !r->child || !r->child->proc) return;
  }
  add(h, EXIT, 0, id, 1); /* for a temporary child its end, for others one restart */
  hs_kill_child(h->s, id, reasons[below(h, 3)]);
}

/* ---- Faults */

static bool is_cut(const history *h) {
  for (int a = 0; a < HS_NODES; a++)
    for (int b = 0; b < HS_NODES; b++)
      if (h->cut[a][b]) return true;
  return false;
}

static void cut(history *h, int a, int b, bool on) {
  h->cut[a][b] = on;
  hs_cut_way(h->s, a, b, on);
}

static void heal(history *h) {
  for (int a = 0; a < HS_NODES; a++)
    for (int b = 0; b < HS_NODES; b++)
      if (h->cut[a][b]) cut(h, a, b, false);
}

static void make_cut(history *h) {
  hs *s = h->s;
  int a = below(h, s->count), b = below(h, s->count), how = below(h, 4);
  if (how == 0) { /* one from all others */
    for (int i = 0; i < s->count; i++)
      if (i != a) cut(h, a, i, true), cut(h, i, a, true);
  } else if (how == 1) { /* halves */
    for (int i = 0; i < s->count; i++)
      for (int k = 0; k < s->count; k++)
        if (i % 2 != k % 2) cut(h, i, k, true);
  } else if (a != b) {
    cut(h, a, b, true);
    if (how == 2) cut(h, b, a, true);
  }
}

static void newcomer(history *h) {
  if (h->s->count == HS_NODES) return;
  int to = some(h), i = hs_add_alone(h->s);
  hs_join(h->s, i, to);
}

static void crash(history *h, int victim) {
  lost(h, victim);
  hs_crash(h->s, victim);
  freed(h, victim);
}

static void back(history *h) {
  hs *s = h->s;
  for (int i = 0; i < s->count; i++)
    if (!s->n[i].up) {
      int to = some(h);
      hs_restart(s, i);
      hs_join(s, i, to);
      h->joined[i] = false;
      return;
    }
}

static void hub_ends(history *h, int victim) {
  hs *s = h->s;
  if (below(h, 2)) {
    hs_leave(s, victim);
  } else {
    lost(h, victim);
    hs_hub_free(s, victim);
  }
  h->joined[victim] = false;
}

static void hub_begins(history *h) {
  hs *s = h->s;
  for (int i = 0; i < s->count; i++)
    if (s->n[i].up && !s->n[i].hub && !s->n[i].paused) {
      hs_hub(s, i);
      return;
    }
}

/* What only one node knows goes with it: so nodes end only while there is one view. */
static void node_fault(history *h) {
  hs *s = h->s;
  int victim = below(h, s->count);
  if (!able(s, victim) || hubs(s) < 3 || is_cut(h) || !hs_formed(s, NULL)) return;
  if (h->ends && below(h, 2))
    hub_ends(h, victim);
  else
    crash(h, victim);
}

static void fault(history *h) {
  hs *s = h->s;
  int a = below(h, s->count), b = below(h, s->count);
  switch (below(h, h->cuts ? 12 : 9)) {
  case 0:
  case 1:
    node_fault(h);
    break;
  case 2:
    newcomer(h);
    if (below(h, 2)) newcomer(h);
    break;
  case 3:
    back(h);
    break;
  case 4:
    hub_begins(h);
    break;
  case 5:
    if (a != b && s->n[a].up && s->n[b].up) ph_memnet_break(s->net, a, b);
    break;
  case 6:
    if (!able(s, a) || hubs(s) < 2) break;
    hs_pause(s, a, true);
    hs_ms(s, h->cuts && below(h, 2) ? 12000 : 3000);
    hs_pause(s, a, false);
    break;
  case 7:
  case 8:
    child_ends(h);
    break;
  case 9:
  case 10:
    make_cut(h);
    break;
  case 11:
    heal(h);
    break;
  }
}

/* ---- What must be true in the end */

typedef struct fate {
  bool maybe;   /* some start may live */
  bool must;    /* some start was answered, and nothing that may have ended it came after */
  bool stopped; /* all that may live were stopped by a stop that began after their answer */
} fate;

static bool covers(const event *e, int id) {
  return id >= e->from && id < e->from + e->n;
}

static int code(const event *e, int id) {
  return e->op.ok[id - e->from] == 1 ? 0 : e->op.err[id - e->from];
}

static fate fate_of(const history *h, int id) {
  fate f = {.stopped = true};
  for (int i = 0; i < h->count; i++) {
    const event *s = &h->e[i];
    if (s->kind != START || !covers(s, id)) continue;
    if (!s->unknown && s->op.ok[id - s->from] == 2) continue; /* in errors */
    bool ended = s->unknown, surely = false;
    for (int k = 0; k < h->count; k++) {
      const event *t = &h->e[k];
      if (t->kind == START || !covers(t, id)) continue;
      bool refused = t->kind == STOP && !t->unknown && code(t, id) == PH_ENOTFOUND;
      if (!refused && (t->unknown || t->t[1] >= s->t[0])) ended = true;
      if (t->kind == STOP && !t->unknown && code(t, id) == 0 && t->t[0] > s->t[1]) surely = true;
    }
    f.maybe = true;
    if (!ended) f.must = true;
    if (!surely || s->unknown) f.stopped = false;
  }
  return f;
}

static void tell(const history *h, int id) {
  static const char *const kinds[] = {"start", "stop", "exit"};
  fprintf(stderr, "c%d:\n", id);
  for (int i = 0; i < h->count; i++) {
    const event *e = &h->e[i];
    if (!covers(e, id)) continue;
    fprintf(stderr, "  %s at n%d, %.3f to %.3f ms: %s %d\n", kinds[e->kind], e->node,
            (double)e->t[0] / 1e6, (double)e->t[1] / 1e6, e->unknown ? "unknown" : "",
            e->kind == EXIT || !e->op.ok ? 0 : code(e, id));
  }
}

static void judge(history *h, uint64_t seed) {
  hs *s = h->s;
  for (int id = 0; id < IDS; id++) {
    fate f = fate_of(h, id);
    int least = f.must, most = f.maybe && !(f.stopped && !h->cuts);
    if ((int)s->runs[id] >= least && (int)s->runs[id] <= most) continue;
    tell(h, id);
    fail_msg("seed %d: %d runs %d times, not %d to %d", (int)seed, id, (int)s->runs[id], least,
             most);
  }
  for (int id = 0; !h->cuts && id < IDS; id++)
    if (s->most[id] > 1) {
      tell(h, id);
      fail_msg("seed %d: %d ran twice at once", (int)seed, id);
    }
}

static bool all_done(hs *s, void *arg) {
  const history *h = arg;
  (void)s;
  for (int i = 0; i < h->count; i++)
    if (h->e[i].kind != EXIT && !h->e[i].unknown && !h->e[i].op.done) return false;
  return true;
}

static void wait_quiet(history *h, uint64_t seed) {
  if (hs_until(h->s, hs_quiet, NULL, 180000)) return;
  hs_dump(h->s);
  for (int i = 0; i < h->s->count; i++)
    for (int id = 0; able(h->s, i) && id < IDS; id++) {
      const ph_row *r = hs_row(h->s, i, id);
      if (r && (r->live || r->facts) && h->s->runs[id] != 1) tell(h, id);
    }
  fail_msg("seed %d: not quiet", (int)seed);
}

static void finish(history *h, uint64_t seed) {
  hs *s = h->s;
  heal(h);
  (void)hs_until(s, hs_formed, NULL, 60000);
  for (int i = 0, n = h->count; i < n; i++) /* whose requester died wait in backoff, for ever */
    if (h->e[i].fails && h->e[i].unknown) operate(h, STOP, some(h), h->e[i].from, h->e[i].n);
  if (!hs_until(s, all_done, h, 120000)) {
    hs_dump(s);
    fail_msg("seed %d: an operation has no answer", (int)seed);
  }
  for (int i = 0; i < h->count; i++)
    if (h->e[i].kind != EXIT && h->e[i].op.done) h->e[i].t[1] = h->e[i].op.t[1];
  wait_quiet(h, seed);
  judge(h, seed);
  hs_ms(s, 90000); /* and so it stays */
  wait_quiet(h, seed);
  judge(h, seed);
}

static void one(uint64_t seed, int kinds) {
  hs *s = malloc(sizeof *s);
  history h = {
      .s = s, .e = calloc(OPS, sizeof *h.e), .cuts = (kinds & 1) != 0, .ends = (kinds & 2) != 0};
  assert_non_null(s);
  hs_init(s, 5000 + seed * 4 + (uint64_t)kinds);
  for (int i = 0; i < 3; i++) hs_add(s);
  assert_true(hs_until(s, hs_formed, NULL, 30000));
  hs_options.check_existing = false;
  for (int i = 0; i < 3; i++) h.joined[i] = true;
  for (int round = 0; round < ROUNDS; round++) {
    operations(&h);
    hs_ms(s, (uint64_t)below(&h, 4));
    for (int n = below(&h, 3); n > 0; n--) fault(&h);
    static const int waits[] = {0, 3, 300, 3000, 12000};
    hs_ms(s, (uint64_t)below(&h, 1 + waits[below(&h, h.cuts ? 5 : 4)]));
  }
  finish(&h, seed);
  for (int i = 0; i < h.count; i++)
    if (h.e[i].kind != EXIT) hs_op_end(&h.e[i].op);
  hs_options.check_existing = true;
  free(h.e);
  hs_end(s);
  free(s);
}

static void many(int kinds) {
  const char *from = getenv("HUB_SEED"), *n = getenv("HUB_SEEDS"), *only = getenv("HUB_KIND");
  uint64_t first = from ? strtoull(from, NULL, 10) : 0, count = n ? strtoull(n, NULL, 10) : 15;
  if (only && atoi(only) != kinds) return;
  for (uint64_t seed = first; seed < first + count; seed++) {
    if (n) fprintf(stderr, "kind %d, seed %d\n", kinds, (int)seed);
    one(seed, kinds);
  }
}

static void nodes_come_and_go(void **state) {
  (void)state;
  many(0);
}

static void views_split_and_heal(void **state) {
  (void)state;
  many(1);
}

static void hubs_come_and_go(void **state) {
  (void)state;
  many(2);
}

static void all_of_it(void **state) {
  (void)state;
  many(3);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(nodes_come_and_go),
      cmocka_unit_test(views_split_and_heal),
      cmocka_unit_test(hubs_come_and_go),
      cmocka_unit_test(all_of_it),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
