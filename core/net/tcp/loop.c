#include "net/tcp/loop.h"

#include <sched.h>
#include <signal.h>
#include <string.h>

#include "net/tcp/tcp_int.h"

/* Adaptive polling. A wake between cores takes 40 us, an answer on the same host often less: so
 * after traffic the interpreter polls for a while before it sleeps. A hit raises the score, a miss
 * lowers it; at 0 it only sleeps, until answers come again within the time in which a poll (and
 * the wake that a sleep costs) would have caught them. A yield that takes longer than the whole
 * poll has given a busy core away, where a sleeper would have been woken at once: then polling
 * stops for a long while. */
enum {
  POLL_US = 50,
  POLL_WOULD_HIT_US = 150,
  SCORE_MAX = 8,
  SCORE_START = 4,
  SCORE_MISS = 2,
  PENALTY_MIN = 16, /* sleeps that end early, before polling begins again */
  PENALTY_MAX = 1024,
  TURN_TIMERS = 64 /* of the transport, a turn */
};

/* ---- waiting ---- */

/* The timer runs before libuv sleeps, in the same call: without this the sleep that it was to end
 * would begin after it and last. */
static void on_timer(uv_timer_t *timer) {
  ph_loop *l = timer->data;
  l->armed = PH_NEVER;
  uv_stop(&l->uv);
}

static void on_async(uv_async_t *async) {
  ph_loop *l = async->data;
  ph__resolve_collect(l->tcp);
}

static void arm(ph_loop *l, uint64_t due, uint64_t now) {
  if (due == l->armed) return;
  l->armed = due;
  if (due == PH_NEVER) {
    uv_timer_stop(&l->timer);
    return;
  }
  uint64_t ms = (due - now) / PH_MS(1);
  if ((due - now) % PH_MS(1)) ms++;
  uv_update_time(&l->uv); /* the timer counts from libuv's clock, which stood while Lua ran */
  uv_timer_start(&l->timer, on_timer, ms, 0);
}

static uint64_t next_due(ph_loop *l) {
  uint64_t due = ph_timers_next(&l->tcp->timers);
  if (due >= PH__PARKED) due = PH_NEVER;
  uint64_t hook = l->hooks.next_due ? l->hooks.next_due(l->hooks.ctx) : PH_NEVER;
  return hook < due ? hook : due;
}

void ph__loop_wait(ph_loop *l, uint64_t until) {
  if (until != 0) {
    uint64_t due = next_due(l), now = ph_now(l->env);
    if (until < due) due = until;
    if (due > now) {
      arm(l, due, now);
      uv_run(&l->uv, UV_RUN_ONCE);
      return;
    }
  }
  uv_run(&l->uv, UV_RUN_NOWAIT);
}

void ph__loop_turn(ph_loop *l) {
  ph_timers_run(&l->tcp->timers, ph_now(l->env), TURN_TIMERS);
  if (l->hooks.turn) l->hooks.turn(l->hooks.ctx);
}

/* ---- the interpreter's poll ---- */

static bool interrupted(ph_loop *l) {
  return atomic_load(&l->woken) || atomic_load(&l->signalled);
}

/* true: something came */
static bool spin(ph_loop *l) {
  uint64_t now = ph_now(l->env), end = now + POLL_US * 1000, traffic = l->traffic;
  bool came;
  do {
    uv_run(&l->uv, UV_RUN_NOWAIT);
    came = l->traffic != traffic || interrupted(l);
    if (!came) sched_yield();
    now = ph_now(l->env);
  } while (!came && now < end);
  if (now >= end + POLL_US * 1000) {
    l->score = -l->penalty;
    if (l->penalty < PENALTY_MAX) l->penalty *= 2;
  } else if (!came) {
    l->score = l->score > SCORE_MISS ? l->score - SCORE_MISS : 0;
  } else {
    if (l->score < SCORE_MAX) l->score++;
    if (l->penalty > PENALTY_MIN) l->penalty--;
  }
  return came;
}

static void wait_for_events(ph_loop *l, uint64_t until) {
  bool after_traffic = l->traffic != l->traffic_spent;
  l->traffic_spent = l->traffic;
  if (after_traffic && l->score > 0 && spin(l)) return;
  uint64_t start = ph_now(l->env), traffic = l->traffic;
  ph__loop_wait(l, until);
  if (after_traffic && l->traffic != traffic && l->score < SCORE_MAX &&
      ph_now(l->env) - start < POLL_WOULD_HIT_US * 1000)
    l->score++;
}

static bool done(ph_loop *l, uint64_t until) {
  if (interrupted(l)) return true;
  if (l->hooks.work && l->hooks.work(l->hooks.ctx)) return true;
  return until != PH_NEVER && ph_now(l->env) >= until;
}

static void tell_signals(ph_loop *l) {
  unsigned bits = atomic_load(&l->signalled) ? atomic_exchange(&l->signalled, 0) : 0;
  if ((bits & 1) && l->on_signal) l->on_signal(l->on_signal_ctx, SIGTERM);
  if ((bits & 2) && l->on_signal) l->on_signal(l->on_signal_ctx, SIGINT);
}

