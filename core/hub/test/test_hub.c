/* One hub on one to five simulated nodes: starts, stops, failures of nodes and links. */
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
  bool quiet = hs_until(s, hs_quiet, NULL, 120000);
  if (!quiet) hs_dump(s);
  assert_true(quiet);
  for (int i = 0; i < s->count; i++)
    if (s->n[i].up && s->n[i].hub) assert_int_equal(hs_known(s, i), children);
}

static void start(hs *s, int node, int from, int n) {
  hs_op o;
  assert_int_equal(hs_start(s, node, &o, from, n, "ok", "permanent"), 0);
  hs_op_wait(s, &o, 10000);
  assert_int_equal(o.started, n);
  assert_int_equal(o.failed, 0);
  hs_op_end(&o);
}

static void starts_and_stops_on_one_node(void **state) {
  (void)state;
  hs *s = world(1, 1);
  hs_op o;
  start(s, 0, 0, 10000);
  expect_quiet(s, 10000);
  assert_int_equal(hs_stop(s, 0, &o, 0, 9999), 0);
  hs_op_wait(s, &o, 10000);
  assert_int_equal(o.stopped, 9999);
  hs_op_end(&o);
  expect_quiet(s, 1);
  end(s);
}

static void three_nodes_share(void **state) {
  (void)state;
  hs *s = world(2, 3);
  start(s, 0, 0, 3000);
  expect_quiet(s, 3000);
  for (int i = 0; i < 3; i++) assert_in_range(s->n[i].hub->child_count, 3000 / 3.5, 3000 / 2.6);
  for (int i = 0; i < 3000; i++) assert_int_equal(s->starts[i], 1);
  hs_op o;
  assert_int_equal(hs_stop(s, 1, &o, 0, 3000), 0);
  hs_op_wait(s, &o, 10000);
  assert_int_equal(o.stopped, 3000);
  hs_op_end(&o);
  expect_quiet(s, 0);
  end(s);
}

/* promise 1: the instant it resolves, any one dies */
static void crash_after_an_awaited_start(void **state) {
  (void)state;
  for (int victim = 0; victim < 3; victim++)
    for (uint64_t seed = 0; seed < 10; seed++) {
      hs *s = world(100 + seed, 3);
      hs_op o;
      assert_int_equal(hs_start(s, 0, &o, 0, 300, "ok", seed % 2 ? "temporary" : "permanent"), 0);
      hs_op_wait(s, &o, 10000);
      assert_int_equal(o.started, 300);
      hs_op_end(&o);
      hs_crash(s, victim);
      hs_mark(s);
      expect_quiet(s, 300);
      for (int i = 0; i < 300; i++) assert_int_equal(s->most[i], 1);
      end(s);
    }
}

static void crash_during_an_awaited_start(void **state) {
  (void)state;
  for (int victim = 1; victim < 3; victim++)
    for (uint64_t us = 0; us < 3000; us += 100) {
      hs *s = world(200 + us, 3);
      hs_op o;
      assert_int_equal(hs_start(s, 0, &o, 0, 500, us % 200 ? "ok" : "slow", "permanent"), 0);
      uint64_t until = ph_memnet_now(s->net) + us * 1000;
      while (ph_memnet_now(s->net) < until) {
        hs_ms(s, 0);
        ph_memnet_advance(s->net, ph_memnet_now(s->net) + 50000);
      }
      hs_crash(s, victim);
      hs_op_wait(s, &o, 20000);
      assert_int_equal(o.started + o.failed, 500);
      assert_true(o.started >= 450);
      expect_quiet(s, o.started);
      hs_ms(s, 60000);
      expect_quiet(s, o.started);
      for (int i = 0; i < 500; i++) assert_int_equal(s->runs[i], o.ok[i] == 1);
      hs_op_end(&o);
      end(s);
    }
}

static void a_node_joins(void **state) {
  (void)state;
  hs *s = world(3, 2);
  start(s, 1, 0, 2000);
  hs_mark(s);
  hs_add(s);
  expect_quiet(s, 2000);
  for (int i = 0; i < 2000; i++) assert_int_equal(s->most[i], 1); /* never two at a time */
  int moved = 0;
  for (int i = 0; i < 2000; i++) moved += s->live[2][i];
  for (int i = 0; i < 2000; i++)
    assert_int_equal(s->starts[i], s->live[2][i] ? 2 : 1); /* only those that go to it */
  assert_in_range(moved, 500, 800);
  end(s);
}

