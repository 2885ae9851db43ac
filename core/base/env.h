/* The world as the deterministic core sees it: time, chance, memory and log, as function pointers.
 *
 * wire, cluster, proc and hub take all of these from a ph_env and from nowhere else, so one OS
 * process can hold many nodes under simulated time. Two machines (cluster on one side, proc and
 * hub on the other) may run on different threads: each gets a ph_env of its own. */
#ifndef PH_BASE_ENV_H
#define PH_BASE_ENV_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { PH_LOG_ERROR = 0, PH_LOG_WARN = 1, PH_LOG_INFO = 2, PH_LOG_DEBUG = 3 };

typedef struct ph_env {
  void *ctx;
  uint64_t (*now)(void *ctx);                          /* monotonic clock, ns */
  uint64_t (*wall)(void *ctx);                         /* wall clock, ms since 1970 */
  void (*random)(void *ctx, void *out, size_t n);      /* fills with random bytes */
  void *(*realloc)(void *ctx, void *p, size_t n);      /* n == 0 frees; NULL: out of memory */
  void (*log)(void *ctx, int level, const char *line); /* one line, no newline */
  int log_level;                                       /* lines above it are not formatted */
} ph_env;

#define PH_MS(n) ((uint64_t)(n)*1000000u) /* milliseconds to ns */
#define PH_NEVER UINT64_MAX               /* a due time that never comes */

static inline uint64_t ph_now(const ph_env *e) {
  return e->now(e->ctx);
}
static inline uint64_t ph_wall(const ph_env *e) {
  return e->wall(e->ctx);
}
/* due time `ms` from now, saturating */
uint64_t ph_due(const ph_env *e, uint64_t ms);
uint64_t ph_random64(const ph_env *e);

/* Memory: NULL when out of memory. ph_free(NULL) is allowed. ph_zalloc clears. */
void *ph_alloc(const ph_env *e, size_t n) __attribute__((malloc));
void *ph_zalloc(const ph_env *e, size_t n) __attribute__((malloc));
void *ph_realloc(const ph_env *e, void *p, size_t n);
void ph_free(const ph_env *e, void *p);
char *ph_strndup(const ph_env *e, const char *s, size_t n); /* adds a NUL */

/* printf-style line of at most 1 KiB; dropped when level > e->log_level. */
void ph_logf(const ph_env *e, int level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The environment of a real process: CLOCK_MONOTONIC, getrandom, malloc, stderr with PHUB_LOG
 * (error|warn|info|debug, default warn), repeated lines limited. Thread-safe. */
void ph_env_real(ph_env *out);
/* Gives back to the system what the real process's allocator keeps of memory that was freed. */
void ph_env_trim(void);

#endif
