/* Static children (child_specs): proposed, known already, stopped, and when clusters meet. */
#include "hubsim.h"

static hs *alone(uint64_t seed, int nodes) {
  hs *s = malloc(sizeof *s);
  assert_non_null(s);
  hs_init(s, seed);
  for (int i = 0; i < nodes; i++) hs_add_alone(s);
  hs_ms(s, 100);
  return s;
}

static void end(hs *s) {
  hs_end(s);
  free(s);
}

static void propose(hs *s, int node, int n, const char *restart) {
  ph_hub *h = s->n[node].hub;
  ph_buf b;
  ph_spec *spec;
  const char *key;
  ph_buf_init(&b, h->env);
  ph_w_map(&b, 2);
  ph_w_cstr(&b, "start");
  ph_w_array(&b, 2);
  ph_w_cstr(&b, "c");
  ph_w_cstr(&b, "ok");
  ph_w_cstr(&b, "restart");
  ph_w_cstr(&b, restart);
  assert_int_equal(ph_spec_get(&h->specs, ph_buf_at(&b), ph_buf_size(&b), &spec, &key), 0);
  ph_buf_deinit(&b);
  ph_op *op = ph_op_new(h, PH_OP_START, (size_t)n);
  assert_non_null(op);
  for (int i = 0; i < n; i++) {
    char id[16];
    snprintf(id, sizeof id, "c%d", i);
    assert_int_equal(ph_op_add(op, id, strlen(id), ph_spec_ref(spec), NULL), 0);
  }
  ph_spec_unref(&h->specs, spec);
  ph_hub_propose(h, op);
}

static void stop(hs *s, int node, int from, int n) {
  hs_op o;
  assert_int_equal(hs_stop(s, node, &o, from, n), 0);
  hs_op_wait(s, &o, 10000);
  assert_int_equal(o.stopped, n);
  hs_op_end(&o);
}

/* those in [0, n) and no others run, each once; and so it stays */
static void expect(hs *s, int from, int n) {
  for (int round = 0; round < 2; round++) {
    assert_true(hs_until(s, hs_quiet, NULL, 120000));
    for (int i = 0; i < 200; i++) assert_int_equal(s->runs[i], i >= from && i < n);
    hs_ms(s, 60000);
  }
}

static void each_runs_once_whoever_proposes(void **state) {
  (void)state;
  hs *s = alone(1, 3);
  hs_join(s, 1, 0);
  hs_join(s, 2, 0);
  assert_true(hs_until(s, hs_formed, NULL, 30000));
  for (int i = 0; i < 3; i++) propose(s, i, 100, "permanent");
  expect(s, 0, 100);
  for (int i = 0; i < 100; i++) assert_int_equal(s->starts[i], 1);
  end(s);
}

static void clusters_that_meet_keep_one_each(void **state) {
  (void)state;
  hs *s = alone(2, 4);
  hs_join(s, 1, 0);
  hs_join(s, 3, 2);
  hs_ms(s, 2000);
  propose(s, 0, 100, "permanent");
  propose(s, 2, 100, "permanent");
  hs_ms(s, 1000);
  for (int i = 0; i < 100; i++) assert_int_equal(s->runs[i], 2);
  hs_join(s, 2, 0);
  expect(s, 0, 100);
  end(s);
}

static void what_was_stopped_stays_so(void **state) {
  (void)state;
  hs *s = alone(3, 2);
  propose(s, 0, 100, "permanent");
  hs_ms(s, 100);
  stop(s, 0, 0, 50);
  hs_ms(s, 300000);                /* no tombstone of another kind lives so long */
  propose(s, 1, 100, "permanent"); /* it believes to be alone */
  hs_ms(s, 100);
  for (int i = 0; i < 50; i++) assert_int_equal(s->runs[i], 1);
  hs_join(s, 1, 0);
  expect(s, 50, 100);
  int third = hs_add(s);
  expect(s, 50, 100);
  propose(s, third, 100, "permanent"); /* it has synchronised */
  expect(s, 50, 100);
  hs_leave(s, 0);
  hs_leave(s, 1);
  hs_ms(s, 5000);
  int fourth = hs_add_alone(s); /* those who saw the stop are gone; their knowledge is not */
  hs_join(s, fourth, third);
  assert_true(hs_until(s, hs_formed, NULL, 30000));
  propose(s, fourth, 100, "permanent");
  expect(s, 50, 100);
  end(s);
}

static void one_that_was_stopped_can_be_started(void **state) {
  (void)state;
  hs *s = alone(4, 2);
  propose(s, 0, 10, "permanent");
  hs_ms(s, 100);
  stop(s, 0, 0, 10);
  hs_op o;
  assert_int_equal(hs_start(s, 0, &o, 0, 5, "ok", "permanent"), 0);
  hs_op_wait(s, &o, 1000);
  assert_int_equal(o.started, 5);
  hs_op_end(&o);
  propose(s, 1, 10, "permanent");
  hs_join(s, 1, 0);
  expect(s, 0, 5);
  end(s);
}

/* a temporary one that has ended is not brought back by the next node that has it in its list */
static void what_ended_for_good_stays_so(void **state) {
  (void)state;
  hs *s = alone(5, 2);
  propose(s, 0, 10, "temporary");
  hs_ms(s, 100);
  for (int i = 0; i < 5; i++) hs_kill_child(s, i, "done");
  hs_join(s, 1, 0);
  hs_ms(s, 5000);
  propose(s, 1, 10, "temporary");
  expect(s, 5, 10);
  end(s);
}

static void nothing_is_proposed_while_the_node_joins(void **state) {
  (void)state;
  hs *s = malloc(sizeof *s);
  assert_non_null(s);
  hs_init(s, 6);
  hs_add_alone(s);
  propose(s, 0, 50, "permanent");
  hs_ms(s, 1000);
  stop(s, 0, 0, 25);
  int i = hs_add_bare(s);
  assert_int_equal(ph_node_joining(&s->n[i].node, 77), 0);
  hs_hub(s, i);
  propose(s, i, 50, "permanent");
  hs_ms(s, 500);
  for (int c = 0; c < 50; c++) assert_int_equal(s->live[i][c], 0);
  hs_join(s, i, 0);
  hs_ms(s, 500);
  for (int c = 0; c < 25; c++) assert_int_equal(s->runs[c], 0);
  ph_node_event(&s->n[i].node, PH_EV_CONNECTED, 77, 0, NULL, 0);
  expect(s, 25, 50);
  for (int c = 0; c < 25; c++) assert_int_equal(s->starts[c], 1);
  end(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(each_runs_once_whoever_proposes),
      cmocka_unit_test(clusters_that_meet_keep_one_each),
      cmocka_unit_test(what_was_stopped_stays_so),
      cmocka_unit_test(one_that_was_stopped_can_be_started),
      cmocka_unit_test(what_ended_for_good_stays_so),
      cmocka_unit_test(nothing_is_proposed_while_the_node_joins),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
