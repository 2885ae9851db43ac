/* The TCP transport over loopback, one loop being both sides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "net/tcp/tcp_int.h"
#include "net/test/netenv.h"

/* The resolver of these tests: "missing.test" is not known, "slow.test" keeps its caller waiting
 * until the test lets go, as a name server does that cannot be reached; the rest is libc's. */
static atomic_bool slow_released;
static atomic_int slow_callers;

__attribute__((visibility("default"))) int getaddrinfo(const char *host, const char *port,
                                                       const struct addrinfo *hints,
                                                       struct addrinfo **out) {
  int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
  *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
  size_t n = strlen(host);
  if (n < 5 || strcmp(host + n - 5, ".test") != 0 || (hints->ai_flags & AI_NUMERICHOST))
    return real(host, port, hints, out);
  if (strcmp(host, "slow.test") != 0) return EAI_NONAME;
  atomic_fetch_add(&slow_callers, 1);
  while (!atomic_load(&slow_released)) usleep(1000);
  atomic_fetch_sub(&slow_callers, 1);
  return EAI_AGAIN;
}

/* what one end has seen */
typedef struct side {
  ph_conn *c;
  int opened, err, closed, reason, drained, accepted;
  bool echo, discard_on_accept, close_on_data;
  size_t received;
  uint64_t sum;
  char head[64];
} side;

typedef struct world {
  te t;
  ph_loop *loop;
  ph_transport *tr;
  side dialer, server;
  char bound[64];
} world;

static world w; /* one test at a time */
static char run_dir[64];

static void *on_accept(void *ctx, ph_conn *c) {
  (void)ctx;
  w.server.accepted++;
  if (w.server.discard_on_accept) return NULL;
  w.server.c = c;
  return &w.server;
}

static void on_dialled(void *ctx, ph_conn *c, void *user, int err) {
  side *s = user;
  (void)ctx;
  s->opened++;
  s->err = err;
  s->c = err ? NULL : c;
  if (err) w.tr->ops->close(w.tr, c, 1); /* allowed, and does nothing */
}

static void on_data(void *ctx, ph_conn *c, void *user, const uint8_t *p, size_t n) {
  side *s = user;
  (void)ctx;
  for (size_t i = 0; i < n; i++) {
    if (s->received + i < sizeof s->head) s->head[s->received + i] = (char)p[i];
    s->sum = s->sum * 31 + p[i];
  }
  s->received += n;
  if (s->echo) assert_int_equal(w.tr->ops->write(w.tr, c, p, n), 0);
  if (s->close_on_data) {
    w.tr->ops->close(w.tr, c, 0);
    s->c = NULL;
  }
}

static void on_close(void *ctx, ph_conn *c, void *user, int reason) {
  side *s = user;
  (void)ctx;
  s->closed++;
  s->reason = reason;
  s->c = NULL;
  assert_int_equal(w.tr->ops->write(w.tr, c, "x", 1), PH_ECLOSED);
  w.tr->ops->close(w.tr, c, 0); /* allowed, and does nothing */
}

static void on_drain(void *ctx, ph_conn *c, void *user) {
  (void)ctx;
  (void)c;
  ((side *)user)->drained++;
}

static void begin(bool listening) {
  memset(&w, 0, sizeof w);
  ne_init(&w.t);
  w.loop = ph_loop_new(&w.t.env);
  assert_non_null(w.loop);
  w.tr = ph_loop_tcp(w.loop);
  w.tr->ev = (ph_transport_events){.on_accept = on_accept,
                                   .on_dialled = on_dialled,
                                   .on_data = on_data,
                                   .on_close = on_close,
                                   .on_drain = on_drain};
  if (listening)
    assert_int_equal(w.tr->ops->listen(w.tr, "127.0.0.1:0", w.bound, sizeof w.bound), 0);
}

static void end(void) {
  ph_loop_free(w.loop);
  TE_END(&w.t);
}

