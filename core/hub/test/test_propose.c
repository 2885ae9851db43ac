/* Static children: proposed by every node that has them, started once, and not again once they were
 * stopped, whoever comes. */
#include "hubsim.h"

static hs *world(uint64_t seed, int nodes) {
  hs *s = malloc(sizeof *s);
  assert_non_null(s);
  hs_init(s, seed);
  for (int i = 0; i < nodes; i++) hs_add(s);
  return s;
}

static void end(hs *s) {
  hs_end(s);
  free(s);
}

static void quiet(hs *s, int children) {
  bool ok = hs_until(s, hs_quiet, NULL, 60000);
  if (!ok) hs_dump(s);
  assert_true(ok);
  for (int i = 0; i < s->count; i++)
    if (s->n[i].up && s->n[i].hub) assert_int_equal(hs_known(s, i), children);
}

static void stop(hs *s, int node, int from, int n) {
  hs_op o;
  assert_int_equal(hs_stop(s, node, &o, from, n), 0);
  hs_op_wait(s, &o, 10000);
  assert_int_equal(o.stopped, n);
  hs_op_end(&o);
}

static void three_nodes_propose_and_one_starts(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 10; seed++) {
    hs *s = world(seed, 0);
    for (int i = 0; i < 3; i++) hs_add_bare(s);
    for (int i = 1; i < 3; i++) hs_join(s, i, 0);
    hs_ms(s, 1000);
    for (int i = 0; i < 3; i++) { /* the hubs come up together, and have yet to meet */
      hs_hub(s, i);
      hs_propose(s, i, 0, 50, "ok", "permanent");
      if (seed % 2) hs_ms(s, 0);
    }
    quiet(s, 50);
    for (int i = 0; i < 50; i++) assert_int_equal(s->starts[i], 1);
    hs_mark(s);
    hs_crash(s, 1);
    quiet(s, 50);
    for (int i = 0; i < 50; i++) assert_int_equal(s->most[i], 1);
    hs_restart(s, 1);
    hs_propose(s, 1, 0, 50, "ok", "permanent");
    hs_join(s, 1, 0);
    quiet(s, 50);
    end(s);
  }
}

/* each alone at first: both run them, then one does */
static void groups_with_the_same_ones_meet(void **state) {
  (void)state;
  hs *s = malloc(sizeof *s);
  hs_init(s, 20);
  for (int i = 0; i < 4; i++) {
    hs_add_alone(s);
    hs_propose(s, i, 0, 40, "ok", "permanent");
  }
  hs_ms(s, 100);
  for (int i = 0; i < 40; i++) assert_int_equal(s->runs[i], 4);
  hs_join(s, 1, 0);
  hs_join(s, 3, 2);
  hs_ms(s, 500);
  hs_join(s, 2, 1);
  quiet(s, 40);
  end(s);
}

static void what_was_stopped_stays_stopped(void **state) {
  (void)state;
  hs *s = world(30, 2);
  for (int i = 0; i < 2; i++) hs_propose(s, i, 0, 20, "ok", "permanent");
  quiet(s, 20);
  stop(s, 1, 0, 10);
  hs_ms(s, 300000); /* longer than any other tombstone is kept */
  int late = hs_add_alone(s);
  hs_propose(s, late, 0, 20, "ok", "permanent");
  hs_join(s, late, 0);
  quiet(s, 10);
  for (int i = 0; i < 10; i++) assert_int_equal(s->runs[i], 0);
  /* those who knew it first go; the newcomer knows it, too */
  hs_crash(s, 0);
  hs_leave(s, 1);
  hs_ms(s, 300000);
  assert_true(s->n[1].stopped);
  quiet(s, 10);
  int later = hs_add_alone(s);
  hs_propose(s, later, 0, 20, "ok", "permanent");
  hs_join(s, later, late);
  quiet(s, 10);
  /* a user may start it again, and stop it */
  hs_op o;
  assert_int_equal(hs_start(s, later, &o, 0, 5, "ok", "permanent"), 0);
  hs_op_wait(s, &o, 5000);
  assert_int_equal(o.started, 5);
  hs_op_end(&o);
  quiet(s, 15);
  stop(s, late, 0, 5);
  quiet(s, 10);
  end(s);
}

