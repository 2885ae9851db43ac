#include "base/timer.h"

enum { ARITY = 4, MIN_CAP = 16 };

void ph_timers_init(ph_timers *ts, const ph_env *env) {
  *ts = (ph_timers){.env = env};
}

void ph_timers_deinit(ph_timers *ts) {
  for (uint32_t i = 0; i < ts->count; i++) ts->heap[i]->pos = 0;
  if (ts->heap) ph_free(ts->env, ts->heap);
  *ts = (ph_timers){.env = ts->env};
}

static bool before(const ph_timer *a, const ph_timer *b) {
  return a->due != b->due ? a->due < b->due : a->order < b->order;
}

static void place(ph_timers *ts, uint32_t i, ph_timer *t) {
  ts->heap[i] = t;
  t->pos = i + 1;
}

static void sift_up(ph_timers *ts, uint32_t i, ph_timer *t) {
  while (i > 0) {
    uint32_t parent = (i - 1) / ARITY;
    if (!before(t, ts->heap[parent])) break;
    place(ts, i, ts->heap[parent]);
    i = parent;
  }
  place(ts, i, t);
}

static void sift_down(ph_timers *ts, uint32_t i, ph_timer *t) {
  for (;;) {
    uint64_t first = (uint64_t)i * ARITY + 1;
    if (first >= ts->count) break;
    uint64_t last = first + ARITY < ts->count ? first + ARITY : ts->count;
    uint32_t least = (uint32_t)first;
    for (uint64_t c = first + 1; c < last; c++)
      if (before(ts->heap[c], ts->heap[least])) least = (uint32_t)c;
    if (!before(ts->heap[least], t)) break;
    place(ts, i, ts->heap[least]);
    i = least;
  }
  place(ts, i, t);
}

/* puts t where it belongs, starting at position i */
static void settle(ph_timers *ts, uint32_t i, ph_timer *t) {
  if (i > 0 && before(t, ts->heap[(i - 1) / ARITY]))
    sift_up(ts, i, t);
  else
    sift_down(ts, i, t);
}

static int make_room(ph_timers *ts) {
  if (ts->count < ts->cap) return 0;
  if (ts->cap > UINT32_MAX / 2) return PH_ENOMEM;
  uint32_t cap = ts->cap ? ts->cap * 2 : MIN_CAP;
  ph_timer **heap = ph_realloc(ts->env, ts->heap, cap * sizeof *heap);
  if (!heap) return PH_ENOMEM;
  ts->heap = heap;
  ts->cap = cap;
  return 0;
}

int ph_timer_start(ph_timers *ts, ph_timer *t, uint64_t due) {
  if (due == PH_NEVER) {
    ph_timer_stop(ts, t);
    return 0;
  }
  if (!t->pos) {
    int rc = make_room(ts);
    if (rc) return rc;
  }
  /* armed by a callback and already due: past this run's `now`, so that the run ends */
  if (ts->running && due <= ts->run_now) due = ts->run_now + 1;
  t->due = due;
  t->order = ts->order++;
  settle(ts, t->pos ? t->pos - 1 : ts->count++, t);
  return 0;
}

void ph_timer_stop(ph_timers *ts, ph_timer *t) {
  if (!t->pos) return;
  uint32_t i = t->pos - 1;
  t->pos = 0;
  ph_timer *last = ts->heap[--ts->count];
  if (last != t) settle(ts, i, last);
  if (ts->cap > 4 * MIN_CAP && ts->count < ts->cap / 4) {
    ph_timer **heap = ph_realloc(ts->env, ts->heap, ts->cap / 2 * sizeof *heap);
    if (!heap) return; /* the larger array serves as well */
    ts->heap = heap;
    ts->cap /= 2;
  }
}

int ph_timers_run(ph_timers *ts, uint64_t now, int max) {
  int fired = 0;
  ts->running = true;
  ts->run_now = now;
  while (fired < max && ts->count && ts->heap[0]->due <= now) {
    ph_timer *t = ts->heap[0];
    ph_timer_stop(ts, t);
    fired++;
    t->fire(t); /* may free t */
  }
  ts->running = false;
  return fired;
}
