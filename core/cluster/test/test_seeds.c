/* Many seeds: joins at once, and long random sequences of faults that end in a mesh. */
#include "sim.h"

#include "base/index.h"

static uint64_t trace_of(sim *s) {
  uint64_t h = 0;
  for (int i = 0; i < s->count; i++) {
    for (size_t k = 0; k < s->n[i].event_count; k++) {
      const sim_event *e = &s->n[i].events[k];
      uint64_t fields[] = {h, (uint64_t)i, e->at, e->type, e->a, e->b};
      h = ph_hash(e->text, strlen(e->text), ph_hash(fields, sizeof fields, 0));
    }
  }
  return h;
}

/* Three nodes, each joining the two others, 0 to 50 ms apart. */
static uint64_t join_at_once(uint64_t seed) {
  sim s;
  sim_init(&s, seed);
  uint64_t slow = te_below(&s.te, 4) == 0 ? 20000 : 100;
  uint64_t at[3];
  for (int i = 0; i < 3; i++) {
    sim_add(&s);
    at[i] = te_below(&s.te, 3) ? te_below(&s.te, 51) : te_below(&s.te, 3);
  }
  for (int a = 0; a < 3; a++) {
    for (int b = 0; b < a; b++) ph_memnet_delay(s.net, a, b, 50, slow);
  }
  for (uint64_t ms = 0; ms <= 50; ms++) {
    for (int i = 0; i < 3; i++) {
      if (at[i] != ms) continue;
      for (int k = 1; k < 3; k++) {
        sim_join(&s, i, (i + k) % 3);
        sim_connect(&s, i, (uint64_t)k, (i + k) % 3, 5000);
      }
    }
    sim_ms(&s, 1);
  }
  assert_true(sim_until(&s, sim_mesh, 500));
  sim_ms(&s, 20000);
  assert_true(sim_mesh(&s));
  for (int i = 0; i < 3; i++) {
    /* one link each, made once, kept by both */
    assert_int_equal(sim_told(&s, i, PH_EV_NODE_UP, NULL), 2);
    assert_int_equal(sim_told(&s, i, PH_EV_NODE_DOWN, NULL), 0);
    assert_int_equal(sim_told(&s, i, PH_EV_LINK_RESET, NULL), 0);
    assert_int_equal(sim_told(&s, i, PH_EV_CONNECTED, NULL), 2);
    for (int k = 1; k < 3; k++) {
      const sim_event *e = sim_last(&s, i, PH_EV_CONNECTED, sim_name((i + k) % 3));
      assert_non_null(e);
      assert_int_equal(e->b, 0);
    }
    assert_true(ph_list_empty(&s.n[i].c->targets));
    assert_true(ph_list_empty(&s.n[i].c->pending));
  }
  uint64_t trace = trace_of(&s);
  sim_end(&s);
  return trace;
}

static void three_join_each_other_at_once(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 500; seed++) (void)join_at_once(seed);
}

/* ---- chaos ---- */

typedef struct chaos {
  sim s;
  int nodes;
  uint64_t incarnation;
  bool down[SIM_NODES];
} chaos;

static void fault(chaos *x) {
  sim *s = &x->s;
  int a = (int)te_below(&s->te, (uint64_t)x->nodes), b = (int)te_below(&s->te, (uint64_t)x->nodes);
  if (a == b) b = (a + 1) % x->nodes;
  switch (te_below(&s->te, 10)) {
  case 0:
    sim_cut(s, a, b, true);
    break;
  case 1:
    ph_memnet_cut(s->net, a, b);
    break;
  case 2:
  case 3:
    sim_cut(s, a, b, false);
    break;
  case 4:
  case 5:
    ph_memnet_break(s->net, a, b);
    break;
  case 6:
    if (!x->down[a]) sim_pause(s, a, !s->n[a].paused);
    break;
  case 7:
    if (!x->down[a]) sim_crash(s, a);
    x->down[a] = true;
    break;
  case 8:
    if (!x->down[a]) break;
    sim_restart(s, a, sim_name(a), ++x->incarnation);
    sim_join(s, a, b);
    x->down[a] = false;
    break;
  default:
    if (x->down[a] || s->n[a].paused || x->down[b]) break;
    if (sim_peer_of(s, a, sim_name(b)))
      assert_int_equal(sim_send(s, a, sim_name(b), "some bytes", 10), 0);
  }
}

static uint64_t run_chaos(uint64_t seed) {
  chaos x = {.nodes = 3 + (int)(seed % 3), .incarnation = 1000};
  sim *s = &x.s;
  sim_init(s, seed);
  for (int i = 0; i < x.nodes; i++) sim_add(s);
  for (int i = 1; i < x.nodes; i++) sim_join(s, i, 0);
  for (int i = 0; i < 40; i++) {
    fault(&x);
    sim_ms(s, te_below(&s->te, 3) ? te_below(&s->te, 300) : te_below(&s->te, 12000));
  }
  for (int a = 0; a < x.nodes; a++) {
    for (int b = 0; b < a; b++) sim_cut(s, a, b, false);
  }
  for (int i = 0; i < x.nodes; i++) {
    if (s->n[i].paused) sim_pause(s, i, false);
    if (!x.down[i]) continue;
    sim_restart(s, i, sim_name(i), ++x.incarnation);
    sim_join(s, i, (i + 1) % x.nodes);
  }
  /* the longest wait between two dials, a handshake that hangs, and hearsay after that */
  assert_true(sim_until(s, sim_mesh, 90000));
  sim_ms(s, 20000);
  assert_true(sim_mesh(s));
  uint64_t trace = trace_of(s);
  sim_end(s);
  return trace;
}

static void faults_end_in_a_mesh(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 200; seed++) (void)run_chaos(seed);
}

static void same_seed_same_trace(void **state) {
  (void)state;
  for (uint64_t seed = 1000; seed < 1010; seed++) {
    assert_int_equal(join_at_once(seed), join_at_once(seed));
    assert_int_equal(run_chaos(seed), run_chaos(seed));
  }
  assert_int_not_equal(run_chaos(1), run_chaos(1 + 3));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(three_join_each_other_at_once),
      cmocka_unit_test(faults_end_in_a_mesh),
      cmocka_unit_test(same_seed_same_trace),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
