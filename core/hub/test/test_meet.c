/* Hubs that come and go on nodes that stay; hubs that do not fit together; several on a node. */
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

static void quiet(hs *s, int children) {
  bool ok = hs_until(s, hs_quiet, NULL, 60000);
  if (!ok) hs_dump(s);
  assert_true(ok);
  for (int i = 0; i < s->count; i++)
    if (s->n[i].up && s->n[i].hub) assert_int_equal(hs_known(s, i), children);
}

static void start(hs *s, int node, int from, int n) {
  hs_op o;
  assert_int_equal(hs_start(s, node, &o, from, n, "ok", "permanent"), 0);
  hs_op_wait(s, &o, 10000);
  assert_int_equal(o.started, n);
  hs_op_end(&o);
}

static bool has_left(hs *s, void *arg) {
  (void)s;
  return ((hs_node *)arg)->stopped;
}

static void a_later_hub_with_other_strategies_runs_nothing(void **state) {
  (void)state;
  hs *s = world(1, 2);
  start(s, 0, 0, 50);
  hs_ms(s, 10);
  s->config.strategies = 2;
  s->config.strategies_text = "guided";
  int c = hs_add_alone(s);
  hs_propose(s, c, 100, 20, "ok", "permanent");
  start(s, c, 200, 20);
  hs_op slow, late;
  assert_int_equal(hs_start(s, c, &slow, 300, 20, "never", "permanent"), 0);
  hs_ms(s, 10);
  assert_int_equal(ph_hub_state(s->n[c].hub, NULL), 0);
  hs_join(s, c, 0);
  hs_op_wait(s, &slow, 1000);
  assert_int_equal(slow.failed, 20);
  ph_op_row r;
  ph_op_row_get(slow.op, 3, &r);
  assert_int_equal(r.err, PH_EMISMATCH);
  hs_op_end(&slow);
  hs_ms(s, 1000);
  const char *why;
  assert_int_equal(ph_hub_state(s->n[c].hub, &why), PH_EMISMATCH);
  assert_non_null(strstr(why, "n0@sim"));
  assert_non_null(strstr(why, "guided"));
  assert_non_null(strstr(why, "defaults"));
  assert_int_equal(hs_known(s, c), 0);
  assert_int_equal(s->n[c].hub->child_count, 0);
  assert_int_equal(hs_start(s, c, &late, 400, 1, "ok", "permanent"), PH_EMISMATCH);
  hs_op_end(&late);
  hs_node *n = &s->n[c];
  ph_hub *aside = n->hub;
  n->hub = NULL; /* the others do not count it */
  quiet(s, 50);
  for (int i = 100; i < 400; i++) assert_int_equal(s->runs[i], 0);
  for (int i = 0; i < 50; i++) assert_int_equal(s->starts[i], 1);
  hs_crash(s, 1); /* a change of view later: it still stands aside, and nobody waits for it */
  quiet(s, 50);
  assert_int_equal(s->live[c][0], 0);
  n->hub = aside;
  hs_leave(s, c);
  assert_true(hs_until(s, has_left, n, 5000));
  s->config.strategies = 1; /* with the right ones it takes part */
  hs_hub(s, c);
  quiet(s, 50);
  assert_int_equal(ph_hub_state(s->n[c].hub, NULL), 0);
  end(s);
}

static void of_two_groups_the_later_one_stands_aside(void **state) {
  (void)state;
  hs *s = malloc(sizeof *s);
  hs_init(s, 2);
  hs_add(s);
  hs_add(s);
  hs_ms(s, 100);
  s->config.strategies = 2;
  for (int i = 2; i < 4; i++) hs_add_alone(s);
  hs_join(s, 3, 2);
  hs_ms(s, 1000);
  start(s, 0, 0, 60);
  start(s, 2, 30, 60); /* some of the same ids */
  hs_ms(s, 100);
  hs_join(s, 3, 1);
  hs_ms(s, 3000);
  for (int i = 2; i < 4; i++) {
    assert_int_equal(ph_hub_state(s->n[i].hub, NULL), PH_EMISMATCH);
    assert_int_equal(s->n[i].hub->child_count, 0);
    s->n[i].hub = NULL;
  }
  quiet(s, 60);
  end(s);
}

