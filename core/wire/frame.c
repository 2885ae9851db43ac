#include "wire/frame.h"

#include <string.h>

enum { LENGTH = 4 };

int ph_frame_write(ph_buf *out, int kind, const void *p, size_t n) {
  if (n > UINT32_MAX - 1) return PH_ETOOLARGE;
  uint8_t *to = ph_buf_reserve(out, PH_FRAME_HEADER + n);
  if (!to) return PH_ENOMEM;
  uint32_t length = (uint32_t)n + 1;
  for (int i = 0; i < LENGTH; i++) to[i] = (uint8_t)(length >> (24 - 8 * i));
  to[LENGTH] = (uint8_t)kind;
  if (n) memcpy(to + PH_FRAME_HEADER, p, n);
  out->len += PH_FRAME_HEADER + n;
  return 0;
}

void ph_splitter_init(ph_splitter *s, const ph_env *env, size_t max_frame, size_t max_message) {
  *s = (ph_splitter){.max_frame = max_frame, .max_message = max_message};
  ph_buf_init(&s->in, env);
  ph_buf_init(&s->message, env);
}

void ph_splitter_deinit(ph_splitter *s) {
  ph_buf_deinit(&s->in);
  ph_buf_deinit(&s->message);
}

/* Judges a header before anything of its payload is kept. */
static int check_header(const ph_splitter *s, const uint8_t *h, size_t *payload) {
  uint32_t length = (uint32_t)h[0] << 24 | (uint32_t)h[1] << 16 | (uint32_t)h[2] << 8 | h[3];
  int kind = h[LENGTH];
  if (length == 0) return PH_EMALFORMED;
  size_t n = length - 1;
  if (kind != PH_FRAME_CONTROL && kind != PH_FRAME_DATA) {
    /* an empty fragment would be work without end that no limit sees */
    if (kind != (PH_FRAME_DATA | PH_FRAME_MORE) || n == 0) return PH_EMALFORMED;
  }
  if (n > s->max_frame) return PH_ETOOLARGE;
  size_t before = kind == PH_FRAME_CONTROL ? 0 : ph_buf_size(&s->message);
  if (before > s->max_message || n > s->max_message - before) return PH_ETOOLARGE;
  *payload = n;
  return 0;
}

static int on_frame(ph_splitter *s, int kind, const uint8_t *p, size_t n, ph_on_message fn,
                    void *ctx) {
  size_t wire = PH_FRAME_HEADER + n;
  if (kind == PH_FRAME_CONTROL) return fn(ctx, kind, p, n, wire);
  if (kind == PH_FRAME_DATA && !s->fragments) return fn(ctx, kind, p, n, wire);
  int rc = ph_buf_append(&s->message, p, n);
  if (rc) return rc;
  s->fragments += wire;
  if (kind & PH_FRAME_MORE) return 0;
  wire = s->fragments;
  s->fragments = 0;
  rc = fn(ctx, PH_FRAME_DATA, ph_buf_at(&s->message), ph_buf_size(&s->message), wire);
  ph_buf_reset(&s->message);
  return rc;
}

/* Completes the frame that s->in has the beginning of, from *p; takes no byte beyond it. Returns
 * 1 when the frame is handled, 0 when bytes are still missing. */
static int finish_pending(ph_splitter *s, const uint8_t **p, size_t *n, ph_on_message fn,
                          void *ctx) {
  size_t need = PH_FRAME_HEADER, payload = 0;
  for (int part = 0; part < 2; part++) {
    size_t have = ph_buf_size(&s->in), take = need - have;
    if (have < need) {
      if (take > *n) take = *n;
      int rc = ph_buf_append(&s->in, *p, take);
      if (rc) return rc;
      *p += take;
      *n -= take;
      if (have + take < need) return 0;
    }
    if (part == 0) {
      int rc = check_header(s, ph_buf_at(&s->in), &payload);
      if (rc) return rc;
      need += payload;
    }
  }
  const uint8_t *frame = ph_buf_at(&s->in);
  int rc = on_frame(s, frame[LENGTH], frame + PH_FRAME_HEADER, payload, fn, ctx);
  ph_buf_consume(&s->in, PH_FRAME_HEADER + payload);
  return rc < 0 ? rc : 1;
}

int ph_splitter_feed(ph_splitter *s, const void *bytes, size_t n, ph_on_message fn, void *ctx) {
  const uint8_t *p = bytes;
  int rc;
  if (n && ph_buf_size(&s->in)) {
    rc = finish_pending(s, &p, &n, fn, ctx);
    if (rc <= 0) return rc;
  }
  while (n >= PH_FRAME_HEADER) { /* whole frames, straight from the caller's bytes */
    size_t payload;
    rc = check_header(s, p, &payload);
    if (rc) return rc;
    size_t size = PH_FRAME_HEADER + payload;
    if (n < size) break;
    rc = on_frame(s, p[LENGTH], p + PH_FRAME_HEADER, payload, fn, ctx);
    if (rc < 0) return rc;
    p += size;
    n -= size;
  }
  if (n) return ph_buf_append(&s->in, p, n);
  ph_buf_reset(&s->in); /* a splitter at rest keeps no large buffer */
  return 0;
}
