#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/test/testenv.h"

static void grows_and_keeps_content(void **state) {
  (void)state;
  te t;
  te_init(&t, 1);
  ph_buf b;
  ph_buf_init(&b, &t.env);
  assert_int_equal(atomic_load(&t.allocs), 0);
  uint8_t model[4096];
  size_t n = 0, from = 0;
  for (int i = 0; i < 20000; i++) {
    uint8_t piece[40];
    size_t len = te_below(&t, sizeof piece);
    if (n - from + len <= sizeof model / 2 && te_below(&t, 2)) {
      t.env.random(&t, piece, len);
      if (n + len > sizeof model) {
        memmove(model, model + from, n - from);
        n -= from;
        from = 0;
      }
      if (len) memcpy(model + n, piece, len);
      n += len;
      assert_int_equal(ph_buf_append(&b, piece, len), 0);
    } else {
      len = te_below(&t, n - from + 1);
      from += len;
      ph_buf_consume(&b, len);
    }
    assert_int_equal(ph_buf_size(&b), n - from);
    if (n > from) assert_memory_equal(ph_buf_at(&b), model + from, n - from);
    assert_true(b.cap <= 2 * sizeof model);
  }
  ph_buf_deinit(&b);
  ph_buf_deinit(&b);
  TE_END(&t);
}

static void failed_append_changes_nothing(void **state) {
  (void)state;
  te t;
  te_init(&t, 2);
  ph_buf b;
  ph_buf_init(&b, &t.env);
  te_fail_in(&t, 1);
  assert_int_equal(ph_buf_append(&b, "x", 1), PH_ENOMEM);
  assert_true(b.oom);
  assert_int_equal(ph_buf_size(&b), 0);
  ph_buf_reset(&b);
  assert_false(b.oom);
  uint8_t big[300];
  memset(big, 'a', sizeof big);
  assert_int_equal(ph_buf_append(&b, big, 100), 0);
  ph_buf_consume(&b, 10); /* growing now goes through new memory, not through realloc */
  for (int i = 0; i < 2; i++) {
    te_fail_in(&t, 1);
    assert_int_equal(ph_buf_append(&b, big, sizeof big), PH_ENOMEM);
    assert_null(ph_buf_reserve(&b, SIZE_MAX - 20));
    assert_int_equal(ph_buf_size(&b), 90);
    assert_memory_equal(ph_buf_at(&b), big, 90);
  }
  te_fail_in(&t, 0);
  assert_int_equal(ph_buf_append(&b, big, sizeof big), 0);
  assert_true(b.oom); /* remembered until the reset */
  assert_int_equal(ph_buf_size(&b), 390);
  ph_buf_deinit(&b);
  TE_END(&t);
}

static void reset_gives_large_memory_back(void **state) {
  (void)state;
  te t;
  te_init(&t, 3);
  ph_buf b, other;
  ph_buf_init(&b, &t.env);
  ph_buf_init(&other, &t.env);
  assert_non_null(ph_buf_reserve(&b, 1000));
  ph_buf_reset(&b);
  assert_true(b.cap >= 1000);
  assert_non_null(ph_buf_reserve(&b, 100000));
  ph_buf_swap(&b, &other);
  assert_null(b.data);
  ph_buf_reset(&other);
  assert_int_equal(atomic_load(&t.bytes), 0);
  TE_END(&t);
}

static void consuming_a_long_queue_stays_linear(void **state) {
  (void)state;
  te t;
  te_init(&t, 4);
  ph_buf b;
  ph_buf_init(&b, &t.env);
  uint8_t piece[64] = {0};
  for (int i = 0; i < 1000; i++) assert_int_equal(ph_buf_append(&b, piece, sizeof piece), 0);
  size_t cap = b.cap;
  long allocs = atomic_load(&t.allocs);
  for (int i = 0; i < 100000; i++) {
    ph_buf_consume(&b, sizeof piece);
    assert_int_equal(ph_buf_append(&b, piece, sizeof piece), 0);
  }
  assert_true(b.cap <= 2 * cap);
  assert_true(atomic_load(&t.allocs) <= allocs + 1);
  ph_buf_deinit(&b);
  TE_END(&t);
}

static void bytes_are_counted(void **state) {
  (void)state;
  te t;
  te_init(&t, 5);
  ph_bytes *b = ph_bytes_new(&t.env, "abc", 3);
  assert_non_null(b);
  assert_int_equal(b->len, 3);
  assert_string_equal((char *)b->data, "abc");
  assert_ptr_equal(ph_bytes_ref(b), b);
  ph_bytes_unref(&t.env, b);
  assert_int_equal(atomic_load(&t.live), 1);
  ph_bytes_unref(&t.env, b);
  assert_null(ph_bytes_ref(NULL));
  ph_bytes_unref(&t.env, NULL);
  b = ph_bytes_new(&t.env, NULL, 0);
  assert_non_null(b);
  assert_int_equal(b->len + b->data[0], 0);
  ph_bytes_unref(&t.env, b);
  te_fail_in(&t, 1);
  assert_null(ph_bytes_new(&t.env, "abc", 3));
  TE_END(&t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(grows_and_keeps_content),
      cmocka_unit_test(failed_append_changes_nothing),
      cmocka_unit_test(reset_gives_large_memory_back),
      cmocka_unit_test(consuming_a_long_queue_stays_linear),
      cmocka_unit_test(bytes_are_counted),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
