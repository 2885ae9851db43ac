/* Host names, each resolved on a thread of its own.
 *
 * Not by uv_getaddrinfo: libuv's pool is the process's, its threads stay, and libuv joins them when
 * the process exits, so a name server that does not answer would hold the exit for many seconds.
 * A thread here can be left behind: what it needs is its own (from libc, not from the loop's
 * allocator), and it frees that itself when it finds that nobody waits any more. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "net/tcp/tcp_int.h"

enum { MAX_THREADS = 8, STACK_SIZE = 512 * 1024 };

struct ph__job {
  ph_list link; /* tcp.jobs */
  ph_conn *c;   /* NULL: nobody waits */
  bool started;
  pthread_t thread;
  pthread_mutex_t mutex; /* guards what follows */
  uv_async_t *async;     /* to tell the loop, NULL: the loop is gone, the thread frees the job */
  bool done;
  struct addrinfo *list;
  int err;
  char host[PH__HOST_SIZE], port[PH__PORT_SIZE];
};

static void job_free(ph__job *j) {
  if (j->list) freeaddrinfo(j->list);
  pthread_mutex_destroy(&j->mutex);
  free(j);
}

static void *resolve_main(void *arg) {
  ph__job *j = arg;
  struct addrinfo *list = NULL;
  int err = ph__addr_find(j->host, j->port, 0, &list);
  pthread_mutex_lock(&j->mutex);
  j->list = list;
  j->err = err;
  j->done = true;
  bool left_behind = !j->async;
  if (j->async) uv_async_send(j->async);
  pthread_mutex_unlock(&j->mutex);
  if (left_behind) job_free(j);
  return NULL;
}

static int start_thread(ph__job *j) {
  pthread_attr_t attr;
  sigset_t all, before;
  if (pthread_attr_init(&attr) != 0) return PH_ENOMEM;
  pthread_attr_setstacksize(&attr, STACK_SIZE);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int err = pthread_create(&j->thread, &attr, resolve_main, j);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attr);
  if (err != 0) return PH_ENOMEM;
  j->started = true;
  return 0;
}

/* starts those that wait, as far as the limit allows */
static void start_waiting(ph__tcp *t) {
  for (ph_list *l = t->jobs.next; l != &t->jobs && t->resolving < MAX_THREADS; l = l->next) {
    ph__job *j = PH_CONTAINER(l, ph__job, link);
    if (j->started || j->done) continue;
    if (start_thread(j) == 0) {
      t->resolving++;
    } else {
      j->err = PH_ENOMEM;
      j->done = true;
      uv_async_send(&t->loop->async);
    }
  }
}

int ph__resolve(ph__tcp *t, ph_conn *c, const char *host, const char *port, ph__job **out) {
  ph__job *j = calloc(1, sizeof *j);
  if (!j) return PH_ENOMEM;
  if (pthread_mutex_init(&j->mutex, NULL) != 0) {
    free(j);
    return PH_ENOMEM;
  }
  j->c = c;
  j->async = &t->loop->async;
  memcpy(j->host, host, strlen(host) + 1);
  memcpy(j->port, port, strlen(port) + 1);
  ph_list_push(&t->jobs, &j->link);
  start_waiting(t);
  *out = j;
  return 0;
}

void ph__resolve_forget(ph__job *j) {
  j->c = NULL;
  if (j->started) return;
  ph_list_remove(&j->link);
  job_free(j);
}

static bool is_done(ph__job *j) {
  pthread_mutex_lock(&j->mutex);
  bool done = j->done;
  pthread_mutex_unlock(&j->mutex);
  return done;
}

static ph__job *take_done(ph__tcp *t) {
  for (ph_list *l = t->jobs.next; l != &t->jobs; l = l->next) {
    ph__job *j = PH_CONTAINER(l, ph__job, link);
    if (!is_done(j)) continue;
    ph_list_remove(&j->link);
    return j;
  }
  return NULL;
}

void ph__resolve_collect(ph__tcp *t) {
  for (ph__job *j; (j = take_done(t));) {
    if (j->started) {
      pthread_join(j->thread, NULL);
      t->resolving--;
    }
    struct addrinfo *list = j->list;
    ph_conn *c = j->c;
    int err = j->err;
    j->list = NULL;
    job_free(j);
    if (c)
      ph__dial_resolved(c, list, err);
    else if (list)
      freeaddrinfo(list);
  }
  start_waiting(t);
}

void ph__resolve_shut(ph__tcp *t) {
  for (ph_list *l; (l = ph_list_pop(&t->jobs));) {
    ph__job *j = PH_CONTAINER(l, ph__job, link);
    pthread_mutex_lock(&j->mutex);
    bool leave = j->started && !j->done;
    if (leave) {
      j->async = NULL;
      pthread_detach(j->thread);
    }
    pthread_mutex_unlock(&j->mutex);
    if (leave) continue;
    if (j->started) pthread_join(j->thread, NULL);
    job_free(j);
  }
}