#define UNTIL(cond)                                                                                \
  do {                                                                                             \
    uint64_t limit_ = ne_now(NULL) + PH_MS(10000);                                                 \
    while (!(cond) && ne_now(NULL) < limit_) ph_loop_poll(w.loop, ne_now(NULL) + PH_MS(5));        \
    assert_true(cond);                                                                             \
  } while (0)

static void spin_for(uint64_t ms) {
  uint64_t until = ne_now(NULL) + PH_MS(ms);
  while (ne_now(NULL) < until) ph_loop_poll(w.loop, until);
}

static int dial_err(const char *target, uint64_t timeout_ms) {
  memset(&w.dialer, 0, sizeof w.dialer);
  int err = w.tr->ops->dial(w.tr, target, timeout_ms, &w.dialer, &w.dialer.c);
  if (err < 0) return err;
  assert_int_equal(w.dialer.opened, 0);
  UNTIL(w.dialer.opened);
  assert_int_equal(w.dialer.opened, 1);
  return w.dialer.err;
}

static void open_pair(void) {
  int before = w.server.accepted;
  assert_int_equal(dial_err(w.bound, 2000), 0);
  UNTIL(w.server.accepted > before);
}

static void put(side *s, const void *p, size_t n) {
  assert_int_equal(w.tr->ops->write(w.tr, s->c, p, n), 0);
}

static void echoes(void **state) {
  (void)state;
  begin(true);
  assert_true(strncmp(w.bound, "127.0.0.1:", 10) == 0 && strcmp(w.bound, "127.0.0.1:0") != 0);
  char again[64];
  assert_int_equal(w.tr->ops->listen(w.tr, "127.0.0.1:0", again, sizeof again), PH_EINVAL);
  open_pair();
  w.server.echo = true;
  put(&w.dialer, "hello", 5);
  UNTIL(w.dialer.received == 5);
  assert_memory_equal(w.dialer.head, "hello", 5);
  w.tr->ops->close(w.tr, w.dialer.c, 0);
  UNTIL(w.server.closed);
  assert_int_equal(w.server.reason, PH_ECLOSED);
  assert_int_equal(w.dialer.closed, 0);
  end();
}

static void listens_on_ipv6(void **state) {
  (void)state;
  begin(false);
  if (w.tr->ops->listen(w.tr, "[::1]:0", w.bound, sizeof w.bound) == 0) {
    assert_memory_equal(w.bound, "[::1]:", 6);
    open_pair();
    w.server.echo = true;
    put(&w.dialer, "six", 3);
    UNTIL(w.dialer.received == 3);
  } else {
    print_message("no IPv6 here\n");
  }
  end();
}

static void moves_100_megabytes_with_backpressure(void **state) {
  (void)state;
  enum { CHUNK = 1 << 20, CHUNKS = 100, MARK = 4 << 20 };
  begin(true);
  open_pair();
  char *chunk = malloc(CHUNK);
  assert_non_null(chunk);
  uint64_t sum = 0;
  size_t most = 0;
  int sent = 0, held = 0;
  while (sent < CHUNKS) {
    size_t queued = w.tr->ops->queued(w.tr, w.dialer.c);
    if (queued > most) most = queued;
    if (queued < MARK) {
      for (int i = 0; i < CHUNK; i++) chunk[i] = (char)te_random64(&w.t);
      for (int i = 0; i < CHUNK; i++) sum = sum * 31 + (uint8_t)chunk[i];
      put(&w.dialer, chunk, CHUNK);
      sent++;
    } else {
      held++;
      int before = w.dialer.drained;
      UNTIL(w.dialer.drained > before);
      assert_int_equal(w.tr->ops->queued(w.tr, w.dialer.c), 0);
    }
  }
  UNTIL(w.server.received == (size_t)CHUNK * CHUNKS);
  free(chunk);
  assert_true(w.server.sum == sum);
  assert_true(held > 0); /* else this has shown nothing about queues */
  assert_in_range(most, MARK, MARK + CHUNK);
  assert_true(atomic_load(&w.t.peak) < 4u * MARK);
  UNTIL(w.tr->ops->queued(w.tr, w.dialer.c) == 0);
  assert_true(atomic_load(&w.t.bytes) < 1u << 20); /* the burst's memory is given back */
  end();
}

