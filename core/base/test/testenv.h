/* The environment of C tests: simulated clock, seeded chance, and an allocator that counts and
 * can fail. Header only; does not need cmocka but for TE_END.
 *
 *   te t;
 *   te_init(&t, 1);              // seed
 *   ph_buf_init(&b, &t.env);     // hand &t.env to the code under test; `t` must not move
 *   te_fail_in(&t, 3);           // the 3rd allocation from now fails, later ones succeed
 *   t.now += PH_MS(5);           // time passes only when the test says so
 *   TE_END(&t);                  // asserts that nothing is left allocated
 *
 * The usual walk over every point of failure (te_tripped: the failure has happened):
 *   for (long n = 1;; n++) {
 *     te_fail_in(&t, n);
 *     int rc = operation();
 *     bool tripped = te_tripped(&t);
 *     te_fail_in(&t, 0);
 *     ...check that nothing changed when rc < 0...
 *     if (!tripped) break;
 *   }
 *
 * A realloc always moves the memory, so that stale pointers show under ASan and valgrind. The
 * allocator may be used by several threads; the rest belongs to one. */
#ifndef PH_BASE_TESTENV_H
#define PH_BASE_TESTENV_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"

typedef struct te {
  ph_env env;
  atomic_long live;    /* allocations not yet freed */
  atomic_long allocs;  /* attempts to allocate since te_init, failed ones too */
  atomic_size_t bytes; /* live bytes */
  atomic_size_t peak;  /* most live bytes since te_init, or since the test set it to `bytes` */
  atomic_long fail_in; /* see te_fail_in */
  atomic_size_t limit; /* allocations that would pass this many live bytes fail; 0: none */
  bool fail_rest;      /* all allocations after the failing one fail too */
  atomic_long failed;  /* allocations refused since te_init */
  uint64_t now;        /* ns; starts at 1 s */
  uint64_t wall;       /* ms */
  uint64_t seed;       /* state of te_random64 */
  int logs[4];         /* lines logged, by level */
  char last_log[1024]; /* the last of them */
  bool print_log;      /* copies lines to stderr */
} te;

enum { TE_HEADER = 16 }; /* before each allocation: its size; keeps malloc's alignment */

/* splitmix64 */
static inline uint64_t te_random64(te *t) {
  uint64_t z = (t->seed += UINT64_C(0x9e3779b97f4a7c15));
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

/* a number in [0, n) */
static inline uint64_t te_below(te *t, uint64_t n) {
  return te_random64(t) % n;
}

static inline uint64_t te__now(void *ctx) {
  return ((te *)ctx)->now;
}

static inline uint64_t te__wall(void *ctx) {
  return ((te *)ctx)->wall;
}

static inline void te__random(void *ctx, void *out, size_t n) {
  uint8_t *p = out;
  for (size_t i = 0; i < n; i++) p[i] = (uint8_t)te_random64(ctx);
}

/* true when this allocation, adding `grow` bytes, is to fail */
static inline bool te__refuse(te *t, size_t grow) {
  atomic_fetch_add(&t->allocs, 1);
  size_t limit = atomic_load(&t->limit);
  bool fail = limit && atomic_load(&t->bytes) + grow > limit;
  long left = atomic_load(&t->fail_in);
  if (left > 0) {
    left = atomic_fetch_sub(&t->fail_in, 1) - 1;
    if (left == 0) {
      fail = true;
      atomic_store(&t->fail_in, -1);
    }
  } else if (left < 0 && t->fail_rest) {
    fail = true;
  }
  if (fail) atomic_fetch_add(&t->failed, 1);
  return fail;
}

static inline void te__free(te *t, void *p) {
  if (!p) return;
  char *base = (char *)p - TE_HEADER;
  size_t n;
  memcpy(&n, base, sizeof n);
  memset(p, 0xdd, n); /* whoever reads freed memory reads nonsense, without ASan too */
  atomic_fetch_sub(&t->bytes, n);
  atomic_fetch_sub(&t->live, 1);
  free(base);
}

static inline void *te__realloc(void *ctx, void *p, size_t n) {
  te *t = ctx;
  if (n == 0) {
    te__free(t, p);
    return NULL;
  }
  size_t old = 0;
  if (p) memcpy(&old, (char *)p - TE_HEADER, sizeof old);
  if (te__refuse(t, n > old ? n - old : 0) || n > SIZE_MAX - TE_HEADER) return NULL;
  char *base = malloc(n + TE_HEADER);
  if (!base) return NULL;
  memcpy(base, &n, sizeof n);
  memset(base + TE_HEADER, 0xcd, n);
  if (p) memcpy(base + TE_HEADER, p, old < n ? old : n);
  atomic_fetch_add(&t->live, 1);
  te__free(t, p);
  size_t now = atomic_fetch_add(&t->bytes, n) + n;
  if (now > atomic_load(&t->peak)) atomic_store(&t->peak, now);
  return base + TE_HEADER;
}

static inline void te__log(void *ctx, int level, const char *line) {
  te *t = ctx;
  if (level >= 0 && level < 4) t->logs[level]++;
  snprintf(t->last_log, sizeof t->last_log, "%s", line);
  if (t->print_log) fprintf(stderr, "[%d] %s\n", level, line);
}

static inline void te_init(te *t, uint64_t seed) {
  memset(t, 0, sizeof *t);
  t->env = (ph_env){.ctx = t,
                    .now = te__now,
                    .wall = te__wall,
                    .random = te__random,
                    .realloc = te__realloc,
                    .log = te__log,
                    .log_level = PH_LOG_DEBUG};
  t->now = UINT64_C(1000000000);
  t->wall = UINT64_C(1700000000000);
  t->seed = seed;
}

/* the n-th allocation from now fails (1: the next); 0 disarms */
static inline void te_fail_in(te *t, long n) {
  atomic_store(&t->fail_in, n);
}

/* true when the failure armed by te_fail_in has happened */
static inline bool te_tripped(te *t) {
  return atomic_load(&t->fail_in) < 0;
}

#define TE_END(t) assert_int_equal(atomic_load(&(t)->live), 0)

#endif
