/* Local children: queued, started by the host, watched, restarted, stopped. Every change of state
 * is told as this node's running fact of the child.
 *
 * A child that ran and fails is restarted at once, QUICK times in QUICK_MS; then it waits alone, 1
 * s doubling to 30 s. So does one whose restart would exceed the supervisor's budget
 * (dsup_max_restarts in dsup_max_seconds). */
#include <string.h>

#include "hub/internal.h"

enum {
  QUICK = 3,
  QUICK_MS = 5000,
  BACKOFF_MS = 1000,
  BACKOFF_MAX_MS = 30000,
  VERDICT_MS = 500,
  SLICE = 512
};

static bool by_token(const void *item, const void *key) {
  return ((const ph_child *)item)->token == *(const uint64_t *)key;
}

void ph__child_tell(ph_child *c, uint8_t state) {
  ph_fact *f = c->fact;
  f->state = state;
  f->num = c->num;
  f->serial = c->proc ? ph_id_serial(c->proc->pid) : 0;
  ph__own_fact_changed(c->hub, f);
  ph__row_dirty(c->hub, c->row);
}

static void gone(ph_child *c) {
  ph_hub *h = c->hub;
  ph_timer_stop(&h->sys->timers, &c->timer);
  ph_list_remove(&c->list);
  if (c->moving) h->moving--;
  c->row->child = NULL;
  ph__row_dirty(h, c->row);
  ph__own_fact_gone(h, c->fact);
  ph_spec_unref(&h->specs, c->spec);
  ph_bytes_unref(h->env, c->reason);
  ph_free(h->env, c);
  h->child_count--;
  ph__kick(h);
}

static void enqueue(ph_child *c) {
  c->state = PH_CH_QUEUED;
  ph_list_remove(&c->list);
  ph_list_push(&c->hub->start_queue, &c->list);
  ph__child_tell(c, PH_FACT_STARTING);
  ph__kick(c->hub);
}

static void timer(ph_timer *t) {
  ph_child *c = PH_CONTAINER(t, ph_child, timer);
  ph_hub *h = c->hub;
  int err = 0;
  if (c->state == PH_CH_STOPPING && c->proc) { /* its shutdown time is over */
    err = ph_signal(h->sys, h->pid, c->proc->pid, ph_reason_get(h->sys, PH_REASON_KILL), true);
  } else if (c->state == PH_CH_BACKOFF) {
    enqueue(c);
    return;
  } else if (c->state == PH_CH_FAILED) {
    ph_nodeent *requester = h->sys->nodes[c->num.node];
    if (!ph__member(h, requester)) { /* nobody is left who could say: it is kept */
      ph__child_backoff(h, c);
      return;
    }
  } else {
    return;
  }
  if (!err && c->state != PH_CH_FAILED) return;
  /* it has just fired: there is room for it */
  (void)!ph_timer_start(&h->sys->timers, t, ph_due(h->env, VERDICT_MS));

  if (!err) ph__report_failed(h, c); /* the word or the answer may have been lost */
}

int ph__child_start(ph_hub *h, ph_row *r) {
  ph_child *c = ph_zalloc(h->env, sizeof *c);
  if (!c) return PH_ENOMEM;
  int err = ph__fact_set(h, r, &h->self, r->live->num, PH_FACT_STARTING, 0, &c->fact);
  if (err) {
    ph_free(h->env, c);
    return err;
  }
  c->hub = h;
  c->row = r;
  c->num = r->live->num;
  r->live->fresh = false;
  c->spec = ph_spec_ref(r->live->spec);
  ph_timer_init(&c->timer, timer);
  ph_list_init(&c->list);
  r->child = c;
  h->child_count++;
  enqueue(c);
  return 0;
}

void ph__child_backoff(ph_hub *h, ph_child *c) {
  uint64_t ms = BACKOFF_MAX_MS;
  if (c->backoffs < 5) ms = (uint64_t)BACKOFF_MS << c->backoffs;
  c->backoffs++;
  c->state = PH_CH_BACKOFF;
  ph_list_remove(&c->list);
  ph_list_push(&h->children, &c->list);
  ph__child_tell(c, PH_FACT_BACKOFF);
  if (ph_timer_start(&h->sys->timers, &c->timer, ph_due(h->env, ms)))
    enqueue(c); /* no memory to wait with */
}

void ph__children_mend(ph_hub *h) {
  for (ph_list *l = h->children.next; l != &h->children; l = l->next) {
    ph_child *c = PH_CONTAINER(l, ph_child, list);
    if (c->state == PH_CH_FAILED && !ph_timer_armed(&c->timer) &&
        ph_timer_start(&h->sys->timers, &c->timer, ph_due(h->env, VERDICT_MS)))
      ph__oom(h);
  }
}

/* ---- Starting */

