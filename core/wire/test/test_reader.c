#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/test/testenv.h"
#include "wire/reader.h"
#include "wire/writer.h"

static te t;
static ph_buf b;

static int setup(void **state) {
  (void)state;
  te_init(&t, 1);
  ph_buf_init(&b, &t.env);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  ph_buf_deinit(&b);
  return atomic_load(&t.live) == 0 ? 0 : -1;
}

static ph_reader reader(void) {
  ph_reader r;
  ph_reader_init(&r, ph_buf_at(&b), ph_buf_size(&b));
  return r;
}

static void typed_readers_read(void **state) {
  (void)state;
  ph_w_uint(&b, UINT64_MAX);
  ph_w_uint(&b, UINT32_MAX);
  ph_w_bool(&b, true);
  ph_w_cstr(&b, "name");
  ph_w_bin(&b, "\0\1", 2);
  ph_w_array(&b, 2);
  ph_w_nil(&b);
  ph_w_nil(&b);
  ph_w_map(&b, 1);
  ph_w_int(&b, -5);
  ph_w_double(&b, 1.0);
  ph_reader r = reader();
  uint64_t u;
  uint32_t u32;
  bool flag;
  const char *s;
  const uint8_t *p;
  size_t n;
  assert_int_equal(ph_r_uint(&r, &u), 0);
  assert_int_equal(u, UINT64_MAX);
  assert_int_equal(ph_r_u32(&r, &u32), 0);
  assert_int_equal(u32, UINT32_MAX);
  assert_int_equal(ph_r_bool(&r, &flag), 0);
  assert_true(flag);
  assert_int_equal(ph_r_str(&r, &s, &n, 4), 0);
  assert_int_equal(n, 4);
  assert_memory_equal(s, "name", 4);
  assert_int_equal(ph_r_bin(&r, &p, &n, 2), 0);
  assert_memory_equal(p, "\0\1", 2);
  assert_false(ph_r_is_nil(&r));
  assert_int_equal(ph_r_array(&r, &u32), 0);
  assert_int_equal(u32, 2);
  assert_int_equal(ph_r_nil(&r), 0);
  assert_true(ph_r_is_nil(&r));
  assert_int_equal(ph_r_map(&r, &u32), 0);
  assert_int_equal(u32, 1);
  ph_token k;
  assert_int_equal(ph_r_next(&r, &k), 0);
  assert_int_equal(k.type, PH_T_INT);
  assert_int_equal(k.i, -5);
  assert_int_equal(ph_r_next(&r, &k), 0);
  assert_int_equal(k.type, PH_T_DOUBLE); /* 1.0 did not become 1 */
  assert_int_equal(ph_reader_left(&r), 0);
  assert_false(ph_r_is_nil(&r));
}

static void an_error_stays(void **state) {
  (void)state;
  ph_w_uint(&b, 1ull << 32);
  ph_w_uint(&b, 1);
  ph_reader r = reader();
  uint32_t u32;
  uint64_t u;
  assert_int_equal(ph_r_u32(&r, &u32), PH_EMALFORMED);
  assert_int_equal(ph_r_uint(&r, &u), PH_EMALFORMED);
  assert_int_equal(ph_r_skip(&r), PH_EMALFORMED);
  assert_false(ph_r_is_nil(&r));
  assert_int_equal(r.err, PH_EMALFORMED);
}

static void wrong_types_are_refused(void **state) {
  (void)state;
  bool flag;
  const char *s;
  const uint8_t *p;
  size_t n;
  uint32_t u32;
  uint64_t u;
  ph_w_cstr(&b, "four");
  ph_reader r = reader();
  assert_int_equal(ph_r_str(&r, &s, &n, 3), PH_EMALFORMED); /* longer than allowed */
  r = reader();
  assert_int_equal(ph_r_bin(&r, &p, &n, 9), PH_EMALFORMED);
  r = reader();
  assert_int_equal(ph_r_uint(&r, &u), PH_EMALFORMED);
  r = reader();
  assert_int_equal(ph_r_bool(&r, &flag), PH_EMALFORMED);
  r = reader();
  assert_int_equal(ph_r_array(&r, &u32), PH_EMALFORMED);
  r = reader();
  assert_int_equal(ph_r_map(&r, &u32), PH_EMALFORMED);
  r = reader();
  assert_int_equal(ph_r_nil(&r), PH_EMALFORMED);
  ph_reader_init(&r, NULL, 0);
  assert_int_equal(ph_r_nil(&r), PH_EMALFORMED);
}

static void counts_are_bounded_by_the_bytes_left(void **state) {
  (void)state;
  static const struct {
    uint8_t bytes[8];
    size_t n;
    int rc;
  } cases[] = {
      {{0xdd, 0xff, 0xff, 0xff, 0xff}, 5, PH_EMALFORMED},
      {{0xdf, 0xff, 0xff, 0xff, 0xff}, 5, PH_EMALFORMED},
      {{0xdf, 0x80, 0x00, 0x00, 0x01, 1, 1}, 7, PH_EMALFORMED}, /* twice it overflows 32 bits */
      {{0xdc, 0, 2, 1}, 4, PH_EMALFORMED},
      {{0xdc, 0, 2, 1, 1}, 5, 0},
      {{0xde, 0, 1, 1}, 4, PH_EMALFORMED},
      {{0xde, 0, 1, 1, 1}, 5, 0},
      {{0x92, 1}, 2, PH_EMALFORMED},
      {{0x81, 1}, 2, PH_EMALFORMED},
      {{0xdb, 0xff, 0xff, 0xff, 0xff, 'a'}, 6, PH_EMALFORMED},
      {{0xc6, 0, 0, 0, 2, 'a'}, 6, PH_EMALFORMED},
      {{0xc9, 0, 0, 0, 1, 5}, 6, PH_EMALFORMED},
      {{0xc9, 0, 0, 0, 1, 5, 'a'}, 7, 0},
      {{0xd4, 5}, 2, PH_EMALFORMED},
      {{0xc1}, 1, PH_EMALFORMED},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    ph_reader r;
    ph_token k;
    ph_reader_init(&r, cases[i].bytes, cases[i].n);
    int rc = ph_r_next(&r, &k);
    if (rc != cases[i].rc) print_error("case %zu\n", i);
    assert_int_equal(rc, cases[i].rc);
    assert_int_equal(ph_value_check(cases[i].bytes, cases[i].n), cases[i].rc);
  }
}

