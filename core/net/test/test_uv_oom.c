/* The TCP transport while libuv has no memory: an error or success, no crash, nothing left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/resource.h>

#include "net/test/uvmem.h"

static te uv; /* libuv's memory */

/* the transport's: no such table for it either */
static void *limited(void *ctx, void *p, size_t n) {
  if (uvm_too_much && n >= uvm_too_much) return NULL;
  return te__realloc(ctx, p, n);
}

/* ---- a scenario ---- */

typedef struct side {
  ph_conn *c;
  int opened, err, closed;
  size_t received;
} side;

static struct {
  te t;
  ph_loop *loop;
  ph_transport *tr;
  side dialer, server;
  char bound[64];
} w; /* one at a time */

static void *on_accept(void *ctx, ph_conn *c) {
  (void)ctx;
  w.server.c = c;
  return &w.server;
}

static void on_dialled(void *ctx, ph_conn *c, void *user, int err) {
  side *s = user;
  (void)ctx;
  s->opened++;
  s->err = err;
  s->c = err ? NULL : c;
}

static void on_data(void *ctx, ph_conn *c, void *user, const uint8_t *p, size_t n) {
  (void)ctx, (void)c, (void)p;
  ((side *)user)->received += n;
}

static void on_close(void *ctx, ph_conn *c, void *user, int reason) {
  (void)ctx, (void)c, (void)reason;
  ((side *)user)->closed++;
  ((side *)user)->c = NULL;
}

static void on_drain(void *ctx, ph_conn *c, void *user) {
  (void)ctx, (void)c, (void)user;
}

static void on_signal(void *ctx, int signum) {
  (void)ctx, (void)signum;
}

#define UNTIL(cond)                                                                                \
  do {                                                                                             \
    uint64_t limit_ = ne_now(NULL) + PH_MS(10000) * (uint64_t)ne_slower();                         \
    while (!(cond) && ne_now(NULL) < limit_) ph_loop_poll(w.loop, ne_now(NULL) + PH_MS(5));        \
    assert_true(cond);                                                                             \
  } while (0)

static int listen_(void) {
  memset(&w, 0, sizeof w);
  ne_init(&w.t);
  w.t.env.realloc = limited;
  w.loop = ph_loop_new(&w.t.env);
  if (!w.loop) return PH_ENOMEM;
  w.tr = ph_loop_tcp(w.loop);
  w.tr->ev = (ph_transport_events){NULL, on_accept, on_dialled, on_data, on_close, on_drain};
  return w.tr->ops->listen(w.tr, "127.0.0.1:0", w.bound, sizeof w.bound);
}

static int dial(void) {
  w.dialer = (side){0};
  int err = w.tr->ops->dial(w.tr, w.bound, 5000, &w.dialer, &w.dialer.c);
  if (err) return err;
  UNTIL(w.dialer.opened);
  return w.dialer.err;
}

static int scenario(void) {
  int err = listen_();
  if (!err) err = ph_loop_signals(w.loop, on_signal, NULL);
  if (!err) err = ph_loop_standby(w.loop);
  if (!err) err = dial();
  if (!err) {
    UNTIL(w.server.c);
    err = w.tr->ops->write(w.tr, w.dialer.c, "hello", 5);
  }
  if (!err) {
    UNTIL(w.server.received == 5);
    w.tr->ops->close(w.tr, w.dialer.c, 1);
    UNTIL(w.server.closed);
  }
  return err;
}

static void end(void) {
  ph_loop_free(w.loop);
  TE_END(&w.t);
  TE_END(&uv);
}

/* ---- tests ---- */

static void each_allocation_of_libuvs_may_fail(void **state) {
  (void)state;
  int fds = ne_count("/proc/self/fd"), threads = ne_count("/proc/self/task");
  long n = 1;
  for (bool tripped = true; tripped; n++) {
    te_fail_in(&uv, n);
    int err = scenario();
    tripped = te_tripped(&uv);
    te_fail_in(&uv, 0);
    end();
    if (!tripped) assert_int_equal(err, 0);
    assert_int_equal(ne_count("/proc/self/fd"), fds);
    assert_int_equal(ne_count("/proc/self/task"), threads);
  }
  assert_true(n > 2); /* one failed at least */
}

/* Descriptors so high that libuv's table of them must grow beyond what there is: the dial fails,
 * and with lower ones, or with more memory, it works again. */
static void a_table_that_cannot_grow_is_an_error(void **state) {
  (void)state;
  enum { HIGH = 700 };
  int fds = ne_count("/proc/self/fd"), held[HIGH], count = 0;
  struct rlimit limit;
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
  assert_true(limit.rlim_cur > HIGH + 50);
  assert_int_equal(listen_(), 0);
  while (count < HIGH) {
    held[count] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(held[count++] >= 0);
  }
  uvm_too_much = 4096;
  assert_int_equal(dial(), PH_ENOMEM);
  uvm_too_much = 0;
  w.server = (side){0};
  assert_int_equal(dial(), 0);
  UNTIL(w.server.c);
  while (count) close(held[--count]);
  end();
  assert_int_equal(ne_count("/proc/self/fd"), fds);
}

static int setup(void **state) {
  (void)state;
  if (uvm_init(&uv)) return -1;
  te t; /* libuv keeps two files of its own once it has made a loop */
  ne_init(&t);
  ph_loop_free(ph_loop_new(&t.env));
  return ne_warm_up();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(each_allocation_of_libuvs_may_fail),
      cmocka_unit_test(a_table_that_cannot_grow_is_an_error),
  };
  return cmocka_run_group_tests(tests, setup, NULL);
}
