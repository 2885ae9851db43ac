/* The runtime: loop, cluster machine and node of one OS process.
 *
 * Between the machines: `outbox` (commands, filled by the interpreter's thread, drained by the
 * loop's holder in its turn) and `inbox` (events, filled by the cluster on either thread, drained
 * in ph_rt_step). Two things go beside them:
 * - `early`: a copy of each XOFF. A process that sends without end never comes to the step that
 *   would read it in the inbox; the port reads it at the next command. Its XON is put into the
 *   inbox later than the copy, so a step that takes the inbox and then drops the copies drops
 *   exactly those whose XON may be in what it took.
 * - `lost`: frames that the inbox had no memory for. Their credit is given back and their link is
 *   reset, so that both sides know. */
#include "phub.h"

#include <string.h>

#include "base/handoff.h"
#include "net/tcp/loop.h"

enum {
  SLICE_MS = 5,
  OUTBOX_MAX = 1024 * 1024,   /* bytes after which a sender flushes by itself */
  ANSWER_US = 200,            /* how long what was sent may wait for others that are runnable */
  FRAME_OVERHEAD = 16 * 1024, /* of a message around its value */
  LOOK_US = 1000,             /* how long the sockets may go without a look while work is done */
  EVENTS_A_LOOK = 64,         /* events between two looks at the clock */
  CREDITS = 16,
  LOST = 256,
  KEPT = 64,
  TRIM_MS = 2000,         /* after a peer has gone */
  STANDBY_AGAIN_MS = 1000 /* after it could not be started */
};

typedef struct tally { /* wire bytes of one peer */
  uint64_t peer, bytes;
} tally;

typedef struct kept_event { /* an event other than a frame that the inbox had no memory for */
  uint32_t type;
  uint64_t a, b;
  size_t n;
  uint8_t data[PH_MAX_NAME];
} kept_event;

struct ph_rt {
  ph_env env, loop_env; /* one for each machine */
  ph_node node;
  ph_loop *loop;
  ph_handoff inbox, outbox, early;
  _Atomic uint64_t alive; /* the interpreter's last step */
  atomic_bool left;

  /* the interpreter's */
  bool started, leaving, left_seen;
  bool runnable;          /* processes wait for their turn */
  bool unread;            /* events taken from the inbox and not yet handled */
  uint64_t taken;         /* how often the inbox was taken and all of it handled */
  bool rests;             /* no standby is needed before somebody else wants the interpreter */
  uint64_t standby_again; /* when it is tried again to start it, ns */
  atomic_bool in_poll, no_wait;
  pthread_t thread;
  uint64_t last_incarnation, next_request;
  uint64_t polled; /* when the loop was last entered */
  size_t max_frame;
  char address[PH_MAX_ADDRESS + 1];
  tally credits[CREDITS]; /* consumed, to be given back */
  int credit_count;

  /* under the loop's mutex */
  ph_cluster *cluster;
  uint64_t trim_due; /* 0: not */
  tally lost[LOST];
  int lost_count;
  kept_event kept[KEPT];
  int kept_count;
};

/* ---- the loop's side: hooks and the cluster's events ------------------------------------------
 */

static void lose(ph_rt *rt, uint64_t peer, uint64_t bytes) {
  int i = 0;
  while (i < rt->lost_count && rt->lost[i].peer != peer) i++;
  if (i == LOST) {
    ph_logf(&rt->loop_env, PH_LOG_ERROR, "out of memory: frames of a node are lost");
    return;
  }
  if (i == rt->lost_count) rt->lost[rt->lost_count++] = (tally){.peer = peer};
  rt->lost[i].bytes += bytes;
}

static void keep(ph_rt *rt, uint32_t type, uint64_t a, uint64_t b, const void *p, size_t n) {
  if (rt->kept_count == KEPT || n > sizeof rt->kept->data) {
    ph_logf(&rt->loop_env, PH_LOG_ERROR, "out of memory: an event of the cluster is lost");
    return;
  }
  kept_event *e = &rt->kept[rt->kept_count++];
  *e = (kept_event){.type = type, .a = a, .b = b, .n = n};
  if (n) memcpy(e->data, p, n);
}

