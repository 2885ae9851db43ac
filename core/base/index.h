/* An open-addressed index of pointers by 64-bit hash: the table under the registry, the process
 * table and everything else that can get large.
 *
 * Linear probing, 16 bytes a slot, load at most 3/4 (15/16 while memory to grow is lacking; only
 * past that a put fails). It grows and shrinks in steps: each put or remove clears or moves a
 * bounded number of slots, so no single operation is O(n). Removal leaves no tombstones (backward
 * shift). The index does not own its items; the caller supplies hash and equality. */
#ifndef PH_BASE_INDEX_H
#define PH_BASE_INDEX_H

#include <stdbool.h>

#include "base/env.h"

typedef struct ph_slot {
  uint64_t hash;
  void *item; /* NULL: empty */
} ph_slot;

typedef struct ph_table {
  ph_slot *slots;
  size_t mask; /* capacity - 1, 0 when there is no table */
  size_t count;
} ph_table;

typedef struct ph_index {
  const ph_env *env;
  ph_table t[2]; /* t[1] is being emptied into t[0] while t[1].slots != NULL */
  size_t cursor; /* next slot of t[1] to move: those before it are empty, and no probe for what is
                    left crosses them */
  ph_table next; /* the table to come, its slots cleared in steps; no items yet */
  size_t cleared;
} ph_index;

typedef bool (*ph_index_eq)(const void *item, const void *key);

void ph_index_init(ph_index *ix, const ph_env *env); /* allocates nothing */
void ph_index_deinit(ph_index *ix);                  /* frees the tables, not the items */
static inline size_t ph_index_count(const ph_index *ix) {
  return ix->t[0].count + ix->t[1].count;
}
/* the item for which eq(item, key), or NULL */
void *ph_index_find(const ph_index *ix, uint64_t hash, ph_index_eq eq, const void *key);
/* adds an item that is not in the index; after a failure nothing has changed */
int ph_index_put(ph_index *ix, uint64_t hash, void *item) PH_MUST_CHECK;
/* Removes exactly this pointer, put with this hash; false when it is not there. Never fails for
 * lack of memory. */
bool ph_index_remove(ph_index *ix, uint64_t hash, const void *item);

/* Iteration in no particular order. Between first and last call the index must not be changed.
 *   ph_index_iter it = {0}; while ((x = ph_index_next(ix, &it))) ... */
typedef struct ph_index_iter {
  int table;
  size_t slot;
} ph_index_iter;
void *ph_index_next(const ph_index *ix, ph_index_iter *it);

/* A seeded hash for in-memory tables (XXH3) and a mixer for integers. */
uint64_t ph_hash(const void *p, size_t n, uint64_t seed);
static inline uint64_t ph_hash64(uint64_t x) {
  x ^= x >> 32;
  x *= UINT64_C(0xe9846af9b1a615d);
  x ^= x >> 32;
  x *= UINT64_C(0xe9846af9b1a615d);
  return x ^ (x >> 28);
}

#endif
