#include "wire/reader.h"

#include <string.h>

#include "wire/writer.h"

void ph_reader_init(ph_reader *r, const void *p, size_t n) {
  static const uint8_t nothing[1] = {0};
  r->p = p ? p : nothing;
  r->end = r->p + (p ? n : 0);
  r->err = 0;
}

static int fail(ph_reader *r) {
  return r->err = PH_EMALFORMED;
}

/* a big-endian number of n bytes; the caller has checked that they are there */
static uint64_t be(const uint8_t *p, size_t n) {
  uint64_t v = 0;
  for (size_t i = 0; i < n; i++) v = v << 8 | p[i];
  return v;
}

static int take_be(ph_reader *r, size_t n, uint64_t *v) {
  if (ph_reader_left(r) < n) return fail(r);
  *v = be(r->p, n);
  r->p += n;
  return 0;
}

static int take_bytes(ph_reader *r, ph_token *t, ph_type type, uint64_t len) {
  if (len > ph_reader_left(r)) return fail(r);
  t->type = type;
  t->len = (uint32_t)len;
  t->ptr = r->p;
  r->p += len;
  return 0;
}

static int take_items(ph_reader *r, ph_token *t, ph_type type, uint64_t n) {
  if ((type == PH_T_MAP ? 2 * n : n) > ph_reader_left(r)) return fail(r);
  t->type = type;
  t->len = (uint32_t)n;
  return 0;
}

static int take_ext(ph_reader *r, ph_token *t, uint64_t len) {
  if (ph_reader_left(r) < 1) return fail(r);
  t->ext = (int8_t)*r->p++;
  return take_bytes(r, t, PH_T_EXT, len);
}

static void set_int(ph_token *t, int64_t v) {
  if (v >= 0) {
    t->type = PH_T_UINT;
    t->u = (uint64_t)v;
  } else {
    t->type = PH_T_INT;
    t->i = v;
  }
}

static int take_signed(ph_reader *r, ph_token *t, unsigned size) {
  uint64_t v;
  if (take_be(r, size, &v)) return r->err;
  switch (size) {
  case 1:
    set_int(t, (int8_t)v);
    break;
  case 2:
    set_int(t, (int16_t)v);
    break;
  case 4:
    set_int(t, (int32_t)v);
    break;
  default:
    set_int(t, (int64_t)v);
    break;
  }
  return 0;
}

static int take_float(ph_reader *r, ph_token *t, unsigned size) {
  uint64_t v;
  if (take_be(r, size, &v)) return r->err;
  t->type = PH_T_DOUBLE;
  if (size == 4) {
    uint32_t bits = (uint32_t)v;
    float f;
    memcpy(&f, &bits, sizeof f);
    t->d = (double)f;
  } else {
    memcpy(&t->d, &v, sizeof t->d);
  }
  return 0;
}

/* 0xc0 to 0xdf: the types with a code byte of their own */
static int take_coded(ph_reader *r, ph_token *t, uint8_t code) {
  uint64_t v = 0;
  switch (code) {
  case 0xc0:
    t->type = PH_T_NIL;
    return 0;
  case 0xc2:
  case 0xc3:
    t->type = PH_T_BOOL;
    t->b = code == 0xc3;
    return 0;
  case 0xc4:
  case 0xc5:
  case 0xc6:
    return take_be(r, 1u << (code - 0xc4), &v) ? r->err : take_bytes(r, t, PH_T_BIN, v);
  case 0xc7:
  case 0xc8:
  case 0xc9:
    return take_be(r, 1u << (code - 0xc7), &v) ? r->err : take_ext(r, t, v);
  case 0xca:
    return take_float(r, t, 4);
  case 0xcb:
    return take_float(r, t, 8);
  case 0xcc:
  case 0xcd:
  case 0xce:
  case 0xcf:
    t->type = PH_T_UINT;
    if (take_be(r, 1u << (code - 0xcc), &v)) return r->err;
    t->u = v;
    return 0;
  case 0xd0:
  case 0xd1:
  case 0xd2:
  case 0xd3:
    return take_signed(r, t, 1u << (code - 0xd0));
  case 0xd4:
  case 0xd5:
  case 0xd6:
  case 0xd7:
  case 0xd8:
    return take_ext(r, t, 1u << (code - 0xd4));
  case 0xd9:
  case 0xda:
  case 0xdb:
    return take_be(r, 1u << (code - 0xd9), &v) ? r->err : take_bytes(r, t, PH_T_STR, v);
  case 0xdc:
  case 0xdd:
    return take_be(r, 2u << (code - 0xdc), &v) ? r->err : take_items(r, t, PH_T_ARRAY, v);
  case 0xde:
  case 0xdf:
    return take_be(r, 2u << (code - 0xde), &v) ? r->err : take_items(r, t, PH_T_MAP, v);
  default:
    return fail(r); /* 0xc1 is never used */
  }
}

