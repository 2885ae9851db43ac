#include "proc/supervisor.h"

#include <string.h>

enum { SLICE = 128, TURN_US = 1000, FIRST_TIMES = 8 };

/* What a turn's piece of work came to. */
typedef enum { GOES_ON, WAITS, OVER } outcome; /* OVER: the supervisor is gone */

typedef enum { IDLE, STARTING, STOPPING } step;

/* What the starting and stopping is for. */
typedef enum {
  J_INIT,
  J_INIT_FAILED,
  J_ADD,
  J_TERMINATE,
  J_RESTART, /* asked for */
  J_RECOVER, /* after an end */
  J_END
} job;

typedef struct request {
  ph_list list;
  ph_ref ref;
  ph_sup_op op;
  ph_sup_child *child; /* ADD */
  size_t id_len;
  char id[];
} request;

struct ph_sup {
  ph_sys *sys;
  const ph_env *env;
  ph_proc *p;
  ph_sup_host host;
  ph_sup_config cfg;
  ph_pid parent;
  ph_list children;
  ph_index ids;
  ph_list dead;     /* ended by themselves, in that order, not looked at yet */
  ph_list again;    /* restarting */
  ph_list requests; /* in the order of their calls in the mailbox */
  ph_timer timer;   /* of the child being stopped */
  uint64_t *times;  /* a ring: the restarts of the last period */
  uint32_t times_at, times_count, times_cap;

  /* the work under way: what is STARTING from `at` to the last child (or `alone`), or STOPPING
   * from `at` back to `first` */
  uint8_t step, job;
  bool alone, asked, answered;
  ph_sup_child *at, *first;
  ph_sup_child *cause; /* RECOVER, INIT_FAILED: the child that it began with */
  ph_pid from;         /* whom to answer */
  ph_ref ref;
  uint64_t token;
  ph_pid pid;       /* of the last start */
  ph_bytes *reason; /* ... why it failed; J_END: with what to end */
};

/* ---- Children -------------------------------------------------------------------------------- */

typedef struct id_key {
  const char *id;
  size_t n;
} id_key;

static bool id_eq(const void *item, const void *key) {
  const ph_sup_child *c = item;
  const id_key *k = key;
  return c->id_len == k->n && memcmp(c->id, k->id, k->n) == 0;
}

static uint64_t id_hash(const ph_sup *s, const char *id, size_t n) {
  return ph_hash(id, n, s->sys->seed);
}

static ph_sup_child *find(const ph_sup *s, const char *id, size_t n) {
  return ph_index_find(&s->ids, id_hash(s, id, n), id_eq, &(id_key){id, n});
}

int ph_sup_child_new(ph_sup *s, const ph_sup_spec *spec, ph_sup_child **out) {
  ph_sup_child *c = ph_zalloc(s->env, sizeof *c + spec->id_len + 1);
  if (!c) return PH_ENOMEM;
  c->sup = s;
  c->user = spec->user;
  c->shutdown = spec->shutdown;
  c->restart = (uint8_t)spec->restart;
  c->supervisor = spec->supervisor;
  c->id_len = spec->id_len;
  memcpy(c->id, spec->id, spec->id_len);
  ph_list_init(&c->all);
  ph_list_init(&c->due);
  *out = c;
  return 0;
}

void ph_sup_child_free(ph_sup_child *c) {
  ph_sup *s = c->sup;
  s->host.drop(s->host.ctx, c->user);
  ph_bytes_unref(s->env, c->reason);
  ph_free(s->env, c);
}

int ph_sup_add(ph_sup *s, ph_sup_child *c) {
  if (find(s, c->id, c->id_len)) return PH_EDUPID;
  if (ph_index_put(&s->ids, id_hash(s, c->id, c->id_len), c)) return PH_ENOMEM;
  ph_list_push(&s->children, &c->all);
  return 0;
}

/* nothing is due for it any more */
static void forget(ph_sup_child *c) {
  ph_list_remove(&c->due);
  ph_bytes_unref(c->sup->env, c->reason);
  c->reason = NULL;
  c->restarting = c->held = false;
}

static void discard(ph_sup_child *c) {
  ph_sup *s = c->sup;
  forget(c);
  ph_index_remove(&s->ids, id_hash(s, c->id, c->id_len), c);
  ph_list_remove(&c->all);
  ph_sup_child_free(c);
}

