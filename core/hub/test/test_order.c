/* A stop that a node asks for after a start: it stops that start, whether it is known yet or not.
 */
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

static void a_stop_right_behind_the_start(void **state) {
  (void)state;
  for (int nodes = 1; nodes <= 3; nodes += 2) {
    hs *s = world(1, nodes);
    hs_op a, b;
    assert_int_equal(hs_start(s, 0, &a, 0, 5000, "ok", "permanent"), 0);
    assert_int_equal(hs_stop(s, 0, &b, 2500, 2500), 0);
    hs_op_wait(s, &a, 10000);
    hs_op_wait(s, &b, 10000);
    assert_int_equal(b.stopped, 2500);
    for (int i = 0; i < 2500; i++) assert_int_equal(a.ok[i], 1);
    hs_op_end(&a);
    hs_op_end(&b);
    assert_true(hs_until(s, hs_quiet, NULL, 60000));
    assert_int_equal(hs_known(s, 0), 2500);
    for (int i = 2500; i < 5000; i++) assert_int_equal(s->runs[i], 0);
    end(s);
  }
}

static void a_stop_of_a_start_that_takes_its_time(void **state) {
  (void)state;
  hs *s = world(2, 3);
  hs_op a, b;
  assert_int_equal(hs_start(s, 1, &a, 0, 20, "never", "permanent"), 0);
  assert_int_equal(hs_stop(s, 1, &b, 0, 20), 0);
  hs_op_wait(s, &b, 1000); /* long before the start's timeout */
  hs_op_wait(s, &a, 1000);
  assert_int_equal(b.stopped, 20);
  assert_int_equal(a.failed, 20);
  hs_op_end(&a);
  hs_op_end(&b);
  assert_true(hs_until(s, hs_quiet, NULL, 60000));
  assert_int_equal(hs_known(s, 2), 0);
  end(s);
}

/* the start's failure may come first: then there is nothing to stop; either way it is gone */
static void a_stop_of_a_start_that_fails(void **state) {
  (void)state;
  hs *s = world(3, 3);
  hs_op a, b;
  assert_int_equal(hs_start(s, 0, &a, 0, 30, "fail", "permanent"), 0);
  assert_int_equal(hs_stop(s, 0, &b, 0, 30), 0);
  hs_op_wait(s, &a, 1000);
  hs_op_wait(s, &b, 1000);
  assert_int_equal(a.failed, 30);
  for (int i = 0; i < 30; i++) {
    ph_op_row r;
    ph_op_row_get(b.op, (size_t)i, &r);
    if (r.status == PH_ROW_ERROR) assert_int_equal(r.err, PH_ENOTFOUND);
  }
  hs_op_end(&a);
  hs_op_end(&b);
  assert_true(hs_until(s, hs_quiet, NULL, 60000));
  assert_int_equal(hs_known(s, 1), 0);
  end(s);
}

static void a_start_behind_the_stop_is_not_its_business(void **state) {
  (void)state;
  hs *s = world(4, 3);
  hs_op a, b;
  assert_int_equal(hs_stop(s, 0, &b, 0, 10), 0);
  assert_int_equal(hs_start(s, 0, &a, 0, 10, "ok", "permanent"), 0);
  hs_op_wait(s, &a, 1000);
  hs_op_wait(s, &b, 1000);
  assert_int_equal(a.started, 10);
  assert_int_equal(b.failed, 10);
  hs_op_end(&a);
  hs_op_end(&b);
  assert_true(hs_until(s, hs_quiet, NULL, 60000));
  assert_int_equal(hs_known(s, 1), 10);
  end(s);
}

static void the_node_that_decides_dies_between(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 20; seed++) {
    hs *s = world(10 + seed, 3);
    hs_op a, b;
    assert_int_equal(hs_start(s, 0, &a, 0, 200, "ok", "permanent"), 0);
    hs_ms(s, seed % 2);
    assert_int_equal(hs_stop(s, 0, &b, 0, 200), 0);
    hs_ms(s, seed % 3);
    hs_crash(s, 1);
    hs_op_wait(s, &a, 15000);
    hs_op_wait(s, &b, 15000);
    hs_op_end(&a);
    assert_true(hs_until(s, hs_quiet, NULL, 60000));
    for (int i = 0; i < 200; i++)
      if (b.ok[i] == 1) assert_int_equal(s->runs[i], 0);
    hs_op_end(&b);
    end(s);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_stop_right_behind_the_start),
      cmocka_unit_test(a_stop_of_a_start_that_takes_its_time),
      cmocka_unit_test(a_stop_of_a_start_that_fails),
      cmocka_unit_test(a_start_behind_the_stop_is_not_its_business),
      cmocka_unit_test(the_node_that_decides_dies_between),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