static void a_hub_leaves(void **state) {
  (void)state;
  hs *s = world(4, 3);
  start(s, 2, 0, 1000);
  hs_mark(s);
  hs_leave(s, 2);
  expect_quiet(s, 1000);
  hs_ms(s, 1000);
  assert_true(s->n[2].stopped);
  expect_quiet(s, 1000);
  for (int i = 0; i < 1000; i++) assert_int_equal(s->most[i], 1);
  end(s);
}

static void all_hubs_leave_at_once(void **state) {
  (void)state;
  hs *s = world(40, 3);
  start(s, 0, 0, 300);
  for (int i = 0; i < 3; i++) hs_leave(s, i);
  hs_ms(s, 2000);
  for (int i = 0; i < 3; i++) assert_true(s->n[i].stopped);
  for (int i = 0; i < 300; i++) assert_int_equal(s->runs[i], 0);
  end(s);
}

static void failing_starts_are_errors_and_run_nowhere(void **state) {
  (void)state;
  hs *s = world(5, 3);
  hs_op o;
  assert_int_equal(hs_start(s, 0, &o, 0, 100, "fail", "permanent"), 0);
  hs_op_wait(s, &o, 5000);
  assert_int_equal(o.failed, 100);
  ph_op_row r;
  ph_op_row_get(o.op, 0, &r);
  assert_int_equal(r.err, 0);
  assert_true(ph_reason_is(r.reason, "will not"));
  assert_non_null(r.node);
  hs_op_end(&o);
  expect_quiet(s, 0);
  start(s, 1, 0, 100); /* the ids are free again */
  expect_quiet(s, 100);
  end(s);
}

static void an_id_is_started_once(void **state) {
  (void)state;
  hs *s = world(6, 3);
  hs_op a, b;
  start(s, 0, 0, 10);
  hs_ms(s, 100);
  assert_int_equal(hs_start(s, 1, &a, 5, 10, "ok", "permanent"), PH_EALREADY);
  hs_op_end(&a);
  hs_options.check_existing = false;
  assert_int_equal(hs_start(s, 1, &a, 5, 10, "ok", "permanent"), 0);
  hs_op_wait(s, &a, 5000);
  hs_options.check_existing = true;
  assert_int_equal(a.started, 5);
  ph_op_row r;
  ph_op_row_get(a.op, 0, &r);
  assert_int_equal(r.err, PH_EALREADY);
  assert_true(ph_is_pid(r.pid));
  hs_op_end(&a);
  for (int round = 0; round < 50; round++) { /* two at once: one wins, the other is told */
    int from = 1000 + round * 10;
    assert_int_equal(hs_start(s, round % 3, &a, from, 10, "ok", "permanent"), 0);
    assert_int_equal(hs_start(s, (round + 1) % 3, &b, from, 10, "ok", "permanent"), 0);
    hs_op_wait(s, &a, 5000);
    hs_op_wait(s, &b, 5000);
    for (int i = 0; i < 10; i++) assert_int_equal(a.ok[i] + b.ok[i], 3);
    hs_op_end(&a);
    hs_op_end(&b);
  }
  expect_quiet(s, 515);
  end(s);
}

static void timeouts_withdraw(void **state) {
  (void)state;
  hs *s = world(7, 3);
  hs_op o;
  hs_options.timeout = 100;
  assert_int_equal(hs_start(s, 0, &o, 0, 50, "slow", "permanent"), 0);
  hs_op_wait(s, &o, 1000);
  assert_int_equal(o.failed, 50);
  ph_op_row r;
  ph_op_row_get(o.op, 7, &r);
  assert_int_equal(r.err, PH_ENODETIMEOUT);
  hs_op_end(&o);
  assert_int_equal(hs_start(s, 0, &o, 100, 50, "never", "permanent"), 0);
  hs_op_wait(s, &o, 1000);
  hs_options.timeout = 10000;
  assert_int_equal(o.failed, 50);
  hs_op_end(&o);
  expect_quiet(s, 0);
  hs_ms(s, 60000);
  expect_quiet(s, 0);
  for (int i = 0; i < 200; i++) assert_int_equal(s->runs[i], 0);
  end(s);
}

