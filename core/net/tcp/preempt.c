/* Preemption, the part that knows threads and signals: the standby looks at each tick whether one
 * slice of Lua goes on too long, and signals the thread that runs it; the handler calls back there.
 *
 * What the interpreter's thread tells (a slice's number, its thread, when somebody else wants it)
 * are relaxed atomics: an old value costs a signal too many or a tick, never a wrong yield, because
 * the handler compares numbers and the hook that it arms asks again.
 *
 * Races:
 * 1. A slice ends while a signal is on its way. Signals carry the number of the slice that they are
 *    for (`asked`); the handler drops one of another slice.
 * 2. The thread ends while the standby signals it. It is named by its id, not by its pthread_t: an
 *    id that is gone gives an error, and one used again gets a signal that means nothing to it.
 * 3. SIGURG of somebody else: `here`, of the thread that the handler runs on, has asked for
 *    nothing. Then whoever handled SIGURG before gets it.
 * 4. Slices of two loops inside each other on one thread: the handler knows the inner one. What the
 *    outer one has asked for meanwhile is lost, and asked for again after AGAIN_MS. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "net/tcp/tcp_int.h"

enum {
  TICK_MS = 5,
  SLACK_US = 500,   /* a tick may come that early */
  PROGRESS_US = 50, /* CPU time since the last tick, below which the thread rather waits */
  ALONE_MS = 100,   /* how often a slice that nobody waits for is looked into */
  AGAIN_MS = 100,   /* CPU time after which a signal counts as lost */
  HOPELESS_MS = 2000
};

/* The slice that this thread is in. In the thread's static block: a handler on a thread that has
 * never been here must not make libc allocate it. */
static _Thread_local ph__preempt *here __attribute__((tls_model("initial-exec")));
static _Thread_local pid_t thread_id __attribute__((tls_model("initial-exec")));

#define LOAD(x)     atomic_load_explicit(&(x), memory_order_relaxed)
#define STORE(x, v) atomic_store_explicit(&(x), v, memory_order_relaxed)
#define HANDLER()   atomic_signal_fence(memory_order_seq_cst)

/* ---- the handler ---- */

static struct sigaction before;

static void pass_on(int signum, siginfo_t *info, void *context) {
  if (before.sa_flags & SA_SIGINFO)
    before.sa_sigaction(signum, info, context);
  else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
    before.sa_handler(signum);
}

static void on_signal(int signum, siginfo_t *info, void *context) {
  int saved = errno;
  ph__preempt *p = here;
  uint64_t asked = p ? atomic_exchange(&p->asked, 0) : 0;
  if (!asked)
    pass_on(signum, info, context);
  else if (asked == LOAD(p->slice))
    p->interrupt(p->ctx);
  errno = saved;
}

static void install(void) {
  struct sigaction sa = {.sa_sigaction = on_signal,
                         .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
  sigemptyset(&sa.sa_mask);
  sigaction(SIGURG, NULL, &before); /* before the handler may need it */
  sigaction(SIGURG, &sa, NULL);
}

void ph__preempt_install(ph_loop *l) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  if (l->preempt.interrupt) pthread_once(&once, install);
}

/* ---- the interpreter's side ---- */

void ph_loop_preempt(ph_loop *l, void (*interrupt)(void *ctx), void *ctx) {
  l->preempt.interrupt = interrupt;
  l->preempt.ctx = ctx;
  STORE(l->preempt.length, PH_MS(TICK_MS));
}

void ph_loop_time_slice(ph_loop *l, uint64_t ms) {
  STORE(l->preempt.length, ms < UINT32_MAX ? PH_MS(ms) : PH_MS(UINT32_MAX));
}

static void know_thread(ph__preempt *p) {
  clockid_t clock;
  if (!thread_id) thread_id = gettid();
  if (pthread_getcpuclockid(pthread_self(), &clock) != 0) clock = CLOCK_MONOTONIC;
  STORE(p->clock, clock);
  STORE(p->thread, thread_id);
}

void ph_slice_begin(ph_loop *l, uint64_t who, uint64_t due) {
  ph__preempt *p = &l->preempt;
  if (!thread_id || LOAD(p->thread) != thread_id) know_thread(p);
  STORE(p->who, who);
  STORE(p->due, due);
  STORE(p->stirred, false);
  p->outer = here;
  here = p;
  HANDLER();
  STORE(p->slice, LOAD(p->slice) + 1);
}

void ph_slice_end(ph_loop *l) {
  ph__preempt *p = &l->preempt;
  STORE(p->slice, LOAD(p->slice) + 1);
  HANDLER();
  here = p->outer;
}