static void depth_is_limited(void **state) {
  (void)state;
  for (int depth = PH_MAX_DEPTH - 1; depth <= PH_MAX_DEPTH + 1; depth++) {
    int expected = depth <= PH_MAX_DEPTH ? 0 : PH_EMALFORMED;
    ph_buf_reset(&b);
    for (int i = 0; i < depth - 1; i++) ph_w_array(&b, 1);
    ph_w_map(&b, 0);
    assert_int_equal(ph_value_check(ph_buf_at(&b), ph_buf_size(&b)), expected);
  }
  ph_buf_reset(&b);
  for (int i = 0; i < 1000000; i++) ph_w_array(&b, 1);
  ph_w_nil(&b);
  assert_int_equal(ph_value_check(ph_buf_at(&b), ph_buf_size(&b)), PH_EMALFORMED);
}

static void a_value_is_skipped_whole(void **state) {
  (void)state;
  ph_w_map(&b, 2);
  ph_w_cstr(&b, "list");
  ph_w_array(&b, 3);
  for (int i = 0; i < 3; i++) ph_w_uint(&b, 1000);
  ph_w_array(&b, 0);
  ph_w_bool(&b, false);
  size_t whole = ph_buf_size(&b);
  ph_w_uint(&b, 42);
  ph_reader r = reader();
  const uint8_t *p;
  size_t n;
  uint64_t u;
  assert_int_equal(ph_r_value(&r, &p, &n), 0);
  assert_ptr_equal(p, ph_buf_at(&b));
  assert_int_equal(n, whole);
  assert_int_equal(ph_r_uint(&r, &u), 0);
  assert_int_equal(u, 42);
}

static void write_id(int ext, const char *name, uint64_t incarnation, uint64_t serial, bool extra) {
  ph_buf in;
  ph_buf_init(&in, &t.env);
  ph_w_cstr(&in, name);
  ph_w_uint(&in, incarnation);
  ph_w_uint(&in, serial);
  if (extra) ph_w_nil(&in);
  ph_w_ext(&b, ext, ph_buf_at(&in), ph_buf_size(&in));
  ph_buf_deinit(&in);
}

static void ids_are_read_and_checked(void **state) {
  (void)state;
  const char *name;
  size_t n;
  uint64_t incarnation, serial;
  write_id(PH_EXT_PID, "a@host", 1ull << 40, 9, false);
  ph_reader r = reader();
  assert_int_equal(ph_r_id(&r, PH_EXT_PID, &name, &n, &incarnation, &serial), 0);
  assert_int_equal(n, 6);
  assert_memory_equal(name, "a@host", 6);
  assert_int_equal(incarnation, 1ull << 40);
  assert_int_equal(serial, 9);
  r = reader();
  assert_int_equal(ph_r_id(&r, PH_EXT_REF, &name, &n, &incarnation, &serial), PH_EMALFORMED);
  ph_buf_reset(&b);
  write_id(PH_EXT_REF, "a@host", 1, 9, true);
  r = reader();
  assert_int_equal(ph_r_id(&r, PH_EXT_REF, &name, &n, &incarnation, &serial), PH_EMALFORMED);
  assert_int_equal(r.err, PH_EMALFORMED);
  ph_buf_reset(&b);
  write_id(PH_EXT_PID, "", 1, 9, false);
  r = reader();
  assert_int_equal(ph_r_id(&r, PH_EXT_PID, &name, &n, &incarnation, &serial), PH_EMALFORMED);
  assert_int_equal(ph_id_parse("\xa1x\x01", 3, &name, &n, &incarnation, &serial), PH_EMALFORMED);
}

static void writing_without_memory_is_noticed(void **state) {
  (void)state;
  for (long n = 1;; n++) {
    ph_buf_deinit(&b);
    te_fail_in(&t, n);
    for (int i = 0; i < 100; i++) ph_w_cstr(&b, "some text");
    ph_w_double(&b, 1);
    bool tripped = te_tripped(&t);
    te_fail_in(&t, 0);
    assert_int_equal(b.oom, tripped);
    if (!tripped) break;
    assert_true(n < 100);
  }
  ph_buf_reset(&b);
  if (SIZE_MAX > UINT32_MAX) {
    ph_w_str(&b, "x", (size_t)UINT32_MAX + 1);
    assert_true(b.oom);
    assert_int_equal(ph_buf_size(&b), 0);
  }
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {
      T(typed_readers_read),       T(an_error_stays),
      T(wrong_types_are_refused),  T(counts_are_bounded_by_the_bytes_left),
      T(depth_is_limited),         T(a_value_is_skipped_whole),
      T(ids_are_read_and_checked), T(writing_without_memory_is_noticed),
  };
#undef T
  return cmocka_run_group_tests(tests, NULL, NULL);
}
