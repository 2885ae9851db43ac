#include "base/buf.h"

#include <assert.h>
#include <string.h>

enum { MIN_CAP = 128, KEEP_CAP = 64 * 1024 };

void ph_buf_init(ph_buf *b, const ph_env *env) {
  *b = (ph_buf){.env = env};
}

void ph_buf_deinit(ph_buf *b) {
  if (b->data) ph_free(b->env, b->data);
  *b = (ph_buf){.env = b->env};
}

void ph_buf_reset(ph_buf *b) {
  if (b->cap > KEEP_CAP) {
    ph_buf_deinit(b);
    return;
  }
  b->off = b->len = 0;
  b->oom = false;
}

/* moves the content to new memory of at least `need` bytes, without what was consumed */
static bool grow(ph_buf *b, size_t need) {
  size_t cap = b->cap < MIN_CAP / 2 ? MIN_CAP : b->cap > SIZE_MAX / 2 ? SIZE_MAX : b->cap * 2;
  if (cap < need) cap = need;
  if (b->off == 0) {
    uint8_t *data = ph_realloc(b->env, b->data, cap);
    if (!data) return false;
    b->data = data;
  } else {
    uint8_t *data = ph_alloc(b->env, cap);
    if (!data) return false;
    size_t size = ph_buf_size(b);
    memcpy(data, b->data + b->off, size);
    ph_free(b->env, b->data);
    b->data = data;
    b->off = 0;
    b->len = size;
  }
  b->cap = cap;
  return true;
}

uint8_t *ph_buf_reserve(ph_buf *b, size_t n) {
  if (b->data && b->cap - b->len >= n) return b->data + b->len;
  size_t size = ph_buf_size(b);
  if (n > SIZE_MAX - size) {
    b->oom = true;
    return NULL;
  }
  /* moving at most as much as was consumed since the last move keeps consuming linear */
  if (b->data && b->off >= size && size + n <= b->cap) {
    memmove(b->data, b->data + b->off, size);
    b->off = 0;
    b->len = size;
  } else if (!grow(b, size + n)) {
    b->oom = true;
    return NULL;
  }
  return b->data + b->len;
}

int ph_buf_append(ph_buf *b, const void *p, size_t n) {
  if (n == 0) return 0;
  uint8_t *to = ph_buf_reserve(b, n);
  if (!to) return PH_ENOMEM;
  memcpy(to, p, n);
  b->len += n;
  return 0;
}

void ph_buf_consume(ph_buf *b, size_t n) {
  assert(n <= ph_buf_size(b));
  b->off += n;
  if (b->off == b->len) b->off = b->len = 0;
}

void ph_buf_swap(ph_buf *a, ph_buf *b) {
  ph_buf t = *a;
  *a = *b;
  *b = t;
}

ph_bytes *ph_bytes_new(const ph_env *env, const void *p, size_t n) {
  if (n > UINT32_MAX - 1) return NULL;
  ph_bytes *b = ph_alloc(env, sizeof *b + n + 1);
  if (!b) return NULL;
  b->refs = 1;
  b->len = (uint32_t)n;
  if (n) memcpy(b->data, p, n);
  b->data[n] = 0;
  return b;
}

ph_bytes *ph_bytes_ref(ph_bytes *b) {
  if (b) b->refs++;
  return b;
}

void ph_bytes_unref(const ph_env *env, ph_bytes *b) {
  if (b && --b->refs == 0) ph_free(env, b);
}
