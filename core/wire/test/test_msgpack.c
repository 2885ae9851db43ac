#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <msgpack.h>

#include "base/test/testenv.h"
#include "wire/reader.h"
#include "wire/writer.h"

static uint64_t interesting_uint(te *t) {
  static const uint64_t edges[] = {0,          1,           127,        128,
                                   255,        256,         65535,      65536,
                                   INT32_MAX,  0x80000000u, UINT32_MAX, 1ull << 32,
                                   1ull << 53, INT64_MAX,   1ull << 63, UINT64_MAX};
  if (te_below(t, 2)) return edges[te_below(t, sizeof edges / sizeof edges[0])];
  return te_random64(t) >> te_below(t, 64);
}

static size_t interesting_size(te *t) {
  static const size_t edges[] = {0, 1, 2, 4, 8, 15, 16, 17, 31, 32, 255, 256};
  if (te_below(t, 400) == 0) return 65535 + te_below(t, 3);
  return edges[te_below(t, sizeof edges / sizeof edges[0])];
}

static void write_leaf(te *t, ph_buf *b) {
  static uint8_t bytes[70000];
  size_t n = interesting_size(t);
  if (n) t->env.random(t, bytes, n < 300 ? n : 300);
  switch (te_below(t, 9)) {
  case 0:
    ph_w_nil(b);
    break;
  case 1:
    ph_w_bool(b, te_below(t, 2));
    break;
  case 2:
    ph_w_uint(b, interesting_uint(t));
    break;
  case 3:
    ph_w_int(b, (int64_t)interesting_uint(t));
    break;
  case 4:
    ph_w_int(b, (int64_t)(0 - interesting_uint(t)));
    break;
  case 5:
    ph_w_double(b, te_below(t, 2) ? (double)te_below(t, 9) : ldexp(1.3, (int)te_below(t, 60)));
    break;
  case 6:
    ph_w_str(b, bytes, n);
    break;
  case 7:
    ph_w_bin(b, bytes, n);
    break;
  default:
    ph_w_ext(b, (int)te_below(t, 256) - 128, bytes, n);
    break;
  }
}

static void write_value(te *t, ph_buf *b, int depth) {
  uint64_t kind = depth ? te_below(t, 4) : 3;
  uint32_t n = (uint32_t)te_below(t, te_below(t, 20) ? 4 : 20);
  if (kind == 0) {
    ph_w_array(b, n);
    for (uint32_t i = 0; i < n; i++) write_value(t, b, depth - 1);
  } else if (kind == 1) {
    ph_w_map(b, n);
    for (uint32_t i = 0; i < 2 * n; i++) write_value(t, b, depth - 1);
  } else {
    write_leaf(t, b);
  }
}

static void same_bytes(const ph_token *k, const char *p, size_t n) {
  assert_int_equal(k->len, n);
  if (n) assert_memory_equal(k->ptr, p, n);
}

/* reads one value and compares it with what msgpack-c unpacked */
static void compare(ph_reader *r, const msgpack_object *o) {
  ph_token k;
  assert_int_equal(ph_r_next(r, &k), 0);
  switch (o->type) {
  case MSGPACK_OBJECT_NIL:
    assert_int_equal(k.type, PH_T_NIL);
    break;
  case MSGPACK_OBJECT_BOOLEAN:
    assert_int_equal(k.type, PH_T_BOOL);
    assert_int_equal(k.b, o->via.boolean);
    break;
  case MSGPACK_OBJECT_POSITIVE_INTEGER:
    assert_int_equal(k.type, PH_T_UINT);
    assert_int_equal(k.u, o->via.u64);
    break;
  case MSGPACK_OBJECT_NEGATIVE_INTEGER:
    assert_int_equal(k.type, PH_T_INT);
    assert_int_equal(k.i, o->via.i64);
    break;
  case MSGPACK_OBJECT_FLOAT32:
  case MSGPACK_OBJECT_FLOAT64:
    assert_int_equal(k.type, PH_T_DOUBLE);
    assert_memory_equal(&k.d, &o->via.f64, sizeof k.d);
    break;
  case MSGPACK_OBJECT_STR:
    assert_int_equal(k.type, PH_T_STR);
    same_bytes(&k, o->via.str.ptr, o->via.str.size);
    break;
  case MSGPACK_OBJECT_BIN:
    assert_int_equal(k.type, PH_T_BIN);
    same_bytes(&k, o->via.bin.ptr, o->via.bin.size);
    break;
  case MSGPACK_OBJECT_EXT:
    assert_int_equal(k.type, PH_T_EXT);
    assert_int_equal(k.ext, o->via.ext.type);
    same_bytes(&k, o->via.ext.ptr, o->via.ext.size);
    break;
  case MSGPACK_OBJECT_ARRAY:
    assert_int_equal(k.type, PH_T_ARRAY);
    assert_int_equal(k.len, o->via.array.size);
    for (uint32_t i = 0; i < k.len; i++) compare(r, &o->via.array.ptr[i]);
    break;
  case MSGPACK_OBJECT_MAP:
    assert_int_equal(k.type, PH_T_MAP);
    assert_int_equal(k.len, o->via.map.size);
    for (uint32_t i = 0; i < k.len; i++) {
      compare(r, &o->via.map.ptr[i].key);
      compare(r, &o->via.map.ptr[i].val);
    }
    break;
  default:
    fail();
  }
}

