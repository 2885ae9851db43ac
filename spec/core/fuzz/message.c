#include "message.h"

#include <stdio.h>
#include <string.h>

#include "cluster/cluster.h"
#include "hub/internal.h"
#include "wire/proto.h"
#include "wire/writer.h"

typedef struct shape {
  uint8_t type;
  const char *fields;
} shape;

static const shape shapes[] = {
#define MESSAGE(name, number, fields) {number, fields},
#include "messages.def"
#undef MESSAGE
};

enum { SHAPES = sizeof shapes / sizeof *shapes, WRONG = 0xf0 };

typedef struct maker {
  fz_input *in;
  const fz_names *who;
} maker;

static uint64_t number(fz_input *in) {
  static const uint64_t odd[] = {0,   1,   2,          3,          5,          100,
                                 101, 127, UINT16_MAX, UINT32_MAX, UINT64_MAX, UINT64_C(1) << 42};
  uint8_t x = fz_u8(in);
  if (x < 0x80) return x % 16;
  if (x < 0xc0) return odd[x % (sizeof odd / sizeof *odd)];
  return x < 0xe0 ? fz_u16(in) : fz_u64(in);
}

static void child_id(ph_buf *b, uint8_t x) {
  char text[16];
  int n = snprintf(text, sizeof text, "c%d", x % 24);
  ph_w_str(b, text, (size_t)n);
}

static void name_of(maker *m, ph_buf *b, uint8_t x) {
  static const char *const others[] = {"ghost@nowhere", "n9@sim", "", "no name"};
  int i = x % 8;
  ph_w_cstr(b, i < m->who->count ? m->who->name[i] : others[i % 4]);
}

static uint64_t incarnation_of(maker *m, uint8_t x) {
  int i = x % 8;
  return i < m->who->count ? m->who->incarnation[i] : number(m->in);
}

static void names(maker *m, ph_buf *b, uint8_t x) {
  uint32_t n = x % 4;
  ph_w_array(b, 2 * n);
  for (uint32_t i = 0; i < n; i++) {
    uint8_t y = i == 0 && n < 3 ? (uint8_t)(x >> 4) : fz_u8(m->in);
    name_of(m, b, y);
    ph_w_uint(b, incarnation_of(m, y));
  }
}

static void spec_of(ph_buf *b, uint8_t x) {
  static const char *const functions[] = {"ok", "fail", "slow", "never"};
  static const char *const restarts[] = {"permanent", "transient", "temporary"};
  ph_buf s;
  ph_buf_init(&s, b->env);
  ph_w_map(&s, 2);
  ph_w_cstr(&s, "start");
  ph_w_array(&s, 2);
  ph_w_cstr(&s, "c");
  ph_w_cstr(&s, functions[x % 4]);
  ph_w_cstr(&s, "restart");
  ph_w_cstr(&s, restarts[x % 3]);
  ph_w_bin(b, ph_buf_at(&s), ph_buf_size(&s));
  ph_buf_deinit(&s);
}

static void specs(maker *m, ph_buf *b, uint8_t x) {
  uint32_t n = x % 3;
  ph_w_array(b, n);
  for (uint32_t i = 0; i < n; i++) spec_of(b, i ? fz_u8(m->in) : (uint8_t)(x >> 2));
}

/* any value; depth bounds its nesting */
static void value(maker *m, ph_buf *b, int depth) {
  uint8_t x = fz_u8(m->in);
  uint8_t raw[32];
  size_t n = (x >> 4) * 2u;
  switch (depth ? x % 9 : x % 7) {
  case 0:
    ph_w_nil(b);
    break;
  case 1:
    ph_w_bool(b, x & 0x10);
    break;
  case 2:
    ph_w_uint(b, number(m->in));
    break;
  case 3:
    ph_w_int(b, -(int64_t)(number(m->in) >> 1) - 1);
    break;
  case 4:
    ph_w_double(b, (double)x / 3);
    break;
  case 5:
    child_id(b, x >> 4);
    break;
  case 6:
    memset(raw, x, sizeof raw);
    if (x & 0x10)
      ph_w_bin(b, raw, n);
    else
      ph_w_ext(b, x % 4, raw, n);
    break;
  case 7:
    ph_w_map(b, x >> 6);
    for (uint32_t i = 0; i < 2u * (x >> 6); i++) value(m, b, depth - 1);
    break;
  default:
    ph_w_array(b, x >> 6);
    for (uint32_t i = 0; i < (x >> 6); i++) value(m, b, depth - 1);
  }
}

static void pid_of(maker *m, ph_buf *b, uint8_t x) {
  ph_buf p;
  ph_buf_init(&p, b->env);
  ph_w_cstr(&p, m->who->name[x & 1 && m->who->count > 1]);
  ph_w_uint(&p, m->who->incarnation[x & 1 && m->who->count > 1]);
  ph_w_uint(&p, (x >> 1) % 16);
  ph_w_ext(b, PH_EXT_PID, ph_buf_at(&p), ph_buf_size(&p));
  ph_buf_deinit(&p);
}

static void packed(maker *m, ph_buf *b) {
  ph_buf v;
  ph_buf_init(&v, b->env);
  value(m, &v, 2);
  ph_w_bin(b, ph_buf_at(&v), ph_buf_size(&v));
  ph_buf_deinit(&v);
}

static void blob(maker *m, ph_buf *b, size_t unit, uint8_t x) {
  uint8_t raw[16 * 16];
  size_t n = unit * (x % 16);
  for (size_t i = 0; i < n; i++) raw[i] = i % unit ? 0 : fz_u8(m->in);
  if (x == 15 && m->who->count > 1) { /* the keys that there are */
    for (int k = 0; k < m->who->count; k++) {
      uint64_t key = ph_hash(m->who->name[k], strlen(m->who->name[k]), m->who->incarnation[k]);
      for (size_t i = 0; i < 8; i++) raw[(size_t)k * unit + i] = (uint8_t)(key >> (8 * i));
    }
  }
  ph_w_bin(b, raw, n);
}