static void rollback_stops_what_had_started(void **state) {
  (void)state;
  hs *s = world(8, 3);
  hs_op a, b;
  start(s, 0, 3, 1);
  hs_ms(s, 10);
  hs_options.check_existing = false;
  hs_options.rollback = true;
  assert_int_equal(hs_start(s, 1, &a, 0, 20, "ok", "permanent"), 0);
  hs_op_wait(s, &a, 5000);
  assert_true(ph_op_rolled_back(a.op));
  assert_int_equal(a.failed, 1);
  hs_op_end(&a);
  assert_int_equal(hs_start(s, 1, &b, 30, 5, "ok", "permanent"), 0);
  hs_op_wait(s, &b, 5000);
  assert_false(ph_op_rolled_back(b.op));
  hs_op_end(&b);
  hs_options.check_existing = true;
  hs_options.rollback = false;
  expect_quiet(s, 6);
  end(s);
}

static void stopping_what_is_not_there(void **state) {
  (void)state;
  hs *s = world(9, 2);
  hs_op o;
  start(s, 0, 0, 2);
  hs_ms(s, 10);
  assert_int_equal(hs_stop(s, 1, &o, 0, 4), 0);
  hs_op_wait(s, &o, 5000);
  assert_int_equal(o.stopped, 2);
  assert_int_equal(o.failed, 2);
  ph_op_row r;
  ph_op_row_get(o.op, 3, &r);
  assert_int_equal(r.err, PH_ENOTFOUND);
  hs_op_end(&o);
  expect_quiet(s, 0);
  end(s);
}

static void children_are_restarted(void **state) {
  (void)state;
  hs *s = world(10, 2);
  start(s, 0, 0, 4);
  hs_ms(s, 10);
  hs_kill_child(s, 0, "oops");
  hs_ms(s, 10);
  assert_int_equal(s->starts[0], 2);
  for (int i = 0; i < 3; i++) { /* too often: it waits, the others are left alone */
    hs_kill_child(s, 0, "oops");
    hs_ms(s, 10);
  }
  assert_int_equal(s->runs[0], 0);
  assert_int_equal(s->runs[1], 1);
  expect_quiet(s, 4);
  assert_int_equal(s->starts[0], 5);
  hs_op o;
  assert_int_equal(hs_start(s, 0, &o, 10, 1, "ok", "transient"), 0);
  hs_op_wait(s, &o, 1000);
  hs_op_end(&o);
  hs_kill_child(s, 10, "oops");
  hs_ms(s, 10);
  assert_int_equal(s->runs[10], 1);
  hs_kill_child(s, 10, "shutdown"); /* a clean end of a transient child is its end */
  expect_quiet(s, 4);
  assert_int_equal(s->runs[10], 0);
  end(s);
}

static void a_deaf_child_is_killed(void **state) {
  (void)state;
  hs *s = world(11, 1);
  hs_op o;
  assert_int_equal(hs_start(s, 0, &o, 0, 3, "deaf", "permanent"), 0);
  hs_op_wait(s, &o, 1000);
  hs_op_end(&o);
  assert_int_equal(hs_stop(s, 0, &o, 0, 3), 0);
  hs_ms(s, 4000);
  assert_false(o.done);
  hs_op_wait(s, &o, 2000);
  assert_int_equal(o.stopped, 3);
  hs_op_end(&o);
  expect_quiet(s, 0);
  end(s);
}

/* both sides run everything; after the heal each child runs once again */
static void a_cut_and_a_heal(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 5; seed++) {
    hs *s = world(300 + seed, 3);
    start(s, 0, 0, 500);
    expect_quiet(s, 500);
    hs_cut(s, 0, 1, true);
    hs_cut(s, 0, 2, true);
    hs_ms(s, 15000);
    for (int i = 0; i < 500; i++) assert_int_equal(s->runs[i], 2);
    start(s, 0, 1000, 50); /* the same ids on both sides, and a stop on one */
    start(s, 1, 1000, 50);
    hs_op o;
    assert_int_equal(hs_stop(s, 2, &o, 0, 100), 0);
    hs_op_wait(s, &o, 10000);
    assert_int_equal(o.stopped, 100);
    hs_op_end(&o);
    hs_cut(s, 0, 1, false);
    hs_cut(s, 0, 2, false);
    expect_quiet(s, 450);
    end(s);
  }
}

static void links_break_and_come_back(void **state) {
  (void)state;
  hs *s = world(12, 3);
  hs_op o;
  assert_int_equal(hs_start(s, 0, &o, 0, 3000, "ok", "permanent"), 0);
  for (int i = 0; i < 20; i++) {
    ph_memnet_break(s->net, i % 3, (i + 1) % 3);
    hs_ms(s, 3);
  }
  hs_op_wait(s, &o, 15000);
  assert_int_equal(o.started, 3000);
  hs_op_end(&o);
  expect_quiet(s, 3000);
  end(s);
}

