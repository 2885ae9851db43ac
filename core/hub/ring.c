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
  ph_free(r->env, r->names);
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

/* ---- A new ring from the old one: only the points of nodes that were not in it are computed and
 * sorted; those of nodes that stay are merged with them, in their order. */

typedef struct change {
  ph_ring next;
  point *fresh; /* sorted */
  size_t fresh_count;
  uint16_t *now; /* by old node: its index in next, or GONE */
} change;

enum { GONE = UINT16_MAX };

/* copies nodes and names, sorted by name */
static int take_nodes(ph_ring *next, const ph_ring_node *nodes, size_t n) {
  size_t bytes = 0;
  for (size_t i = 0; i < n; i++) bytes += strlen(nodes[i].name) + 1;
  next->nodes = ph_alloc(next->env, n * sizeof *nodes);
  next->names = ph_alloc(next->env, bytes);
  if (!next->nodes || !next->names) return PH_ENOMEM;
  memcpy(next->nodes, nodes, n * sizeof *nodes);
  qsort(next->nodes, n, sizeof *nodes, by_name);
  char *at = next->names;
  for (size_t i = 0; i < n; i++) {
    size_t len = strlen(next->nodes[i].name) + 1;
    next->nodes[i].name = memcpy(at, next->nodes[i].name, len);
    at += len;
  }
  next->node_count = n;
  next->count = n * PH_RING_POINTS;
  return 0;
}

/* which nodes stay, and the points of those that are new */
static int compare(const ph_ring *old, change *c) {
  size_t i = 0;
  ph_ring *next = &c->next;
  for (size_t k = 0; k < next->node_count; k++) {
    int order = 1;
    while (i < old->node_count && (order = strcmp(old->nodes[i].name, next->nodes[k].name)) < 0)
      c->now[i++] = GONE;
    if (i < old->node_count && order == 0) {
      c->now[i++] = (uint16_t)k;
      continue;
    }
    int err = node_points(next->env, next->nodes[k].name, (uint16_t)k, c->fresh + c->fresh_count);
    if (err) return err;
    c->fresh_count += PH_RING_POINTS;
  }
  while (i < old->node_count) c->now[i++] = GONE;
  qsort(c->fresh, c->fresh_count, sizeof *c->fresh, by_hash);
  return 0;
}

static void merge(const ph_ring *old, change *c) {
  ph_ring *next = &c->next;
  size_t i = 0, k = 0;
  for (size_t at = 0; at < next->count; at++) {
    while (i < old->count && c->now[old->owner[i]] == GONE) i++;
    point x = {0, 0};
    if (i < old->count) x = (point){old->hash[i], c->now[old->owner[i]]};
    if (i == old->count || (k < c->fresh_count && by_hash(&c->fresh[k], &x) < 0))
      x = c->fresh[k++];
    else
      i++;
    next->hash[at] = x.hash;
    next->owner[at] = x.owner;
  }
}

static int make(const ph_ring *old, const ph_ring_node *nodes, size_t n, change *c) {
  const ph_env *env = old->env;
  size_t count = n * PH_RING_POINTS;
  c->fresh = ph_alloc(env, count * sizeof *c->fresh);
  c->now = ph_alloc(env, (old->node_count + 1) * sizeof *c->now);
  c->next.hash = ph_alloc(env, count * sizeof *c->next.hash);
  c->next.owner = ph_alloc(env, count * sizeof *c->next.owner);
  if (!c->fresh || !c->now || !c->next.hash || !c->next.owner) return PH_ENOMEM;
  int err = take_nodes(&c->next, nodes, n);
  if (!err) err = compare(old, c);
  if (!err) merge(old, c);
  return err;
}

int ph_ring_set(ph_ring *r, const ph_ring_node *nodes, size_t n) {
  change c = {.fresh_count = 0};
  if (n >= UINT16_MAX) return PH_EINVAL;
  ph_ring_init(&c.next, r->env);
  int err = n ? make(r, nodes, n, &c) : 0;
  ph_free(r->env, c.fresh);
  ph_free(r->env, c.now);
  if (err) {
    ph_ring_deinit(&c.next);
    return err;
  }
  ph_ring_deinit(r);
  *r = c.next;
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
