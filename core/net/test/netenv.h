/* Shared by the tests of net/tcp: testenv's counting allocator with the real clock, and counts of
 * what a process holds. */
#ifndef PH_NET_TEST_NETENV_H
#define PH_NET_TEST_NETENV_H

#include <dirent.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/test/testenv.h"

static inline uint64_t ne_now(void *ctx) {
  struct timespec ts;
  (void)ctx;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline void ne_init(te *t) {
  te_init(t, 1);
  t->env.now = ne_now;
}

/* how much slower than usual this runs, by what runs it: under valgrind, say */
static inline int ne_slower(void) {
  const char *s = getenv("SPEC_SLOWER");
  int n = s ? atoi(s) : 1;
  return n > 0 ? n : 1;
}

/* entries of a directory: /proc/self/fd, /proc/self/task */
static inline int ne_count(const char *path) {
  DIR *d = opendir(path);
  int n = 0;
  if (!d) return -1;
  while (readdir(d)) n++;
  closedir(d);
  return n;
}

static inline void *ne_nothing(void *arg) {
  return arg;
}

/* A sanitizer starts a thread of its own with the first one: this is before tests count them. */
static inline int ne_warm_up(void) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, ne_nothing, NULL) != 0) return -1;
  return pthread_join(thread, NULL);
}

#endif
