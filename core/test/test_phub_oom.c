/* Two runtimes of one process while memory fails, the core's or libuv's: whatever a step answers,
 * nothing crashes or hangs, and nothing is left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "phub.h"
#include "test/oomenv.h"

/* ---- two nodes ---- */

static void no_start(void *ctx, struct ph_hub *hub, const char *id, size_t id_len,
                     const struct ph_spec *spec, uint64_t token) {
  (void)ctx, (void)hub, (void)id, (void)id_len, (void)spec, (void)token;
}

static void no_abandon(void *ctx, struct ph_hub *hub, uint64_t token) {
  (void)ctx, (void)hub, (void)token;
}

static int runtime(ph_rt **out) {
  ph_sys_host sys_host = {0};
  ph_hub_host hub_host = {.start = no_start, .abandon = no_abandon};
  *out = NULL;
  return ph_rt_new(&sys_host, &hub_host, out);
}

static int start(ph_rt *rt, const char *name) {
  ph_cluster_config c = {.name = name,
                         .listen = "127.0.0.1:0",
                         .cookie = "secret",
                         .cookie_len = 6,
                         .heartbeat_interval = 100,
                         .heartbeat_timeout = 1000,
                         .stall_timeout = 60000,
                         .max_message = 1024 * 1024};
  return ph_rt_start(rt, &c);
}

static int hub(ph_rt *rt) {
  ph_hub_config config = {.hub_id = "h",
                          .hub_id_len = 1,
                          .strategies = 1,
                          .strategies_text = "defaults",
                          .discover_interval = 10000,
                          .sync_interval = 15000,
                          .max_restarts = 3,
                          .max_seconds = 5,
                          .shutdown_timeout = 1000,
                          .max_concurrent_starts = 10};
  ph_hub *h;
  return ph_hub_new(ph_rt_node(rt), &config, &h);
}

static bool seen(ph_rt *rt, const char *name) {
  return ph_sys_node_named(ph_rt_sys(rt), name, strlen(name)) != NULL;
}

/* drives both until they see each other, at most so long */
static bool meet(ph_rt *a, ph_rt *b, uint64_t ms) {
  uint64_t until = ne_now(NULL) + PH_MS(ms);
  while (!(seen(a, "b@127.0.0.1") && seen(b, "a@127.0.0.1"))) {
    if (ne_now(NULL) >= until) return false;
    ph_rt_step(a, 0);
    ph_rt_step(b, 0);
  }
  return true;
}

static int leave(ph_rt *a, ph_rt *b) {
  int err = ph_rt_leave(a);
  uint64_t until = ne_now(NULL) + PH_MS(10000) * (uint64_t)ne_slower();
  while (!err && !ph_rt_left(a)) {
    assert_true(ne_now(NULL) < until);
    ph_rt_step(a, 0);
    ph_rt_step(b, 0);
  }
  if (!err) ph_rt_node_end(a);
  return err;
}

/* 0, or what the step that failed answered */
static int scenario(ph_rt **a, ph_rt **b, bool *met) {
  *met = false;
  int err = runtime(a);
  if (!err) err = runtime(b);
  if (!err) err = start(*a, "a@127.0.0.1");
  if (!err) err = start(*b, "b@127.0.0.1");
  if (!err) err = hub(*a);
  if (!err) err = hub(*b);
  if (!err) err = ph_rt_join(*a, ph_rt_address(*b));
  if (err) return err;
  /* where a link fails for want of memory it is dialled again: each point of failure but a few
   * costs less than this */
  *met = meet(*a, *b, 300);
  if (!*met && !te_tripped(&mem)) *met = meet(*a, *b, 10000 * (uint64_t)ne_slower());
  return leave(*a, *b);
}

static void each_allocation_may_fail(void **state) {
  (void)state;
  int fds = ne_count("/proc/self/fd"), threads = ne_count("/proc/self/task");
  long step = ne_slower() > 3 ? 7 : 1, n = 1; /* valgrind sees a part of them */
  for (bool tripped = true; tripped; n += step) {
    ph_rt *a = NULL, *b = NULL;
    bool met;
    te_fail_in(&mem, n);
    int err = scenario(&a, &b, &met);
    tripped = te_tripped(&mem);
    te_fail_in(&mem, 0);
    if (err && err != PH_ENOMEM) fail_msg("n = %ld: %d", n, err);
    if (!tripped) assert_true(!err && met);
    ph_rt_free(a);
    ph_rt_free(b);
    TE_END(&mem);
    assert_int_equal(ne_count("/proc/self/fd"), fds);
    assert_int_equal(ne_count("/proc/self/task"), threads);
  }
  assert_true(n > 50);
  print_message("%ld points of failure\n", n - 1);
}

static int setup(void **state) {
  (void)state;
  if (oom_init()) return -1;
  ph_rt *rt; /* libuv keeps two files of its own once it has made a loop */
  if (runtime(&rt)) return -1;
  ph_rt_free(rt);
  return ne_warm_up();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(each_allocation_may_fail),
  };
  return cmocka_run_group_tests(tests, setup, NULL);
}