ph_sup_child *ph_sup_next(const ph_sup *s, const ph_sup_child *prev) {
  const ph_list *l = prev ? prev->all.next : s->children.next;
  return l == &s->children ? NULL : PH_CONTAINER(l, ph_sup_child, all);
}

static ph_sup_child *previous(const ph_sup *s, const ph_sup_child *c) {
  const ph_list *l = c ? c->all.prev : s->children.prev;
  return l == &s->children ? NULL : PH_CONTAINER(l, ph_sup_child, all);
}

static void release(ph_sup_child *c) {
  if (!c->ended) return;
  c->ended = false;
  c->sup->host.release(c->sup->host.ctx, c);
}

static void child_ended(ph_proc *p, void *owner, ph_bytes *reason) {
  ph_sup_child *c = owner;
  ph_sup *s = c->sup;
  (void)p;
  c->proc = NULL;
  c->ended = true;
  if (!c->stopping) {
    c->reason = ph_bytes_ref(reason);
    ph_list_push(&s->dead, &c->due);
  }
  ph_ready(s->p);
}

ph_sup_child *ph_sup_child_of(const ph_proc *p) {
  return p->on_exit == child_ended ? p->owner : NULL;
}

void ph_sup_hold(ph_sup_child *c) {
  c->held = true;
}

/* ---- Answers --------------------------------------------------------------------------------- */

typedef struct answer_head {
  ph_pid pid;
  size_t reason_len, id_len;
  int err;
} answer_head;

void ph_sup_answer_read(const ph_msg *m, ph_sup_answer *out) {
  answer_head h;
  memcpy(&h, m->data, sizeof h);
  *out =
      (ph_sup_answer){.err = h.err, .pid = h.pid, .reason_len = h.reason_len, .id_len = h.id_len};
  out->reason = m->data + sizeof h;
  out->id = (const char *)out->reason + h.reason_len;
}

static void no_memory(ph_sup *s) {
  ph_waiter *w = ph_waiter_find(s->sys, s->ref);
  if (w) ph_wake(w, PH_ENOMEM, NULL);
}

/* `c`: the child that did not start for s->reason, or NULL */
static void answer(ph_sup *s, int err, ph_pid pid, const ph_sup_child *c) {
  answer_head h = {.pid = pid, .err = err};
  if (c) {
    h.reason_len = s->reason->len;
    h.id_len = c->id_len;
  }
  size_t n = sizeof h + h.reason_len + h.id_len;
  uint8_t *b = ph_alloc(s->env, n);
  ph_msg *m = NULL;
  if (b) {
    memcpy(b, &h, sizeof h);
    if (c) {
      memcpy(b + sizeof h, s->reason->data, h.reason_len);
      memcpy(b + sizeof h + h.reason_len, c->id, h.id_len);
    }
    m = ph_msg_bytes(s->sys, PH_C_REPLY, b, n);
    ph_free(s->env, b);
  }
  if (m && ph_reply(s->sys, s->from, s->ref, m) == 0) return;
  ph_msg_free(s->sys, m);
  no_memory(s);
}

static void say(const ph_sup *s, int level, const char *what, const ph_sup_child *c) {
  ph_logf(s->env, level, "supervisor <%s.%llu>: %s%s%.*s", s->sys->nodes[PH_SELF]->name,
          (unsigned long long)ph_id_serial(s->p->pid), what, c ? ": child " : "",
          c ? (int)c->id_len : 0, c ? c->id : "");
}

/* ---- Starting -------------------------------------------------------------------------------- */

static void start_from(ph_sup *s, job j, ph_sup_child *c, bool alone) {
  s->step = STARTING;
  s->job = (uint8_t)j;
  s->at = c;
  s->alone = alone;
  s->asked = s->answered = false;
}

static void stop_from(ph_sup *s, job j, ph_sup_child *last, ph_sup_child *first) {
  s->step = STOPPING;
  s->job = (uint8_t)j;
  s->at = last;
  s->first = first;
}

void ph_sup_started(ph_sup *s, uint64_t token, ph_pid pid, ph_bytes *reason) {
  if (s->step != STARTING || !s->asked || s->answered || token != s->token) {
    ph_bytes_unref(s->env, reason);
    return;
  }
  s->answered = true;
  s->pid = pid;
  if (pid)
    ph_bytes_unref(s->env, reason);
  else
    s->reason = reason;
  ph_ready(s->p);
}

