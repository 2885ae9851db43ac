/* An ordered queue of records between two threads: a mutex around two byte buffers.
 *
 * A record is a header of three numbers and n bytes, aligned to 8 bytes. The consumer takes
 * everything at once by swapping buffers and walks it without the lock. Both threads allocate and
 * free through the env given, whose realloc must be thread-safe. A queue does not bound itself:
 * its users look at ph_handoff_pending. */
#ifndef PH_BASE_HANDOFF_H
#define PH_BASE_HANDOFF_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"

typedef struct ph_record {
  uint32_t type; /* the users' numbers */
  uint32_t n;    /* bytes that follow */
  uint64_t a, b; /* the users' numbers */
} ph_record;

typedef struct ph_handoff {
  pthread_mutex_t mutex;
  ph_buf filling;
  ph_buf taken;             /* the consumer's alone */
  _Atomic uint64_t pending; /* bytes in filling */
} ph_handoff;

int ph_handoff_init(ph_handoff *h, const ph_env *env) PH_MUST_CHECK;
void ph_handoff_deinit(ph_handoff *h);
/* appends a record of two pieces of bytes (either may be empty); PH_ETOOLARGE past 4 GiB */
int ph_handoff_put(ph_handoff *h, uint32_t type, uint64_t a, uint64_t b, const void *p, size_t n,
                   const void *p2, size_t n2) PH_MUST_CHECK;
size_t ph_handoff_pending(ph_handoff *h); /* bytes waiting, without the lock */
/* Takes all that waits; then ph_handoff_next gives record after record (valid until the next take).
 * True when there are records to walk; records of the last take not walked yet come first. */
bool ph_handoff_take(ph_handoff *h);
const ph_record *ph_handoff_next(ph_handoff *h, const uint8_t **bytes); /* NULL at the end */

#endif
