/* Whom to dial and when; requests to connect. */
#include <string.h>

#include "cluster/internal.h"

enum { HEARD_TRIES = 6, DIALS_FULL = 50, DYING_DELAY = 10, DYING_TRIES = 6 };

/* ---- targets ---- */

ph__target *ph__target_find(ph_cluster *c, const char *text, size_t n) {
  for (ph_list *e = c->targets.next; e != &c->targets; e = e->next) {
    ph__target *t = PH_CONTAINER(e, ph__target, in_all);
    if (t->text_len == n && memcmp(t->text, text, n) == 0) return t;
  }
  return NULL;
}

ph__target *ph__target_new(ph_cluster *c, const char *text, size_t n, int why) {
  ph__target *t = ph_zalloc(&c->env, sizeof *t + n + 1);
  if (!t) return NULL;
  t->c = c;
  t->why = why;
  t->delay = PH__REDIAL_MIN;
  t->due = PH_NEVER;
  t->text_len = n;
  memcpy(t->text, text, n);
  ph_list_init(&t->requests);
  ph_list_push(&c->targets, &t->in_all);
  if (why & PH__HEARD) c->hearsay++;
  if (why & PH__LOST) c->lost++;
  return t;
}

void ph__target_free(ph__target *t) {
  ph_free(&t->c->env, t);
}

bool ph__target_wanted(const ph__target *t) {
  return (t->why & (PH__JOIN | PH__USER)) != 0;
}

static void answer(ph__request *r, ph_cluster *c, int err, const char *name, size_t n) {
  ph_list_remove(&r->in_target);
  if (r->id) ph__tell(c, PH_EV_CONNECTED, r->id, (uint64_t)-err, err ? NULL : name, err ? 0 : n);
  ph_free(&c->env, r);
}

static void answer_all(ph__target *t, int err, const char *name, size_t n) {
  while (!ph_list_empty(&t->requests))
    answer(PH_CONTAINER(t->requests.next, ph__request, in_target), t->c, err, name, n);
}

void ph__target_drop(ph__target *t, int err) {
  ph_cluster *c = t->c;
  if (t->dead) return;
  t->dead = true;
  answer_all(t, err ? err : PH_ECLOSED, NULL, 0);
  ph__link *l = t->link;
  t->link = NULL;
  if (l) {
    l->target = NULL;
    ph__link_end(l, 0, false);
  }
  if (t->node && t->node->target == t) t->node->target = NULL;
  if (t->why & PH__HEARD) c->hearsay--;
  if (t->why & PH__LOST) c->lost--;
  ph_list_remove(&t->in_all);
  ph_list_push(&c->dead_targets, &t->in_all);
}

void ph__target_is_self(ph__target *t) {
  ph_cluster *c = t->c;
  ph_logf(&c->env, PH_LOG_INFO, "cluster: %s is this node itself", t->text);
  answer_all(t, 0, c->name, c->name_len);
  ph__target_drop(t, 0);
}

void ph__target_met(ph__target *t, const char *name, size_t n) {
  ph__node *node = t->node;
  if (!node || (node->name_len == n && memcmp(node->name, name, n) == 0)) return;
  if (node->target == t) {
    node->target = NULL;
    node->lost = false;
  }
  t->node = NULL;
  if (t->why & PH__HEARD) t->c->hearsay--;
  if (t->why & PH__LOST) t->c->lost--;
  t->why &= ~(PH__HEARD | PH__LOST);
}

static bool leads_to(const ph__target *t, const ph__node *node) {
  if (t->node == node || strcmp(t->text, node->name) == 0) return true;
  return node->address && strcmp(t->text, node->address) == 0;
}

void ph__targets_over(ph__node *node, ph__target *of, int err) {
  ph_cluster *c = node->c;
  for (ph_list *e = c->targets.next, *next; e != &c->targets; e = next) {
    next = e->next;
    ph__target *t = PH_CONTAINER(e, ph__target, in_all);
    if (t != of && !leads_to(t, node)) continue;
    if (err == 0) answer_all(t, 0, node->name, node->name_len);
    ph__target_drop(t, err);
  }
}

/* ---- failure and the next try ---- */

static void wait_longer(ph__target *t, int err) {
  ph_cluster *c = t->c;
  if (err == PH_ECOOKIE || err == PH_ECONFLICT || err == PH_EVERSION) t->delay = PH__REDIAL_MAX;
  uint64_t delay = PH_MS(t->delay);
  t->delay = t->delay * 7 / 4;
  if (t->delay > PH__REDIAL_MAX) t->delay = PH__REDIAL_MAX;
  t->due = c->seen + delay + ph_random64(&c->env) % (delay / 4);
  ph__want(c, t->due);
}

/* A member whose address takes a connection and ends it before the handshake is most likely being
 * killed: the system closes the links of such a process one by one, its listener among them. Soon
 * it refuses, and who waits for that starts its children again. */
