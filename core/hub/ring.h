/* The consistent-hash ring: 1,024 points a node; XXH3-64, seed 0, of name, NUL, index (4 bytes
 * little-endian); ids are hashed alike; ties go to the lower name. Changing any of this is a
 * protocol version. (Karger et al., "Consistent Hashing and Random Trees", 1997.) */
#ifndef PH_HUB_RING_H
#define PH_HUB_RING_H

#include "base/env.h"

enum { PH_RING_POINTS = 1024 };

typedef struct ph_ring_node {
  const char *name; /* NUL-terminated */
  void *user;
} ph_ring_node;

typedef struct ph_ring {
  const ph_env *env;
  uint64_t *hash;  /* sorted points */
  uint16_t *owner; /* index in nodes, of each point */
  size_t count;
  ph_ring_node *nodes; /* sorted by name */
  char *names;         /* of the nodes */
  size_t node_count;
} ph_ring;

void ph_ring_init(ph_ring *r, const ph_env *env);
void ph_ring_deinit(ph_ring *r);
/* Makes the ring of these nodes (in any order, at most 65,534; names are copied); on failure the
 * old ring stays. Costs a merge over all points, and computing and sorting those of new nodes
 * alone. */
int ph_ring_set(ph_ring *r, const ph_ring_node *nodes, size_t n) PH_MUST_CHECK;
uint64_t ph_ring_hash(const void *id, size_t n);
/* the first node for a hash, NULL when the ring is empty */
void *ph_ring_first(const ph_ring *r, uint64_t hash);
/* the first `max` distinct nodes for a hash, in the ring's order; returns how many */
size_t ph_ring_firsts(const ph_ring *r, uint64_t hash, size_t max, void **out);

#endif