static void a_hub_starts_later_on_a_node_of_the_cluster(void **state) {
  (void)state;
  hs *s = malloc(sizeof *s);
  hs_init(s, 3);
  for (int i = 0; i < 4; i++) hs_add_bare(s);
  for (int i = 1; i < 4; i++) hs_join(s, i, 0);
  hs_ms(s, 2000);
  hs_hub(s, 2);
  hs_op o;
  assert_int_equal(hs_start(s, 2, &o, 0, 100, "ok", "permanent"), 0);
  hs_ms(s, 5); /* it asks, is told that nobody has it, and does not wait any longer */
  assert_true(o.done);
  assert_int_equal(o.started, 100);
  hs_op_end(&o);
  for (int i = 0; i < 4; i++) {
    if (i == 2) continue;
    hs_mark(s);
    hs_hub(s, i);
    quiet(s, 100);
    for (int k = 0; k < 100; k++) assert_int_equal(s->most[k], 1);
    assert_int_equal(s->n[i].node.unknown_frames, 0);
  }
  end(s);
}

/* by leaving, or at once; after a while, or in the same moment */
static void a_hub_ends_and_another_begins_on_its_node(void **state) {
  (void)state;
  for (int how = 0; how < 8; how++) {
    hs *s = world(10 + (uint64_t)how, 3);
    bool leave = how & 1, wait = how & 2, busy = how & 4;
    hs_op o;
    start(s, 0, 0, 200);
    quiet(s, 200);
    hs_mark(s);
    for (int round = 0; round < 3; round++) {
      int i = round;
      if (busy) assert_int_equal(hs_start(s, i, &o, 1000, 50, "slow", "permanent"), 0);
      if (busy) hs_ms(s, 1);
      if (leave) {
        hs_leave(s, i);
        assert_true(hs_until(s, has_left, &s->n[i], 20000));
      } else {
        hs_hub_free(s, i);
      }
      if (busy) {
        assert_true(o.done);
        assert_int_equal(o.failed, 50);
        hs_op_end(&o);
      }
      if (wait) hs_ms(s, 5000);
      hs_hub(s, i);
      bool ok = hs_until(s, hs_quiet, NULL, 30000);
      if (!ok) hs_dump(s);
      assert_true(ok);
      for (int k = 0; k < 200; k++) assert_int_equal(s->runs[k], 1);
      for (int k = 0; k < 200; k++) assert_int_equal(s->most[k], 1);
      if (busy && !leave) { /* nobody is left who could withdraw them: they may stay */
        hs_op x;
        assert_int_equal(hs_stop(s, i, &x, 1000, 50), 0);
        hs_op_wait(s, &x, 10000);
        hs_op_end(&x);
      }
      quiet(s, 200);
    }
    end(s);
  }
}

static void a_hub_freed_at_once_is_taken_over_at_once(void **state) {
  (void)state;
  hs *s = world(20, 3);
  start(s, 0, 0, 100);
  quiet(s, 100);
  hs_hub_free(s, 1);
  hs_ms(s, 20);
  assert_true(hs_quiet(s, NULL));
  assert_int_equal(hs_known(s, 0), 100);
  end(s);
}

/* its BYE is lost: whoever speaks to it is told */
static void a_hub_that_went_unheard_is_noticed(void **state) {
  (void)state;
  hs *s = world(21, 3);
  start(s, 0, 0, 100);
  quiet(s, 100);
  ph_cluster *c = s->n[1].c;
  s->n[1].c = NULL;
  hs_hub_free(s, 1);
  s->n[1].c = c;
  assert_true(hs_until(s, hs_quiet, NULL, 20000));
  assert_int_equal(hs_known(s, 0), 100);
  end(s);
}

