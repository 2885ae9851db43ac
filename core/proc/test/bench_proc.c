/* What the process system costs, in nanoseconds an operation. */
#include <stdio.h>
#include <stdlib.h>

#include "proc/proc.h"

static ph_env env;
static ph_sys sys;

static ph_run take_all(ph_sys *s, ph_proc *p) {
  for (ph_msg *m; (m = ph_recv(p));) {
    if (m->cls == PH_C_CALL) {
      ph_msg *a = ph_msg_bytes(s, PH_C_REPLY, m->data, m->len);
      if (!a || ph_reply(s, m->from, m->ref, a)) abort();
    }
    ph_msg_free(s, m);
  }
  return PH_RUN_WAIT;
}

static void ended(ph_sys *s, ph_proc *p, ph_bytes *reason) {
  (void)s;
  (void)p;
  (void)reason;
}

static const ph_behaviour taker = {"taker", take_all, ended};

static void report(const char *what, uint64_t since, long n) {
  printf("%-44s %7.1f ns\n", what, (double)(ph_now(&env) - since) / (double)n);
}

static void messages(ph_proc *p, long batch) {
  enum { N = 2000000 };
  uint64_t start = ph_now(&env);
  for (long i = 0; i < N; i += batch) {
    for (long k = 0; k < batch; k++) {
      ph_msg *m = ph_msg_bytes(&sys, PH_C_INFO,
                               "\xa3"
                               "abc",
                               4);
      if (!m || ph_send(&sys, p->pid, m, false)) abort();
    }
    ph_sys_run(&sys, PH_NEVER);
  }
  char what[64];
  snprintf(what, sizeof what, "message, sent and received, %ld a run", batch);
  report(what, start, N);
}

static long answers;
static void on_answer(ph_waiter *w, int err, ph_msg *m, ph_bytes *reason) {
  (void)reason;
  if (err) abort();
  answers++;
  ph_msg_free(w->sys, m);
}

static void calls(ph_proc *p, long batch, bool timeout) {
  enum { N = 1000000, MAX = 64 };
  static ph_waiter w[MAX];
  uint64_t start = ph_now(&env);
  for (long k = 0; k < batch; k++) ph_waiter_init(&sys, &w[k], on_answer);
  answers = 0;
  for (long i = 0; i < N; i += batch) {
    uint64_t due = timeout ? ph_now(&env) + PH_MS(5000) : PH_NEVER;
    for (long k = 0; k < batch; k++) {
      ph_msg *m = ph_msg_bytes(&sys, PH_C_CALL, "\x01", 1);
      if (!m || ph_call(&sys, 0, p->pid, m, &w[k], due)) abort();
    }
    while (ph_sys_run(&sys, PH_NEVER)) {
    }
  }
  if (answers < N) abort();
  char what[64];
  snprintf(what, sizeof what, "call%s, %ld at a time", timeout ? " with timeout" : "", batch);
  report(what, start, N);
}

static void spawns(void) {
  enum { N = 1000000 };
  ph_proc **all = malloc(N * sizeof *all);
  ph_bytes *normal = ph_reason_get(&sys, PH_REASON_NORMAL);
  uint64_t start = ph_now(&env);
  for (long i = 0; i < N; i++) {
    ph_proc *p = ph_spawn(&sys, &taker, NULL);
    if (!p) abort();
    ph_exit(p, normal);
  }
  report("spawn and exit, one by one", start, N);
  uint64_t worst = 0;
  start = ph_now(&env);
  for (long i = 0; i < N; i++) {
    uint64_t t = ph_now(&env);
    all[i] = ph_spawn(&sys, &taker, NULL);
    if (!all[i]) abort();
    t = ph_now(&env) - t;
    if (t > worst) worst = t;
  }
  report("spawn, up to a million", start, N);
  printf("%-44s %7.1f us\n", "  the longest of them", (double)worst / 1000);
  start = ph_now(&env);
  for (long i = 0; i < N; i++)
    if (ph_send(&sys, all[i]->pid, ph_msg_bytes(&sys, PH_C_INFO, "\x01", 1), false)) abort();
  ph_sys_run(&sys, PH_NEVER);
  report("message to each of a million", start, N);
  start = ph_now(&env);
  for (long i = 0; i < N; i++) ph_exit(all[i], normal);
  report("exit of a million", start, N);
  free(all);
}

static void links(void) {
  enum { N = 500000 };
  ph_proc *p = ph_spawn(&sys, &taker, NULL);
  ph_ref ref;
  uint64_t start = ph_now(&env);
  for (long i = 0; i < N; i++) {
    ph_proc *q = ph_spawn(&sys, &taker, NULL);
    if (!q || ph_link_procs(q, p->pid) || ph_monitor(p, q->pid, &ref)) abort();
    ph_exit(q, ph_reason_get(&sys, PH_REASON_NORMAL));
    ph_msg_free(&sys, ph_recv(p));
  }
  report("spawn, link, monitor, exit", start, N);
  ph_exit(p, ph_reason_get(&sys, PH_REASON_NORMAL));
}

int main(void) {
  ph_env_real(&env);
  if (ph_sys_init(&sys, &env, NULL, NULL)) return 1;
  printf("sizeof: process %zu, message %zu, waiter %zu, link %zu\n", sizeof(ph_proc),
         sizeof(ph_msg), sizeof(ph_waiter), sizeof(ph_link));
  ph_proc *p = ph_spawn(&sys, &taker, NULL);
  messages(p, 1);
  messages(p, 100);
  calls(p, 1, false);
  calls(p, 1, true);
  calls(p, 64, true);
  spawns();
  links();
  ph_sys_deinit(&sys);
  return 0;
}
