#include <string.h>

#include "proc/proc_int.h"

enum { TIMERS_A_RUN = 512 };

static int make_reasons(ph_sys *s) {
  static const char texts[PH_REASON_COUNT][16] = {
      [PH_REASON_NORMAL] = "normal",           [PH_REASON_SHUTDOWN] = "shutdown",
      [PH_REASON_KILLED] = "killed",           [PH_REASON_NOPROC] = "noproc",
      [PH_REASON_NOCONN] = "noconnection",     [PH_REASON_KILL] = "kill",
      [PH_REASON_UNYIELDABLE] = "unyieldable", [PH_REASON_NOMEM] = "no_memory"};
  _Static_assert(PH_REASON_COUNT <= sizeof s->reasons / sizeof *s->reasons, "reasons");
  for (int i = 0; i < PH_REASON_COUNT; i++) {
    s->reasons[i] = ph_reason_str(s, texts[i], strlen(texts[i]));
    if (!s->reasons[i]) return PH_ENOMEM;
  }
  return 0;
}

static void free_all(ph_sys *s) {
  ph__nodes_deinit(s);
  ph_index_deinit(&s->procs);
  ph_index_deinit(&s->refs);
  ph_index_deinit(&s->links);
  ph_index_deinit(&s->names);
  ph__flow_deinit(s);
  ph_timers_deinit(&s->timers);
  ph_buf_deinit(&s->frame);
  ph_buf_deinit(&s->id);
  for (int i = 0; i < PH_REASON_COUNT; i++) {
    ph_bytes_unref(s->env, s->reasons[i]);
    s->reasons[i] = NULL;
  }
}

int ph_sys_init(ph_sys *s, const ph_env *env, const ph_sys_host *host, const ph_port *port) {
  memset(s, 0, sizeof *s);
  s->env = env;
  if (host) s->host = *host;
  if (port) s->port = *port;
  s->next_serial = s->next_ref = 1;
  s->seed = ph_random64(env);
  s->rq_tail = &s->rq_head;
  ph_timers_init(&s->timers, env);
  ph_index_init(&s->node_ids, env);
  ph_index_init(&s->peers, env);
  ph_index_init(&s->ups, env);
  ph_index_init(&s->procs, env);
  ph_index_init(&s->refs, env);
  ph_index_init(&s->links, env);
  ph_index_init(&s->names, env);
  ph_index_init(&s->full, env);
  ph_list_init(&s->woken);
  ph_list_init(&s->lossy);
  ph_buf_init(&s->frame, env);
  ph_buf_init(&s->id, env);
  int rc = make_reasons(s);
  if (!rc) rc = ph__nodes_init(s);
  if (rc) free_all(s);
  return rc;
}

ph_proc *ph__rq_pop(ph_sys *s) {
  ph_proc *p = s->rq_head;
  s->rq_head = p->rq_next;
  if (!s->rq_head) s->rq_tail = &s->rq_head;
  s->runnable--;
  p->queued = 0;
  return p;
}

/* Ends the processes there are; their `ended` and `on_exit` may end further ones. */
static void end_processes(ph_sys *s) {
  ph_index_iter it = {0};
  for (ph_proc *p; (p = ph_index_next(&s->procs, &it));) ph_ready(p);
  while (s->rq_head) {
    ph_proc *p = ph__rq_pop(s);
    if (p->bh)
      ph_exit(p, ph_reason_get(s, PH_REASON_SHUTDOWN));
    else
      ph_free(s->env, p);
  }
}

void ph_sys_deinit(ph_sys *s) {
  s->closing = true; /* nothing is spawned any more */
  end_processes(s);
  /* refs left: timers, which are ours, and waiters, which are their owners' */
  ph_index_iter it = {0};
  for (ph_refobj *o; (o = ph_index_next(&s->refs, &it));) {
    if (o->kind == PH_R_TIMER)
      ph__after_free(s, o);
    else
      ph__waiter_forget(PH_CONTAINER(o, ph_waiter, obj));
  }
  while (!ph_list_empty(&s->woken)) ph_wait_cancel(PH_CONTAINER(s->woken.next, ph_waiter, woken));
  free_all(s);
}

/* NULL, or the process when it wants another turn */
static ph_proc *run_one(ph_sys *s) {
  ph_proc *p = ph__rq_pop(s);
  if (!p->bh) { /* it ended while it was queued */
    ph_free(s->env, p);
    return NULL;
  }
  if (p->killed) {
    ph_exit(p, p->killed);
    return NULL;
  }
  s->current = p;
  p->running = 1;
  ph_run result = p->bh->run(s, p);
  if (s->current != p) return NULL; /* it has ended itself */
  s->current = NULL;
  p->running = 0;
  if (!p->killed) return result == PH_RUN_AGAIN ? p : NULL;
  ph_exit(p, p->killed);
  return NULL;
}

static bool run_due(ph_sys *s, uint64_t now) {
  ph_timers_run(&s->timers, now, TIMERS_A_RUN);
  return ph__run_woken(s);
}

bool ph_sys_run(ph_sys *s, uint64_t budget_ns) {
  uint64_t start = ph_now(s->env);
  if (!ph_list_empty(&s->lossy)) ph__reset_lossy(s);
  bool more = run_due(s, start), over = false;
  for (size_t n = s->runnable; n && !over; n--) {
    ph_proc *again = run_one(s);
    uint64_t now = budget_ns == PH_NEVER ? start : ph_now(s->env);
    over = now - start >= budget_ns;
    if (over && again) { /* what became due meanwhile is before it; it may end by that */
      ph_pid pid = again->pid;
      more = run_due(s, now);
      again = ph_proc_find(s, pid);
    }
    if (again) ph_ready(again);
  }
  return more || s->runnable || !ph_list_empty(&s->woken) || !ph_list_empty(&s->lossy);
}

ph_bytes *ph_reason_get(ph_sys *s, ph_reason r) {
  return s->reasons[r];
}

ph_bytes *ph_reason_str(ph_sys *s, const char *p, size_t n) {
  ph_buf_reset(&s->id);
  ph_w_str(&s->id, p, n);
  if (s->id.oom) return NULL;
  return ph_bytes_new(s->env, ph_buf_at(&s->id), ph_buf_size(&s->id));
}

bool ph_reason_is(const ph_bytes *reason, const char *text) {
  ph_reader r;
  ph_token t;
  ph_reader_init(&r, reason->data, reason->len);
  if (ph_r_next(&r, &t) || t.type != PH_T_STR || ph_reader_left(&r)) return false;
  return t.len == strlen(text) && memcmp(t.ptr, text, t.len) == 0;
}