static bool is_dying(const ph__target *t, int err) {
  if (err != PH_ECLOSED && err != PH_EIO) return false;
  return (t->why & PH__LOST) && t->node && t->node->peer && t->fails <= DYING_TRIES;
}

/* A node that was started anew often has another port, which its name leads to on this host. */
static bool look_up_name(ph__target *t) {
  if (!(t->why & PH__LOST) || !t->node || memchr(t->text, '@', t->text_len)) return false;
  t->by_name = true;
  t->due = t->c->seen;
  ph__want(t->c, t->due);
  return true;
}

static void log_failure(ph__target *t, int err) {
  ph_cluster *c = t->c;
  bool lasting = err == PH_ECONFLICT || err == PH_EVERSION;
  if (t->warned || !(t->why & PH__JOIN)) return;
  t->warned = true;
  ph_logf(&c->env, lasting ? PH_LOG_WARN : PH_LOG_INFO, "cluster: cannot join %s yet: %s", t->text,
          ph_err_text(err));
}

void ph__target_failed(ph__target *t, int err) {
  ph_cluster *c = t->c;
  ph__node *node = t->node;
  if (t->dead) return;
  if (err == PH_EDUPLICATE) { /* linked by another connection, or soon */
    if (node && node->link) {
      ph__targets_over(node, t, 0);
    } else {
      wait_longer(t, err);
    }
    return;
  }
  if (err == PH_ENOTFOUND && node && node->address && !t->by_address &&
      memchr(t->text, '@', t->text_len)) {
    t->by_address = true;
    t->due = c->seen;
    ph__want(c, t->due);
    return;
  }
  t->by_address = false;
  if (t->by_name) { /* what its address answered has been dealt with */
    t->by_name = false;
    if (ph_list_empty(&t->requests)) {
      wait_longer(t, err == PH_ENOTFOUND ? PH_EREFUSED : err);
      return;
    }
  }
  t->fails++;
  log_failure(t, err);
  answer_all(t, err == PH_ECLOSED || err == PH_EIO ? PH_EREFUSED : err, NULL, 0);
  t->why &= ~PH__USER;
  /* Nothing listens there any more: it is not a broken link but a dead node. */
  if (err == PH_EREFUSED && (t->why & PH__LOST) && node && !node->link) ph__edge_down(node);
  bool vain = t->why == PH__HEARD && t->fails >= HEARD_TRIES && !(node && node->in_view);
  if (t->why == 0 || vain) {
    ph__target_drop(t, err);
  } else if (is_dying(t, err)) {
    t->due = c->seen + (PH_MS(DYING_DELAY) << (t->fails - 1));
    ph__want(c, t->due);
  } else if (!look_up_name(t)) {
    wait_longer(t, err);
  }
}

/* Of too many lost nodes the one dialled in vain most often is given up. */
static void give_up_one(ph_cluster *c) {
  ph__target *worst = NULL;
  for (ph_list *e = c->targets.next; e != &c->targets; e = e->next) {
    ph__target *t = PH_CONTAINER(e, ph__target, in_all);
    if (t->why != PH__LOST || t->node->peer) continue;
    if (!worst || t->fails > worst->fails) worst = t;
  }
  if (!worst) return;
  worst->node->lost = false;
  ph__target_drop(worst, PH_ECLOSED);
}

/* The target of another lost node may lead to the same address: a port that one dead node had is
 * given to the next. Both cannot be there. Only one is dialled for, a member first; whoever answers
 * is asked for its name anyway. Answers whether it is this one. */
static bool take_over(ph__target *t, ph__node *node) {
  ph__node *other = t->node;
  if (!other || other == node || other->target != t) return true;
  if (other->peer) {
    node->lost = node->peer != 0;
    return false;
  }
  other->target = NULL;
  other->lost = false;
  t->fails = 0;
  t->delay = PH__REDIAL_MIN;
  return true;
}

/* Without memory for it the next scan tries again (node->lost stands). */
void ph__redial(ph__node *node, uint64_t delay_ms) {
  ph_cluster *c = node->c;
  ph__target *t = node->target;
  if (t && strcmp(t->text, node->address) != 0 && !ph__target_wanted(t)) {
    ph__target_drop(t, PH_ECLOSED);
    t = NULL;
  }
  if (!t) t = ph__target_find(c, node->address, strlen(node->address));
  if (!t) {
    if (c->lost >= PH__LOST_MAX) give_up_one(c);
    t = ph__target_new(c, node->address, strlen(node->address), PH__LOST);
    if (!t) return;
  }
  if (!take_over(t, node)) return;
  if (!(t->why & PH__LOST)) {
    t->why |= PH__LOST;
    c->lost++;
  }
  t->node = node;
  node->target = t;
  if (t->link) return;
  t->due = c->seen + PH_MS(delay_ms);
  ph__want(c, t->due);
}

/* ---- dialling ---- */