static void refused_and_bad_targets(void **state) {
  (void)state;
  begin(false);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof sa;
  assert_int_equal(bind(fd, (struct sockaddr *)&sa, n), 0);
  assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &n), 0);
  char target[64];
  snprintf(target, sizeof target, "127.0.0.1:%d", ntohs(sa.sin_port)); /* bound, not listening */
  assert_int_equal(dial_err(target, 2000), PH_EREFUSED);
  close(fd);
  const char *bad[] = {"",      "host",  "host:",  "host:x",           "host:65536", ":1",
                       "a:b:1", "[::1]", "[::1:1", "127.0.0.1:000001", "host:-1"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(dial_err(bad[i], 100), PH_EINVAL);
  assert_int_equal(w.tr->ops->listen(w.tr, "203.0.113.1:0", w.bound, sizeof w.bound),
                   PH_EUNREACHABLE);
  end();
}

static void never_connects_to_itself(void **state) {
  (void)state;
  begin(false);
  /* a socket bound to a port and connected to that very port: what chance would do in the end */
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof sa;
  assert_int_equal(bind(fd, (struct sockaddr *)&sa, n), 0);
  assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &n), 0);
  assert_int_equal(connect(fd, (struct sockaddr *)&sa, n), 0);
  ph__tcp *t = PH_CONTAINER(w.tr, ph__tcp, t);
  ph_conn *c = ph__conn_new(t, CONN_CONNECTING, &w.dialer);
  c->dial = ph_zalloc(&w.t.env, sizeof *c->dial);
  assert_int_equal(ph__conn_attach(c, fd, UV_WRITABLE), 0);
  UNTIL(w.dialer.opened);
  assert_int_equal(w.dialer.err, PH_EREFUSED);
  end();
}

static void dials_host_names_off_this_thread(void **state) {
  (void)state;
  int tasks = ne_count("/proc/self/task");
  begin(true);
  char target[64];
  snprintf(target, sizeof target, "localhost%s", strchr(w.bound, ':'));
  assert_int_equal(dial_err(target, 5000), 0);
  UNTIL(w.server.accepted == 1);
  /* many at once wait for a thread; one given up is not heard of again */
  side many[20];
  memset(many, 0, sizeof many);
  for (int i = 0; i < 20; i++)
    assert_int_equal(w.tr->ops->dial(w.tr, target, 5000, &many[i], &many[i].c), 0);
  assert_int_equal(w.tr->ops->write(w.tr, many[0].c, "x", 1), PH_ENOCONN);
  w.tr->ops->close(w.tr, many[0].c, 0);
  w.tr->ops->close(w.tr, many[19].c, 0);
  for (int i = 1; i < 19; i++) {
    UNTIL(many[i].opened);
    assert_int_equal(many[i].err, 0);
  }
  assert_int_equal(many[0].opened + many[19].opened, 0);
  assert_int_equal(dial_err("missing.test:80", 3000), PH_ENOTFOUND);
  end();
  assert_int_equal(ne_count("/proc/self/task"), tasks);
}

static void a_silent_name_server_holds_nobody_up(void **state) {
  (void)state;
  int tasks = ne_count("/proc/self/task");
  begin(true);
  atomic_store(&slow_released, false);
  assert_int_equal(dial_err("slow.test:80", 50), PH_ETIMEOUT);
  side many[12];
  memset(many, 0, sizeof many);
  for (int i = 0; i < 12; i++)
    assert_int_equal(w.tr->ops->dial(w.tr, "slow.test:80", 60000, &many[i], &many[i].c), 0);
  UNTIL(atomic_load(&slow_callers) == 8); /* as many threads as there may be */
  assert_int_equal(dial_err(w.bound, 1000), 0);
  uint64_t start = ne_now(NULL);
  end();
  assert_true(ne_now(NULL) - start < PH_MS(500));
  atomic_store(&slow_released, true);
  uint64_t limit = ne_now(NULL) + PH_MS(5000);
  while (ne_count("/proc/self/task") != tasks && ne_now(NULL) < limit) usleep(1000);
  assert_int_equal(ne_count("/proc/self/task"), tasks);
}