static void two_hubs_on_a_node_are_independent(void **state) {
  (void)state;
  hs *s = world(22, 3);
  ph_hub *first[3], *again;
  for (int i = 0; i < 3; i++) first[i] = s->n[i].hub;
  assert_int_equal(ph_hub_new(&s->n[0].node, &s->config, &again), PH_EALREADY);
  start(s, 0, 0, 100);
  quiet(s, 100);
  s->config.hub_id = "other";
  s->config.hub_id_len = 5;
  s->config.strategies = 7; /* its own business */
  for (int i = 0; i < 3; i++) s->n[i].hub = NULL;
  hs_hub(s, 1);
  hs_hub(s, 2);
  ph_hub *second[] = {NULL, s->n[1].hub, s->n[2].hub};
  start(s, 1, 1000, 100);
  hs_ms(s, 1000);
  assert_int_equal(hs_known(s, 2), 100);
  assert_null(hs_row(s, 1, 5));
  assert_ptr_equal(ph_node_hub(&s->n[1].node, "other", 5), second[1]);
  assert_ptr_equal(ph_node_hub(&s->n[1].node, "h", 1), first[1]);
  assert_null(ph_node_hub(&s->n[0].node, "other", 5));
  hs_hub_free(s, 1);
  hs_ms(s, 1000);
  for (int i = 1000; i < 1100; i++) assert_int_equal(s->live[2][i], 1);
  for (int i = 0; i < 100; i++) assert_int_equal(s->starts[i], 1);
  hs_hub_free(s, 2);
  hs_ms(s, 100);
  for (int i = 0; i < 3; i++) s->n[i].hub = first[i];
  quiet(s, 100);
  end(s);
}

static void a_node_gets_its_name_while_its_hub_runs(void **state) {
  (void)state;
  hs *s = world(23, 2);
  start(s, 0, 0, 50);
  s->nameless = true;
  int late = hs_add_alone(s);
  hs_op o;
  start(s, late, 100, 50);
  assert_int_equal(hs_stop(s, late, &o, 100, 10), 0);
  hs_op_wait(s, &o, 100);
  hs_op_end(&o);
  hs_propose(s, late, 200, 10, "ok", "permanent");
  hs_ms(s, 10);
  hs_op slow;
  assert_int_equal(hs_start(s, late, &slow, 150, 10, "slow", "permanent"), 0);
  hs_ms(s, 10);
  hs_node *n = &s->n[late];
  assert_string_equal(n->hub->self.node->name, "nonode@nohost");
  assert_int_equal(ph_node_name(&n->node, n->name, strlen(n->name), n->incarnation), 0);
  hs_join(s, late, 0);
  hs_op_wait(s, &slow, 1000);
  assert_int_equal(slow.started, 10);
  hs_op_end(&slow);
  quiet(s, 50 + 40 + 10 + 10);
  for (int i = 100; i < 110; i++) assert_int_equal(s->runs[i], 0);
  hs_crash(s, 0);
  quiet(s, 110);
  end(s);
}

static void its_process_is_killed_from_outside(void **state) {
  (void)state;
  hs *s = world(24, 2);
  start(s, 0, 0, 50);
  quiet(s, 50);
  hs_node *n = &s->n[0];
  ph_pid before = ph_hub_pid(n->hub);
  ph_bytes *kill = ph_reason_get(&n->node.sys, PH_REASON_KILL);
  assert_int_equal(ph_signal(&n->node.sys, 0, before, kill, true), 0);
  hs_ms(s, 10);
  assert_int_not_equal(ph_hub_pid(n->hub), before);
  assert_non_null(ph_proc_find(&n->node.sys, ph_hub_pid(n->hub)));
  quiet(s, 50);
  for (int i = 0; i < 50; i++) assert_int_equal(s->starts[i], 1);
  start(s, 0, 100, 50);
  quiet(s, 100);
  hs_leave(s, 0);
  assert_true(hs_until(s, has_left, n, 5000));
  quiet(s, 100);
  end(s);
}

/* all leave in one moment: nobody waits for another to take over */
static void all_leave_at_once(void **state) {
  (void)state;
  hs *s = world(25, 4);
  start(s, 0, 0, 100);
  for (int i = 0; i < 4; i++) hs_leave(s, i);
  for (int i = 0; i < 4; i++) assert_true(hs_until(s, has_left, &s->n[i], 2000));
  for (int i = 0; i < 100; i++) assert_int_equal(s->runs[i], 0);
  end(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_later_hub_with_other_strategies_runs_nothing),
      cmocka_unit_test(of_two_groups_the_later_one_stands_aside),
      cmocka_unit_test(a_hub_starts_later_on_a_node_of_the_cluster),
      cmocka_unit_test(a_hub_ends_and_another_begins_on_its_node),
      cmocka_unit_test(a_hub_freed_at_once_is_taken_over_at_once),
      cmocka_unit_test(a_hub_that_went_unheard_is_noticed),
      cmocka_unit_test(two_hubs_on_a_node_are_independent),
      cmocka_unit_test(a_node_gets_its_name_while_its_hub_runs),
      cmocka_unit_test(its_process_is_killed_from_outside),
      cmocka_unit_test(all_leave_at_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