/* It had ended when the start function returned: if it was linked, its EXIT says why. */
static void ended_already(ph_sup *s, ph_sup_child *c, ph_pid pid) {
  ph_bytes *reason = ph_reason_get(s->sys, PH_REASON_NOPROC);
  for (ph_msg *m = s->p->mailbox.head; m; m = m->next)
    if (m->cls == PH_C_EXIT && m->from == pid && m->reason) reason = m->reason;
  c->ended = true;
  c->reason = ph_bytes_ref(reason);
  ph_list_push(&s->dead, &c->due);
}

/* The child's process is the one that its start function has given; false: s->reason says why not.
 */
static bool adopt(ph_sup *s, ph_sup_child *c) {
  const char *wrong = NULL;
  ph_proc *p = s->pid ? ph_proc_find(s->sys, s->pid) : NULL;
  if (!s->pid) {
    if (!s->reason) s->reason = ph_bytes_ref(ph_reason_get(s->sys, PH_REASON_NOMEM));
    return false;
  }
  if (p == s->p || ph_id_node(s->pid) != PH_SELF) wrong = ph_err_code(PH_EBADRESULT);
  if (!wrong && p && p->on_exit) wrong = ph_err_code(PH_EALREADY); /* somebody's child */
  if (wrong) {
    s->reason = ph_reason_str(s->sys, wrong, strlen(wrong));
    if (!s->reason) s->reason = ph_bytes_ref(ph_reason_get(s->sys, PH_REASON_NOMEM));
    return false;
  }
  forget(c);
  if (!p) {
    ended_already(s, c, s->pid);
    return true;
  }
  c->proc = p;
  p->on_exit = child_ended;
  p->owner = c;
  return true;
}

static void drop_reason(ph_sup *s) {
  ph_bytes_unref(s->env, s->reason);
  s->reason = NULL;
}

static void start_failed(ph_sup *s, ph_sup_child *c) {
  s->step = IDLE;
  say(s, s->job == J_RECOVER ? PH_LOG_WARN : PH_LOG_INFO, "could not start", c);
  switch ((job)s->job) {
  case J_INIT:
    s->cause = c;
    stop_from(s, J_INIT_FAILED, previous(s, NULL), ph_sup_next(s, NULL));
    return; /* the reason stays for the answer */
  case J_ADD:
    answer(s, PH_ESTARTFAILED, 0, c);
    discard(c);
    break;
  case J_RESTART:
    answer(s, PH_ESTARTFAILED, 0, c);
    break;
  default: /* after what waits in the mailbox */
    c->restarting = true;
    ph_list_push(&s->again, &c->due);
  }
  drop_reason(s);
}

static void all_started(ph_sup *s) {
  s->step = IDLE;
  if (s->job == J_INIT) answer(s, 0, s->p->pid, NULL);
  if (s->job == J_ADD || s->job == J_RESTART) answer(s, 0, s->pid, NULL);
}

static outcome start_step(ph_sup *s) {
  ph_sup_child *c = s->at;
  if (!c) {
    all_started(s);
    return GOES_ON;
  }
  if (!s->asked) {
    s->asked = true;
    s->host.start(s->host.ctx, s, c, ++s->token);
  }
  if (!s->answered) return WAITS;
  s->asked = s->answered = false;
  if (!adopt(s, c))
    start_failed(s, c);
  else
    s->at = s->alone ? NULL : ph_sup_next(s, c);
  return GOES_ON;
}

/* ---- Stopping -------------------------------------------------------------------------------- */

static void kill_child(ph_sup *s, const ph_sup_child *c) {
  /* cannot fail: "kill" is not trapped, so it needs no memory */
  (void)!ph_signal(s->sys, s->p->pid, c->proc->pid, ph_reason_get(s->sys, PH_REASON_KILL), true);
}

static void shutdown_over(ph_timer *t) {
  ph_sup *s = PH_CONTAINER(t, ph_sup, timer);
  if (s->step == STOPPING && s->at->proc) kill_child(s, s->at);
}