/* While events are kept, later ones must not pass them: frames are lost, others kept too. */
static void on_event(void *ctx, uint32_t type, uint64_t a, uint64_t b, const void *p, size_t n) {
  ph_rt *rt = ctx;
  bool gone = type == PH_EV_NODE_DOWN || type == PH_EV_LINK_RESET;
  if (gone && !rt->trim_due) rt->trim_due = ph_due(&rt->loop_env, TRIM_MS);
  if (rt->kept_count == 0 && ph_handoff_put(&rt->inbox, type, a, b, p, n, NULL, 0) == 0) {
    if (type == PH_EV_XOFF && ph_handoff_put(&rt->early, type, a, b, NULL, 0, NULL, 0))
      ph_logf(&rt->loop_env, PH_LOG_DEBUG, "out of memory: a sender hears of its xoff later");
    return;
  }
  if (type == PH_EV_FRAME)
    lose(rt, a, b);
  else
    keep(rt, type, a, b, p, n);
}

static void put_kept(ph_rt *rt) {
  int done = 0;
  for (; done < rt->kept_count; done++) {
    const kept_event *e = &rt->kept[done];
    if (ph_handoff_put(&rt->inbox, e->type, e->a, e->b, e->data, e->n, NULL, 0)) break;
  }
  rt->kept_count -= done;
  memmove(rt->kept, rt->kept + done, (size_t)rt->kept_count * sizeof *rt->kept);
}

static void reset_lost(ph_rt *rt) {
  int left = 0;
  for (int i = 0; i < rt->lost_count; i++) {
    tally t = rt->lost[i];
    (void)ph_cluster_command(rt->cluster, PH_CMD_CONSUMED, t.peer, t.bytes, NULL, 0);
    t.bytes = 0;
    if (ph_cluster_command(rt->cluster, PH_CMD_RESET, t.peer, 0, NULL, 0) == PH_ENOMEM)
      rt->lost[left++] = t;
  }
  rt->lost_count = left;
}

/* What the cluster cannot do with a command it says by an event (a reset link), or to the log. */
static void drain_outbox(ph_rt *rt) {
  const uint8_t *p;
  if (!ph_handoff_take(&rt->outbox)) return;
  for (const ph_record *r; (r = ph_handoff_next(&rt->outbox, &p));) {
    int rc = ph_cluster_command(rt->cluster, r->type, r->a, r->b, p, r->n);
    if (rc && r->type != PH_CMD_SEND)
      ph_logf(&rt->loop_env, PH_LOG_WARN, "a command to the cluster failed: %s", ph_err_text(rc));
  }
}

/* What waited for a peer that has gone, or came from it, may have been much: malloc would keep it.
 */
static void trim(ph_rt *rt) {
  if (!rt->trim_due || ph_now(&rt->loop_env) < rt->trim_due) return;
  rt->trim_due = 0;
  ph_env_trim();
}

static void turn(ph_rt *rt) {
  if (!rt->cluster) return;
  trim(rt);
  ph_cluster_alive(rt->cluster, atomic_load_explicit(&rt->alive, memory_order_relaxed));
  drain_outbox(rt);
  if (rt->kept_count) put_kept(rt);
  if (rt->lost_count) reset_lost(rt);
  ph_cluster_turn(rt->cluster);
  if (ph_cluster_left(rt->cluster)) atomic_store(&rt->left, true);
}

static void hook_turn(void *ctx) {
  turn(ctx);
}

static uint64_t hook_next(void *ctx) {
  ph_rt *rt = ctx;
  if (!rt->cluster) return PH_NEVER;
  return ph_handoff_pending(&rt->outbox) ? 0 : ph_cluster_next(rt->cluster);
}

