/* The event loop of a real process: libuv under one mutex, run by the interpreter's thread whenever
 * Lua is idle and by a standby thread when the interpreter has been away for PH_AWAY_MS.
 *
 * Rules (DESIGN.md section 2): every libuv call but uv_async_send needs the mutex; core callbacks
 * run on whichever thread holds it and touch no Lua state; the standby sleeps without timeout while
 * the interpreter rests in the loop, and ticks only while Lua runs. Neither busy-waits, but that
 * the interpreter polls for up to 50 us after traffic, while that pays. */
#ifndef PH_NET_TCP_LOOP_H
#define PH_NET_TCP_LOOP_H

#include <stdatomic.h>
#include <stdbool.h>

#include "net/transport.h"

enum { PH_AWAY_MS = 50 };

typedef struct ph_loop ph_loop;

/* Called by the loop's holder, with the mutex held. */
typedef struct ph_loop_hooks {
  void *ctx;
  void (*turn)(void *ctx); /* before each poll and after each: flush outboxes, run due timers */
  uint64_t (*next_due)(void *ctx); /* when `turn` is wanted again at the latest, ns, PH_NEVER */
  bool (*work)(void *ctx); /* the interpreter has something to do: its poll returns at once */
  /* the same, while Lua runs: asked on any thread, without the mutex */
  bool (*waits)(void *ctx);
} ph_loop_hooks;

ph_loop *ph_loop_new(const ph_env *env); /* NULL: no memory, or no file left */
/* takes the mutex; a field may be NULL */
void ph_loop_hooks_set(ph_loop *l, const ph_loop_hooks *h);
/* Starts the standby thread (all signals blocked in it) unless it is there. Without it the loop
 * only runs inside ph_loop_poll. */
int ph_loop_standby(ph_loop *l) PH_MUST_CHECK;
bool ph_loop_has_standby(const ph_loop *l);
void ph_loop_standby_stop(ph_loop *l); /* joins it, if there is one */
/* Stops and joins the standby, closes everything, frees. After it no thread, file or socket is
 * left, but a thread that waits for a name server ends later, by itself. Calls no hook and no
 * event; connections closed with flush get their second to send what is queued. */
void ph_loop_free(ph_loop *l);

/* The interpreter's thread only: takes the loop (asking the standby to give it back if need be),
 * runs turn, polls until there is work for the interpreter, `until` (ns, PH_NEVER) has come or the
 * loop was woken; then leaves the loop. until = 0: one turn without waiting. */
void ph_loop_poll(ph_loop *l, uint64_t until);
/* From any thread, also from a signal handler: ends the poll under way, or the next one. */
void ph_loop_wake(ph_loop *l);
/* The mutex, for calls into transport and cluster from the interpreter's thread. Asks the standby
 * to give it back. Recursive locking is not allowed. */
void ph_loop_lock(ph_loop *l);
void ph_loop_unlock(ph_loop *l);

/* The TCP transport on this loop (owned by the loop; one per loop); its calls need the mutex.
 * `listen` on a host's name waits for the resolver, `dial` does not. Discovery files live in
 * `$XDG_RUNTIME_DIR/phub`, else `/tmp/phub-<uid>` (0700, owner checked). */
ph_transport *ph_loop_tcp(ph_loop *l);

/* SIGTERM and SIGINT through the loop: fn(ctx, signum), called by ph_loop_poll in the interpreter's
 * thread after the poll. fn NULL: leave both to the process. */
int ph_loop_signals(ph_loop *l, void (*fn)(void *ctx, int signum), void *ctx) PH_MUST_CHECK;

/* Preemption (preempt.c; DESIGN.md section 2): while a slice of Lua lasts too long and somebody
 * waits for it, the standby sends SIGURG to the thread that runs it, whose handler calls
 * `interrupt` there: it may only do what is safe in a signal handler. Also, rarely, when nobody
 * waits. Nothing is sent outside slices, to a thread that waits in the system, or while the last
 * interrupt is not done with. The process's handler of SIGURG is replaced once, when the first
 * standby starts, and called for signals that are not phub's.
 *
 * Before the standby starts. */
void ph_loop_preempt(ph_loop *l, void (*interrupt)(void *ctx), void *ctx);
void ph_loop_time_slice(ph_loop *l, uint64_t ms); /* default 5 */
/* A slice on this thread. who: for the log; due: when somebody else wants the interpreter (ns; 0:
 * now). Slices of one loop do not nest. */
void ph_slice_begin(ph_loop *l, uint64_t who, uint64_t due);
void ph_slice_end(ph_loop *l);
/* of the slice under way; an even number: there is none */
uint64_t ph_slice_number(const ph_loop *l);
/* An interrupt is under way: no signal is sent. */
void ph_slice_armed(ph_loop *l, bool armed);
/* To be set (relaxed) by whatever may change `due`. */
atomic_bool *ph_slice_stir(ph_loop *l);
/* Does anybody wait? due: as it is now. */
bool ph_slice_wanted(ph_loop *l, uint64_t due);
uint64_t ph_slice_cpu(void); /* CPU time of this thread, ns */

#endif
