/* Memory of whole runtimes for tests: the n-th allocation (te_fail_in) of all that phub's core and
 * libuv allocate fails. Include it in one file of a program. */
#ifndef PH_TEST_OOMENV_H
#define PH_TEST_OOMENV_H

#include <sys/random.h>

#include "net/test/uvmem.h"

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

/* before anything else of libuv's */
static int oom_init(void) {
  return uvm_init(&mem);
}

#endif
