/* The simulated network: order, delays, faults, and the same run for the same seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/test/testenv.h"
#include "net/memnet.h"

enum { MAX_HOSTS = 4, MAX_LOG = 1 << 16 };

/* what one end has seen */
typedef struct side {
  struct world *w;
  ph_transport *t;
  ph_conn *c;
  int host;
  int opened, dial_err, accepted, closed, reason, drained;
  bool refuse, echo, close_on_data, close_in_accept;
  size_t received;
  char data[4096]; /* the first of it */
  uint64_t first_at, last_at;
} side;

typedef struct world {
  te t;
  ph_memnet *m;
  side dialer, server[MAX_HOSTS];
  ph_transport *tr[MAX_HOSTS];
  uint64_t digest; /* of all that happened, with its time */
} world;

static void note(world *w, uint64_t what) {
  w->digest = (w->digest ^ what ^ ph_memnet_now(w->m)) * UINT64_C(0x100000001b3);
}

static void *on_accept(void *ctx, ph_conn *c) {
  side *s = ctx;
  note(s->w, 1);
  s->accepted++;
  if (s->close_in_accept) {
    s->t->ops->close(s->t, c, 0);
    return NULL;
  }
  if (s->refuse) return NULL;
  s->c = c;
  return s;
}

static void on_dialled(void *ctx, ph_conn *c, void *user, int err) {
  side *s = user;
  (void)ctx;
  note(s->w, 2);
  s->opened++;
  s->dial_err = err;
  s->c = err ? NULL : c;
  if (err) s->t->ops->close(s->t, c, 0); /* allowed, and does nothing */
}

static void on_data(void *ctx, ph_conn *c, void *user, const uint8_t *p, size_t n) {
  side *s = user;
  (void)ctx;
  note(s->w, 3 + n);
  if (!s->received) s->first_at = ph_memnet_now(s->w->m);
  s->last_at = ph_memnet_now(s->w->m);
  for (size_t i = 0; i < n && s->received + i < sizeof s->data; i++)
    s->data[s->received + i] = (char)p[i];
  s->received += n;
  if (s->echo) assert_int_equal(s->t->ops->write(s->t, c, p, n), 0);
  if (s->close_on_data) {
    s->t->ops->close(s->t, c, 0);
    s->c = NULL;
  }
}

static void on_close(void *ctx, ph_conn *c, void *user, int reason) {
  side *s = user;
  (void)ctx;
  note(s->w, 4);
  s->closed++;
  s->reason = reason;
  s->c = NULL;
  s->t->ops->close(s->t, c, 0); /* allowed, and does nothing */
}

static void on_drain(void *ctx, ph_conn *c, void *user) {
  side *s = user;
  (void)ctx;
  (void)c;
  note(s->w, 5);
  s->drained++;
}

static void attach(world *w, int host, ph_transport *t) {
  side *s = &w->server[host];
  memset(s, 0, sizeof *s);
  s->w = w;
  s->t = t;
  s->host = host;
  w->tr[host] = t;
  t->ev = (ph_transport_events){.ctx = s,
                                .on_accept = on_accept,
                                .on_dialled = on_dialled,
                                .on_data = on_data,
                                .on_close = on_close,
                                .on_drain = on_drain};
  char bound[32], want[32];
  assert_int_equal(t->ops->listen(t, "127.0.0.1:0", bound, sizeof bound), 0);
  snprintf(want, sizeof want, "mem:%d", host);
  assert_string_equal(bound, want);
}

static void begin(world *w, uint64_t seed, int hosts) {
  memset(w, 0, sizeof *w);
  te_init(&w->t, seed);
  w->m = ph_memnet_new(&w->t.env, seed);
  assert_non_null(w->m);
  for (int i = 0; i < hosts; i++) {
    ph_transport *t;
    assert_int_equal(ph_memnet_host(w->m, &t), i);
    attach(w, i, t);
  }
}

static void end(world *w) {
  ph_memnet_free(w->m);
  TE_END(&w->t);
}

static void run_ms(world *w, uint64_t ms) {
  ph_memnet_advance(w->m, ph_memnet_now(w->m) + PH_MS(ms));
}

static ph_conn *dial(world *w, int from, const char *target, uint64_t timeout_ms) {
  side *s = &w->dialer;
  memset(s, 0, sizeof *s);
  s->w = w;
  s->t = w->tr[from];
  s->host = from;
  ph_conn *c = NULL;
  assert_int_equal(s->t->ops->dial(s->t, target, timeout_ms, s, &c), 0);
  assert_non_null(c);
  assert_int_equal(s->opened, 0);
  return c;
}

