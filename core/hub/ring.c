#include "hub/ring.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

typedef struct point {
  uint64_t hash;
  uint16_t owner;
} point;

void ph_ring_init(ph_ring *r, const ph_env *env) {
  memset(r, 0, sizeof *r);
  r->env = env;
}

void ph_ring_deinit(ph_ring *r) {
  ph_free(r->env, r->hash);
  ph_free(r->env, r->owner);
  ph_free(r->env, r->nodes);
  ph_ring_init(r, r->env);
}

uint64_t ph_ring_hash(const void *id, size_t n) {
  return XXH3_64bits(id, n);
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const ph_ring_node *)a)->name, ((const ph_ring_node *)b)->name);
}

/* owners are numbered by name, so comparing them breaks ties by name */
static int by_hash(const void *a, const void *b) {
  const point *x = a, *y = b;
  if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
  return (x->owner > y->owner) - (x->owner < y->owner);
}

static int node_points(const ph_env *env, const char *name, uint16_t owner, point *out) {
  size_t len = strlen(name);
  char *key = ph_alloc(env, len + 5);
  if (!key) return PH_ENOMEM;
  memcpy(key, name, len + 1);
  for (uint32_t i = 0; i < PH_RING_POINTS; i++) {
    for (int b = 0; b < 4; b++) key[len + 1 + (size_t)b] = (char)(i >> (8 * b));
    out[i] = (point){ph_ring_hash(key, len + 5), owner};
  }
  ph_free(env, key);
  return 0;
}

static int fill(ph_ring *next, point *points, size_t n) {
  for (size_t i = 0; i < n; i++) {
    int err = node_points(next->env, next->nodes[i].name, (uint16_t)i, points + i * PH_RING_POINTS);
    if (err) return err;
  }
  next->count = n * PH_RING_POINTS;
  qsort(points, next->count, sizeof *points, by_hash);
  for (size_t i = 0; i < next->count; i++) {
    next->hash[i] = points[i].hash;
    next->owner[i] = points[i].owner;
  }
  return 0;
}

int ph_ring_set(ph_ring *r, const ph_ring_node *nodes, size_t n) {
  ph_ring next;
  ph_ring_init(&next, r->env);
  if (n > UINT16_MAX) return PH_EINVAL;
  if (n > 0) {
    size_t count = n * PH_RING_POINTS;
    point *points = ph_alloc(r->env, count * sizeof *points);
    next.hash = ph_alloc(r->env, count * sizeof *next.hash);
    next.owner = ph_alloc(r->env, count * sizeof *next.owner);
    next.nodes = ph_alloc(r->env, n * sizeof *nodes);
    int err = points && next.hash && next.owner && next.nodes ? 0 : PH_ENOMEM;
    if (!err) {
      memcpy(next.nodes, nodes, n * sizeof *nodes);
      qsort(next.nodes, n, sizeof *nodes, by_name);
      next.node_count = n;
      err = fill(&next, points, n);
    }
    ph_free(r->env, points);
    if (err) {
      ph_ring_deinit(&next);
      return err;
    }
  }
  ph_ring_deinit(r);
  *r = next;
  return 0;
}

/* index of the first point at or after the hash, wrapping */
static size_t successor(const ph_ring *r, uint64_t hash) {
  size_t lo = 0, hi = r->count;
  while (lo < hi) {
    size_t mid = lo + (hi - lo) / 2;
    if (r->hash[mid] < hash)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo == r->count ? 0 : lo;
}

void *ph_ring_first(const ph_ring *r, uint64_t hash) {
  if (r->node_count == 1) return r->nodes[0].user;
  return r->count ? r->nodes[r->owner[successor(r, hash)]].user : NULL;
}

size_t ph_ring_firsts(const ph_ring *r, uint64_t hash, size_t max, void **out) {
  size_t found = 0;
  if (!r->count) return 0;
  if (max > r->node_count) max = r->node_count;
  size_t at = successor(r, hash);
  for (size_t step = 0; step < r->count && found < max; step++) {
    void *user = r->nodes[r->owner[(at + step) % r->count]].user;
    size_t i = 0;
    while (i < found && out[i] != user) i++;
    if (i == found) out[found++] = user;
  }
  return found;
}