/* `p` holds exactly one value, for both */
static void both_read(const uint8_t *p, size_t n) {
  msgpack_unpacked u;
  msgpack_unpacked_init(&u);
  size_t off = 0;
  assert_int_equal(msgpack_unpack_next(&u, (const char *)p, n, &off), MSGPACK_UNPACK_SUCCESS);
  assert_int_equal(off, n);
  ph_reader r;
  ph_reader_init(&r, p, n);
  compare(&r, &u.data);
  assert_int_equal(ph_reader_left(&r), 0);
  msgpack_unpacked_destroy(&u);
}

static void both_read_what_the_writer_writes(void **state) {
  (void)state;
  te t;
  te_init(&t, 1);
  ph_buf b;
  ph_buf_init(&b, &t.env);
  for (int i = 0; i < 10000; i++) {
    ph_buf_reset(&b);
    write_value(&t, &b, 1 + i % 12);
    assert_false(b.oom);
    assert_int_equal(ph_value_check(ph_buf_at(&b), ph_buf_size(&b)), 0);
    both_read(ph_buf_at(&b), ph_buf_size(&b));
  }
  ph_buf_deinit(&b);
  TE_END(&t);
}

/* every head byte, with enough behind it: encodings that the writer never chooses, too */
static void both_read_every_encoding(void **state) {
  (void)state;
  te t;
  te_init(&t, 2);
  for (int code = 0; code < 256; code++) {
    for (int i = 0; i < 200; i++) {
      uint8_t p[600];
      t.env.random(&t, p, sizeof p);
      p[0] = (uint8_t)code;
      if (i % 2) memset(p + 1, 0, te_below(&t, 5)); /* small lengths */
      ph_reader r;
      ph_reader_init(&r, p, sizeof p);
      const uint8_t *value;
      size_t n;
      if (ph_r_value(&r, &value, &n)) continue;
      assert_ptr_equal(value, p);
      both_read(p, n);
      assert_int_not_equal(code, 0xc1);
    }
  }
  TE_END(&t);
}

/* a copy of exactly n bytes: a read past them shows under ASan and valgrind */
static uint8_t *exact(const uint8_t *p, size_t n) {
  uint8_t *copy = malloc(n ? n : 1);
  assert_non_null(copy);
  if (n) memcpy(copy, p, n);
  return copy;
}

static void truncated_values_are_refused(void **state) {
  (void)state;
  te t;
  te_init(&t, 3);
  ph_buf b;
  ph_buf_init(&b, &t.env);
  for (int i = 0; i < 300; i++) {
    ph_buf_reset(&b);
    write_value(&t, &b, 4);
    size_t n = ph_buf_size(&b);
    for (size_t cut = 0; cut < n; cut += cut < 300 ? 1 : 997) {
      uint8_t *p = exact(ph_buf_at(&b), cut);
      assert_int_equal(ph_value_check(p, cut), PH_EMALFORMED);
      free(p);
    }
    ph_w_nil(&b); /* one value too many */
    assert_int_equal(ph_value_check(ph_buf_at(&b), n + 1), PH_EMALFORMED);
  }
  ph_buf_deinit(&b);
  TE_END(&t);
}

/* array32 and map32 make msgpack-c allocate by what they claim */
static bool safe_for_them(const uint8_t *p, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (p[i] == 0xdd || p[i] == 0xdf) return false;
  return true;
}

static void garbage_is_judged_like_msgpack_does(void **state) {
  (void)state;
  te t;
  te_init(&t, 4);
  ph_buf b;
  ph_buf_init(&b, &t.env);
  int good = 0, bad = 0;
  for (int i = 0; i < 60000; i++) {
    ph_buf_reset(&b);
    write_value(&t, &b, 3);
    size_t n = ph_buf_size(&b);
    if (n > 400) continue;
    uint8_t *p = exact(ph_buf_at(&b), n);
    for (uint64_t k = te_below(&t, 4); k; k--) p[te_below(&t, n)] = (uint8_t)te_random64(&t);
    if (i % 4 == 0) t.env.random(&t, p, n);
    bool ok = ph_value_check(p, n) == 0;
    if (ok) both_read(p, n);
    if (!ok && safe_for_them(p, n)) {
      msgpack_unpacked u;
      msgpack_unpacked_init(&u);
      size_t off = 0;
      bool theirs = msgpack_unpack_next(&u, (char *)p, n, &off) == MSGPACK_UNPACK_SUCCESS;
      assert_false(theirs && off == n);
      msgpack_unpacked_destroy(&u);
    }
    good += ok;
    bad += !ok;
    free(p);
  }
  assert_true(good > 1000 && bad > 1000);
  ph_buf_deinit(&b);
  TE_END(&t);
}