static void tries_every_address(void **state) {
  (void)state;
  begin(true);
  struct addrinfo *first, *second, *third;
  assert_int_equal(ph__addr_find("127.0.0.1", "1", AI_NUMERICHOST, &first), 0);
  assert_int_equal(ph__addr_find("::1", "1", AI_NUMERICHOST, &second), 0);
  assert_int_equal(ph__addr_find("127.0.0.1", strchr(w.bound, ':') + 1, AI_NUMERICHOST, &third), 0);
  first->ai_next = second;
  second->ai_next = third;
  ph__tcp *t = PH_CONTAINER(w.tr, ph__tcp, t);
  ph_conn *c = ph__conn_new(t, CONN_RESOLVING, &w.dialer);
  c->dial = ph_zalloc(&w.t.env, sizeof *c->dial);
  c->dial->deadline = ph_due(&w.t.env, 2000);
  ph__dial_resolved(c, first, 0);
  UNTIL(w.dialer.opened);
  assert_int_equal(w.dialer.err, 0);
  UNTIL(w.server.accepted == 1);
  end();
}

static void a_dial_nobody_answers_times_out(void **state) {
  (void)state;
  begin(false);
  int fd = socket(AF_INET, SOCK_STREAM, 0), fill[4];
  struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof sa;
  assert_int_equal(bind(fd, (struct sockaddr *)&sa, n), 0);
  assert_int_equal(listen(fd, 0), 0);
  assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &n), 0);
  for (int i = 0; i < 4; i++) { /* the kernel drops what comes to a full queue */
    fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    (void)!connect(fill[i], (struct sockaddr *)&sa, n);
  }
  char target[64];
  snprintf(target, sizeof target, "127.0.0.1:%d", ntohs(sa.sin_port));
  uint64_t start = ne_now(NULL);
  assert_int_equal(dial_err(target, 150), PH_ETIMEOUT);
  assert_in_range((ne_now(NULL) - start) / PH_MS(1), 149, 1000);
  /* one address that is silent makes the whole dial a timeout, though another refuses */
  struct addrinfo *first, *second;
  assert_int_equal(ph__addr_find("127.0.0.1", strchr(target, ':') + 1, AI_NUMERICHOST, &first), 0);
  assert_int_equal(ph__addr_find("127.0.0.1", "1", AI_NUMERICHOST, &second), 0);
  first->ai_next = second;
  memset(&w.dialer, 0, sizeof w.dialer);
  ph_conn *c = ph__conn_new(PH_CONTAINER(w.tr, ph__tcp, t), CONN_RESOLVING, &w.dialer);
  c->dial = ph_zalloc(&w.t.env, sizeof *c->dial);
  c->dial->deadline = ph_due(&w.t.env, 200);
  ph__dial_resolved(c, first, 0);
  UNTIL(w.dialer.opened);
  assert_int_equal(w.dialer.err, PH_ETIMEOUT);
  for (int i = 0; i < 4; i++) close(fill[i]);
  close(fd);
  end();
}