uint64_t ph_slice_number(const ph_loop *l) {
  return LOAD(l->preempt.slice);
}

void ph_slice_armed(ph_loop *l, bool armed) {
  STORE(l->preempt.armed, armed);
}

atomic_bool *ph_slice_stir(ph_loop *l) {
  return &l->preempt.stirred;
}

bool ph_slice_wanted(ph_loop *l, uint64_t due) {
  STORE(l->preempt.stirred, false);
  STORE(l->preempt.due, due);
  return ph__preempt_waits(l, ph_now(l->env));
}

uint64_t ph_slice_cpu(void) {
  struct timespec ts;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void ph__preempt_forget(ph_loop *l) {
  if (here == &l->preempt) here = NULL;
}

/* ---- the standby's side ---- */

bool ph__preempt_waits(ph_loop *l, uint64_t now) {
  if (LOAD(l->preempt.due) <= now || LOAD(l->preempt.stirred)) return true;
  if (atomic_load(&l->woken) || atomic_load(&l->signalled)) return true;
  return l->hooks.waits && l->hooks.waits(l->hooks.ctx);
}

static bool cpu_of(ph__preempt *p, uint64_t *out) {
  struct timespec ts;
  if (clock_gettime(LOAD(p->clock), &ts) != 0) return false;
  *out = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
  return true;
}

static void log_hopeless(ph_loop *l, ph__preempt *p) {
  p->hopeless = true;
  ph_logf(l->env, PH_LOG_WARN,
          "the process with the serial %llu does not give way: it has been inside a C function, "
          "a finalizer or a message handler for %d s, where nothing can stop it",
          (unsigned long long)LOAD(p->who), HOPELESS_MS / 1000);
}

/* A signal, or the hook that it armed, is on its way. One that was lost (the user has set a hook of
 * his own in the moment between) is sent again. */
static bool under_way(ph_loop *l, ph__preempt *p, uint64_t now, uint64_t cpu) {
  bool armed = LOAD(p->armed);
  if (!armed && atomic_load(&p->asked) != p->seen) {
    p->first_cpu = cpu;
    return false;
  }
  if (armed && !p->hopeless && cpu - p->first_cpu >= PH_MS(HOPELESS_MS) &&
      ph__preempt_waits(l, now))
    log_hopeless(l, p);
  return cpu - p->asked_cpu < PH_MS(AGAIN_MS);
}

static bool too_long(ph_loop *l, ph__preempt *p, uint64_t now, uint64_t cpu) {
  if (now - p->since + SLACK_US * 1000 < LOAD(p->length)) return false;
  return ph__preempt_waits(l, now) || cpu - p->looked_cpu >= PH_MS(ALONE_MS);
}

/* SA_RESTART does not keep usleep and its like from ending early: so a thread that waits in the
 * system must not be signalled. Its CPU time says that it has run since the last tick, the kernel
 * whether it does now; where /proc cannot be read, the first must do. */
static bool sleeps(const ph__preempt *p) {
  char text[128];
  snprintf(text, sizeof text, "/proc/self/task/%d/stat", (int)LOAD(p->thread));
  int fd = open(text, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  text[n > 0 ? n : 0] = '\0';
  const char *name_end = strrchr(text, ')'); /* id (name) state ... */
  return name_end && name_end[1] && name_end[2] != 'R';
}

static void ask(ph__preempt *p, uint64_t cpu) {
  p->looked_cpu = p->asked_cpu = cpu;
  atomic_store(&p->asked, p->seen);
  tgkill(getpid(), LOAD(p->thread), SIGURG);
}

uint64_t ph__preempt_tick(ph_loop *l, uint64_t now) {
  ph__preempt *p = &l->preempt;
  if (!p->interrupt) return PH_NEVER;
  uint64_t slice = LOAD(p->slice), length = LOAD(p->length), cpu;
  uint64_t tick = length < PH_MS(TICK_MS) ? length : PH_MS(TICK_MS);
  if (!(slice & 1) || !cpu_of(p, &cpu)) return tick;
  if (slice != p->seen) {
    p->seen = slice;
    p->since = now;
    p->last_cpu = p->looked_cpu = p->first_cpu = cpu;
    p->hopeless = false;
    return tick;
  }
  bool ran = cpu - p->last_cpu >= PROGRESS_US * 1000;
  p->last_cpu = cpu;
  if (!under_way(l, p, now, cpu) && ran && too_long(l, p, now, cpu) && !sleeps(p)) ask(p, cpu);
  return tick;
}