/* a connection from host 0 to host 1 */
static void open_pair(world *w, uint64_t seed) {
  begin(w, seed, 2);
  dial(w, 0, "mem:1", 1000);
  run_ms(w, 2);
  assert_int_equal(w->dialer.opened, 1);
  assert_int_equal(w->dialer.dial_err, 0);
  assert_int_equal(w->server[1].accepted, 1);
}

static void put(side *s, const void *p, size_t n) {
  assert_non_null(s->c);
  assert_int_equal(s->t->ops->write(s->t, s->c, p, n), 0);
}

static void keeps_the_order_of_a_connection(void **state) {
  (void)state;
  world w;
  open_pair(&w, 7);
  ph_memnet_delay(w.m, 0, 1, 1, 5000);
  char want[2000];
  for (int i = 0; i < 2000; i++) want[i] = (char)('a' + i % 23);
  for (int i = 0; i < 2000; i += 10) put(&w.dialer, want + i, 10);
  run_ms(&w, 100);
  assert_int_equal(w.server[1].received, sizeof want);
  assert_memory_equal(w.server[1].data, want, sizeof want);
  end(&w);
}

static void delays_stay_within_their_bounds(void **state) {
  (void)state;
  world w;
  open_pair(&w, 3);
  uint64_t least = UINT64_MAX, most = 0;
  ph_memnet_delay(w.m, 1, 0, 3000, 4000);
  for (int i = 0; i < 200; i++) {
    w.server[1].received = 0;
    uint64_t sent = ph_memnet_now(w.m);
    put(&w.dialer, "x", 1);
    run_ms(&w, 10);
    assert_int_equal(w.server[1].received, 1);
    uint64_t took = w.server[1].last_at - sent;
    if (took < least) least = took;
    if (took > most) most = took;
  }
  assert_in_range(least, PH_MS(3), PH_MS(4));
  assert_in_range(most, PH_MS(3), PH_MS(4));
  assert_true(most - least > PH_MS(1) / 2); /* spread, not always the same */
  end(&w);
}

static void replays_by_seed_alone(void **state) {
  (void)state;
  uint64_t digest[3];
  for (int i = 0; i < 3; i++) {
    world w;
    open_pair(&w, i == 2 ? 12 : 11);
    w.server[1].echo = true;
    ph_env env;
    ph_memnet_env(w.m, 1, &w.t.env, &env);
    for (int k = 0; k < 100; k++) {
      put(&w.dialer, "0123456789", 10);
      run_ms(&w, k % 2);
      if (k == 50) ph_memnet_cut(w.m, 0, 1);
      if (k == 60) ph_memnet_heal(w.m, 0, 1);
    }
    run_ms(&w, 50);
    assert_int_equal(w.dialer.received, 1000);
    note(&w, ph_random64(&env));
    digest[i] = w.digest;
    end(&w);
  }
  assert_true(digest[0] == digest[1]);
  assert_true(digest[0] != digest[2]);
}

static void a_cut_is_silent_and_one_way(void **state) {
  (void)state;
  world w;
  open_pair(&w, 1);
  side *far = &w.server[1];
  ph_memnet_cut(w.m, 0, 1);
  put(&w.dialer, "lost?", 5);
  put(far, "back", 4);
  run_ms(&w, 5000);
  assert_int_equal(far->received, 0);
  assert_int_equal(w.dialer.received, 4);
  assert_int_equal(far->closed + w.dialer.closed, 0);
  assert_true(ph_memnet_next(w.m) == PH_NEVER);
  ph_memnet_heal(w.m, 0, 1);
  run_ms(&w, 5);
  assert_int_equal(far->received, 5);
  assert_memory_equal(far->data, "lost?", 5);
  end(&w);
}

