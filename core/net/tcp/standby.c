/* Who runs the loop: the interpreter's thread while it is in ph_loop_poll, the standby thread when
 * the interpreter has been away for PH_AWAY_MS.
 *
 * The interpreter tells where it is by `seq` alone (an increment on leaving and on entering), so
 * leaving costs nothing. The standby ticks while Lua runs and looks at seq: the same odd number for
 * PH_AWAY_MS means that Lua has not come back. While the interpreter rests in the loop for a whole
 * tick, the standby falls asleep without a timeout, and the next leave wakes it.
 *
 * Races:
 * 1. The interpreter leaves while the standby falls asleep. The standby sets `asleep` and then
 *    reads seq, the interpreter sets seq and then reads `asleep`; both are sequentially consistent,
 *    so at least one sees the other's. The interpreter signals under `nap`, which the standby holds
 *    from before `asleep` is set until it waits.
 * 2. The interpreter enters while the standby takes over. seq is even before the interpreter tries
 *    the mutex. Either it gets the mutex, and the standby's trylock fails; or the standby has it,
 *    and the interpreter sets `wanted` and wakes the poll; the standby looks at `wanted` before
 *    each poll, and what was sent before a poll ends that poll.
 * 3. The standby decides on a seq that is stale once it has the mutex: it looks again. */
#include <errno.h>
#include <signal.h>
#include <time.h>

#include "net/tcp/tcp_int.h"

enum { TICK_MS = 5 };

static bool away(uint64_t seq) {
  return seq & 1;
}

/* ---- the interpreter's side ---- */

void ph__loop_take(ph_loop *l) {
  if (pthread_mutex_trylock(&l->mutex) == 0) return;
  atomic_store(&l->wanted, true);
  uv_async_send(&l->async);
  pthread_mutex_lock(&l->mutex);
  atomic_store(&l->wanted, false);
}

void ph__loop_enter(ph_loop *l) {
  atomic_fetch_add(&l->seq, 1);
  ph__loop_take(l);
}

void ph__loop_leave(ph_loop *l) {
  pthread_mutex_unlock(&l->mutex);
  atomic_fetch_add(&l->seq, 1);
  if (!atomic_load(&l->asleep)) return;
  pthread_mutex_lock(&l->nap);
  atomic_store(&l->asleep, false);
  pthread_cond_signal(&l->cond);
  pthread_mutex_unlock(&l->nap);
}

/* ---- the standby's side ---- */

static uint64_t monotonic(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* nap is held */
static void tick(ph_loop *l, uint64_t ns) {
  uint64_t at = monotonic() + ns;
  struct timespec ts = {.tv_sec = (time_t)(at / 1000000000u), .tv_nsec = (long)(at % 1000000000u)};
  pthread_cond_timedwait(&l->cond, &l->nap, &ts);
}

/* nap is held. A leave ends it even when the interpreter is back before this thread has woken: the
 * leave took `asleep` away, so the next one would not signal. */
static void sleep_until_away(ph_loop *l) {
  atomic_store(&l->asleep, true);
  while (atomic_load(&l->asleep) && !away(atomic_load(&l->seq)) && !atomic_load(&l->stop))
    pthread_cond_wait(&l->cond, &l->nap);
  atomic_store(&l->asleep, false);
}

static bool asked_back(ph_loop *l) {
  return atomic_load(&l->wanted) || atomic_load(&l->stop);
}

static void run_loop(ph_loop *l, uint64_t seen) {
  if (pthread_mutex_trylock(&l->mutex) != 0) return;
  while (atomic_load(&l->seq) == seen && !asked_back(l)) {
    ph__loop_turn(l);
    uint64_t now = ph_now(l->env), look = ph__preempt_tick(l, now);
    if (asked_back(l)) break;
    ph__loop_wait(l, look == PH_NEVER ? PH_NEVER : now + look);
    ph__loop_turn(l);
  }
  pthread_mutex_unlock(&l->mutex);
}

static void *standby_main(void *arg) {
  ph_loop *l = arg;
  uint64_t seen = 0, since = 0;
  pthread_mutex_lock(&l->nap);
  while (!atomic_load(&l->stop)) {
    uint64_t seq = atomic_load(&l->seq), now = monotonic();
    uint64_t look = ph__preempt_tick(l, now);
    if (seq != seen) {
      seen = seq;
      since = now;
    } else if (!away(seq)) {
      sleep_until_away(l);
      continue;
    } else if (now - since >= PH_MS(PH_AWAY_MS)) {
      pthread_mutex_unlock(&l->nap);
      run_loop(l, seen);
      pthread_mutex_lock(&l->nap);
    }
    /* after giving back too: whoever asks often must not pay for a hand-over each time */
    if (!atomic_load(&l->stop)) tick(l, look < PH_MS(TICK_MS) ? look : PH_MS(TICK_MS));
  }
  pthread_mutex_unlock(&l->nap);
  return NULL;
}

int ph__standby_init(ph_loop *l) {
  pthread_condattr_t attr;
  if (pthread_mutex_init(&l->mutex, NULL) != 0) return PH_ENOMEM;
  if (pthread_mutex_init(&l->nap, NULL) != 0) goto no_nap;
  if (pthread_condattr_init(&attr) != 0) goto no_attr;
  int err = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  if (err == 0) err = pthread_cond_init(&l->cond, &attr);
  pthread_condattr_destroy(&attr);
  if (err == 0) return 0;
no_attr:
  pthread_mutex_destroy(&l->nap);
no_nap:
  pthread_mutex_destroy(&l->mutex);
  return PH_ENOMEM;
}

bool ph_loop_has_standby(const ph_loop *l) {
  return l->has_standby;
}

int ph_loop_standby(ph_loop *l) {
  if (l->has_standby) return 0;
  ph__preempt_install(l);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before); /* the new thread inherits it */
  int err = pthread_create(&l->standby, NULL, standby_main, l);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (err != 0) return err == EAGAIN ? PH_ENOMEM : PH_EIO;
  l->has_standby = true;
  return 0;
}

void ph_loop_standby_stop(ph_loop *l) {
  if (!l->has_standby) return;
  pthread_mutex_lock(&l->nap);
  atomic_store(&l->stop, true);
  pthread_cond_signal(&l->cond);
  pthread_mutex_unlock(&l->nap);
  uv_async_send(&l->async);
  pthread_join(l->standby, NULL);
  l->has_standby = false;
  atomic_store(&l->stop, false);
}

void ph__standby_deinit(ph_loop *l) {
  pthread_cond_destroy(&l->cond);
  pthread_mutex_destroy(&l->nap);
  pthread_mutex_destroy(&l->mutex);
}