/* asked in the interpreter's poll alone */
static bool hook_work(void *ctx) {
  ph_rt *rt = ctx;
  return rt->runnable || rt->unread || ph_handoff_pending(&rt->inbox) ||
         (rt->leaving && !rt->left_seen && atomic_load(&rt->left));
}

/* asked on any thread, while Lua runs: frames of either direction wait, or whoever steps */
static bool hook_waits(void *ctx) {
  ph_rt *rt = ctx;
  return ph_handoff_pending(&rt->inbox) || ph_handoff_pending(&rt->outbox) ||
         atomic_load(&rt->no_wait);
}

/* ---- the interpreter's side -------------------------------------------------------------------
 */

static void read_early(ph_rt *rt) {
  const uint8_t *p;
  if (!ph_handoff_take(&rt->early)) return;
  for (const ph_record *r; (r = ph_handoff_next(&rt->early, &p));)
    ph_sys_xoff(&rt->node.sys, r->a, true);
}

static void drop_all(ph_handoff *h) {
  const uint8_t *p;
  if (!ph_handoff_pending(h) || !ph_handoff_take(h)) return;
  while (ph_handoff_next(h, &p)) {
  }
}

static void flush(ph_rt *rt) {
  ph_loop_lock(rt->loop);
  turn(rt);
  ph_loop_unlock(rt->loop);
}

static int port_command(void *ctx, uint32_t type, uint64_t a, uint64_t b, const void *p, size_t n) {
  ph_rt *rt = ctx;
  if (!rt->started) return 0; /* as to a peer that is gone */
  if (type == PH_CMD_SEND && n > rt->max_frame) return PH_ETOOLARGE;
  int rc = ph_handoff_put(&rt->outbox, type, a, b, p, n, NULL, 0);
  if (rc) return rc;
  if (ph_handoff_pending(&rt->outbox) > OUTBOX_MAX) flush(rt);
  if (ph_handoff_pending(&rt->early)) read_early(rt);
  return 0;
}

/* Credit goes back once a batch. Without memory for the command the loop is taken for it: credit
 * that is lost would stop a link for ever. */
static void give_credits(ph_rt *rt) {
  for (int i = 0; rt->started && i < rt->credit_count; i++) {
    tally t = rt->credits[i];
    if (ph_handoff_put(&rt->outbox, PH_CMD_CONSUMED, t.peer, t.bytes, NULL, 0, NULL, 0) == 0)
      continue;
    ph_loop_lock(rt->loop);
    (void)ph_cluster_command(rt->cluster, PH_CMD_CONSUMED, t.peer, t.bytes, NULL, 0);
    ph_loop_unlock(rt->loop);
  }
  rt->credit_count = 0;
}

static void consumed(ph_rt *rt, uint64_t peer, uint64_t bytes) {
  int i = 0;
  while (i < rt->credit_count && rt->credits[i].peer != peer) i++;
  if (i == CREDITS) {
    give_credits(rt);
    i = 0;
  }
  if (i == rt->credit_count) rt->credits[rt->credit_count++] = (tally){.peer = peer};
  rt->credits[i].bytes += bytes;
}

/* until: ns, when to leave the rest for the next step. False: there was none. */
static bool handle_events(ph_rt *rt, uint64_t until) {
  if (!rt->unread) {
    if (!ph_handoff_pending(&rt->inbox)) return false;
    rt->unread = ph_handoff_take(&rt->inbox);
    drop_all(&rt->early);
  }
  const uint8_t *p;
  for (int n = 1; rt->unread; n++) {
    const ph_record *r = ph_handoff_next(&rt->inbox, &p);
    if (!r) {
      rt->unread = false;
      rt->taken++;
      break;
    }
    ph_record e = *r;
    ph_node_event(&rt->node, e.type, e.a, e.b, p, e.n);
    if (e.type == PH_EV_FRAME) consumed(rt, e.a, e.b);
    if (n % EVENTS_A_LOOK == 0 && ph_now(&rt->env) >= until) break;
  }
  give_credits(rt);
  return true;
}