static int begin(ph_hub *h, ph_child *c) {
  c->token = h->next_token + 1;
  int err = ph_index_put(&h->tokens, ph_hash64(c->token), c);
  if (err) return err;
  h->next_token++;
  ph_list_remove(&c->list);
  ph_list_push(&h->children, &c->list);
  c->state = PH_CH_STARTING;
  h->starting++;
  h->node->hub_host.start(h->node->hub_host.ctx, h, c->row->id, c->row->id_len, c->spec, c->token);
  return 0;
}

bool ph__children_slice(ph_hub *h) {
  for (int i = 0; i < SLICE; i++) {
    if (ph_list_empty(&h->start_queue) || h->starting >= h->cfg.max_concurrent_starts || !h->proc)
      return false;
    ph_child *c = PH_CONTAINER(h->start_queue.next, ph_child, list);
    if (begin(h, c)) {
      ph__oom(h);
      return false;
    }
  }
  return true;
}

static void failed(ph_hub *h, ph_child *c, ph_bytes *reason) {
  ph_intent *in = ph__intent_find(c->row, c->num);
  ph_bytes_unref(h->env, c->reason);
  c->reason = ph_bytes_ref(reason);
  if (c->ran || !in || in->confirmed) {
    ph_logf(h->env, PH_LOG_WARN, "hub %s: child %.*s could not be started, it is tried again",
            h->id, (int)c->row->id_len, c->row->id);
    ph__child_backoff(h, c);
    return;
  }
  c->state = PH_CH_FAILED;
  ph__child_tell(c, PH_FACT_FAILED);
  if (ph_timer_start(&h->sys->timers, &c->timer, ph_due(h->env, VERDICT_MS))) ph__oom(h);
  ph__report_failed(h, c); /* last: the answer may end the child */
}

static void child_exit(ph_proc *p, void *owner, ph_bytes *reason);

/* Why the process that a start function gave is not its child, owned; p: NULL when it is dead. */
static ph_bytes *refusal(ph_hub *h, const ph_proc *p, ph_bytes *reason) {
  if (reason) return ph_bytes_ref(reason);
  if (!p) return ph_bytes_ref(ph_reason_get(h->sys, PH_REASON_NOPROC));
  const char *code = ph_err_code(PH_EBADRESULT);
  ph_bytes *r = ph_reason_str(h->sys, code, strlen(code));
  return r ? r : ph_bytes_ref(ph_reason_get(h->sys, PH_REASON_NOMEM));
}

void ph_hub_started(ph_hub *h, uint64_t token, ph_pid pid, ph_bytes *reason) {
  ph_child *c = ph_index_find(&h->tokens, ph_hash64(token), by_token, &token);
  if (!c) {
    ph_bytes_unref(h->env, reason);
    return;
  }
  ph_index_remove(&h->tokens, ph_hash64(token), c);
  h->starting--;
  ph__kick(h); /* there is room for the next one */
  ph_proc *p = pid ? ph_proc_find(h->sys, pid) : NULL;
  if (!p || p->on_exit || p == h->proc) { /* dead, a child already, or the children's supervisor */
    ph_bytes *why = refusal(h, p, reason);
    if (c->unwanted)
      gone(c);
    else
      failed(h, c, why);
    ph_bytes_unref(h->env, why);
    ph_bytes_unref(h->env, reason);
    return;
  }
  c->proc = p;
  p->on_exit = child_exit;
  p->owner = c;
  c->state = PH_CH_RUNNING;
  c->started_at = ph_now(h->env);
  if (c->unwanted) {
    ph__child_stop(h, c);
    return;
  }
  c->ran = true;
  ph__child_tell(c, PH_FACT_RUNNING);
}

/* ---- Ends */

/* within the budget of the child? */
static bool is_quick(ph_child *c, uint64_t now) {
  if (now - c->window_at > PH_MS(QUICK_MS)) {
    c->window_at = now;
    c->restarts = 0;
  }
  if (now - c->started_at > PH_MS(BACKOFF_MAX_MS)) c->backoffs = 0;
  return ++c->restarts <= QUICK;
}

/* within that of the supervisor? */
static bool in_budget(ph_hub *h, uint64_t now) {
  if (now - h->window_at > PH_MS(h->cfg.max_seconds * 1000)) {
    h->window_at = now;
    h->restarts = 0;
  }
  return ++h->restarts <= h->cfg.max_restarts;
}

/* dsup_limit_action = "restart_all": nothing waits alone; when the supervisor's budget is used up
 * every child here is stopped, and placement starts it again, as it does any that nobody holds. */
static void restart_all(ph_hub *h, ph_child *failed) {
  ph_logf(h->env, PH_LOG_WARN,
          "hub %s: more than %u restarts in its time, %.*s the last: all children here start again",
          h->id, h->cfg.max_restarts, (int)failed->row->id_len, failed->row->id);
  h->restarts = 0;
  enqueue(failed);
  for (ph_list *l = h->children.next, *next; l != &h->children; l = next) {
    ph_child *c = PH_CONTAINER(l, ph_child, list);
    next = l->next;
    if (c->state == PH_CH_RUNNING) ph__child_stop(h, c);
  }
}