static void dial(ph__target *t) {
  ph_cluster *c = t->c;
  if (c->dialling >= PH__DIALS && ph_list_empty(&t->requests)) {
    t->due = c->seen + PH_MS(DIALS_FULL) + ph_random64(&c->env) % PH_MS(DIALS_FULL);
    return;
  }
  ph__link *l = ph__link_new(c, true);
  if (!l) {
    t->due = c->seen + PH_MS(PH__REDIAL_MIN);
    return;
  }
  uint64_t wait = c->handshake_timeout;
  for (ph_list *e = t->requests.next; e != &t->requests; e = e->next) {
    const ph__request *r = PH_CONTAINER(e, ph__request, in_target);
    if (r->due > c->seen && r->due - c->seen > wait) wait = r->due - c->seen;
  }
  l->target = t;
  l->due = c->seen + wait + c->interval; /* the transport keeps the time; this is but a net */
  t->link = l;
  t->due = PH_NEVER;
  const char *text = t->by_address ? t->node->address : t->by_name ? t->node->name : t->text;
  ph_conn *conn = NULL;
  int err = c->t->ops->dial(c->t, text, wait / PH_MS(1), l, &conn);
  if (err < 0) {
    ph__link_end(l, err, false);
    return;
  }
  l->conn = conn;
}

static void expire_requests(ph__target *t, uint64_t now) {
  for (ph_list *e = t->requests.next, *next; e != &t->requests; e = next) {
    next = e->next;
    ph__request *r = PH_CONTAINER(e, ph__request, in_target);
    if (now < r->due) {
      ph__want(t->c, r->due);
    } else {
      answer(r, t->c, PH_ETIMEOUT, NULL, 0);
    }
  }
  if (!ph_list_empty(&t->requests)) return;
  t->why &= ~PH__USER;
  if (t->why == 0) ph__target_drop(t, PH_ETIMEOUT);
}

void ph__target_scan(ph_cluster *c, uint64_t now) {
  for (ph_list *e = c->targets.next, *next; e != &c->targets; e = next) {
    next = e->next;
    ph__target *t = PH_CONTAINER(e, ph__target, in_all);
    if (t->by_address && (!t->node || !t->node->address)) t->by_address = false;
    if (t->by_name && !t->node) t->by_name = false;
    if (t->why & PH__USER) expire_requests(t, now);
    if (!t->dead && !t->link && now >= t->due) dial(t);
    if (!t->dead && !t->link) ph__want(c, t->due);
  }
}

/* ---- commands ---- */

static bool text_valid(const char *text, size_t n) {
  if (!text || n == 0 || n > PH_MAX_ADDRESS) return false;
  return memchr(text, '@', n) ? ph__name_valid(text, n) : ph__address_valid(text, n);
}

static int refuse(ph_cluster *c, uint64_t request, int err) {
  if (request) ph__tell(c, PH_EV_CONNECTED, request, (uint64_t)-err, NULL, 0);
  return err;
}

/* The target of a user's wish, due now; NULL: no memory. */
static ph__target *wish(ph_cluster *c, const char *text, size_t n, ph__node *node, int why) {
  ph__target *t = ph__target_find(c, text, n);
  if (!t) t = ph__target_new(c, text, n, why);
  if (!t) return NULL;
  t->why |= why;
  if (!t->node) t->node = node;
  if (!t->link) t->due = c->seen;
  ph__want(c, t->due);
  if (node) node->disconnected = false;
  return t;
}

int ph__connect(ph_cluster *c, uint64_t request, uint64_t timeout_ms, const char *text, size_t n) {
  if (!text_valid(text, n)) return refuse(c, request, PH_EINVAL);
  if (c->leaving) return refuse(c, request, PH_ECLOSED);
  if (ph__is_self(c, text, n)) {
    if (request) ph__tell(c, PH_EV_CONNECTED, request, 0, c->name, c->name_len);
    return 0;
  }
  ph__node *node = ph__node_at(c, text, n);
  if (node && node->link) {
    if (request) ph__tell(c, PH_EV_CONNECTED, request, 0, node->name, node->name_len);
    return 0;
  }
  ph__request *r = ph_alloc(&c->env, sizeof *r);
  ph__target *t = r ? wish(c, text, n, node, PH__USER) : NULL;
  if (!t) {
    ph_free(&c->env, r);
    return refuse(c, request, PH_ENOMEM);
  }
  r->id = request;
  r->due = ph_due(&c->env, timeout_ms);
  ph_list_push(&t->requests, &r->in_target);
  ph__want(c, r->due);
  return 0;
}

int ph__join(ph_cluster *c, const char *text, size_t n) {
  if (!text_valid(text, n)) return PH_EINVAL;
  if (c->leaving) return PH_ECLOSED;
  ph__node *node = ph__node_at(c, text, n);
  if (ph__is_self(c, text, n) || (node && node->link)) return 0;
  return wish(c, text, n, node, PH__JOIN) ? 0 : PH_ENOMEM;
}