static void flushes_on_close(void **state) {
  (void)state;
  enum { SIZE = 20 << 20 };
  begin(true);
  char *big = calloc(1, SIZE);
  assert_non_null(big);
  for (int round = 0; round < 3; round++) {
    w.server.received = w.server.closed = 0;
    open_pair();
    put(&w.dialer, big, SIZE);
    assert_true(w.tr->ops->queued(w.tr, w.dialer.c) > 0);
    if (round == 1) put(&w.server, "unread by the closer", 20);
    ph_conn *both = round == 2 ? w.server.c : NULL;
    if (both) put(&w.server, big, SIZE);
    w.tr->ops->close(w.tr, w.dialer.c, 1);
    if (both) { /* both sides close at once: each still takes the other's rest */
      w.tr->ops->close(w.tr, both, 1);
      ph__tcp *t = PH_CONTAINER(w.tr, ph__tcp, t);
      UNTIL(ph_list_empty(&t->conns));
    } else {
      UNTIL(w.server.closed);
      assert_int_equal(w.server.received, SIZE);
      assert_int_equal(w.server.reason, PH_ECLOSED);
    }
  }
  assert_int_equal(w.dialer.closed + w.dialer.drained, 0);
  /* ph_loop_free sends what a closed connection has queued; its peer is another process's */
  int l = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof sa;
  assert_int_equal(bind(l, (struct sockaddr *)&sa, n), 0);
  assert_int_equal(listen(l, 1), 0);
  assert_int_equal(getsockname(l, (struct sockaddr *)&sa, &n), 0);
  pid_t pid = fork();
  if (pid == 0) {
    free(big);
    int fd = accept(l, NULL, NULL);
    usleep(50000);
    shutdown(fd, SHUT_WR); /* its end comes before it has taken all: it still reads */
    usleep(50000);
    char buf[65536];
    size_t got = 0;
    for (ssize_t rc; (rc = read(fd, buf, sizeof buf)) > 0;) got += (size_t)rc;
    _exit(got == SIZE ? 0 : 1);
  }
  char target[64];
  snprintf(target, sizeof target, "127.0.0.1:%d", ntohs(sa.sin_port));
  assert_int_equal(dial_err(target, 2000), 0);
  put(&w.dialer, big, SIZE);
  w.tr->ops->close(w.tr, w.dialer.c, 1);
  close(l);
  free(big);
  end();
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(status, 0);
}

static void a_flush_gives_up_after_a_second(void **state) {
  (void)state;
  begin(false);
  int l = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof sa;
  assert_int_equal(bind(l, (struct sockaddr *)&sa, n), 0);
  assert_int_equal(listen(l, 1), 0);
  assert_int_equal(getsockname(l, (struct sockaddr *)&sa, &n), 0);
  char target[64], block[65536] = {0};
  snprintf(target, sizeof target, "127.0.0.1:%d", ntohs(sa.sin_port));
  assert_int_equal(dial_err(target, 2000), 0);
  for (int i = 0; i < 400; i++) put(&w.dialer, block, sizeof block);
  uint64_t start = ne_now(NULL);
  w.tr->ops->close(w.tr, w.dialer.c, 1);
  end();
  assert_in_range((ne_now(NULL) - start) / PH_MS(1), 950, 3000);
  close(l);
}

static void a_reset_peer_raises_no_sigpipe(void **state) {
  (void)state;
  begin(true);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  sa.sin_port = htons((uint16_t)atoi(strchr(w.bound, ':') + 1));
  assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
  UNTIL(w.server.accepted);
  close(fd);   /* an end, not yet seen here; the first write is answered by a reset */
  int err = 0; /* SIGPIPE has its default action: raised, it would end the test */
  for (int i = 0; i < 1000 && err == 0; i++) {
    err = w.tr->ops->write(w.tr, w.server.c, "x", 1);
    usleep(100);
  }
  assert_int_equal(err, PH_ECLOSED);
  assert_int_equal(w.server.closed, 0);
  UNTIL(w.server.closed);
  assert_int_equal(w.server.reason, PH_EIO);
  end();
}

static void closing_and_refusing_inside_callbacks(void **state) {
  (void)state;
  begin(true);
  w.server.discard_on_accept = true;
  open_pair();
  UNTIL(w.dialer.closed);
  assert_int_equal(w.dialer.reason, PH_ECLOSED);
  w.server.discard_on_accept = false;
  w.server.close_on_data = true;
  open_pair();
  put(&w.dialer, "bye", 3);
  UNTIL(w.dialer.closed);
  assert_int_equal(w.server.closed, 0);
  w.tr->ops->unlisten(w.tr);
  assert_int_equal(dial_err(w.bound, 1000), PH_EREFUSED);
  end();
}

