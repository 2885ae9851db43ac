#include "base/handoff.h"

#include <string.h>

enum { ALIGN = 8, KEEP_CAP = 1024 * 1024 };

int ph_handoff_init(ph_handoff *h, const ph_env *env) {
  if (pthread_mutex_init(&h->mutex, NULL) != 0) return PH_ENOMEM;
  ph_buf_init(&h->filling, env);
  ph_buf_init(&h->taken, env);
  atomic_init(&h->pending, 0);
  return 0;
}

void ph_handoff_deinit(ph_handoff *h) {
  ph_buf_deinit(&h->filling);
  ph_buf_deinit(&h->taken);
  pthread_mutex_destroy(&h->mutex);
}

static size_t padded(size_t n) {
  return (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

int ph_handoff_put(ph_handoff *h, uint32_t type, uint64_t a, uint64_t b, const void *p, size_t n,
                   const void *p2, size_t n2) {
  if (n > UINT32_MAX || n2 > UINT32_MAX - n) return PH_ETOOLARGE;
  ph_record r = {.type = type, .n = (uint32_t)(n + n2), .a = a, .b = b};
  size_t size = sizeof r + padded(n + n2);
  int rc = 0;
  pthread_mutex_lock(&h->mutex);
  uint8_t *to = ph_buf_reserve(&h->filling, size);
  if (to) {
    memcpy(to, &r, sizeof r);
    if (n) memcpy(to + sizeof r, p, n);
    if (n2) memcpy(to + sizeof r + n, p2, n2);
    h->filling.len += size;
    atomic_store_explicit(&h->pending, h->filling.len, memory_order_release);
  } else {
    h->filling.oom = false; /* this record's failure, not the queue's */
    rc = PH_ENOMEM;
  }
  pthread_mutex_unlock(&h->mutex);
  return rc;
}

size_t ph_handoff_pending(ph_handoff *h) {
  return (size_t)atomic_load_explicit(&h->pending, memory_order_acquire);
}

bool ph_handoff_take(ph_handoff *h) {
  if (ph_buf_size(&h->taken)) return true;
  if (h->taken.cap > KEEP_CAP) ph_buf_deinit(&h->taken);
  pthread_mutex_lock(&h->mutex);
  ph_buf_swap(&h->filling, &h->taken);
  atomic_store_explicit(&h->pending, 0, memory_order_relaxed);
  pthread_mutex_unlock(&h->mutex);
  return ph_buf_size(&h->taken) > 0;
}

const ph_record *ph_handoff_next(ph_handoff *h, const uint8_t **bytes) {
  if (!ph_buf_size(&h->taken)) return NULL;
  const ph_record *r = (const ph_record *)(const void *)ph_buf_at(&h->taken);
  *bytes = (const uint8_t *)(r + 1);
  ph_buf_consume(&h->taken, sizeof *r + padded(r->n));
  return r;
}
