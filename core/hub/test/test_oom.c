/* Hubs without memory: whatever fails, nothing crashes, nothing leaks, and once there is memory
 * again all is as it should be, within about a second. */
#include "hubsim.h"
#include "net/test/netenv.h"

static hs *world(uint64_t seed, int nodes) {
  hs *s = malloc(sizeof *s);
  assert_non_null(s);
  hs_init(s, seed);
  s->hb_timeout = 2000;
  for (int i = 0; i < nodes; i++) hs_add(s);
  assert_true(hs_until(s, hs_formed, NULL, 30000));
  return s;
}

static void end(hs *s) {
  hs_end(s);
  free(s);
}

/* from its n-th allocation on, node 0 has no memory for a while */
static void starve(hs *s, long n, bool rest) {
  s->n[0].mem.fail_rest = rest;
  te_fail_in(&s->n[0].mem, n);
}

static bool heal(hs *s) {
  bool tripped = te_tripped(&s->n[0].mem);
  te_fail_in(&s->n[0].mem, 0);
  return tripped;
}

static int started(hs_op *o, int err) {
  if (err) assert_int_equal(err, PH_ENOMEM);
  return err ? 0 : o->started;
}

static void quiet(hs *s, long n, uint64_t ms) {
  if (hs_until(s, hs_quiet, NULL, ms)) return;
  hs_dump(s);
  fail_msg("n = %ld: not quiet", n);
}

/* one scenario, in which node 0's n-th allocation (and, if `rest`, all those after it) fails: both
 * nodes start children, a third comes, the second dies */
static bool scenario(long n, bool rest) {
  hs *s = world(1, 2);
  hs_op a, b;
  hs_options.check_existing = false;
  starve(s, n, rest);
  int err_a = hs_start(s, 0, &a, 0, 20, n % 2 ? "ok" : "slow", "permanent");
  int err_b = hs_start(s, 1, &b, 20, 20, "ok", "permanent");
  assert_int_equal(err_b, 0);
  hs_ms(s, 150);
  int third = hs_add_alone(s);
  hs_join(s, third, 1);
  hs_ms(s, 150);
  hs_kill_child(s, 25, "oops");
  hs_ms(s, 100);
  if (rest) (void)heal(s);
  if (!err_a) hs_op_wait(s, &a, 70000);
  hs_op_wait(s, &b, 70000);
  int n_a = started(&a, err_a), n_b = b.started;
  bool tripped = rest ? n < 2000 && s->n[0].mem.failed > 0 : heal(s);
  quiet(s, n, 5000);
  for (int i = 0; i < 40; i++) {
    bool ok = i < 20 ? !err_a && a.ok[i] == 1 : b.ok[i - 20] == 1;
    if (s->runs[i] != ok) fail_msg("n = %ld: %d runs %d times", n, i, (int)s->runs[i]);
  }
  hs_crash(s, 1);
  quiet(s, n, 20000);
  assert_int_equal(hs_known(s, 0), n_a + n_b);
  hs_op_end(&a);
  hs_op_end(&b);
  end(s);
  hs_options.check_existing = true;
  return tripped;
}

static void each_allocation_may_fail(void **state) {
  (void)state;
  const char *from = getenv("OOM_FROM");
  long step = ne_slower() > 3 ? 7 : 1; /* valgrind sees a part of them */
  for (long n = from ? atol(from) : 1; scenario(n, false); n += step) {
  }
}

/* and all those after it, for a while */
static void there_may_be_no_memory_at_all_for_a_while(void **state) {
  (void)state;
  for (long n = 1; scenario(n, true); n += 7) {
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(each_allocation_may_fail),
      cmocka_unit_test(there_may_be_no_memory_at_all_for_a_while),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