static void refuses_at_the_limit_of_files(void **state) {
  (void)state;
  begin(true);
  struct rlimit before, low;
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
  int client[2], held[64], n = 0;
  struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  sa.sin_port = htons((uint16_t)atoi(strchr(w.bound, ':') + 1));
  for (int i = 0; i < 2; i++) client[i] = socket(AF_INET, SOCK_STREAM, 0);
  low = before;
  low.rlim_cur = (rlim_t)client[1] + 8;
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
  while (n < 64 && (held[n] = open("/dev/null", O_RDONLY)) >= 0) n++;
  for (int i = 0; i < 2; i++) {
    assert_int_equal(connect(client[i], (struct sockaddr *)&sa, sizeof sa), 0);
    spin_for(20);
    char byte;
    assert_true(recv(client[i], &byte, 1, MSG_DONTWAIT) <= 0); /* closed, not left waiting */
    assert_true(errno != EAGAIN || recv(client[i], &byte, 1, MSG_DONTWAIT) == 0);
  }
  assert_int_equal(w.server.accepted, 0);
  assert_int_equal(w.t.logs[PH_LOG_ERROR], 1);
  assert_int_equal(dial_err(w.bound, 100), PH_EIO);
  assert_int_equal(w.t.logs[PH_LOG_ERROR], 1);
  while (n > 0) close(held[--n]);
  for (int i = 0; i < 2; i++) close(client[i]);
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
  open_pair();
  assert_int_equal(w.server.accepted, 1);
  end();
}

/* ---- discovery files ---- */

static void path_of(const char *file, char *out, size_t size) {
  snprintf(out, size, "%s/phub/%s", run_dir, file);
}

static void write_file(const char *file, const char *text) {
  char path[256];
  path_of(file, path, sizeof path);
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  fputs(text, f);
  fclose(f);
}

static void read_text(const char *file, char *out, size_t size) {
  char path[256];
  path_of(file, path, sizeof path);
  FILE *f = fopen(path, "r");
  assert_non_null(f);
  out[fread(out, 1, size - 1, f)] = 0;
  fclose(f);
}

static void finds_names_and_ignores_stale_files(void **state) {
  (void)state;
  char path[256], text[1024], dead[1100];
  begin(true);
  assert_int_equal(dial_err("node1@127.0.0.1", 1000), PH_ENOTFOUND);
  assert_int_equal(w.tr->ops->announce(w.tr, "node1@127.0.0.1", w.bound), 0);
  assert_int_equal(dial_err("node1@127.0.0.1", 1000), 0);
  struct stat st;
  snprintf(path, sizeof path, "%s/phub", run_dir);
  assert_int_equal(stat(path, &st), 0);
  assert_int_equal(st.st_mode & 0777, 0700);
  read_text("node1@127.0.0.1", text, sizeof text);

  /* the same pid, but of another process: started at another time */
  long pid;
  unsigned long long start;
  assert_int_equal(sscanf(text, "phub 1\n%ld %llu", &pid, &start), 2);
  assert_int_equal(pid, getpid());
  snprintf(dead, sizeof dead, "phub 1\n%ld %llu\n%s\nold@h\n", pid, start - 1, w.bound);
  write_file("old@h", dead);
  assert_int_equal(dial_err("old@h", 1000), PH_ENOTFOUND);
  /* a process that is gone */
  pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, NULL, 0);
  snprintf(dead, sizeof dead, "phub 1\n%ld %llu\n%s\nold@h\n", (long)child, start, w.bound);
  write_file("old@h", dead);
  assert_int_equal(dial_err("old@h", 1000), PH_ENOTFOUND);
  /* the very same line with the truth in it is believed: the tests above test what they say */
  snprintf(dead, sizeof dead, "phub 1\n%ld %llu\n%s\nold@h\n", pid, start, w.bound);
  write_file("old@h", dead);
  assert_int_equal(dial_err("old@h", 1000), 0);
  /* announcing sweeps what the dead have left, and nothing else */
  snprintf(dead, sizeof dead, "phub 1\n%ld %llu\n%s\ngone@h\n", (long)child, start, w.bound);
  write_file("gone@h", dead);
  snprintf(path, sizeof path, "%s/phub", run_dir);
  assert_int_equal(ne_count(path), 5);
  assert_int_equal(w.tr->ops->announce(w.tr, "node1@127.0.0.1", w.bound), 0);
  assert_int_equal(ne_count(path), 4);
  assert_int_equal(dial_err("old@h", 1000), 0);
  const char *garbage[] = {"", "phub 1\n", "\n\n\n\n", "phub 2\n1 1\nx\nold@h\n", text};
  for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
    write_file("old@h", garbage[i]);
    assert_int_equal(dial_err("old@h", 1000), PH_ENOTFOUND);
  }
  path_of("old@h", path, sizeof path);
  unlink(path);

  /* announcing anew replaces; a file that another process has put in its place is left alone */
  assert_int_equal(w.tr->ops->announce(w.tr, "node2@127.0.0.1", w.bound), 0);
  assert_int_equal(dial_err("node1@127.0.0.1", 1000), PH_ENOTFOUND);
  assert_int_equal(dial_err("node2@127.0.0.1", 1000), 0);
  write_file("node2@127.0.0.1", "phub 1\n1 1\n127.0.0.1:1\nnode2@127.0.0.1\n");
  assert_int_equal(w.tr->ops->announce(w.tr, NULL, NULL), 0); /* sweeps nothing */
  path_of("node2@127.0.0.1", path, sizeof path);
  assert_int_equal(unlink(path), 0);
  assert_int_equal(w.tr->ops->announce(w.tr, "node3@h", w.bound), 0);
  end(); /* removes it */
  snprintf(path, sizeof path, "%s/phub", run_dir);
  assert_int_equal(ne_count(path), 2); /* . and .. */
}