uint64_t ph_rt_events(ph_rt *rt) {
  bool more = ph_handoff_pending(&rt->inbox);
  return rt->unread || more ? rt->taken + rt->unread + more : 0;
}

bool ph_rt_handled(const ph_rt *rt, uint64_t mark) {
  return rt->taken >= mark;
}

typedef struct outcome {
  bool more; /* something is left to do */
  bool did;  /* something was done: whoever drives the loop may want to look */
} outcome;

static bool due(ph_sys *s, uint64_t now) {
  return s->runnable || !ph_list_empty(&s->woken) || ph_sys_next(s) <= now;
}

/* events and processes, for a slice */
static outcome work(ph_rt *rt) {
  ph_sys *s = &rt->node.sys;
  uint64_t start = ph_now(&rt->env), end = start + PH_MS(SLICE_MS), now = start;
  outcome o = {.more = true};
  do {
    o.did |= handle_events(rt, end);
    o.did |= due(s, now);
    bool more = ph_sys_run(s, end - now);
    if (!more && !rt->unread && !ph_handoff_pending(&rt->inbox)) {
      o.more = false;
      break;
    }
    now = ph_now(&rt->env);
    if (ph_handoff_pending(&rt->outbox) && now - start >= ANSWER_US * 1000) break;
  } while (now < end && !atomic_load(&rt->no_wait));
  rt->runnable = o.more;
  return o;
}

/* Does not wait. Local traffic alone does not pay for a look at the sockets each time. */
static void look(ph_rt *rt) {
  uint64_t now = ph_now(&rt->env);
  if (!ph_handoff_pending(&rt->outbox) && now - rt->polled < LOOK_US * 1000) return;
  rt->polled = now;
  ph_loop_poll(rt->loop, 0);
}

static void wait_and_work(ph_rt *rt, uint64_t until) {
  /* a wake before in_poll is set leaves no_wait, one after it ends the poll */
  atomic_store(&rt->in_poll, true);
  if (atomic_load(&rt->no_wait)) until = 0;
  if (until) {
    uint64_t next = ph_sys_next(&rt->node.sys);
    if (next < until) until = next;
  }
  ph_loop_poll(rt->loop, until);
  atomic_store(&rt->in_poll, false);
  rt->polled = ph_now(&rt->env);
  atomic_store_explicit(&rt->alive, rt->polled, memory_order_relaxed);
  (void)work(rt); /* what it sends goes out before the next wait */
}

void ph_rt_step(ph_rt *rt, uint64_t until) {
  atomic_store_explicit(&rt->alive, ph_now(&rt->env), memory_order_relaxed);
  outcome o = work(rt);
  if (o.did || o.more)
    look(rt);
  else
    wait_and_work(rt, until);
  atomic_store(&rt->no_wait, false);
  if (atomic_load(&rt->left)) rt->left_seen = true;
}

void ph_rt_wake(ph_rt *rt) {
  if (!atomic_load(&rt->in_poll) && pthread_equal(pthread_self(), rt->thread))
    atomic_store(&rt->no_wait, true);
  else
    ph_loop_wake(rt->loop);
}

/* ---- slices -----------------------------------------------------------------------------------
 */

struct ph_loop *ph_rt_loop(ph_rt *rt) {
  return rt->loop;
}

/* when somebody else wants the interpreter */
static uint64_t next_due(ph_rt *rt) {
  const ph_sys *s = &rt->node.sys;
  if (s->runnable || !ph_list_empty(&s->woken) || rt->unread) return 0;
  return ph_handoff_pending(&rt->inbox) ? 0 : ph_sys_next(s);
}

void ph_rt_standby(ph_rt *rt) {
  if (ph_loop_has_standby(rt->loop)) return;
  if (rt->standby_again && ph_now(&rt->env) < rt->standby_again) return;
  int rc = ph_loop_standby(rt->loop);
  rt->standby_again = rc < 0 ? ph_now(&rt->env) + PH_MS(STANDBY_AGAIN_MS) : 0;
  if (rc < 0)
    ph_logf(&rt->env, PH_LOG_WARN, "no thread to preempt processes with: %s", ph_err_text(rc));
}