static void restart(ph_hub *h, ph_child *c) {
  uint64_t now = ph_now(h->env);
  if (h->cfg.restart_all)
    in_budget(h, now) ? enqueue(c) : restart_all(h, c);
  else if (is_quick(c, now) && in_budget(h, now))
    enqueue(c);
  else
    ph__child_backoff(h, c);
}

static void child_exit(ph_proc *p, void *owner, ph_bytes *reason) {
  ph_child *c = owner;
  ph_hub *h = c->hub;
  (void)p;
  c->proc = NULL;
  if (c->state != PH_CH_RUNNING && c->state != PH_CH_HOLDING) {
    gone(c);
    return;
  }
  bool again = c->spec->restart == PH_RESTART_PERMANENT ||
               (c->spec->restart == PH_RESTART_TRANSIENT && !ph_reason_clean(reason));
  if (!again && !h->freeing) { /* it ended for good: so does the number of its start */
    const ph_intent *in = ph__intent_find(c->row, c->num);
    if (!in || !ph__intent_end(h, c->row, in)) {
      gone(c);
      return;
    }
    ph__oom(h);
  }
  if (c->state == PH_CH_HOLDING) { /* it starts again where it was about to go */
    gone(c);
    return;
  }
  restart(h, c);
}

void ph__child_stop(ph_hub *h, ph_child *c) {
  switch ((ph_child_state)c->state) {
  case PH_CH_STOPPING:
    return;
  case PH_CH_STARTING:
    if (c->unwanted) return;
    c->unwanted = true;
    h->node->hub_host.abandon(h->node->hub_host.ctx, h, c->token);
    return;
  case PH_CH_QUEUED:
  case PH_CH_BACKOFF:
  case PH_CH_FAILED:
    gone(c);
    return;
  case PH_CH_RUNNING:
  case PH_CH_HOLDING:
    break;
  }
  ph_list_remove(&c->list); /* it may have been holding */
  ph_list_push(&h->children, &c->list);
  uint64_t ms = c->spec->shutdown;
  bool brutal = ms == PH_SHUTDOWN_BRUTAL;
  ph_bytes *reason = ph_reason_get(h->sys, brutal ? PH_REASON_KILL : PH_REASON_SHUTDOWN);
  c->state = PH_CH_STOPPING;
  ph__child_tell(c, PH_FACT_STOPPING);
  int err = ph_signal(h->sys, h->pid, c->proc->pid, reason, true);
  if (err) ms = VERDICT_MS; /* no memory for a signal: it is killed soon */
  if ((!brutal || err) && ph_timer_start(&h->sys->timers, &c->timer, ph_due(h->env, ms)))
    (void)!ph_signal(h->sys, h->pid, c->proc->pid, ph_reason_get(h->sys, PH_REASON_KILL), true);
}

void ph__children_stop(ph_hub *h) {
  while (!ph_list_empty(&h->start_queue))
    ph__child_stop(h, PH_CONTAINER(h->start_queue.next, ph_child, list));
  ph_list all; /* a stopped one goes to the end of the list */
  ph_list_init(&all);
  ph_list_move(&all, &h->children);
  ph_list_move(&all, &h->holding);
  while (!ph_list_empty(&all)) {
    ph_list *l = ph_list_pop(&all);
    ph_list_push(&h->children, l);
    ph__child_stop(h, PH_CONTAINER(l, ph_child, list));
  }
}

/* the hub goes at once: the processes are killed, nobody is told */
void ph__children_kill(ph_hub *h) {
  ph_list_move(&h->children, &h->start_queue);
  ph_list_move(&h->children, &h->holding);
  while (!ph_list_empty(&h->children)) {
    ph_child *c = PH_CONTAINER(h->children.next, ph_child, list);
    if (c->state == PH_CH_STARTING) {
      h->node->hub_host.abandon(h->node->hub_host.ctx, h, c->token);
      ph_index_remove(&h->tokens, ph_hash64(c->token), c);
    }
    if (c->proc) {
      c->proc->on_exit = NULL;
      c->proc->owner = NULL;
      (void)!ph_signal(h->sys, h->pid, c->proc->pid, ph_reason_get(h->sys, PH_REASON_KILL), true);
    }
    gone(c);
  }
}

/* ---- The supervisor's process: the parent that children see; it takes no messages */

static ph_run hub_run(ph_sys *s, ph_proc *p) {
  ph_msg *m;
  while ((m = ph_recv(p))) ph_msg_free(s, m);
  return PH_RUN_WAIT;
}

static void hub_ended(ph_sys *s, ph_proc *p, ph_bytes *reason) {
  ph_hub *h = p->data;
  (void)s;
  (void)reason;
  if (!h) return;
  h->proc = NULL; /* killed from outside: a new one takes its place in the next turn */
  ph__kick(h);
}

const ph_behaviour ph__hub_behaviour = {"hub", hub_run, hub_ended};