static void keeps_odd_names_inside_its_directory(void **state) {
  (void)state;
  char long_a[256], long_b[256], path[256];
  memset(long_a, 'a', 255);
  long_a[255] = 0;
  memcpy(long_b, long_a, 256);
  long_a[0] = long_b[0] = '@';
  long_b[254] = 'b';
  begin(true);
  const char *names[] = {"../../x@h",    ".hidden@h", "a/b@h", "%2e@h",
                         "\xc3\xa4 b@h", long_a,      long_b};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (names[i] == long_b) assert_int_equal(dial_err(long_b, 1000), PH_ENOTFOUND);
    assert_int_equal(w.tr->ops->announce(w.tr, names[i], w.bound), 0);
    snprintf(path, sizeof path, "%s/phub", run_dir);
    assert_int_equal(ne_count(path), 3);
    assert_int_equal(dial_err(names[i], 1000), 0);
  }
  assert_int_equal(w.tr->ops->announce(w.tr, "a\nb@h", w.bound), PH_EINVAL);
  assert_int_equal(w.tr->ops->announce(w.tr, "", w.bound), PH_EINVAL);
  assert_int_equal(w.tr->ops->announce(w.tr, "a@h", "1 2"), PH_EINVAL);
  end();
}

static void distrusts_a_directory_others_can_use(void **state) {
  (void)state;
  char path[256], other[300];
  begin(true);
  snprintf(path, sizeof path, "%s/phub", run_dir);
  assert_int_equal(w.tr->ops->announce(w.tr, "n@h", w.bound), 0);
  assert_int_equal(chmod(path, 0770), 0);
  assert_int_equal(dial_err("n@h", 1000), PH_ENOTFOUND);
  assert_int_equal(w.tr->ops->announce(w.tr, "n@h", w.bound), PH_EIO);
  assert_int_equal(chmod(path, 0700), 0);
  assert_int_equal(dial_err("n@h", 1000), 0);
  snprintf(other, sizeof other, "%s/other", run_dir);
  assert_int_equal(rename(path, other), 0);
  assert_int_equal(symlink(other, path), 0);
  assert_int_equal(dial_err("n@h", 1000), PH_ENOTFOUND);
  assert_int_equal(w.tr->ops->announce(w.tr, "n@h", w.bound), PH_EIO);
  assert_int_equal(unlink(path), 0);
  assert_int_equal(rename(other, path), 0);
  end();
}

