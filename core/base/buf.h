/* A growable byte buffer: bytes [off, len) of data are its content.
 *
 * Grows with what is put in, never with what is announced. A failed append leaves the content as
 * it was and sets `oom`, so that a writer may check once at the end. */
#ifndef PH_BASE_BUF_H
#define PH_BASE_BUF_H

#include <stdbool.h>

#include "base/env.h"

typedef struct ph_buf {
  const ph_env *env;
  uint8_t *data;
  size_t off, len, cap;
  bool oom; /* an append failed since the last ph_buf_reset */
} ph_buf;

void ph_buf_init(ph_buf *b, const ph_env *env); /* allocates nothing */
void ph_buf_deinit(ph_buf *b);                  /* frees; may be called twice */
void ph_buf_reset(ph_buf *b);                   /* empties, keeps up to 64 KiB of capacity */
int ph_buf_append(ph_buf *b, const void *p, size_t n) PH_MUST_CHECK;
/* room for n more bytes at the end, without changing len; NULL when out of memory */
uint8_t *ph_buf_reserve(ph_buf *b, size_t n);
void ph_buf_consume(ph_buf *b, size_t n); /* drops n bytes from the front */
void ph_buf_swap(ph_buf *a, ph_buf *b);
static inline size_t ph_buf_size(const ph_buf *b) {
  return b->len - b->off;
}
static inline uint8_t *ph_buf_at(const ph_buf *b) {
  return b->data ? b->data + b->off : NULL; /* nothing may be added to NULL, not even 0 */
}

/* A refcounted, immutable run of bytes: exit reasons, serialised specs, metadata. Not thread-safe.
 */
typedef struct ph_bytes {
  uint32_t refs;
  uint32_t len;
  uint8_t data[]; /* one NUL follows the len bytes */
} ph_bytes;

ph_bytes *ph_bytes_new(const ph_env *env, const void *p, size_t n); /* refs = 1; NULL: no memory */
ph_bytes *ph_bytes_ref(ph_bytes *b);                                /* NULL allowed */
void ph_bytes_unref(const ph_env *env, ph_bytes *b);                /* NULL allowed */

#endif