/* A child that cannot be told for lack of memory, or not be waited for, is killed. */
static void stop_child(ph_sup *s, ph_sup_child *c) {
  c->stopping = true;
  bool told = c->shutdown != PH_SHUTDOWN_BRUTAL;
  if (told && !s->host.stop(s->host.ctx, c)) {
    ph_bytes *reason = ph_reason_get(s->sys, PH_REASON_SHUTDOWN);
    told = ph_signal(s->sys, s->p->pid, c->proc->pid, reason, true) == 0;
  }
  if (told && c->shutdown != PH_SHUTDOWN_INFINITY)
    told = ph_timer_start(&s->sys->timers, &s->timer, ph_due(s->env, c->shutdown)) == 0;
  if (!told) kill_child(s, c);
}

static outcome all_stopped(ph_sup *s) {
  ph_bytes *reason = ph_reason_get(s->sys, PH_REASON_SHUTDOWN);
  s->step = IDLE;
  switch ((job)s->job) {
  case J_TERMINATE:
    answer(s, 0, 0, NULL);
    return GOES_ON;
  case J_RECOVER:
    start_from(s, J_RECOVER, s->cfg.strategy == PH_ONE_FOR_ALL ? ph_sup_next(s, NULL) : s->cause,
               false);
    return GOES_ON;
  case J_INIT_FAILED: /* whoever asked hears of it by the answer, not by a link */
    answer(s, PH_ESTARTFAILED, 0, s->cause);
    ph_unlink(s->p, s->parent);
    break;
  default:
    reason = s->reason;
  }
  ph_exit(s->p, reason); /* it holds the reason until it is done */
  return OVER;
}

static outcome stop_step(ph_sup *s) {
  ph_sup_child *c = s->at;
  if (!c) return all_stopped(s);
  if (c->proc) {
    if (!c->stopping) stop_child(s, c);
    return WAITS;
  }
  ph_timer_stop(&s->sys->timers, &s->timer);
  c->stopping = false;
  release(c);
  forget(c);
  s->at = c == s->first ? NULL : previous(s, c);
  if (c->restart == PH_RESTART_TEMPORARY && s->job != J_END && s->job != J_INIT_FAILED) discard(c);
  return GOES_ON;
}

static void end_with(ph_sup *s, ph_bytes *reason) {
  s->reason = ph_bytes_ref(reason);
  stop_from(s, J_END, previous(s, NULL), ph_sup_next(s, NULL));
}

/* ---- Restarts -------------------------------------------------------------------------------- */

static void grow_times(ph_sup *s) {
  uint32_t cap = s->times_cap > UINT32_MAX / 2 ? UINT32_MAX : s->times_cap * 2;
  uint64_t *times = ph_alloc(s->env, cap * sizeof *times);
  if (!times) return;
  for (uint32_t i = 0; i < s->times_count; i++)
    times[i] = s->times[(s->times_at + i) % s->times_cap];
  ph_free(s->env, s->times);
  s->times = times;
  s->times_at = 0;
  s->times_cap = cap;
}

static void drop_oldest(ph_sup *s) {
  s->times_at = (s->times_at + 1) % s->times_cap;
  s->times_count--;
}

/* Counts one more restart; false: that is one too many. Without memory for its time the oldest one
 * is forgotten. */
static bool may_restart(ph_sup *s) {
  uint64_t now = ph_now(s->env);
  while (s->times_count && now - s->times[s->times_at] > s->cfg.period) drop_oldest(s);
  if (s->times_count >= s->cfg.max_restarts) return false;
  if (s->times_count == s->times_cap) grow_times(s);
  if (s->times_count == s->times_cap) drop_oldest(s);
  s->times[(s->times_at + s->times_count++) % s->times_cap] = now;
  return true;
}

static void restart(ph_sup *s, ph_sup_child *c) {
  if (!may_restart(s)) {
    say(s, PH_LOG_ERROR, "too many restarts, it ends", c);
    end_with(s, ph_reason_get(s->sys, PH_REASON_SHUTDOWN));
    return;
  }
  s->cause = c;
  if (s->cfg.strategy == PH_ONE_FOR_ONE)
    start_from(s, J_RECOVER, c, true);
  else
    stop_from(s, J_RECOVER, previous(s, NULL),
              s->cfg.strategy == PH_ONE_FOR_ALL ? ph_sup_next(s, NULL) : c);
}

