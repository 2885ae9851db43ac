/* The supervisor's limit of restarts, and what happens past it. */
#include "hubsim.h"

static hs *world(int nodes, bool restart_all, uint32_t max_restarts) {
  hs *s = malloc(sizeof *s);
  assert_non_null(s);
  hs_init(s, 1);
  s->config.restart_all = restart_all;
  s->config.max_restarts = max_restarts;
  for (int i = 0; i < nodes; i++) hs_add(s);
  assert_true(hs_until(s, hs_formed, NULL, 30000));
  hs_op o;
  assert_int_equal(hs_start(s, 0, &o, 0, 60, "ok", "permanent"), 0);
  hs_op_wait(s, &o, 10000);
  assert_int_equal(o.started, 60);
  hs_op_end(&o);
  hs_ms(s, 100);
  return s;
}

static void end(hs *s) {
  hs_end(s);
  free(s);
}

static void crash(hs *s, int id, int times) {
  for (int i = 0; i < times; i++) {
    hs_kill_child(s, id, "oops");
    hs_ms(s, 10);
  }
}

static bool here(hs *s, int host, int id) {
  return s->live[host][id];
}

static void a_child_past_its_own_limit_waits_alone(void **state) {
  (void)state;
  hs *s = world(1, false, 100);
  crash(s, 0, 4);
  assert_int_equal(s->runs[0], 0);
  for (int i = 1; i < 60; i++) assert_int_equal(s->starts[i], 1);
  assert_true(hs_until(s, hs_quiet, NULL, 10000));
  assert_int_equal(s->starts[0], 5);
  end(s);
}

static void a_child_past_the_supervisors_limit_waits_alone(void **state) {
  (void)state;
  hs *s = world(1, false, 5);
  for (int i = 0; i < 6; i++) crash(s, i, 1);
  for (int i = 0; i < 5; i++) assert_int_equal(s->runs[i], 1);
  assert_int_equal(s->runs[5], 0);
  hs_ms(s, 500);
  assert_int_equal(s->runs[5], 0);
  assert_true(hs_until(s, hs_quiet, NULL, 10000));
  for (int i = 6; i < 60; i++) assert_int_equal(s->starts[i], 1);
  hs_ms(s, 5000);
  crash(s, 7, 1); /* its time is over: the count begins anew */
  assert_int_equal(s->runs[7], 1);
  end(s);
}

static void restart_all_starts_all_of_that_node_again(void **state) {
  (void)state;
  for (int nodes = 1; nodes <= 3; nodes += 2) {
    hs *s = world(nodes, true, 5);
    int id = 0, host = 0;
    while (!here(s, host, id)) host++;
    bool there[60];
    for (int i = 0; i < 60; i++) there[i] = here(s, host, i);
    crash(s, id, 5); /* no quick limit of its own */
    for (int i = 1; i < 60; i++) assert_int_equal(s->starts[i], 1);
    assert_int_equal(s->runs[id], 1);
    crash(s, id, 1);
    assert_true(hs_until(s, hs_quiet, NULL, 10000));
    for (int i = 1; i < 60; i++) assert_int_equal(s->starts[i], there[i] ? 2 : 1);
    for (int i = 0; i < 60; i++) assert_int_equal(here(s, host, i), there[i]);
    assert_int_equal(s->starts[id], 7);
    end(s);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_child_past_its_own_limit_waits_alone),
      cmocka_unit_test(a_child_past_the_supervisors_limit_waits_alone),
      cmocka_unit_test(restart_all_starts_all_of_that_node_again),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
