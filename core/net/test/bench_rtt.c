/* Round trips of 64 bytes between two processes, a second: through ph_loop_poll and over raw
 * blocking sockets, with the processes pinned to different cores and to one.
 *
 *   bench_rtt [seconds for each, default 1] */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/tcp/loop.h"

enum { SIZE = 64 };

static double seconds = 1;

static void check(bool ok, const char *what) {
  if (ok) return;
  perror(what);
  exit(1);
}

static void pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  check(sched_setaffinity(0, sizeof set, &set) == 0, "sched_setaffinity");
}

/* ---- through the loop ---- */

typedef struct peer {
  ph_env env;
  ph_loop *loop;
  ph_transport *t;
  ph_conn *c;
  bool server, ready; /* ready: something for the interpreter to do */
  size_t got;
  long trips;
} peer;

static const char message[SIZE] = "ping";

static void *on_accept(void *ctx, ph_conn *c) {
  peer *p = ctx;
  p->c = c;
  return p;
}

static void on_dialled(void *ctx, ph_conn *c, void *user, int err) {
  peer *p = user;
  (void)ctx;
  check(err == 0, "dial");
  p->c = c;
  p->ready = true;
}

static void on_data(void *ctx, ph_conn *c, void *user, const uint8_t *bytes, size_t n) {
  peer *p = user;
  (void)ctx;
  (void)c;
  (void)bytes;
  p->got += n;
  if (p->got >= SIZE) p->ready = true;
}

static void on_close(void *ctx, ph_conn *c, void *user, int reason) {
  (void)ctx;
  (void)c;
  (void)user;
  (void)reason;
  exit(0);
}

static void on_drain(void *ctx, ph_conn *c, void *user) {
  (void)ctx;
  (void)c;
  (void)user;
}

static uint64_t next_due(void *ctx) {
  (void)ctx;
  return PH_NEVER;
}

static bool work(void *ctx) {
  return ((peer *)ctx)->ready;
}

static void peer_init(peer *p, bool server) {
  memset(p, 0, sizeof *p);
  ph_env_real(&p->env);
  p->server = server;
  p->loop = ph_loop_new(&p->env);
  check(p->loop != NULL, "ph_loop_new");
  p->t = ph_loop_tcp(p->loop);
  p->t->ev = (ph_transport_events){p, on_accept, on_dialled, on_data, on_close, on_drain};
  ph_loop_hooks_set(p->loop, &(ph_loop_hooks){.ctx = p, .next_due = next_due, .work = work});
  check(ph_loop_standby(p->loop) == 0, "ph_loop_standby");
}

static void answer(peer *p) {
  p->ready = false;
  if (!p->c) return;
  ph_loop_lock(p->loop);
  int err = p->t->ops->write(p->t, p->c, message, SIZE);
  ph_loop_unlock(p->loop);
  check(err == 0, "write");
  p->got = 0;
  p->trips++;
}

static void serve(int core, int out) {
  peer p;
  char bound[64];
  pin(core);
  peer_init(&p, true);
  check(p.t->ops->listen(p.t, "127.0.0.1:0", bound, sizeof bound) == 0, "listen");
  check(write(out, bound, sizeof bound) == sizeof bound, "write");
  for (;;) {
    ph_loop_poll(p.loop, PH_NEVER);
    if (p.ready) answer(&p);
  }
}

static double through_loop(int core_a, int core_b) {
  int fds[2];
  char bound[64];
  check(pipe(fds) == 0, "pipe");
  pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    serve(core_b, fds[1]);
  }
  check(read(fds[0], bound, sizeof bound) == sizeof bound, "read");
  close(fds[0]);
  close(fds[1]);
  pin(core_a);
  peer p;
  peer_init(&p, false);
  check(p.t->ops->dial(p.t, bound, 1000, &p, &p.c) == 0, "dial");
  uint64_t start = 0, end = PH_NEVER;
  while (ph_now(&p.env) < end) {
    ph_loop_poll(p.loop, end);
    if (!p.ready) continue;
    if (!start) {
      start = ph_now(&p.env);
      end = start + (uint64_t)(seconds * 1e9);
    }
    answer(&p);
  }
  double rate = (double)p.trips * 1e9 / (double)(ph_now(&p.env) - start);
  ph_loop_free(p.loop);
  waitpid(pid, NULL, 0);
  return rate;
}

/* ---- raw ---- */

static void whole(int fd, char *buf) {
  for (size_t n = 0; n < SIZE;) {
    ssize_t rc = read(fd, buf + n, SIZE - n);
    if (rc <= 0) exit(0);
    n += (size_t)rc;
  }
}

static double raw(int core_a, int core_b) {
  int one = 1, l = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof sa;
  char buf[SIZE];
  check(bind(l, (struct sockaddr *)&sa, sizeof sa) == 0 && listen(l, 1) == 0, "listen");
  getsockname(l, (struct sockaddr *)&sa, &len);
  pid_t pid = fork();
  if (pid == 0) {
    pin(core_b);
    int c = accept(l, NULL, NULL);
    setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    for (;;) {
      whole(c, buf);
      if (write(c, buf, SIZE) != SIZE) exit(0);
    }
  }
  close(l);
  pin(core_a);
  int c = socket(AF_INET, SOCK_STREAM, 0);
  check(connect(c, (struct sockaddr *)&sa, sizeof sa) == 0, "connect");
  setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  ph_env env;
  ph_env_real(&env);
  uint64_t start = ph_now(&env), end = start + (uint64_t)(seconds * 1e9);
  long trips = 0;
  memset(buf, 'x', sizeof buf);
  while (ph_now(&env) < end) {
    check(write(c, buf, SIZE) == SIZE, "write");
    whole(c, buf);
    trips++;
  }
  double rate = (double)trips * 1e9 / (double)(ph_now(&env) - start);
  close(c);
  waitpid(pid, NULL, 0);
  return rate;
}

int main(int argc, char **argv) {
  if (argc > 1) seconds = atof(argv[1]);
  if (sysconf(_SC_NPROCESSORS_ONLN) > 1) {
    double a = through_loop(0, 1), b = raw(0, 1);
    printf("different cores: loop %.0f/s, raw %.0f/s\n", a, b);
    fflush(stdout); /* what follows forks */
  }
  double a = through_loop(0, 0), b = raw(0, 0);
  printf("one core: loop %.0f/s, raw %.0f/s (%.2f)\n", a, b, a / b);
  return 0;
}