static void links_break_while_children_move(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 40; seed++) {
    hs *s = world(2000 + seed, 3);
    start(s, 0, 0, 300);
    hs_add(s);
    hs_until(s, hs_formed, NULL, 1000);
    for (int i = 0; i < 4; i++) {
      ph_memnet_advance(s->net, ph_memnet_now(s->net) + te_below(&s->te, 500000));
      ph_memnet_break(s->net, (int)te_below(&s->te, 4), (int)te_below(&s->te, 4));
    }
    expect_quiet(s, 300);
    end(s);
  }
}

static void groups_that_meet_merge(void **state) {
  (void)state;
  hs *s = malloc(sizeof *s);
  hs_init(s, 13);
  for (int i = 0; i < 4; i++) hs_add_alone(s);
  hs_join(s, 1, 0);
  hs_join(s, 3, 2);
  hs_ms(s, 1000);
  start(s, 0, 0, 1000);
  start(s, 2, 500, 1000);
  hs_join(s, 2, 1);
  expect_quiet(s, 1500);
  end(s);
}

/* random joins, leaves, crashes, cuts, starts and stops; what was answered holds in the end */
static void random_faults(void **state) {
  (void)state;
  const char *from_seed = getenv("HUB_SEED"), *seeds = getenv("HUB_SEEDS"); /* to look for more */
  uint64_t first = from_seed ? strtoull(from_seed, NULL, 10) : 0;
  uint64_t count = seeds ? strtoull(seeds, NULL, 10) : 40;
  for (uint64_t seed = first; seed < first + count; seed++) {
    if (seeds) fprintf(stderr, "seed %d\n", (int)seed);
    hs *s = world(1000 + seed, 3);
    uint8_t should[400] = {0};
    for (int round = 0; round < 12; round++) {
      hs_op o;
      int node = -1;
      while (node < 0 || !s->n[node].up || !s->n[node].hub || s->n[node].hub->stopping)
        node = (int)te_below(&s->te, (uint64_t)s->count);
      int from = round * 20, fault = (int)te_below(&s->te, 6);
      assert_int_equal(
          hs_start(s, node, &o, from, 20, te_below(&s->te, 2) ? "ok" : "slow", "permanent"), 0);
      hs_ms(s, te_below(&s->te, 4));
      int victim = (int)te_below(&s->te, (uint64_t)s->count);
      int up = 0;
      for (int i = 0; i < s->count; i++) up += s->n[i].up && s->n[i].hub;
      bool able = victim != node && s->n[victim].up && s->n[victim].hub &&
                  !s->n[victim].hub->stopping && up > 2;
      if (fault == 0 && able) hs_crash(s, victim);
      if (fault == 1 && able) hs_leave(s, victim);
      if (fault == 2 && s->count < HS_NODES) hs_join(s, hs_add_alone(s), node);
      if (fault == 3 && able) ph_memnet_break(s->net, node, victim);
      if (fault == 4 && able) {
        hs_pause(s, victim, true);
        hs_ms(s, 3000);
        hs_pause(s, victim, false);
      }
      hs_op_wait(s, &o, 30000);
      for (int i = 0; i < 20; i++) should[from + i] = o.ok[i] == 1;
      hs_op_end(&o);
      hs_ms(s, te_below(&s->te, 2000));
    }
    int n = 0;
    for (int i = 0; i < 400; i++) n += should[i];
    expect_quiet(s, n);
    for (int i = 0; i < 400; i++) assert_int_equal(s->runs[i], should[i]);
    end(s);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(starts_and_stops_on_one_node),
      cmocka_unit_test(three_nodes_share),
      cmocka_unit_test(crash_after_an_awaited_start),
      cmocka_unit_test(crash_during_an_awaited_start),
      cmocka_unit_test(a_node_joins),
      cmocka_unit_test(a_hub_leaves),
      cmocka_unit_test(all_hubs_leave_at_once),
      cmocka_unit_test(failing_starts_are_errors_and_run_nowhere),
      cmocka_unit_test(an_id_is_started_once),
      cmocka_unit_test(timeouts_withdraw),
      cmocka_unit_test(rollback_stops_what_had_started),
      cmocka_unit_test(stopping_what_is_not_there),
      cmocka_unit_test(children_are_restarted),
      cmocka_unit_test(a_deaf_child_is_killed),
      cmocka_unit_test(a_cut_and_a_heal),
      cmocka_unit_test(links_break_and_come_back),
      cmocka_unit_test(links_break_while_children_move),
      cmocka_unit_test(groups_that_meet_merge),
      cmocka_unit_test(random_faults),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