/* a child has ended by itself */
static void look_at_dead(ph_sup *s) {
  ph_sup_child *c = PH_CONTAINER(s->dead.next, ph_sup_child, due);
  bool again = !c->held && (c->restart == PH_RESTART_PERMANENT ||
                            (c->restart == PH_RESTART_TRANSIENT && !ph_reason_clean(c->reason)));
  say(s, PH_LOG_INFO, again ? "ended, is restarted" : "ended", c);
  release(c);
  forget(c);
  if (again)
    restart(s, c);
  else if (c->restart == PH_RESTART_TEMPORARY)
    discard(c);
}

bool ph_reason_clean(const ph_bytes *reason) {
  if (ph_reason_is(reason, "normal") || ph_reason_is(reason, "shutdown")) return true;
  ph_reader r;
  uint32_t n;
  const char *p;
  size_t len;
  ph_reader_init(&r, reason->data, reason->len); /* { "shutdown", ... } */
  return !ph_r_array(&r, &n) && n == 2 && !ph_r_str(&r, &p, &len, 64) && len == 8 &&
         memcmp(p, "shutdown", 8) == 0;
}

/* ---- Requests -------------------------------------------------------------------------------- */

int ph_sup_ask(ph_sup *s, ph_pid from, ph_sup_op op, const char *id, size_t id_len, ph_sup_child *c,
               ph_waiter *w) {
  request *r = ph_alloc(s->env, sizeof *r + id_len);
  ph_msg *m = r ? ph_msg_bytes(s->sys, PH_C_CALL, NULL, 0) : NULL;
  int rc = m ? ph_call(s->sys, from, s->p->pid, m, w, PH_NEVER) : PH_ENOMEM;
  if (rc) {
    ph_msg_free(s->sys, m);
    ph_free(s->env, r);
    return rc;
  }
  *r = (request){.ref = w->obj.ref, .op = op, .child = c, .id_len = id_len};
  if (id_len) memcpy(r->id, id, id_len);
  ph_list_push(&s->requests, &r->list);
  return 0;
}

static void request_free(ph_sup *s, request *r) {
  if (r->child) ph_sup_child_free(r->child);
  ph_free(s->env, r);
}

static void ask_add(ph_sup *s, request *r) {
  ph_sup_child *c = find(s, r->child->id, r->child->id_len);
  if (c && !c->proc && !c->restarting) {
    answer(s, PH_EPRESENT, 0, NULL);
  } else if (c) {
    answer(s, PH_EALREADY, c->proc ? c->proc->pid : 0, NULL);
  } else if (ph_sup_add(s, r->child)) {
    no_memory(s);
  } else {
    start_from(s, J_ADD, r->child, true);
    r->child = NULL;
  }
}

static void ask_by_id(ph_sup *s, const request *r) {
  ph_sup_child *c = find(s, r->id, r->id_len);
  if (!c) {
    answer(s, PH_ENOTFOUND, 0, NULL);
  } else if (r->op == PH_SUP_TERMINATE) {
    stop_from(s, J_TERMINATE, c, c);
  } else if (c->proc || c->restarting) {
    answer(s, c->proc ? PH_ERUNNING : PH_ERESTARTING, c->proc ? c->proc->pid : 0, NULL);
  } else if (r->op == PH_SUP_RESTART) {
    start_from(s, J_RESTART, c, true);
  } else {
    discard(c);
    answer(s, 0, 0, NULL);
  }
}

static void ask(ph_sup *s, request *r) {
  switch (r->op) {
  case PH_SUP_INIT:
    start_from(s, J_INIT, ph_sup_next(s, NULL), false);
    break;
  case PH_SUP_ADD:
    ask_add(s, r);
    break;
  case PH_SUP_WHICH:
  case PH_SUP_COUNT:
    s->host.look(s->host.ctx, s, r->op, s->from, s->ref);
    break;
  default:
    ask_by_id(s, r);
  }
  request_free(s, r);
}