static void a_dial_into_a_cut_times_out(void **state) {
  (void)state;
  world w;
  begin(&w, 1, 2);
  ph_memnet_cut(w.m, 0, 1);
  uint64_t start = ph_memnet_now(w.m);
  dial(&w, 0, "mem:1", 700);
  assert_true(ph_memnet_next(w.m) <= start + PH_MS(700));
  run_ms(&w, 699);
  assert_int_equal(w.dialer.opened, 0);
  run_ms(&w, 2);
  assert_int_equal(w.dialer.opened, 1);
  assert_int_equal(w.dialer.dial_err, PH_ETIMEOUT);
  ph_memnet_heal(w.m, 0, 1);
  run_ms(&w, 100);
  assert_int_equal(w.server[1].accepted, 0);
  /* the other way: the server sees a connection, whose dialer has given up */
  ph_memnet_cut(w.m, 1, 0);
  dial(&w, 0, "mem:1", 700);
  run_ms(&w, 1000);
  assert_int_equal(w.dialer.dial_err, PH_ETIMEOUT);
  assert_int_equal(w.server[1].accepted, 1);
  assert_int_equal(w.server[1].closed, 1);
  end(&w);
}

static void a_break_resets_both_ends(void **state) {
  (void)state;
  world w;
  open_pair(&w, 1);
  put(&w.dialer, "gone", 4);
  ph_memnet_cut(w.m, 0, 1); /* a reset comes through a cut: it is each end's own kernel */
  ph_memnet_break(w.m, 1, 0);
  assert_int_equal(w.dialer.closed, 0); /* never from inside the call */
  run_ms(&w, 1);
  assert_int_equal(w.dialer.closed, 1);
  assert_int_equal(w.dialer.reason, PH_EIO);
  assert_int_equal(w.server[1].closed, 1);
  assert_int_equal(w.server[1].reason, PH_EIO);
  assert_int_equal(w.server[1].received, 0);
  end(&w);
}

static void a_paused_host_gets_everything_later(void **state) {
  (void)state;
  world w;
  open_pair(&w, 1);
  ph_memnet_pause(w.m, 1, true);
  side first = w.dialer;
  put(&first, "wait", 4);
  dial(&w, 0, "mem:1", 60000);
  run_ms(&w, 5000);
  assert_int_equal(w.server[1].received, 0);
  assert_int_equal(w.dialer.opened, 0);
  ph_memnet_pause(w.m, 1, false);
  run_ms(&w, 2);
  assert_int_equal(w.server[1].received, 4);
  assert_int_equal(w.server[1].accepted, 2);
  assert_int_equal(w.dialer.opened, 1);
  /* its own timeouts wait too */
  ph_memnet_cut(w.m, 1, 0);
  dial(&w, 1, "mem:0", 10);
  ph_memnet_pause(w.m, 1, true);
  run_ms(&w, 100);
  assert_int_equal(w.dialer.opened, 0);
  ph_memnet_pause(w.m, 1, false);
  run_ms(&w, 1);
  assert_int_equal(w.dialer.dial_err, PH_ETIMEOUT);
  end(&w);
}

static void a_crash_resets_peers_and_frees_the_host(void **state) {
  (void)state;
  world w;
  open_pair(&w, 1);
  side *far = &w.server[1];
  assert_int_equal(far->t->ops->announce(far->t, "b@h", "mem:1"), 0);
  put(far, "last words", 10);
  put(&w.dialer, "unread", 6);
  ph_conn *orphan;
  assert_int_equal(far->t->ops->dial(far->t, "mem:0", 100, far, &orphan), 0);
  ph_memnet_crash(w.m, 1);
  run_ms(&w, 500);
  assert_int_equal(w.dialer.received, 10);
  assert_int_equal(w.dialer.closed, 1);
  assert_int_equal(w.dialer.reason, PH_EIO);
  assert_int_equal(far->received + far->closed + far->opened, 0);
  assert_int_equal(w.server[0].accepted, 0);
  /* what ran there may clean up afterwards */
  assert_int_equal(far->t->ops->write(far->t, far->c, "x", 1), PH_ECLOSED);
  far->t->ops->close(far->t, far->c, 1);
  far->t->ops->close(far->t, orphan, 0);
  dial(&w, 0, "mem:1", 100);
  run_ms(&w, 10);
  assert_int_equal(w.dialer.dial_err, PH_EREFUSED);
  dial(&w, 0, "b@h", 100);
  run_ms(&w, 10);
  assert_int_equal(w.dialer.dial_err, PH_ENOTFOUND);

  ph_transport *again;
  assert_int_equal(ph_memnet_restart(w.m, 1, &again), 0);
  assert_true(again != far->t);
  assert_int_equal(ph_memnet_restart(w.m, 1, &again), PH_EINVAL);
  attach(&w, 1, again);
  dial(&w, 0, "mem:1:4000", 100);
  run_ms(&w, 10);
  assert_int_equal(w.dialer.opened, 1);
  assert_int_equal(w.dialer.dial_err, 0);
  end(&w);
}

