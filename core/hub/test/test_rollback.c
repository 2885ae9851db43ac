/* on_failure = "rollback": how long it may take, and what it says of itself. */
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
  hs_end(s);
  free(s);
  hs_options = (ph_op_options){.timeout = 10000, .await_timeout = 60000, .check_existing = true};
}

/* c0 runs already, so that the start of c0 .. c9 fails in part */
static void start(hs *s, hs_op *o, const char *fn) {
  hs_op one;
  assert_int_equal(hs_start(s, 0, &one, 0, 1, "ok", "permanent"), 0);
  hs_op_wait(s, &one, 1000);
  hs_op_end(&one);
  hs_ms(s, 10);
  hs_options.rollback = true;
  assert_int_equal(hs_start(s, 0, o, 0, 10, fn, "permanent"), 0);
}

static void it_is_part_of_the_whole_time(void **state) {
  (void)state;
  for (int nodes = 1; nodes <= 3; nodes += 2) {
    hs *s = world(1, nodes);
    hs_op o;
    hs_options.await_timeout = 1000; /* a deaf child needs 5 s to end */
    start(s, &o, "deaf");
    hs_op_wait(s, &o, 1100);
    assert_int_equal(o.failed, 1);
    assert_false(ph_op_rolled_back(o.op));
    hs_op_end(&o);
    assert_true(hs_until(s, hs_quiet, NULL, 60000)); /* they are stopped all the same */
    assert_int_equal(hs_known(s, 0), 1);
    end(s);
  }
}

static void it_takes_the_time_it_has(void **state) {
  (void)state;
  hs *s = world(2, 3);
  hs_op o;
  start(s, &o, "deaf");
  hs_op_wait(s, &o, 6000);
  assert_true(ph_op_rolled_back(o.op));
  hs_op_end(&o);
  assert_int_equal(hs_known(s, 0), 1);
  end(s);
}

static void nothing_to_roll_back_is_rolled_back(void **state) {
  (void)state;
  hs *s = world(3, 2);
  hs_op o;
  hs_options.rollback = true;
  assert_int_equal(hs_start(s, 0, &o, 0, 10, "fail", "permanent"), 0);
  hs_op_wait(s, &o, 1000);
  assert_int_equal(o.failed, 10);
  assert_true(ph_op_rolled_back(o.op));
  hs_op_end(&o);
  end(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(it_is_part_of_the_whole_time),
      cmocka_unit_test(it_takes_the_time_it_has),
      cmocka_unit_test(nothing_to_roll_back_is_rolled_back),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