void ph_rt_slice_begin(ph_rt *rt, uint64_t who) {
  uint64_t due = next_due(rt);
  if (!ph_loop_has_standby(rt->loop) && (!rt->rests || due != PH_NEVER)) ph_rt_standby(rt);
  ph_slice_begin(rt->loop, who, due);
}

bool ph_rt_wanted(ph_rt *rt) {
  return ph_slice_wanted(rt->loop, next_due(rt));
}

void ph_rt_rest(ph_rt *rt) {
  if (!rt->started) ph_loop_standby_stop(rt->loop);
}

/* ---- life -------------------------------------------------------------------------------------
 */

static int init_queues(ph_rt *rt) {
  if (ph_handoff_init(&rt->inbox, &rt->env)) return PH_ENOMEM;
  if (ph_handoff_init(&rt->outbox, &rt->env)) goto no_outbox;
  if (ph_handoff_init(&rt->early, &rt->env)) goto no_early;
  return 0;
no_early:
  ph_handoff_deinit(&rt->outbox);
no_outbox:
  ph_handoff_deinit(&rt->inbox);
  return PH_ENOMEM;
}

static void deinit_queues(ph_rt *rt) {
  ph_handoff_deinit(&rt->early);
  ph_handoff_deinit(&rt->outbox);
  ph_handoff_deinit(&rt->inbox);
}

int ph_rt_new(const ph_sys_host *sys_host, const ph_hub_host *hub_host, ph_rt **out) {
  ph_env env;
  ph_env_real(&env);
  ph_rt *rt = ph_zalloc(&env, sizeof *rt);
  if (!rt) return PH_ENOMEM;
  rt->env = rt->loop_env = env;
  rt->thread = pthread_self();
  int rc = init_queues(rt);
  if (rc) goto no_queues;
  rt->loop = ph_loop_new(&rt->loop_env);
  if (!rt->loop) {
    rc = PH_ENOMEM;
    goto no_loop;
  }
  ph_port port = {.ctx = rt, .command = port_command};
  rc = ph_node_init(&rt->node, &rt->env, sys_host, hub_host, &port);
  if (rc) goto no_node;
  ph_loop_hooks hooks = {
      .ctx = rt, .turn = hook_turn, .next_due = hook_next, .work = hook_work, .waits = hook_waits};
  ph_loop_hooks_set(rt->loop, &hooks);
  *out = rt;
  return 0;
no_node:
  ph_loop_free(rt->loop);
no_loop:
  deinit_queues(rt);
no_queues:
  ph_free(&env, rt);
  return rc;
}

void ph_rt_free(ph_rt *rt) {
  if (!rt) return;
  rt->started = false;
  ph_node_deinit(&rt->node); /* first: while hubs and processes end, nothing of theirs is gone */
  ph_loop_lock(rt->loop);
  ph_cluster_free(rt->cluster);
  rt->cluster = NULL;
  ph_loop_unlock(rt->loop);
  ph_loop_free(rt->loop);
  deinit_queues(rt);
  ph_env env = rt->env;
  ph_free(&env, rt);
}

ph_node *ph_rt_node(ph_rt *rt) {
  return &rt->node;
}

ph_sys *ph_rt_sys(ph_rt *rt) {
  return &rt->node.sys;
}

const ph_env *ph_rt_env(ph_rt *rt) {
  return &rt->env;
}

/* ---- the node ---------------------------------------------------------------------------------
 */

static void end_cluster(ph_rt *rt) {
  rt->started = false;
  rt->rests = true;
  ph_loop_standby_stop(rt->loop);
  ph_loop_lock(rt->loop);
  ph_cluster_free(rt->cluster);
  rt->cluster = NULL;
  rt->lost_count = rt->kept_count = 0;
  ph_loop_unlock(rt->loop);
  rt->address[0] = '\0';
}

