/* Slices: when the thread that runs one is signalled, and when not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "net/tcp/tcp_int.h"
#include "net/test/netenv.h"

enum { LONG_MS = 20000 }; /* what must happen has happened long before, on any machine */

static te t;
static ph_loop *loop;
static atomic_int interrupts, strangers, hosts;
static atomic_bool arms; /* interrupts stay under way */
static pthread_t runner;

static void interrupt(void *ctx) {
  (void)ctx;
  if (!pthread_equal(pthread_self(), runner)) atomic_fetch_add(&strangers, 1);
  atomic_fetch_add(&interrupts, 1);
  if (atomic_load(&arms)) ph_slice_armed(loop, true);
}

static void on_host_signal(int signum) {
  (void)signum;
  atomic_fetch_add(&hosts, 1);
}

static uint64_t now(void) {
  return ne_now(NULL);
}

static void begin(void) {
  ne_init(&t);
  atomic_store(&interrupts, 0);
  atomic_store(&strangers, 0);
  atomic_store(&hosts, 0);
  atomic_store(&arms, false);
  runner = pthread_self();
  loop = ph_loop_new(&t.env);
  assert_non_null(loop);
  ph_loop_preempt(loop, interrupt, NULL);
  assert_int_equal(ph_loop_standby(loop), 0);
  assert_int_equal(ph_loop_standby(loop), 0); /* there is one */
  assert_true(ph_loop_has_standby(loop));
}

static void end(void) {
  ph_loop_free(loop);
  assert_int_equal(atomic_load(&strangers), 0);
  TE_END(&t);
}

/* CPU time, so that a busy machine changes nothing. Allocates: under TSan signals come there. */
static void burn(uint64_t ms) {
  uint64_t until = ph_slice_cpu() + PH_MS(ms);
  while (ph_slice_cpu() < until) free(malloc(1));
}

/* true: there were as many interrupts */
static bool burn_until(int n) {
  uint64_t until = now() + PH_MS(LONG_MS);
  while (atomic_load(&interrupts) < n && now() < until) free(malloc(1));
  return atomic_load(&interrupts) >= n;
}

static void a_slice_that_others_wait_for_is_interrupted(void **state) {
  (void)state;
  begin();
  ph_slice_begin(loop, 1, 0);
  assert_true(burn_until(3)); /* once is not all */
  ph_slice_end(loop);
  end();
}

static void nothing_comes_outside_slices(void **state) {
  (void)state;
  begin();
  assert_int_equal(ph_slice_number(loop) & 1, 0);
  burn(100);
  ph_slice_begin(loop, 1, 0);
  assert_int_equal(ph_slice_number(loop) & 1, 1);
  ph_slice_end(loop);
  assert_int_equal(ph_slice_number(loop) & 1, 0);
  burn(100);
  assert_int_equal(atomic_load(&interrupts), 0);
  end();
}

static void short_slices_are_left_alone(void **state) {
  (void)state;
  begin();
  ph_loop_time_slice(loop, 10000);
  uint64_t until = ph_slice_cpu() + PH_MS(150);
  while (ph_slice_cpu() < until) {
    ph_slice_begin(loop, 1, 0);
    burn(30);
    ph_slice_end(loop);
  }
  assert_int_equal(atomic_load(&interrupts), 0);
  end();
}

static void the_slice_has_its_time(void **state) {
  (void)state;
  begin();
  ph_loop_time_slice(loop, 80);
  uint64_t start = now();
  ph_slice_begin(loop, 1, 0);
  assert_true(burn_until(1));
  assert_true(now() - start >= PH_MS(79));
  ph_slice_end(loop);
  end();
}

static void where_nobody_waits_it_is_looked_into_rarely(void **state) {
  (void)state;
  begin();
  ph_slice_begin(loop, 1, PH_NEVER);
  burn(80);
  assert_int_equal(atomic_load(&interrupts), 0);
  burn(400);
  int n = atomic_load(&interrupts);
  assert_true(n >= 1 && n <= 5);
  ph_slice_end(loop);
  end();
}

static void somebody_may_begin_to_wait(void **state) {
  (void)state;
  begin();
  uint64_t due = now() + PH_MS(60);
  ph_slice_begin(loop, 1, due);
  assert_true(burn_until(1)); /* it is due at last, or nobody waits for long */
  assert_true(now() >= due || atomic_load(&interrupts) == 1);
  ph_slice_end(loop);

  ph_slice_begin(loop, 1, PH_NEVER);
  assert_false(ph_slice_wanted(loop, PH_NEVER));
  atomic_store(ph_slice_stir(loop), true);
  uint64_t cpu = ph_slice_cpu();
  assert_true(burn_until(2));
  assert_true(ph_slice_cpu() - cpu < PH_MS(90));
  assert_false(ph_slice_wanted(loop, PH_NEVER)); /* it was not so after all */
  assert_true(ph_slice_wanted(loop, 0));
  ph_loop_wake(loop);
  assert_true(ph_slice_wanted(loop, PH_NEVER));
  ph_slice_end(loop);
  end();
}

