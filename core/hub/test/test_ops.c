/* Operations: when their arbiters go, when their hub goes, when they come in thousands. */
#include "hubsim.h"

static hs *world(uint64_t seed, int nodes) {
  hs *s = malloc(sizeof *s);
  assert_non_null(s);
  hs_init(s, seed);
  for (int i = 0; i < nodes; i++) hs_add(s);
  assert_true(hs_until(s, hs_formed, NULL, 30000));
  hs_options.check_existing = false;
  return s;
}

static void end(hs *s) {
  hs_options.check_existing = true;
  hs_end(s);
  free(s);
}

static bool all_done(hs *s, void *arg) {
  (void)s;
  for (hs_op *o = arg; o->s; o++)
    if (!o->done) return false;
  return true;
}

static int error_of(hs_op *o, size_t i) {
  ph_op_row r;
  ph_op_row_get(o->op, i, &r);
  assert_int_equal(r.status, PH_ROW_ERROR);
  return r.err;
}

/* Node 0's requests are stuck on their way to node 2, which has started the same ids for node 1 and
 * dies: what node 0 is then the arbiter of, it refuses to itself. */
static void a_requester_becomes_the_arbiter(void **state) {
  (void)state;
  enum { N = 60 };
  hs *s = world(1, 3);
  hs_op o[N + 1] = {{0}}, theirs;
  hs_cut_way(s, 0, 2, true);
  for (int i = 0; i < N; i++) assert_int_equal(hs_start(s, 0, &o[i], i, 1, "ok", "permanent"), 0);
  hs_ms(s, 1);
  assert_int_equal(hs_start(s, 1, &theirs, 0, N, "ok", "permanent"), 0);
  hs_op_wait(s, &theirs, 5000);
  hs_ms(s, 10);
  hs_crash(s, 2);
  assert_true(hs_until(s, all_done, o, 20000));
  int mine = 0;
  for (int i = 0; i < N; i++) {
    assert_int_equal(o[i].ok[0] + theirs.ok[i], 3);
    if (o[i].ok[0] == 2) assert_int_equal(error_of(&o[i], 0), PH_EALREADY);
    mine += o[i].ok[0] == 1;
    hs_op_end(&o[i]);
  }
  assert_in_range(mine, 1, N - 1);
  hs_op_end(&theirs);
  assert_true(hs_until(s, hs_quiet, NULL, 20000));
  assert_int_equal(hs_known(s, 0), N);
  end(s);
}

static void thousands_of_operations_at_once(void **state) {
  (void)state;
  enum { N = 3000 };
  hs *s = world(2, 3);
  hs_op *o = calloc(N + 1, sizeof *o);
  for (int i = 0; i < N; i++)
    assert_int_equal(hs_start(s, i % 3, &o[i], i, 1, "ok", "permanent"), 0);
  assert_true(hs_until(s, all_done, o, 5000));
  for (int i = 0; i < N; i++) {
    assert_int_equal(o[i].started, 1);
    hs_op_end(&o[i]);
  }
  for (int i = 0; i < N; i++) assert_int_equal(hs_stop(s, (i + 1) % 3, &o[i], i, 1), 0);
  assert_true(hs_until(s, all_done, o, 5000));
  for (int i = 0; i < N; i++) {
    assert_int_equal(o[i].stopped, 1);
    hs_op_end(&o[i]);
  }
  free(o);
  assert_true(hs_until(s, hs_quiet, NULL, 5000));
  assert_int_equal(hs_known(s, 1), 0);
  end(s);
}

/* a small operation does not wait behind a large one */
static void operations_take_turns(void **state) {
  (void)state;
  hs *s = world(3, 1);
  hs_op large, small;
  assert_int_equal(hs_start(s, 0, &large, 100, 19000, "ok", "permanent"), 0);
  assert_int_equal(hs_start(s, 0, &small, 0, 10, "ok", "permanent"), 0);
  while (!small.done) {
    assert_false(large.done);
    (void)ph_sys_run(&s->n[0].node.sys, 1);
    ph_memnet_advance(s->net, ph_memnet_now(s->net) + 1);
  }
  assert_false(large.done);
  assert_in_range(s->n[0].hub->child_count, 10, 6000);
  hs_op_wait(s, &large, 5000);
  assert_int_equal(large.started, 19000);
  hs_op_end(&large);
  hs_op_end(&small);
  end(s);
}