static void digests(maker *m, ph_buf *b, uint8_t x) {
  uint8_t raw[PH_BUCKETS * 8] = {0};
  for (int i = x % 8; i > 0; i--) raw[fz_u16(m->in) % sizeof raw] = x;
  ph_w_bin(b, raw, sizeof raw);
}

static void result_of(maker *m, ph_buf *b, uint8_t x) {
  if (x < 2)
    ph_w_uint(b, x);
  else if (x < 0x80)
    ph_w_int(b, -(int64_t)(x % 48));
  else
    ph_w_uint(b, number(m->in));
}

static void dest(ph_buf *b, uint8_t x) {
  static const char *const registered[] = {"echo", "deaf", "nobody", ""};
  if (x & 0x10)
    ph_w_cstr(b, registered[x % 4]);
  else
    ph_w_uint(b, x % 12);
}

/* c: class of a message, C: of a call, g: of mail */
static uint64_t class_of(char kind, uint8_t x) {
  static const uint8_t send[] = {0, 2, 5, 16, 18}, call[] = {1, 5}, mail[] = {0, 2};
  return kind == 'c' ? send[x % 5] : kind == 'C' ? call[x % 2] : mail[x % 2];
}

static void scalar(maker *m, ph_buf *b, char kind, uint8_t x) {
  switch (kind) {
  case 'b':
    ph_w_bool(b, x & 1);
    break;
  case 'c':
  case 'C':
  case 'g':
    ph_w_uint(b, class_of(kind, x));
    break;
  case 't':
  case 's':
  case 'f':
    ph_w_uint(b, x % (kind == 'f' ? 7 : 3));
    break;
  case 'w':
  case 'n':
    ph_w_uint(b, 1 + x % 24);
    break;
  case 'I':
    ph_w_uint(b, incarnation_of(m, x));
    break;
  default:
    ph_w_uint(b, number(m->in));
  }
}

static void right(maker *m, ph_buf *b, char kind, uint8_t x) {
  switch (kind) {
  case 'm':
    name_of(m, b, x);
    break;
  case 'a':
    ph_w_cstr(b, x % 4 ? "mem:9" : "mem:1");
    break;
  case 'x':
    ph_w_cstr(b, x % 4 ? "PHUB" : "defaults");
    break;
  case 'h':
    ph_w_cstr(b, x == 0xef ? "other" : "h");
    break;
  case 'i':
    child_id(b, x);
    break;
  case 'v':
    value(m, b, 3);
    break;
  case 'y':
    packed(m, b);
    break;
  case 'o':
    if (x & 1)
      packed(m, b);
    else
      ph_w_nil(b);
    break;
  case 'p':
    pid_of(m, b, (uint8_t)(x << 1));
    break;
  case 'q':
    if (x & 1)
      pid_of(m, b, x >> 1);
    else
      ph_w_nil(b);
    break;
  case 'd':
    dest(b, x);
    break;
  case 'e':
    result_of(m, b, x);
    break;
  case 'k':
  case 'K':
    blob(m, b, kind == 'k' ? 8 : 16, x);
    break;
  case 'D':
    digests(m, b, x);
    break;
  case 'N':
    names(m, b, x);
    break;
  case 'S':
    specs(m, b, x);
    break;
  default:
    scalar(m, b, kind, x);
  }
}

/* one field, mostly of its kind */
static void field(maker *m, ph_buf *b, char kind) {
  uint8_t x = fz_u8(m->in);
  if (x >= WRONG)
    value(m, b, 3);
  else
    right(m, b, kind, x);
}

static const char *close_of(const char *f) {
  int depth = 0;
  for (;; f++) {
    if (*f == '[' || *f == '{') depth++;
    if ((*f == ']' || *f == '}') && --depth == 0) return f;
  }
}

static void fields(maker *m, ph_buf *b, const char *f, const char *end);

static void rows(maker *m, ph_buf *b, const char *f, const char *end) {
  ph_buf body;
  ph_buf_init(&body, b->env);
  for (int i = fz_u8(m->in) % 6; i > 0; i--) fields(m, &body, f, end);
  ph_w_bin(b, ph_buf_at(&body), ph_buf_size(&body));
  ph_buf_deinit(&body);
}

static void fields(maker *m, ph_buf *b, const char *f, const char *end) {
  for (; f < end; f++) {
    const char *to = *f == '[' || *f == '{' ? close_of(f) : NULL;
    if (*f == '{') {
      rows(m, b, f + 1, to);
    } else if (*f == '[') {
      int n = fz_u8(m->in) % 4;
      ph_w_uint(b, (uint64_t)n);
      while (n-- > 0) fields(m, b, f + 1, to);
    } else {
      field(m, b, *f);
    }
    if (to) f = to;
  }
}

static uint32_t field_count(const char *f) {
  uint32_t n = 0;
  for (; *f; f++, n++)
    if (*f == '[' || *f == '{') f = close_of(f);
  return n;
}

bool fz_message(fz_input *in, const fz_names *who, ph_buf *out) {
  maker m = {in, who};
  const shape *s = &shapes[fz_u8(in) % SHAPES];
  uint8_t x = fz_u8(in);
  uint32_t count = field_count(s->fields);
  if (x >= WRONG) count = x % 8; /* announces fewer or more than it has */
  ph_w_array(out, count + 1);
  ph_w_uint(out, s->type);
  fields(&m, out, s->fields, s->fields + strlen(s->fields));
  return s->type >= PH_M_SEND;
}
