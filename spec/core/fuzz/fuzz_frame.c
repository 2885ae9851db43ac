/* The frame splitter: whole or in pieces, a stream gives the same messages and the same end; what
 * it keeps grows with the bytes fed, never with those announced.
 *
 * Input: limits, sizes of the pieces, the stream. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/test/testenv.h"
#include "input.h"
#include "wire/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

typedef struct seen { /* what the splitter handed out */
  uint64_t digest;
  size_t count, wire, stop_at;
  size_t max_frame, max_message;
} seen;

static uint64_t mix(uint64_t x, const uint8_t *p, size_t n) {
  for (size_t i = 0; i < n; i++) x = (x ^ p[i]) * UINT64_C(0x100000001b3);
  return (x ^ n) * UINT64_C(0x100000001b3);
}

static int on_message(void *ctx, int kind, const uint8_t *p, size_t n, size_t wire) {
  seen *s = ctx;
  assert(kind == PH_FRAME_CONTROL || kind == PH_FRAME_DATA);
  assert(wire >= n + PH_FRAME_HEADER);
  assert(n <= (kind == PH_FRAME_DATA ? s->max_message : s->max_frame));
  assert(n <= s->max_frame || wire > n + PH_FRAME_HEADER);
  s->digest = mix(s->digest, p, n);
  s->digest = mix(s->digest, (const uint8_t *)&kind, sizeof kind);
  s->wire += wire;
  return ++s->count == s->stop_at ? PH_ECLOSED : 0;
}

/* 0, or the error that ended it */
static int feed(const uint8_t *p, size_t n, fz_input *sizes, seen *s) {
  te t;
  ph_splitter sp;
  int err = 0;
  size_t fed = 0;
  te_init(&t, 1);
  ph_splitter_init(&sp, &t.env, s->max_frame, s->max_message);
  while (fed < n && err >= 0) {
    size_t part = sizes ? 1u + fz_u8(sizes) % 64 : n;
    if (part > n - fed) part = n - fed;
    uint8_t *copy = malloc(part); /* exactly: a read past it shows */
    memcpy(copy, p + fed, part);
    err = ph_splitter_feed(&sp, copy, part, on_message, s);
    free(copy);
    fed += part;
    assert(t.bytes <= 4 * fed + 512);
    assert(err < 0 || s->wire + ph_buf_size(&sp.in) + sp.fragments == fed);
  }
  ph_splitter_deinit(&sp);
  assert(t.live == 0);
  return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
  fz_input in = {p, p + n};
  seen whole = {0};
  whole.max_frame = 1u + fz_u16(&in);
  whole.max_message = 1u + fz_u16(&in);
  whole.stop_at = fz_u8(&in);
  seen pieces = whole;
  size_t count = 16;
  fz_input sizes = {.p = fz_take(&in, &count)};
  sizes.end = sizes.p + count;
  int a = feed(in.p, fz_left(&in), NULL, &whole);
  int b = feed(in.p, fz_left(&in), &sizes, &pieces);
  assert(a == b);
  assert(whole.digest == pieces.digest && whole.count == pieces.count);
  return 0;
}
