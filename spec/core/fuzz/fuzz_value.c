/* The value reader, against itself and against msgpack-c: the same values are accepted, but for the
 * limits of the reader (PH_MAX_DEPTH levels; a count is at most the bytes left) and of msgpack-c
 * (32 levels), and mean the same.
 *
 * Input: a value. */
#include <assert.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "wire/reader.h"
#include "wire/writer.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

enum { THEIR_DEPTH = 32 };

/* levels of tables, and whether msgpack-c may look at it: it allocates by what a count claims, as
 * long as nothing before shows that the value is none */
typedef struct look {
  int err, depth;
} look;

static look read_all(const uint8_t *p, size_t n) {
  ph_reader r;
  uint64_t left[PH_MAX_DEPTH + 2] = {1};
  look l = {0};
  int level = 0;
  ph_reader_init(&r, p, n);
  for (;;) {
    while (level >= 0 && left[level] == 0) level--;
    if (level < 0) break;
    left[level]--;
    ph_token t;
    if ((l.err = ph_r_next(&r, &t))) return l;
    assert(r.p <= r.end);
    if (t.type == PH_T_STR || t.type == PH_T_BIN || t.type == PH_T_EXT)
      assert(t.ptr >= p && t.ptr + t.len <= p + n);
    if (t.type != PH_T_ARRAY && t.type != PH_T_MAP) continue;
    if (level == PH_MAX_DEPTH) {
      l.err = PH_EMALFORMED;
      return l;
    }
    left[++level] = t.type == PH_T_MAP ? 2 * (uint64_t)t.len : t.len;
    if (level > l.depth) l.depth = level;
  }
  if (ph_reader_left(&r)) l.err = PH_EMALFORMED;
  return l;
}

static void bytes_same(const ph_token *t, const char *p, size_t n) {
  assert(t->len == n);
  assert(n == 0 || memcmp(t->ptr, p, n) == 0);
}

static void same(ph_reader *r, const msgpack_object *o) {
  ph_token t;
  assert(ph_r_next(r, &t) == 0);
  switch (o->type) {
  case MSGPACK_OBJECT_NIL:
    assert(t.type == PH_T_NIL);
    break;
  case MSGPACK_OBJECT_BOOLEAN:
    assert(t.type == PH_T_BOOL && t.b == o->via.boolean);
    break;
  case MSGPACK_OBJECT_POSITIVE_INTEGER:
    assert(t.type == PH_T_UINT && t.u == o->via.u64);
    break;
  case MSGPACK_OBJECT_NEGATIVE_INTEGER:
    assert(t.type == PH_T_INT && t.i == o->via.i64);
    break;
  case MSGPACK_OBJECT_FLOAT32:
  case MSGPACK_OBJECT_FLOAT64:
    assert(t.type == PH_T_DOUBLE);
    assert(memcmp(&t.d, &o->via.f64, sizeof t.d) == 0 || (t.d != t.d && o->via.f64 != o->via.f64));
    break;
  case MSGPACK_OBJECT_STR:
    assert(t.type == PH_T_STR);
    bytes_same(&t, o->via.str.ptr, o->via.str.size);
    break;
  case MSGPACK_OBJECT_BIN:
    assert(t.type == PH_T_BIN);
    bytes_same(&t, o->via.bin.ptr, o->via.bin.size);
    break;
  case MSGPACK_OBJECT_EXT:
    assert(t.type == PH_T_EXT && t.ext == o->via.ext.type);
    bytes_same(&t, o->via.ext.ptr, o->via.ext.size);
    break;
  case MSGPACK_OBJECT_ARRAY:
    assert(t.type == PH_T_ARRAY && t.len == o->via.array.size);
    for (uint32_t i = 0; i < t.len; i++) same(r, &o->via.array.ptr[i]);
    break;
  case MSGPACK_OBJECT_MAP:
    assert(t.type == PH_T_MAP && t.len == o->via.map.size);
    for (uint32_t i = 0; i < t.len; i++) {
      same(r, &o->via.map.ptr[i].key);
      same(r, &o->via.map.ptr[i].val);
    }
    break;
  default:
    abort();
  }
}

static bool claims_much(const uint8_t *p, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (p[i] == 0xdd || p[i] == 0xdf) return true;
  return false;
}

static void compare(const uint8_t *p, size_t n, look l) {
  msgpack_unpacked u;
  size_t off = 0;
  if (l.err && claims_much(p, n)) return;
  msgpack_unpacked_init(&u);
  msgpack_unpack_return rc = msgpack_unpack_next(&u, (const char *)p, n, &off);
  bool theirs = rc == MSGPACK_UNPACK_SUCCESS && off == n;
  if (l.err == 0 && l.depth <= THEIR_DEPTH) {
    ph_reader r;
    assert(theirs);
    ph_reader_init(&r, p, n);
    same(&r, &u.data);
  }
  if (theirs) assert(l.err == 0);
  msgpack_unpacked_destroy(&u);
}

/* each of the typed readers, on whatever comes: none reads past the end, none goes on after an
 * error */
static void typed(const uint8_t *p, size_t n) {
  for (int k = 0; k < 11; k++) {
    ph_reader r;
    uint64_t u = 0, v = 0;
    uint32_t w;
    bool b;
    const char *s;
    const uint8_t *q;
    size_t len;
    int rc = 0;
    ph_reader_init(&r, p, n);
    for (int i = 0; rc == 0 && i < 64; i++) switch ((k + i * 7) % 11) {
      case 0:
        rc = ph_r_uint(&r, &u);
        break;
      case 1:
        rc = ph_r_u32(&r, &w);
        break;
      case 2:
        rc = ph_r_bool(&r, &b);
        break;
      case 3:
        rc = ph_r_str(&r, &s, &len, 40);
        assert(rc || len <= 40);
        break;
      case 4:
        rc = ph_r_bin(&r, &q, &len, 40);
        assert(rc || len <= 40);
        break;
      case 5:
        rc = ph_r_array(&r, &w);
        assert(rc || w <= ph_reader_left(&r));
        break;
      case 6:
        rc = ph_r_map(&r, &w);
        assert(rc || 2 * (uint64_t)w <= ph_reader_left(&r));
        break;
      case 7:
        rc = ph_r_nil(&r);
        break;
      case 8:
        rc = ph_r_id(&r, 1 + i % 2, &s, &len, &u, &v);
        assert(rc || len > 0);
        break;
      case 9:
        rc = ph_r_value(&r, &q, &len);
        assert(rc || ph_value_check(q, len) == 0);
        break;
      default:
        rc = ph_r_is_nil(&r) ? 0 : r.err;
      }
    assert(rc == r.err);
    if (rc) assert(ph_r_uint(&r, &u) == rc && !ph_r_is_nil(&r));
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
  uint8_t *p = malloc(n ? n : 1); /* exactly: a read past it shows */
  if (n) memcpy(p, bytes, n);
  look l = read_all(p, n);
  assert((ph_value_check(p, n) == 0) == (l.err == 0));
  compare(p, n, l);
  typed(p, n);
  free(p);
  return 0;
}