static bool they_accept(const uint8_t *p, size_t n) {
  msgpack_unpacked u;
  msgpack_unpacked_init(&u);
  size_t off = 0;
  bool ok = msgpack_unpack_next(&u, (const char *)p, n, &off) == MSGPACK_UNPACK_SUCCESS && off == n;
  msgpack_unpacked_destroy(&u);
  return ok;
}

/* bytes changed, cut out, put in and doubled, in deep and flat values: both say yes, and read the
 * same, or both say no */
static void mutated_values_are_judged_alike(void **state) {
  (void)state;
  te t;
  te_init(&t, 5);
  ph_buf b;
  ph_buf_init(&b, &t.env);
  int good = 0, bad = 0;
  for (int i = 0; i < 60000; i++) {
    uint8_t p[600];
    ph_buf_reset(&b);
    write_value(&t, &b, 1 + i % 14);
    size_t n = ph_buf_size(&b);
    if (n < 2 || n > 300) continue;
    memcpy(p, ph_buf_at(&b), n);
    for (uint64_t k = 1 + te_below(&t, 3); k; k--) {
      size_t at = te_below(&t, n), len = 1 + te_below(&t, 8);
      if (len > n - at) len = n - at;
      switch (te_below(&t, 4)) {
      case 0:
        p[at] = (uint8_t)te_random64(&t);
        break;
      case 1: /* cut out */
        if (len < n) memmove(p + at, p + at + len, n - at - len), n -= len;
        break;
      case 2: /* doubled */
        memmove(p + at + len, p + at, n - at), n += len;
        break;
      default: /* put in */
        memmove(p + at + 1, p + at, n - at), n++;
        p[at] = (uint8_t)(0x80 + te_below(&t, 0x60));
      }
    }
    uint8_t *copy = exact(p, n);
    bool ok = ph_value_check(copy, n) == 0;
    if (ok) both_read(copy, n);
    if (ok || safe_for_them(copy, n)) assert_int_equal(they_accept(copy, n), ok);
    good += ok;
    bad += !ok;
    free(copy);
  }
  assert_true(good > 1000 && bad > 1000);
  ph_buf_deinit(&b);
  TE_END(&t);
}

/* where they part: levels of tables. Theirs end at 32, ours at PH_MAX_DEPTH. */
static void the_limits_are_known(void **state) {
  (void)state;
  uint8_t p[PH_MAX_DEPTH + 2];
  memset(p, 0x91, sizeof p); /* arrays of one */
  for (int levels = 1; levels <= PH_MAX_DEPTH + 1; levels++) {
    p[levels] = 0xc0;
    assert_int_equal(ph_value_check(p, (size_t)levels + 1) == 0, levels <= PH_MAX_DEPTH);
    assert_int_equal(they_accept(p, (size_t)levels + 1), levels <= 32);
    p[levels] = 0x91;
  }
}

static void float32_and_signed_encodings_are_unified(void **state) {
  (void)state;
  msgpack_sbuffer s;
  msgpack_packer pk;
  msgpack_sbuffer_init(&s);
  msgpack_packer_init(&pk, &s, msgpack_sbuffer_write);
  msgpack_pack_float(&pk, 0.5f);
  msgpack_pack_fix_int64(&pk, 7);
  msgpack_pack_fix_int8(&pk, -7);
  ph_reader r;
  ph_token k;
  uint64_t u;
  ph_reader_init(&r, s.data, s.size);
  assert_int_equal(ph_r_next(&r, &k), 0);
  assert_int_equal(k.type, PH_T_DOUBLE);
  assert_true(k.d == 0.5);
  assert_int_equal(ph_r_uint(&r, &u), 0);
  assert_int_equal(u, 7);
  assert_int_equal(ph_r_uint(&r, &u), PH_EMALFORMED); /* negative */
  msgpack_sbuffer_destroy(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(both_read_what_the_writer_writes),
      cmocka_unit_test(both_read_every_encoding),
      cmocka_unit_test(truncated_values_are_refused),
      cmocka_unit_test(garbage_is_judged_like_msgpack_does),
      cmocka_unit_test(mutated_values_are_judged_alike),
      cmocka_unit_test(the_limits_are_known),
      cmocka_unit_test(float32_and_signed_encodings_are_unified),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
