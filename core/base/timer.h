/* Timers of one machine: an intrusive 4-ary heap ordered by (due, order of arming).
 *
 * The owner of the heap asks for the next due time, waits for it in its own way and calls
 * ph_timers_run. Stopping never fails; starting can (the heap's array grows). A timer may be
 * started, stopped or its memory freed inside its own callback. */
#ifndef PH_BASE_TIMER_H
#define PH_BASE_TIMER_H

#include <stdbool.h>

#include "base/env.h"

typedef struct ph_timer {
  void (*fire)(struct ph_timer *t);
  uint64_t due;   /* ns, clock of the env */
  uint64_t order; /* ties: first armed fires first */
  uint32_t pos;   /* position in the heap + 1; 0: not armed */
} ph_timer;

typedef struct ph_timers {
  const ph_env *env;
  ph_timer **heap;
  uint32_t count, cap;
  uint64_t order;
  uint64_t run_now; /* of the run under way */
  bool running;
} ph_timers;

void ph_timers_init(ph_timers *ts, const ph_env *env);
void ph_timers_deinit(ph_timers *ts); /* forgets armed timers */
static inline void ph_timer_init(ph_timer *t, void (*fire)(ph_timer *)) {
  t->fire = fire;
  t->pos = 0;
}
static inline bool ph_timer_armed(const ph_timer *t) {
  return t->pos != 0;
}
/* Arms, or moves an armed timer; due = PH_NEVER stops it. Moving never fails. A due time already
 * reached by the run under way becomes the nanosecond after it. */
int ph_timer_start(ph_timers *ts, ph_timer *t, uint64_t due) PH_MUST_CHECK;
void ph_timer_stop(ph_timers *ts, ph_timer *t);
static inline uint64_t ph_timers_next(const ph_timers *ts) {
  return ts->count ? ts->heap[0]->due : PH_NEVER;
}
/* Fires what is due at `now`, at most `max` timers; those armed meanwhile wait for the next run.
 * Returns how many fired. Not to be called from a timer's callback. */
int ph_timers_run(ph_timers *ts, uint64_t now, int max);

#endif