/* ---- memory ---- */

static void out_of_memory(void **state) {
  (void)state;
  int fds = ne_count("/proc/self/fd");
  for (long n = 1;; n++) {
    memset(&w, 0, sizeof w);
    ne_init(&w.t);
    te_fail_in(&w.t, n);
    int err = 0;
    w.loop = ph_loop_new(&w.t.env);
    if (w.loop) {
      w.tr = ph_loop_tcp(w.loop);
      w.tr->ev = (ph_transport_events){NULL, on_accept, on_dialled, on_data, on_close, on_drain};
      err = w.tr->ops->listen(w.tr, "127.0.0.1:0", w.bound, sizeof w.bound);
      if (!err) err = w.tr->ops->announce(w.tr, "oom@h", w.bound);
      if (!err) err = w.tr->ops->dial(w.tr, "oom@h", 1000, &w.dialer, &w.dialer.c);
      if (!err) {
        UNTIL(w.dialer.opened);
        err = w.dialer.err;
      }
      if (!err) {
        static char big[8 << 20];
        UNTIL(w.server.c || w.dialer.closed);
        if (w.dialer.closed)
          err = PH_ENOMEM;
        else
          err = w.tr->ops->write(w.tr, w.dialer.c, big, sizeof big);
        if (!err) UNTIL(w.server.received == sizeof big);
        if (err == PH_ECLOSED) UNTIL(w.dialer.closed && w.server.closed);
      }
    }
    bool tripped = te_tripped(&w.t);
    te_fail_in(&w.t, 0);
    if (tripped) assert_true(!w.loop || err == PH_ENOMEM || err == PH_ECLOSED);
    ph_loop_free(w.loop);
    TE_END(&w.t);
    if (!tripped) break;
  }
  assert_int_equal(ne_count("/proc/self/fd"), fds);
}

static int setup(void **state) {
  (void)state;
  snprintf(run_dir, sizeof run_dir, "/tmp/phub-test-XXXXXX");
  if (!mkdtemp(run_dir)) return -1;
  setenv("XDG_RUNTIME_DIR", run_dir, 1);
  te t; /* libuv keeps two files of its own once it has made a loop */
  ne_init(&t);
  ph_loop_free(ph_loop_new(&t.env));
  return ne_warm_up();
}

static int teardown(void **state) {
  (void)state;
  char path[128];
  snprintf(path, sizeof path, "%s/phub", run_dir);
  rmdir(path);
  return rmdir(run_dir);
}

static int fds_before;

static int count_fds(void **state) {
  (void)state;
  fds_before = ne_count("/proc/self/fd");
  return 0;
}

static int same_fds(void **state) {
  (void)state;
  if (ne_count("/proc/self/fd") == fds_before) return 0;
  print_error("files left open: %d, before %d\n", ne_count("/proc/self/fd"), fds_before);
  return -1;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, count_fds, same_fds)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(echoes),
      TEST(listens_on_ipv6),
      TEST(moves_100_megabytes_with_backpressure),
      TEST(refused_and_bad_targets),
      TEST(never_connects_to_itself),
      TEST(dials_host_names_off_this_thread),
      TEST(a_silent_name_server_holds_nobody_up),
      TEST(tries_every_address),
      TEST(a_dial_nobody_answers_times_out),
      TEST(flushes_on_close),
      TEST(a_flush_gives_up_after_a_second),
      TEST(a_reset_peer_raises_no_sigpipe),
      TEST(closing_and_refusing_inside_callbacks),
      TEST(refuses_at_the_limit_of_files),
      TEST(finds_names_and_ignores_stale_files),
      TEST(keeps_odd_names_inside_its_directory),
      TEST(distrusts_a_directory_others_can_use),
      TEST(out_of_memory),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
