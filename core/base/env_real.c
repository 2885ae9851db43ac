/* The environment of a real process. Its only state is the memory of recent log lines, shared by
 * all environments of the process because they share stderr. */
#include <errno.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/env.h"

enum { RECENT = 8, LINE_SIZE = 1024 };

static const char *const level_names[] = {"error", "warn", "info", "debug"};

/* A line written less than a second ago; the same line is counted instead of written again. */
typedef struct recent {
  uint64_t since; /* when it was written; 0: free */
  unsigned repeats;
  int level;
  char line[LINE_SIZE];
} recent;

static struct {
  pthread_mutex_t mutex;
  recent lines[RECENT];
} limiter = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static uint64_t real_now(void *ctx) {
  (void)ctx;
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t real_wall(void *ctx) {
  (void)ctx;
  struct timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  return (uint64_t)ts.tv_sec * 1000u + (uint64_t)ts.tv_nsec / 1000000u;
}

static void real_random(void *ctx, void *out, size_t n) {
  (void)ctx;
  for (char *p = out; n;) {
    ssize_t got = getrandom(p, n, 0);
    if (got < 0) {
      if (errno == EINTR) continue;
      abort(); /* nonces and seeds must never be guessable: there is nothing to go on with */
    }
    p += got;
    n -= (size_t)got;
  }
}

static void *real_realloc(void *ctx, void *p, size_t n) {
  (void)ctx;
  if (n) return realloc(p, n);
  free(p);
  return NULL;
}

/* A closed stderr must not end the process: SIGPIPE is blocked around the write, and one that the
 * write raised is taken back. */
static void write_quietly(const char *p, size_t n) {
  sigset_t pipe_set, before, pending;
  sigemptyset(&pipe_set);
  sigaddset(&pipe_set, SIGPIPE);
  sigpending(&pending);
  bool was_pending = sigismember(&pending, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe_set, &before);
  ssize_t rc;
  do rc = write(STDERR_FILENO, p, n);
  while (rc < 0 && errno == EINTR);
  if (rc < 0 && errno == EPIPE && !was_pending) {
    struct timespec zero = {0, 0};
    while (sigtimedwait(&pipe_set, NULL, &zero) < 0 && errno == EINTR) {
    }
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void write_line(int level, const char *line, unsigned repeats) {
  char out[LINE_SIZE + 128], stamp[32], times[48] = "";
  struct timespec ts;
  struct tm tm;
  clock_gettime(CLOCK_REALTIME, &ts);
  gmtime_r(&ts.tv_sec, &tm);
  strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &tm);
  if (repeats) snprintf(times, sizeof times, " (repeated %u times)", repeats);
  int n = snprintf(out, sizeof out, "%s.%03ldZ phub %s: %.*s%s\n", stamp, ts.tv_nsec / 1000000,
                   level_names[level], LINE_SIZE - 1, line, times);
  if (n > 0) write_quietly(out, (size_t)n < sizeof out ? (size_t)n : sizeof out - 1);
}

static void forget(recent *r) {
  if (r->repeats) write_line(r->level, r->line, r->repeats);
  r->since = 0;
  r->repeats = 0;
}

static void real_log(void *ctx, int level, const char *line) {
  if (level < 0 || level > PH_LOG_DEBUG) level = PH_LOG_ERROR;
  int saved = errno;
  pthread_mutex_lock(&limiter.mutex);
  uint64_t now = real_now(ctx);
  recent *oldest = &limiter.lines[0], *same = NULL;
  for (int i = 0; i < RECENT; i++) {
    recent *r = &limiter.lines[i];
    if (r->since && now - r->since >= PH_MS(1000)) forget(r);
    if (r->since && r->level == level && strncmp(r->line, line, LINE_SIZE - 1) == 0) same = r;
    if (r->since < oldest->since) oldest = r;
  }
  if (same) {
    same->repeats++;
  } else {
    forget(oldest);
    oldest->since = now;
    oldest->level = level;
    snprintf(oldest->line, sizeof oldest->line, "%s", line);
    write_line(level, line, 0);
  }
  pthread_mutex_unlock(&limiter.mutex);
  errno = saved;
}

void ph_env_trim(void) {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

static int level_from_environment(void) {
  const char *s = getenv("PHUB_LOG");
  for (int i = 0; s && i <= PH_LOG_DEBUG; i++)
    if (strcmp(s, level_names[i]) == 0) return i;
  return PH_LOG_WARN;
}

void ph_env_real(ph_env *out) {
  *out = (ph_env){.ctx = NULL,
                  .now = real_now,
                  .wall = real_wall,
                  .random = real_random,
                  .realloc = real_realloc,
                  .log = real_log,
                  .log_level = level_from_environment()};
}
