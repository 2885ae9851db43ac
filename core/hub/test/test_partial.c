/* Links that fail while no node does: hubs go on over the others' links; and a node that another
 * one has replaced. */
#include "hubsim.h"

static hs *world(uint64_t seed, int nodes) {
  hs *s = malloc(sizeof *s);
  assert_non_null(s);
  hs_init(s, seed);
  for (int i = 0; i < nodes; i++) hs_add(s);
  assert_true(hs_until(s, hs_formed, NULL, 30000));
  return s;
}

static void end(hs *s) {
  hs_end(s);
  free(s);
}

static void expect_quiet(hs *s, int children) {
  assert_true(hs_until(s, hs_quiet, NULL, 120000));
  for (int i = 0; i < s->count; i++) {
    if (s->n[i].up && s->n[i].hub) assert_int_equal(hs_known(s, i), children);
  }
}

/* Requests that were on the broken link wait until it is known to be broken. */
static const uint64_t patient = 40000;

static void pair_is_cut_while_children_start(void **state) {
  (void)state;
  uint64_t before = hs_options.timeout;
  hs_options.timeout = patient;
  for (uint64_t seed = 0; seed < 5; seed++) {
    hs *s = world(100 + seed, 3);
    hs_op o[60];
    hs_cut(s, 0, 1, true);
    for (int i = 0; i < 60; i++) {
      assert_int_equal(hs_start(s, i % 3, &o[i], i * 10, 10, i % 2 ? "ok" : "slow", "permanent"),
                       0);
      hs_ms(s, 1000);
    }
    for (int i = 0; i < 60; i++) {
      hs_op_wait(s, &o[i], patient);
      assert_int_equal(o[i].started, 10);
      hs_op_end(&o[i]);
    }
    expect_quiet(s, 600); /* still cut */
    hs_cut(s, 0, 1, false);
    hs_ms(s, 30000);
    expect_quiet(s, 600);
    for (int i = 0; i < 600; i++) assert_int_equal(s->starts[i], 1);
    for (int i = 0; i < 3; i++) assert_int_equal(s->n[i].hub->others, 2);
    end(s);
  }
  hs_options.timeout = before;
}

/* a chain: whoever is at its ends knows the other end only over two others */
static void hubs_in_a_chain(void **state) {
  (void)state;
  hs *s = world(2, 4);
  for (int a = 0; a < 4; a++) {
    for (int b = 0; b + 1 < a; b++) hs_cut(s, a, b, true);
  }
  hs_ms(s, 15000);
  hs_op o;
  for (int i = 0; i < 4; i++) {
    assert_int_equal(hs_start(s, i, &o, i * 500, 500, "ok", "permanent"), 0);
    hs_op_wait(s, &o, 1000);
    assert_int_equal(o.started, 500);
    hs_op_end(&o);
  }
  expect_quiet(s, 2000);
  assert_int_equal(hs_stop(s, 3, &o, 0, 700), 0);
  hs_op_wait(s, &o, 1000);
  assert_int_equal(o.stopped, 700);
  hs_op_end(&o);
  expect_quiet(s, 1300);
  hs_crash(s, 3); /* an end: the others take its children over */
  expect_quiet(s, 1300);
  hs_crash(s, 1); /* the middle: two that run everything, until they meet again */
  hs_ms(s, 20000);
  for (int i = 700; i < 2000; i++) assert_int_equal(s->runs[i], 2);
  hs_cut(s, 0, 2, false);
  expect_quiet(s, 1300);
  end(s);
}

/* Pairs are cut and healed at random, but all stay connected over one node: no child is ever
 * started a second time. */
static void random_pairs(void **state) {
  (void)state;
  const char *from_seed = getenv("HUB_SEED"), *seeds = getenv("HUB_SEEDS");
  uint64_t first = from_seed ? strtoull(from_seed, NULL, 10) : 0;
  uint64_t count = seeds ? strtoull(seeds, NULL, 10) : 40, before = hs_options.timeout;
  hs_options.timeout = patient;
  for (uint64_t seed = first; seed < first + count; seed++) {
    if (seeds) fprintf(stderr, "seed %d\n", (int)seed);
    hs *s = world(2000 + seed, 3 + (int)(seed % 3));
    int nodes = s->count, middle = (int)te_below(&s->te, (uint64_t)nodes), should = 0;
    hs_op o[20];
    bool ok[200];
    for (int round = 0; round < 20; round++) {
      int a = (int)te_below(&s->te, (uint64_t)nodes), b = (int)te_below(&s->te, (uint64_t)nodes);
      if (a != b && a != middle && b != middle) hs_cut(s, a, b, te_below(&s->te, 3) > 0);
      if (a != b && te_below(&s->te, 4) == 0) ph_memnet_break(s->net, a, b);
      const char *fn = te_below(&s->te, 2) ? "ok" : "slow";
      assert_int_equal(hs_start(s, (int)te_below(&s->te, (uint64_t)nodes), &o[round], round * 10,
                                10, fn, "permanent"),
                       0);
      hs_ms(s, te_below(&s->te, 3) ? te_below(&s->te, 1000) : te_below(&s->te, 12000));
    }
    for (int round = 0; round < 20; round++) {
      hs_op_wait(s, &o[round], 60000);
      for (int i = 0; i < 10; i++) should += ok[round * 10 + i] = o[round].ok[i] == 1;
      hs_op_end(&o[round]);
    }
    assert_int_equal(should, 200);
    expect_quiet(s, should);
    for (int a = 0; a < nodes; a++) {
      for (int b = 0; b < a; b++) hs_cut(s, a, b, false);
    }
    hs_ms(s, 30000);
    expect_quiet(s, should);
    for (int i = 0; i < 200; i++) {
      assert_int_equal(s->runs[i], ok[i]);
      assert_true(s->most[i] <= 1);
      if (ok[i]) assert_int_equal(s->starts[i], 1);
    }
    end(s);
  }
  hs_options.timeout = before;
}

static bool two_was_replaced(hs *s, void *arg) {
  (void)arg;
  return s->n[2].replaced;
}

static void replaced_node_runs_nothing(void **state) {
  (void)state;
  hs *s = world(3, 3);
  hs_op o;
  assert_int_equal(hs_start(s, 0, &o, 0, 300, "ok", "permanent"), 0);
  hs_op_wait(s, &o, 10000);
  hs_op_end(&o);
  hs_ms(s, 1000);
  hs_pause(s, 2, true);
  int other = hs_add_named(s, "n2@sim", 200);
  hs_hub(s, other);
  hs_join(s, other, 0);
  hs_ms(s, 30000);
  hs_pause(s, 2, false);
  assert_true(hs_until(s, two_was_replaced, NULL, 15000));
  assert_null(s->n[2].hub);
  for (int i = 0; i < 300; i++) assert_int_equal(s->live[2][i], 0);
  hs_ms(s, 20000);
  for (int i = 0; i < 300; i++) assert_int_equal(s->runs[i], 1);
  assert_int_equal(s->n[other].hub->others, 2);
  end(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(pair_is_cut_while_children_start),
      cmocka_unit_test(hubs_in_a_chain),
      cmocka_unit_test(random_pairs),
      cmocka_unit_test(replaced_node_runs_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