void ph_rt_exit(ph_rt *rt) {
  ph_loop_standby_stop(rt->loop);
  if (rt->started) end_cluster(rt);
}

static int new_cluster(ph_rt *rt, const ph_cluster_config *cfg) {
  ph_loop_lock(rt->loop);
  int rc = ph_cluster_new(&rt->loop_env, ph_loop_tcp(rt->loop), cfg, on_event, rt, &rt->cluster);
  if (rc == 0)
    memcpy(rt->address, ph_cluster_address(rt->cluster),
           strlen(ph_cluster_address(rt->cluster)) + 1);
  ph_loop_unlock(rt->loop);
  return rc;
}

int ph_rt_start(ph_rt *rt, const ph_cluster_config *cfg) {
  if (rt->started) return PH_EALREADY;
  if (!cfg->name || cfg->max_message > SIZE_MAX - FRAME_OVERHEAD) return PH_EINVAL;
  ph_cluster_config c = *cfg;
  uint64_t wall = ph_wall(&rt->env);
  c.incarnation = wall > rt->last_incarnation ? wall : rt->last_incarnation + 1;
  c.max_message += FRAME_OVERHEAD;
  int rc = new_cluster(rt, &c);
  if (rc) return rc;
  rt->last_incarnation = c.incarnation;
  rc = ph_loop_standby(rt->loop);
  if (rc == 0) rc = ph_node_name(&rt->node, c.name, strlen(c.name), c.incarnation);
  if (rc) {
    end_cluster(rt);
    return rc;
  }
  rt->max_frame = c.max_message;
  rt->leaving = rt->left_seen = false;
  atomic_store(&rt->left, false);
  atomic_store(&rt->alive, ph_now(&rt->env));
  rt->started = true;
  return 0;
}

bool ph_rt_started(const ph_rt *rt) {
  return rt->started;
}

const char *ph_rt_address(const ph_rt *rt) {
  return rt->started ? rt->address : NULL;
}

static int command(ph_rt *rt, uint32_t type, uint64_t a, uint64_t b, const char *text) {
  if (!rt->started) return PH_ENONODE;
  return ph_handoff_put(&rt->outbox, type, a, b, text, text ? strlen(text) : 0, NULL, 0);
}

int ph_rt_join(ph_rt *rt, const char *target) {
  return command(rt, PH_CMD_JOIN, 0, 0, target);
}

int ph_rt_connect(ph_rt *rt, const char *target, uint64_t timeout_ms, uint64_t *request) {
  *request = ++rt->next_request;
  return command(rt, PH_CMD_CONNECT, *request, timeout_ms, target);
}

int ph_rt_disconnect(ph_rt *rt, const char *name) {
  return command(rt, PH_CMD_DISCONNECT, 0, 0, name);
}

int ph_rt_leave(ph_rt *rt) {
  int rc = rt->leaving ? 0 : command(rt, PH_CMD_LEAVE, 0, 0, NULL);
  if (rc == 0) rt->leaving = true;
  return rc;
}

bool ph_rt_left(ph_rt *rt) {
  return atomic_load(&rt->left);
}

void ph_rt_node_end(ph_rt *rt) {
  if (!rt->started) return;
  end_cluster(rt);
  while (handle_events(rt, PH_NEVER)) {
  }
  drop_all(&rt->early);
  drop_all(&rt->outbox);
  ph_sys *s = &rt->node.sys;
  for (uint32_t i = 1; i < s->node_count; i++)
    if (s->nodes[i]->peer) ph_node_event(&rt->node, PH_EV_NODE_DOWN, s->nodes[i]->peer, 0, NULL, 0);
}

int ph_rt_signals(ph_rt *rt, void (*fn)(void *ctx, int signum), void *ctx) {
  return ph_loop_signals(rt->loop, fn, ctx);
}