static void dials_names_and_refuses_what_it_does_not_know(void **state) {
  (void)state;
  world w;
  begin(&w, 1, 3);
  assert_int_equal(w.tr[2]->ops->announce(w.tr[2], "c@h", "mem:2"), 0);
  dial(&w, 0, "c@h", 100);
  run_ms(&w, 10);
  assert_int_equal(w.dialer.dial_err, 0);
  assert_int_equal(w.server[2].accepted, 1);
  w.dialer.t->ops->close(w.dialer.t, w.dialer.c, 0);
  assert_int_equal(w.tr[2]->ops->announce(w.tr[2], NULL, NULL), 0);
  const struct {
    const char *target;
    int err;
  } bad[] = {{"c@h", PH_ENOTFOUND},
             {"mem:7", PH_EUNREACHABLE},
             {"mem:99999999999999", PH_EUNREACHABLE},
             {"mem:", PH_EUNREACHABLE},
             {"mem:1x", PH_EUNREACHABLE},
             {"host:1", PH_EUNREACHABLE}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    dial(&w, 0, bad[i].target, 100);
    run_ms(&w, 10);
    assert_int_equal(w.dialer.opened, 1);
    assert_int_equal(w.dialer.dial_err, bad[i].err);
  }
  w.tr[1]->ops->unlisten(w.tr[1]);
  dial(&w, 0, "mem:1", 100);
  run_ms(&w, 10);
  assert_int_equal(w.dialer.dial_err, PH_EREFUSED);
  end(&w);
}

static void refusing_and_closing_inside_callbacks(void **state) {
  (void)state;
  world w;
  begin(&w, 1, 2);
  for (int i = 0; i < 2; i++) {
    w.server[1].refuse = i == 0;
    w.server[1].close_in_accept = i == 1;
    dial(&w, 0, "mem:1", 100);
    run_ms(&w, 10);
    assert_int_equal(w.dialer.dial_err, 0); /* as in TCP: open, then ended */
    assert_int_equal(w.dialer.closed, 1);
    assert_int_equal(w.dialer.reason, PH_ECLOSED);
  }
  w.server[1].close_in_accept = false;
  w.server[1].close_on_data = true;
  dial(&w, 0, "mem:1", 100);
  run_ms(&w, 10);
  for (int i = 0; i < 20; i++) put(&w.dialer, "abcdef", 6);
  run_ms(&w, 10);
  assert_true(w.server[1].received > 0 && w.server[1].received <= 6);
  assert_int_equal(w.server[1].closed, 0);
  assert_int_equal(w.dialer.closed, 1);
  /* a dial ended by its dialer is not heard of again */
  ph_conn *c = dial(&w, 0, "mem:1", 100);
  assert_int_equal(w.dialer.t->ops->write(w.dialer.t, c, "x", 1), PH_ENOCONN);
  w.dialer.t->ops->close(w.dialer.t, c, 0);
  int accepted = w.server[1].accepted;
  run_ms(&w, 200);
  assert_int_equal(w.dialer.opened, 0);
  assert_int_equal(w.server[1].accepted, accepted);
  end(&w);
}

static void backpressure_and_drain(void **state) {
  (void)state;
  world w;
  open_pair(&w, 5);
  side *s = &w.dialer;
  char block[4096] = {0};
  ph_memnet_cut(w.m, 0, 1);
  for (int i = 0; i < 64; i++) put(s, block, sizeof block);
  assert_int_equal(s->t->ops->queued(s->t, s->c), 0);
  put(s, block, sizeof block);
  assert_int_equal(s->t->ops->queued(s->t, s->c), sizeof block);
  run_ms(&w, 100);
  assert_int_equal(s->drained, 0);
  ph_memnet_heal(w.m, 0, 1);
  run_ms(&w, 100);
  assert_int_equal(s->drained, 1);
  assert_int_equal(s->t->ops->queued(s->t, s->c), 0);
  assert_int_equal(w.server[1].received, 65 * sizeof block);
  /* closed at once: what the kernel had taken arrives, the rest does not; flushed: all of it */
  for (int flush = 0; flush < 2; flush++) {
    if (!s->c) dial(&w, 0, "mem:1", 100);
    run_ms(&w, 10);
    w.server[1].received = 0;
    for (int i = 0; i < 128; i++) put(s, block, sizeof block);
    s->t->ops->close(s->t, s->c, flush);
    s->c = NULL;
    run_ms(&w, 100);
    if (flush)
      assert_int_equal(w.server[1].received, 128 * sizeof block);
    else
      assert_in_range(w.server[1].received, 1, 64 * sizeof block);
    assert_int_equal(w.server[1].closed, 1 + flush);
    assert_int_equal(w.server[1].reason, PH_ECLOSED);
  }
  end(&w);
}

