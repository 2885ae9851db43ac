#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/list.h"
#include "base/test/testenv.h"
#include "base/timer.h"

enum { TIMERS = 300 };

typedef struct entry {
  ph_timer timer;
  bool armed;
  uint64_t due, order;
} entry;

static struct {
  te t;
  ph_timers ts;
  entry entries[TIMERS];
  uint64_t order;
  uint64_t now; /* of the run under way, which must fire `expected` next */
  int fired;
} w;

static entry *model_first(uint64_t now) {
  entry *best = NULL;
  for (int i = 0; i < TIMERS; i++) {
    entry *e = &w.entries[i];
    if (!e->armed || e->due > now) continue;
    if (!best || e->due < best->due || (e->due == best->due && e->order < best->order)) best = e;
  }
  return best;
}

static int arm(entry *e, uint64_t due, uint64_t model_due) {
  int rc = ph_timer_start(&w.ts, &e->timer, due);
  if (rc) {
    assert_int_equal(rc, PH_ENOMEM);
    assert_false(e->armed);
    return rc;
  }
  e->armed = due != PH_NEVER;
  e->due = model_due;
  e->order = w.order++;
  return 0;
}

static void disarm(entry *e) {
  ph_timer_stop(&w.ts, &e->timer);
  e->armed = false;
}

static void on_fire(ph_timer *timer) {
  entry *e = PH_CONTAINER(timer, entry, timer);
  assert_ptr_equal(e, model_first(w.now));
  assert_false(ph_timer_armed(timer));
  e->armed = false;
  w.fired++;
  entry *other = &w.entries[te_below(&w.t, TIMERS)];
  switch (te_below(&w.t, 4)) {
  case 0: { /* due already: must wait for the next run */
    uint64_t due = te_below(&w.t, w.now + 1);
    (void)arm(te_below(&w.t, 2) ? e : other, due, w.now + 1);
    break;
  }
  case 1:
    (void)arm(e, w.now + 1 + te_below(&w.t, 50), e->timer.due);
    e->due = e->timer.due;
    break;
  case 2:
    disarm(other);
    break;
  default:
    break;
  }
}

static void check(void) {
  uint32_t armed = 0;
  uint64_t least = PH_NEVER;
  for (int i = 0; i < TIMERS; i++) {
    entry *e = &w.entries[i];
    assert_int_equal(ph_timer_armed(&e->timer), e->armed);
    armed += e->armed;
    if (e->armed && e->due < least) least = e->due;
  }
  assert_int_equal(w.ts.count, armed);
  assert_int_equal(ph_timers_next(&w.ts), least);
}

static void random_action(void) {
  entry *e = &w.entries[te_below(&w.t, TIMERS)];
  uint64_t due = w.now + te_below(&w.t, 100);
  switch (te_below(&w.t, 10)) {
  case 0:
    disarm(e);
    break;
  case 1:
    (void)arm(e, PH_NEVER, 0);
    break;
  case 2: {
    w.now += te_below(&w.t, 60);
    int max = te_below(&w.t, 3) ? 1000 : (int)te_below(&w.t, 5);
    w.fired = 0;
    int n = ph_timers_run(&w.ts, w.now, max);
    assert_int_equal(n, w.fired);
    assert_true(n <= max);
    if (n < max) assert_null(model_first(w.now));
    break;
  }
  default:
    (void)arm(e, due, due);
    break;
  }
}

static void run_model(uint64_t seed, bool failing) {
  memset(&w, 0, sizeof w);
  te_init(&w.t, seed);
  w.now = 1000;
  ph_timers_init(&w.ts, &w.t.env);
  for (int i = 0; i < TIMERS; i++) ph_timer_init(&w.entries[i].timer, on_fire);
  assert_int_equal(ph_timers_next(&w.ts), PH_NEVER);
  for (int i = 0; i < 20000; i++) {
    if (failing && i % 50 == 0) te_fail_in(&w.t, 1 + (long)te_below(&w.t, 3));
    random_action();
    if (i % 16 == 0) check();
  }
  ph_timers_deinit(&w.ts);
  for (int i = 0; i < TIMERS; i++) assert_false(ph_timer_armed(&w.entries[i].timer));
  TE_END(&w.t);
}

static void agrees_with_a_model(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 5; seed++) run_model(seed, false);
}

static void agrees_with_a_model_without_memory(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 5; seed++) run_model(seed, true);
}

static int freed;

static void free_itself(ph_timer *timer) {
  memset(timer, 0xee, sizeof *timer);
  free(timer);
  freed++;
}

static void may_be_freed_in_its_callback(void **state) {
  (void)state;
  te t;
  te_init(&t, 1);
  ph_timers ts;
  ph_timers_init(&ts, &t.env);
  for (int i = 0; i < 100; i++) {
    ph_timer *timer = malloc(sizeof *timer);
    assert_non_null(timer);
    ph_timer_init(timer, free_itself);
    assert_int_equal(ph_timer_start(&ts, timer, te_below(&t, 50)), 0);
  }
  assert_int_equal(ph_timers_run(&ts, 100, 30), 30);
  assert_int_equal(ph_timers_run(&ts, 100, 1000), 70);
  assert_int_equal(freed, 100);
  assert_true(ts.cap <= 64); /* the array shrank with its content */
  ph_timers_deinit(&ts);
  TE_END(&t);
}

static ph_list order_of_fire;
typedef struct noted {
  ph_timer timer;
  ph_list node;
  int number;
} noted;

static void note(ph_timer *timer) {
  ph_list_push(&order_of_fire, &PH_CONTAINER(timer, noted, timer)->node);
}

static void equal_due_times_fire_in_order_of_arming(void **state) {
  (void)state;
  te t;
  te_init(&t, 1);
  ph_timers ts;
  ph_timers_init(&ts, &t.env);
  ph_list_init(&order_of_fire);
  noted all[50];
  for (int i = 0; i < 50; i++) {
    all[i].number = i;
    ph_timer_init(&all[i].timer, note);
    assert_int_equal(ph_timer_start(&ts, &all[i].timer, 7), 0);
  }
  assert_int_equal(ph_timer_start(&ts, &all[0].timer, 7), 0); /* moved: now the last */
  assert_int_equal(ph_timers_run(&ts, 6, 100), 0);
  assert_int_equal(ph_timers_run(&ts, 7, 100), 50);
  for (int i = 0; i < 50; i++) {
    ph_list *e = ph_list_pop(&order_of_fire);
    assert_non_null(e);
    assert_int_equal(PH_CONTAINER(e, noted, node)->number, (i + 1) % 50);
  }
  ph_timers_deinit(&ts);
  TE_END(&t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(agrees_with_a_model),
      cmocka_unit_test(agrees_with_a_model_without_memory),
      cmocka_unit_test(may_be_freed_in_its_callback),
      cmocka_unit_test(equal_due_times_fire_in_order_of_arming),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