static void serve(ph_sup *s) {
  ph_msg *m = ph_recv(s->p);
  ph_list *l = s->requests.next;
  if (m->cls == PH_C_CALL && l != &s->requests && PH_CONTAINER(l, request, list)->ref == m->ref) {
    ph_list_remove(l);
    s->from = m->from;
    s->ref = m->ref;
    ask(s, PH_CONTAINER(l, request, list));
  } else if (m->cls == PH_C_STOP || (m->cls == PH_C_EXIT && m->from == s->parent)) {
    end_with(s, m->reason ? m->reason : ph_reason_get(s->sys, PH_REASON_NORMAL));
  } else if (m->cls != PH_C_EXIT) {
    say(s, PH_LOG_DEBUG, "a message is ignored", NULL);
  }
  ph_msg_free(s->sys, m);
}

/* ---- The process ----------------------------------------------------------------------------- */

/* What waits in the mailbox when the turn begins comes before restarts that are tried again. */
static ph_run sup_run(ph_sys *sys, ph_proc *p) {
  (void)sys;
  ph_sup *s = p->data;
  size_t mail = p->mailbox.count;
  uint64_t until = ph_now(s->env) + TURN_US * 1000;
  for (int n = 0; n < SLICE && !p->killed && (n == 0 || ph_now(s->env) < until); n++) {
    if (s->step != IDLE) {
      outcome o = s->step == STARTING ? start_step(s) : stop_step(s);
      if (o != GOES_ON) return PH_RUN_WAIT;
    } else if (!ph_list_empty(&s->dead)) {
      look_at_dead(s);
    } else if (mail && p->mailbox.head) {
      mail--;
      serve(s);
    } else if (!ph_list_empty(&s->again)) {
      ph_sup_child *c = PH_CONTAINER(s->again.next, ph_sup_child, due);
      forget(c);
      restart(s, c);
    } else {
      return p->mailbox.head ? PH_RUN_AGAIN : PH_RUN_WAIT;
    }
  }
  return PH_RUN_AGAIN;
}

static void let_go(ph_sup_child *c) {
  if (!c->proc) return;
  c->proc->on_exit = NULL;
  c->proc->owner = NULL;
  c->proc = NULL;
  c->ended = true;
}

/* However it comes to its end: killed, children still run; those linked to it hear of it. */
static void sup_ended(ph_sys *sys, ph_proc *p, ph_bytes *reason) {
  (void)reason;
  ph_sup *s = p->data;
  ph_timer_stop(&sys->timers, &s->timer);
  if (s->step == STARTING && s->asked && !s->answered) s->host.abandon(s->host.ctx, s->at);
  s->step = IDLE;
  for (ph_sup_child *c; (c = previous(s, NULL));) {
    let_go(c);
    release(c);
    discard(c);
  }
  for (ph_list *l; (l = ph_list_pop(&s->requests));)
    request_free(s, PH_CONTAINER(l, request, list));
  ph_index_deinit(&s->ids);
  drop_reason(s);
  ph_free(s->env, s->times);
  ph_free(s->env, s);
}

static const ph_behaviour supervisor_bh = {"supervisor", sup_run, sup_ended};

int ph_sup_new(ph_sys *sys, const ph_sup_config *cfg, const ph_sup_host *host, ph_pid parent,
               ph_sup **out) {
  ph_sup *s = ph_zalloc(sys->env, sizeof *s);
  if (!s) return PH_ENOMEM;
  s->times_cap = FIRST_TIMES;
  s->times = ph_alloc(sys->env, s->times_cap * sizeof *s->times);
  s->p = s->times ? ph_spawn(sys, &supervisor_bh, s) : NULL;
  if (!s->p) {
    ph_free(sys->env, s->times);
    ph_free(sys->env, s);
    return PH_ENOMEM;
  }
  s->sys = sys;
  s->env = sys->env;
  s->host = *host;
  s->cfg = *cfg;
  s->parent = parent;
  s->p->trap_exit = 1;
  ph_list_init(&s->children);
  ph_list_init(&s->dead);
  ph_list_init(&s->again);
  ph_list_init(&s->requests);
  ph_index_init(&s->ids, s->env);
  ph_timer_init(&s->timer, shutdown_over);
  *out = s;
  return 0;
}

ph_sup *ph_sup_find(ph_sys *sys, ph_pid pid) {
  ph_proc *p = ph_proc_find(sys, pid);
  return p && p->bh == &supervisor_bh ? p->data : NULL;
}

ph_proc *ph_sup_proc(const ph_sup *s) {
  return s->p;
}