int ph_r_next(ph_reader *r, ph_token *t) {
  if (r->err) return r->err;
  if (r->p == r->end) return fail(r);
  uint8_t code = *r->p++;
  t->len = 0;
  t->ptr = NULL;
  if (code < 0x80) {
    t->type = PH_T_UINT;
    t->u = code;
    return 0;
  }
  if (code >= 0xe0) {
    t->type = PH_T_INT;
    t->i = (int8_t)code;
    return 0;
  }
  if (code < 0x90) return take_items(r, t, PH_T_MAP, code & 0x0f);
  if (code < 0xa0) return take_items(r, t, PH_T_ARRAY, code & 0x0f);
  if (code < 0xc0) return take_bytes(r, t, PH_T_STR, code & 0x1f);
  return take_coded(r, t, code);
}

int ph_r_skip(ph_reader *r) {
  uint64_t left[PH_MAX_DEPTH + 1]; /* values still to come, by level */
  int level = 0;
  left[0] = 1;
  for (;;) {
    while (left[level] == 0) {
      if (level == 0) return 0;
      level--;
    }
    left[level]--;
    ph_token t;
    if (ph_r_next(r, &t)) return r->err;
    if (t.type != PH_T_ARRAY && t.type != PH_T_MAP) continue;
    if (level == PH_MAX_DEPTH) return fail(r);
    left[++level] = t.type == PH_T_MAP ? 2 * (uint64_t)t.len : t.len;
  }
}

int ph_r_value(ph_reader *r, const uint8_t **p, size_t *n) {
  const uint8_t *from = r->p;
  if (ph_r_skip(r)) return r->err;
  *p = from;
  *n = (size_t)(r->p - from);
  return 0;
}

static int expect(ph_reader *r, ph_token *t, ph_type type) {
  if (ph_r_next(r, t)) return r->err;
  return t->type == type ? 0 : fail(r);
}

int ph_r_uint(ph_reader *r, uint64_t *out) {
  ph_token t;
  if (expect(r, &t, PH_T_UINT)) return r->err;
  *out = t.u;
  return 0;
}

int ph_r_u32(ph_reader *r, uint32_t *out) {
  uint64_t v;
  if (ph_r_uint(r, &v)) return r->err;
  if (v > UINT32_MAX) return fail(r);
  *out = (uint32_t)v;
  return 0;
}

int ph_r_bool(ph_reader *r, bool *out) {
  ph_token t;
  if (expect(r, &t, PH_T_BOOL)) return r->err;
  *out = t.b;
  return 0;
}

int ph_r_str(ph_reader *r, const char **p, size_t *n, size_t max) {
  ph_token t;
  if (expect(r, &t, PH_T_STR)) return r->err;
  if (t.len > max) return fail(r);
  *p = (const char *)t.ptr;
  *n = t.len;
  return 0;
}

int ph_r_bin(ph_reader *r, const uint8_t **p, size_t *n, size_t max) {
  ph_token t;
  if (expect(r, &t, PH_T_BIN)) return r->err;
  if (t.len > max) return fail(r);
  *p = t.ptr;
  *n = t.len;
  return 0;
}

int ph_r_array(ph_reader *r, uint32_t *n) {
  ph_token t;
  if (expect(r, &t, PH_T_ARRAY)) return r->err;
  *n = t.len;
  return 0;
}

int ph_r_map(ph_reader *r, uint32_t *n) {
  ph_token t;
  if (expect(r, &t, PH_T_MAP)) return r->err;
  *n = t.len;
  return 0;
}

int ph_r_nil(ph_reader *r) {
  ph_token t;
  return expect(r, &t, PH_T_NIL);
}

bool ph_r_is_nil(ph_reader *r) {
  if (r->err || r->p == r->end || *r->p != 0xc0) return false;
  r->p++;
  return true;
}

int ph_r_id(ph_reader *r, int ext, const char **name, size_t *name_len, uint64_t *incarnation,
            uint64_t *serial) {
  ph_token t;
  if (expect(r, &t, PH_T_EXT)) return r->err;
  if (t.ext != ext || ph_id_parse(t.ptr, t.len, name, name_len, incarnation, serial))
    return fail(r);
  return 0;
}

int ph_id_parse(const void *ext_payload, size_t n, const char **name, size_t *name_len,
                uint64_t *incarnation, uint64_t *serial) {
  ph_reader r;
  const char *s;
  size_t len;
  uint64_t inc, ser;
  ph_reader_init(&r, ext_payload, n);
  if (ph_r_str(&r, &s, &len, SIZE_MAX) || ph_r_uint(&r, &inc) || ph_r_uint(&r, &ser)) return r.err;
  if (len == 0 || ph_reader_left(&r)) return PH_EMALFORMED;
  *name = s;
  *name_len = len;
  *incarnation = inc;
  *serial = ser;
  return 0;
}

int ph_value_check(const void *p, size_t n) {
  ph_reader r;
  ph_reader_init(&r, p, n);
  if (ph_r_skip(&r)) return r.err;
  return ph_reader_left(&r) ? PH_EMALFORMED : 0;
}
