#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <sched.h>

#include "base/handoff.h"
#include "base/test/testenv.h"

enum { RECORDS = 100000 };

/* what record i holds, computed by both sides */
static size_t size_of(uint32_t i) {
  return i * 2654435761u >> 23;
}

static void *produce(void *arg) {
  ph_handoff *h = arg;
  uint8_t bytes[512];
  for (uint32_t i = 0; i < RECORDS; i++) {
    size_t n = size_of(i), first = n / 3;
    memset(bytes, (uint8_t)i, sizeof bytes);
    int rc = ph_handoff_put(h, i, i * 3ull, ~(uint64_t)i, bytes, first, bytes, n - first);
    if (rc) abort();
  }
  return NULL;
}

static void arrives_in_order_across_threads(void **state) {
  (void)state;
  te t;
  te_init(&t, 1);
  ph_handoff h;
  assert_int_equal(ph_handoff_init(&h, &t.env), 0);
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, produce, &h), 0);
  uint8_t expected[512];
  for (uint32_t i = 0; i < RECORDS;) {
    if (!ph_handoff_pending(&h) || !ph_handoff_take(&h)) {
      sched_yield();
      continue;
    }
    const uint8_t *bytes;
    for (const ph_record *r; (r = ph_handoff_next(&h, &bytes)); i++) {
      assert_int_equal((uintptr_t)r % 8, 0);
      assert_int_equal(r->type, i);
      assert_int_equal(r->n, size_of(i));
      assert_int_equal(r->a, i * 3ull);
      assert_int_equal(r->b, ~(uint64_t)i);
      memset(expected, (uint8_t)i, sizeof expected);
      assert_memory_equal(bytes, expected, r->n);
    }
  }
  pthread_join(thread, NULL);
  assert_false(ph_handoff_take(&h));
  ph_handoff_deinit(&h);
  TE_END(&t);
}

static void put_may_fail_and_is_not_half_done(void **state) {
  (void)state;
  te t;
  te_init(&t, 2);
  ph_handoff h;
  assert_int_equal(ph_handoff_init(&h, &t.env), 0);
  uint8_t bytes[100] = {0};
  uint32_t stored = 0;
  for (int i = 0; i < 1000; i++) {
    te_fail_in(&t, i % 3 == 0);
    size_t before = ph_handoff_pending(&h);
    int rc = ph_handoff_put(&h, stored, 0, 0, bytes, sizeof bytes, NULL, 0);
    if (rc) {
      assert_int_equal(rc, PH_ENOMEM);
      assert_int_equal(ph_handoff_pending(&h), before);
    } else {
      stored++;
    }
  }
  assert_true(stored < 1000);
  assert_int_equal(ph_handoff_put(&h, 0, 0, 0, bytes, SIZE_MAX, bytes, 1), PH_ETOOLARGE);
  assert_int_equal(ph_handoff_put(&h, 0, 0, 0, bytes, UINT32_MAX, bytes, 1), PH_ETOOLARGE);
  assert_true(ph_handoff_take(&h));
  assert_int_equal(ph_handoff_pending(&h), 0);
  const uint8_t *p;
  for (uint32_t i = 0; i < stored; i++) {
    assert_true(ph_handoff_take(&h)); /* does not lose what is left of the last take */
    const ph_record *r = ph_handoff_next(&h, &p);
    assert_non_null(r);
    assert_int_equal(r->type, i);
  }
  assert_null(ph_handoff_next(&h, &p));
  ph_handoff_deinit(&h);
  TE_END(&t);
}

static void large_buffers_are_given_back(void **state) {
  (void)state;
  te t;
  te_init(&t, 3);
  ph_handoff h;
  assert_int_equal(ph_handoff_init(&h, &t.env), 0);
  size_t n = 3 << 20;
  uint8_t *big = calloc(1, n);
  assert_non_null(big);
  const uint8_t *p;
  for (int i = 0; i < 2; i++) {
    assert_int_equal(ph_handoff_put(&h, 1, 0, 0, big, n, "xyz", 3), 0);
    assert_true(ph_handoff_take(&h));
    const ph_record *r = ph_handoff_next(&h, &p);
    assert_non_null(r);
    assert_int_equal(r->n, n + 3);
    assert_memory_equal(p + n, "xyz", 3);
    assert_null(ph_handoff_next(&h, &p));
  }
  assert_false(ph_handoff_take(&h));
  assert_true(atomic_load(&t.bytes) <= 1 << 20);
  free(big);
  ph_handoff_deinit(&h);
  TE_END(&t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(arrives_in_order_across_threads),
      cmocka_unit_test(put_may_fail_and_is_not_half_done),
      cmocka_unit_test(large_buffers_are_given_back),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
