/* Memory of whole runtimes for tests: the n-th allocation (te_fail_in) of all that phub's core and
 * libuv allocate fails. Include it in one file of a program. */
#ifndef PH_TEST_OOMENV_H
#define PH_TEST_OOMENV_H

#include <sys/random.h>
#include <uv.h>

#include "net/test/netenv.h"

static te mem;

static uint64_t env_wall(void *ctx) {
  struct timespec ts;
  (void)ctx;
  clock_gettime(CLOCK_REALTIME, &ts);
  return (uint64_t)ts.tv_sec * 1000u + (uint64_t)ts.tv_nsec / 1000000u;
}

static void env_random(void *ctx, void *out, size_t n) {
  (void)ctx;
  if (getrandom(out, n, 0) != (ssize_t)n) abort();
}

static void env_log(void *ctx, int level, const char *line) {
  (void)ctx, (void)level, (void)line;
}

/* these two stand for base/env_real.c, which is not linked */
void ph_env_real(ph_env *out) {
  *out = (ph_env){.ctx = &mem,
                  .now = ne_now,
                  .wall = env_wall,
                  .random = env_random,
                  .realloc = te__realloc,
                  .log = env_log,
                  .log_level = PH_LOG_DEBUG};
}

void ph_env_trim(void) {}

static void *uv_malloc(size_t n) {
  return te__realloc(&mem, NULL, n);
}

static void *uv_calloc(size_t count, size_t n) {
  void *p = te__realloc(&mem, NULL, count * n);
  if (p) memset(p, 0, count * n);
  return p;
}

/* libuv ends the process when its table of descriptors cannot grow (core/net/tcp/tcp.c asks for the
 * room before), and only that table is reallocated: it never fails here. */
static void *uv_realloc(void *p, size_t n) {
  long armed = atomic_exchange(&mem.fail_in, 0);
  void *q = te__realloc(&mem, p, n);
  long none = 0;
  atomic_compare_exchange_strong(&mem.fail_in, &none, armed);
  return q;
}

static void uv_free(void *p) {
  te__free(&mem, p);
}

/* before anything else of libuv's */
static int oom_init(void) {
  te_init(&mem, 1);
  return uv_replace_allocator(uv_malloc, uv_realloc, uv_calloc, uv_free);
}

#endif