/* so does one that ended by itself */
static void what_has_ended_stays_ended(void **state) {
  (void)state;
  hs *s = world(31, 1);
  hs_propose(s, 0, 0, 4, "ok", "transient");
  quiet(s, 4);
  hs_kill_child(s, 2, "shutdown");
  hs_ms(s, 200000);
  quiet(s, 3);
  hs_propose(s, 0, 0, 4, "ok", "transient");
  int late = hs_add(s);
  hs_propose(s, late, 0, 4, "ok", "transient");
  quiet(s, 3);
  assert_int_equal(s->runs[2], 0);
  end(s);
}

/* A node starts, proposes alone, and only then meets the others, which have stopped some: what it
 * runs yields. */
static void a_proposal_yields_to_a_stop(void **state) {
  (void)state;
  hs *s = world(32, 2);
  for (int i = 0; i < 2; i++) hs_propose(s, i, 0, 20, "ok", "permanent");
  quiet(s, 20);
  stop(s, 1, 0, 10);
  int late = hs_add_alone(s);
  hs_propose(s, late, 0, 20, "ok", "permanent");
  hs_ms(s, 1000);
  for (int i = 0; i < 20; i++) assert_int_equal(s->live[late][i], 1);
  hs_join(s, late, 0);
  quiet(s, 10);
  for (int i = 0; i < 20; i++) assert_int_equal(s->runs[i], i >= 10);
  end(s);
}

static void one_that_fails_is_tried_again(void **state) {
  (void)state;
  hs *s = world(33, 2);
  ph_row *r;
  for (int i = 0; i < 2; i++) hs_propose(s, i, 0, 5, "fail", "permanent");
  hs_ms(s, 20000);
  for (int i = 0; i < 5; i++) {
    assert_non_null(r = hs_row(s, 0, i));
    assert_non_null(r->live);
    assert_string_equal(ph_row_waiting(s->n[0].hub, r), "backoff");
  }
  assert_in_range(s->n[0].te.logs[PH_LOG_WARN] + s->n[1].te.logs[PH_LOG_WARN], 0, 1000);
  int tries = 0;
  for (int n = 0; n < 2; n++)
    for (ph_list *l = s->n[n].hub->children.next; l != &s->n[n].hub->children; l = l->next) {
      ph_child *c = PH_CONTAINER(l, ph_child, list);
      assert_in_range(c->backoffs, 4, 6); /* after 1, 2, 4, 8 s */
      tries++;
    }
  assert_int_equal(tries, 5);
  assert_int_equal(hs_known(s, 1), 5);
  stop(s, 0, 0, 5); /* and may be stopped */
  quiet(s, 0);
  end(s);
}

/* ids that a user runs are left alone, whatever the spec */
static void what_is_known_is_left_alone(void **state) {
  (void)state;
  hs *s = world(34, 2);
  hs_op o;
  assert_true(hs_until(s, hs_formed, NULL, 5000));
  assert_int_equal(hs_start(s, 0, &o, 0, 10, "ok", "permanent"), 0);
  hs_op_wait(s, &o, 1000);
  hs_op_end(&o);
  hs_propose(s, 1, 0, 20, "ok", "permanent");
  quiet(s, 20);
  for (int i = 0; i < 10; i++) assert_int_equal(s->starts[i], 1);
  end(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(three_nodes_propose_and_one_starts),
      cmocka_unit_test(groups_with_the_same_ones_meet),
      cmocka_unit_test(what_was_stopped_stays_stopped),
      cmocka_unit_test(what_has_ended_stays_ended),
      cmocka_unit_test(a_proposal_yields_to_a_stop),
      cmocka_unit_test(one_that_fails_is_tried_again),
      cmocka_unit_test(what_is_known_is_left_alone),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