static bool has_left(hs *s, void *arg) {
  (void)s;
  return ((hs_node *)arg)->stopped;
}

/* answered with not_alive; what was asked for and not answered runs nowhere */
static void a_leaver_ends_its_operations(void **state) {
  (void)state;
  hs *s = world(4, 3);
  hs_op slow, never, stop;
  assert_int_equal(hs_start(s, 0, &slow, 0, 30, "slow", "permanent"), 0);
  assert_int_equal(hs_start(s, 0, &never, 100, 30, "never", "permanent"), 0);
  hs_ms(s, 50);
  assert_int_equal(hs_stop(s, 0, &stop, 0, 10), 0);
  hs_leave(s, 0);
  hs_op_wait(s, &slow, 5000);
  hs_op_wait(s, &never, 5000);
  hs_op_wait(s, &stop, 5000);
  assert_int_equal(slow.failed, 30);
  assert_int_equal(never.failed, 30);
  for (size_t i = 0; i < 30; i++) {
    int err = error_of(&slow, i);
    assert_true(err == PH_ENOTALIVE || (i < 10 && err == PH_ENOTFOUND));
    assert_int_equal(error_of(&never, i), PH_ENOTALIVE);
  }
  assert_true(hs_until(s, has_left, &s->n[0], 10000));
  hs_ms(s, 60000);
  assert_true(hs_quiet(s, NULL));
  assert_int_equal(hs_known(s, 1), 0);
  for (int i = 0; i < 200; i++) assert_int_equal(s->runs[i], 0);
  hs_op_end(&slow); /* they outlive their hub */
  hs_op_end(&never);
  hs_op_end(&stop);
  end(s);
}

static void operations_outlive_their_hub(void **state) {
  (void)state;
  hs *s = world(5, 2);
  hs_op done, waits;
  ph_hub *h = s->n[0].hub;
  ph_spec *spec = hs_spec(s, h, "ok", "permanent");
  ph_op *never = ph_op_new(h, PH_OP_START, 2);
  assert_int_equal(ph_op_add(never, "c500", 4, spec, NULL), 0);
  assert_int_equal(hs_start(s, 0, &done, 0, 3, "fail", "permanent"), 0);
  hs_op_wait(s, &done, 1000);
  assert_int_equal(hs_start(s, 0, &waits, 10, 3, "never", "permanent"), 0);
  hs_ms(s, 10);
  hs_hub_free(s, 0);
  assert_true(waits.done);
  assert_int_equal(error_of(&waits, 2), PH_ENOTALIVE);
  ph_op_row r;
  ph_op_row_get(done.op, 1, &r);
  assert_int_equal(r.status, PH_ROW_ERROR);
  assert_memory_equal(r.id, "c1", 2);
  assert_true(ph_reason_is(r.reason, "will not"));
  assert_int_equal(ph_op_add(never, "c501", 4, NULL, NULL), PH_ENOTALIVE);
  assert_int_equal(ph_op_submit(never, &hs_options, NULL, NULL), PH_ENOTALIVE);
  ph_op_free(never);
  hs_op_end(&done);
  hs_op_end(&waits);
  end(s);
}

/* nobody wants the answer: it goes on, and frees itself */
static void an_operation_may_be_left_alone(void **state) {
  (void)state;
  hs *s = world(6, 2);
  hs_op o, empty;
  assert_int_equal(hs_start(s, 0, &o, 0, 20, "slow", "permanent"), 0);
  ph_op_free(o.op);
  o.op = NULL;
  hs_op_end(&o);
  assert_int_equal(hs_start(s, 0, &empty, 0, 0, "ok", "permanent"), 0);
  hs_op_wait(s, &empty, 10);
  hs_op_end(&empty);
  assert_true(hs_until(s, hs_quiet, NULL, 1000));
  assert_int_equal(hs_known(s, 1), 20);
  end(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_requester_becomes_the_arbiter),
      cmocka_unit_test(thousands_of_operations_at_once),
      cmocka_unit_test(operations_take_turns),
      cmocka_unit_test(a_leaver_ends_its_operations),
      cmocka_unit_test(operations_outlive_their_hub),
      cmocka_unit_test(an_operation_may_be_left_alone),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