static void one_interrupt_at_a_time(void **state) {
  (void)state;
  begin();
  atomic_store(&arms, true);
  ph_slice_begin(loop, 1, 0);
  assert_true(burn_until(1));
  burn(60);
  assert_int_equal(atomic_load(&interrupts), 1);
  assert_true(burn_until(2)); /* it seems to be lost */
  atomic_store(&arms, false);
  ph_slice_armed(loop, false);
  uint64_t cpu = ph_slice_cpu();
  assert_true(burn_until(3));
  assert_true(ph_slice_cpu() - cpu < PH_MS(90));
  ph_slice_end(loop);
  end();
}

static void a_thread_that_sleeps_is_not_woken(void **state) {
  (void)state;
  begin();
  ph_slice_begin(loop, 1, 0);
  for (int i = 0; i < 20; i++) {
    struct timespec ts = {.tv_nsec = 12000000};
    uint64_t spin = now() + PH_MS(1);
    while (now() < spin) {
    }
    assert_int_equal(nanosleep(&ts, NULL), 0);
  }
  assert_true(burn_until(1)); /* it would have come */
  ph_slice_end(loop);
  end();
}

static void signals_of_others_go_to_their_handler(void **state) {
  (void)state;
  begin();
  raise(SIGURG);
  assert_int_equal(atomic_load(&hosts), 1);
  ph_slice_begin(loop, 1, PH_NEVER);
  raise(SIGURG);
  assert_int_equal(atomic_load(&hosts), 2);
  assert_int_equal(atomic_load(&interrupts), 0);
  ph_slice_end(loop);
  ph_slice_begin(loop, 1, 0);
  assert_true(burn_until(2));
  assert_int_equal(atomic_load(&hosts), 2);
  ph_slice_end(loop);
  end();
}

static void *run_slice(void *ok) {
  runner = pthread_self();
  ph_slice_begin(loop, 1, 0);
  atomic_store(&interrupts, 0);
  *(bool *)ok = burn_until(2);
  ph_slice_end(loop);
  return NULL;
}

static void slices_may_change_threads(void **state) {
  (void)state;
  begin();
  for (int i = 0; i < 4; i++) {
    pthread_t thread;
    bool ok = false;
    if (i % 2) {
      run_slice(&ok);
    } else {
      assert_int_equal(pthread_create(&thread, NULL, run_slice, &ok), 0);
      pthread_join(thread, NULL);
    }
    assert_true(ok);
  }
  end();
}

static void a_slice_of_another_loop_inside(void **state) {
  (void)state;
  begin();
  ph_loop *outer = loop, *inner = ph_loop_new(&t.env);
  assert_non_null(inner);
  ph_loop_preempt(inner, interrupt, NULL);
  assert_int_equal(ph_loop_standby(inner), 0);
  ph_slice_begin(outer, 1, 0);
  ph_slice_begin(inner, 1, 0);
  assert_true(burn_until(3));
  ph_slice_end(inner);
  atomic_store(&interrupts, 0);
  assert_true(burn_until(2)); /* the outer one again, whatever it has missed */
  ph_slice_end(outer);
  ph_loop_free(inner);
  end();
}

static void without_a_standby_nothing_comes(void **state) {
  (void)state;
  begin();
  ph_slice_begin(loop, 1, 0);
  assert_true(burn_until(1));
  ph_loop_standby_stop(loop);
  int n = atomic_load(&interrupts);
  burn(100);
  assert_int_equal(atomic_load(&interrupts), n);
  ph_slice_end(loop);
  assert_int_equal(ph_loop_standby(loop), 0);
  ph_slice_begin(loop, 1, 0);
  assert_true(burn_until(n + 1));
  ph_slice_end(loop);
  end();
}

/* The standby has the loop, which it looks at too. */
static void while_the_standby_runs_the_loop(void **state) {
  (void)state;
  begin();
  ph_slice_begin(loop, 1, PH_NEVER);
  uint64_t until = now() + PH_MS(3 * PH_AWAY_MS);
  while (now() < until) free(malloc(1));
  ph_slice_end(loop);
  atomic_store(&interrupts, 0);
  ph_slice_begin(loop, 1, 0);
  assert_true(burn_until(3));
  ph_loop_poll(loop, 0);
  ph_slice_end(loop);
  end();
}

/* before the first standby: phub's handler finds it */
static int setup(void **state) {
  (void)state;
  struct sigaction sa = {.sa_handler = on_host_signal};
  sigemptyset(&sa.sa_mask);
  return sigaction(SIGURG, &sa, NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_slice_that_others_wait_for_is_interrupted),
      cmocka_unit_test(nothing_comes_outside_slices),
      cmocka_unit_test(short_slices_are_left_alone),
      cmocka_unit_test(the_slice_has_its_time),
      cmocka_unit_test(where_nobody_waits_it_is_looked_into_rarely),
      cmocka_unit_test(somebody_may_begin_to_wait),
      cmocka_unit_test(one_interrupt_at_a_time),
      cmocka_unit_test(a_thread_that_sleeps_is_not_woken),
      cmocka_unit_test(signals_of_others_go_to_their_handler),
      cmocka_unit_test(slices_may_change_threads),
      cmocka_unit_test(a_slice_of_another_loop_inside),
      cmocka_unit_test(without_a_standby_nothing_comes),
      cmocka_unit_test(while_the_standby_runs_the_loop),
  };
  return cmocka_run_group_tests(tests, setup, NULL);
}