void ph_loop_poll(ph_loop *l, uint64_t until) {
  ph__loop_enter(l);
  ph__loop_turn(l);
  if (done(l, until)) {
    ph__loop_wait(l, 0);
    ph__loop_turn(l);
  } else {
    do {
      wait_for_events(l, until);
      ph__loop_turn(l);
    } while (!done(l, until));
  }
  if (atomic_load(&l->woken)) atomic_store(&l->woken, false);
  ph__loop_leave(l);
  tell_signals(l);
}

void ph_loop_wake(ph_loop *l) {
  atomic_store(&l->woken, true);
  uv_async_send(&l->async);
}

void ph_loop_lock(ph_loop *l) {
  ph__loop_take(l);
}

void ph_loop_unlock(ph_loop *l) {
  pthread_mutex_unlock(&l->mutex);
}

void ph_loop_hooks_set(ph_loop *l, const ph_loop_hooks *h) {
  ph__loop_take(l);
  l->hooks = *h;
  pthread_mutex_unlock(&l->mutex);
}

/* ---- signals ---- */

static void on_uv_signal(uv_signal_t *h, int signum) {
  ph_loop *l = h->data;
  atomic_fetch_or(&l->signalled, signum == SIGTERM ? 1u : 2u);
}

static int signals_start(ph_loop *l) {
  if (!l->signals_ready) {
    if (uv_signal_init(&l->uv, &l->term) != 0) return PH_EIO;
    if (uv_signal_init(&l->uv, &l->intr) != 0) {
      uv_close((uv_handle_t *)&l->term, NULL);
      uv_run(&l->uv, UV_RUN_NOWAIT);
      return PH_EIO;
    }
    l->term.data = l->intr.data = l;
    l->signals_ready = true;
  }
  if (uv_signal_start(&l->term, on_uv_signal, SIGTERM) != 0) return PH_EIO;
  if (uv_signal_start(&l->intr, on_uv_signal, SIGINT) != 0) {
    uv_signal_stop(&l->term);
    return PH_EIO;
  }
  return 0;
}

int ph_loop_signals(ph_loop *l, void (*fn)(void *ctx, int signum), void *ctx) {
  int err = 0;
  ph__loop_take(l);
  if (fn) {
    err = signals_start(l);
  } else if (l->signals_ready) {
    uv_signal_stop(&l->term);
    uv_signal_stop(&l->intr);
  }
  pthread_mutex_unlock(&l->mutex);
  if (err < 0) return err;
  l->on_signal = fn;
  l->on_signal_ctx = ctx;
  return 0;
}

/* ---- life ---- */

static void uv_end(ph_loop *l) {
  uv_run(&l->uv, UV_RUN_DEFAULT); /* ends when the last handle is closed */
  uv_loop_close(&l->uv);
}

static int uv_begin(ph_loop *l) {
  if (uv_loop_init(&l->uv) != 0) return PH_EIO;
  if (uv_async_init(&l->uv, &l->async, on_async) != 0) {
    uv_loop_close(&l->uv);
    return PH_EIO;
  }
  uv_timer_init(&l->uv, &l->timer);
  l->async.data = l->timer.data = l;
  return 0;
}

ph_loop *ph_loop_new(const ph_env *env) {
  ph_loop *l = ph_zalloc(env, sizeof *l);
  if (!l) return NULL;
  l->env = env;
  l->armed = PH_NEVER;
  l->score = SCORE_START;
  l->penalty = PENALTY_MIN;
  atomic_init(&l->seq, 1);
  if (ph__standby_init(l) < 0) {
    ph_free(env, l);
    return NULL;
  }
  if (uv_begin(l) < 0) goto no_uv;
  if (ph__tcp_new(l, &l->tcp) < 0) goto no_tcp;
  return l;
no_tcp:
  uv_close((uv_handle_t *)&l->async, NULL);
  uv_close((uv_handle_t *)&l->timer, NULL);
  uv_end(l);
no_uv:
  ph__standby_deinit(l);
  ph_free(env, l);
  return NULL;
}

/* what closed connections still have to send: each gives up by its own timer */
static void flush(ph_loop *l) {
  l->hooks = (ph_loop_hooks){0};
  while (ph__tcp_flushing(l->tcp)) {
    ph__loop_wait(l, PH_NEVER);
    ph__loop_turn(l);
  }
}

void ph_loop_free(ph_loop *l) {
  if (!l) return;
  ph_loop_standby_stop(l);
  flush(l);
  ph__tcp_shut(l->tcp);
  if (l->signals_ready) {
    uv_close((uv_handle_t *)&l->term, NULL);
    uv_close((uv_handle_t *)&l->intr, NULL);
  }
  uv_close((uv_handle_t *)&l->async, NULL);
  uv_close((uv_handle_t *)&l->timer, NULL);
  uv_end(l);
  ph__tcp_free(l->tcp);
  ph__standby_deinit(l);
  ph__preempt_forget(l);
  ph_free(l->env, l);
}

ph_transport *ph_loop_tcp(ph_loop *l) {
  return &l->tcp->t;
}