static void environment_of_a_host(void **state) {
  (void)state;
  world w;
  begin(&w, 1, 2);
  ph_env a, b;
  ph_memnet_env(w.m, 0, &w.t.env, &a);
  ph_memnet_env(w.m, 1, &w.t.env, &b);
  uint64_t wall = ph_wall(&a);
  assert_true(ph_now(&a) > 0);
  run_ms(&w, 1500);
  assert_int_equal(ph_now(&a), ph_memnet_now(w.m));
  assert_int_equal(ph_wall(&a) - wall, 1500);
  ph_memnet_skew(w.m, 1, -4000);
  assert_int_equal(ph_wall(&a) - ph_wall(&b), 4000);
  assert_true(ph_random64(&a) != ph_random64(&b));
  void *p = ph_alloc(&a, 10);
  assert_non_null(p);
  ph_free(&a, p);
  ph_logf(&b, PH_LOG_WARN, "line %d", 1);
  assert_int_equal(w.t.logs[PH_LOG_WARN], 1);
  end(&w);
}

static void many_hosts_keep_their_routes(void **state) {
  (void)state;
  world w;
  begin(&w, 1, 2);
  ph_memnet_delay(w.m, 0, 1, 9000, 9000);
  for (int i = 2; i < 40; i++) {
    ph_transport *t;
    assert_int_equal(ph_memnet_host(w.m, &t), i);
  }
  uint64_t start = ph_memnet_now(w.m);
  dial(&w, 0, "mem:1", 1000);
  ph_memnet_advance(w.m, start + PH_MS(18) - 1);
  assert_int_equal(w.dialer.opened, 0);
  ph_memnet_advance(w.m, start + PH_MS(18));
  assert_int_equal(w.dialer.opened, 1);
  end(&w);
}

/* every failing allocation is reported, changes nothing and leaks nothing */
static void out_of_memory(void **state) {
  (void)state;
  for (long n = 1;; n++) {
    world w;
    memset(&w, 0, sizeof w);
    te_init(&w.t, 1);
    te_fail_in(&w.t, n);
    int err = 0;
    w.m = ph_memnet_new(&w.t.env, 1);
    ph_transport *t = NULL;
    for (int i = 0; w.m && err == 0 && i < 2; i++) {
      err = ph_memnet_host(w.m, &t);
      if (err == i) {
        err = 0;
        attach(&w, i, t);
      }
    }
    side *s = &w.dialer;
    s->w = &w;
    ph_conn *c = NULL;
    if (w.m && !err) {
      s->t = w.tr[0];
      err = t->ops->announce(t, "b@h", "mem:1");
      if (!err) err = s->t->ops->dial(s->t, "b@h", 100, s, &c);
      if (!err) {
        run_ms(&w, 10);
        assert_int_equal(s->opened, 1);
        for (int i = 0; i < 8 && !err; i++) err = s->t->ops->write(s->t, s->c, "abc", 3);
        ph_memnet_crash(w.m, 1);
        run_ms(&w, 10);
      }
    }
    bool tripped = te_tripped(&w.t);
    te_fail_in(&w.t, 0);
    if (tripped) assert_true(!w.m || err == PH_ENOMEM);
    ph_memnet_free(w.m);
    TE_END(&w.t);
    if (!tripped) break;
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(keeps_the_order_of_a_connection),
      cmocka_unit_test(delays_stay_within_their_bounds),
      cmocka_unit_test(replays_by_seed_alone),
      cmocka_unit_test(a_cut_is_silent_and_one_way),
      cmocka_unit_test(a_dial_into_a_cut_times_out),
      cmocka_unit_test(a_break_resets_both_ends),
      cmocka_unit_test(a_paused_host_gets_everything_later),
      cmocka_unit_test(a_crash_resets_peers_and_frees_the_host),
      cmocka_unit_test(dials_names_and_refuses_what_it_does_not_know),
      cmocka_unit_test(refusing_and_closing_inside_callbacks),
      cmocka_unit_test(backpressure_and_drain),
      cmocka_unit_test(environment_of_a_host),
      cmocka_unit_test(many_hosts_keep_their_routes),
      cmocka_unit_test(out_of_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
