/* Nodes by name, and what becomes of them. */
#include <string.h>

#include "cluster/internal.h"

enum { LASTED = 5000, FLAP_SHIFT = 5 };

/* ---- names ---- */

static bool printable(const char *p, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (p[i] < 0x21 || p[i] > 0x7e) return false;
  }
  return true;
}

bool ph__name_valid(const char *p, size_t n) {
  if (n < 3 || n > PH_MAX_NAME || !printable(p, n)) return false;
  const char *at = memchr(p, '@', n);
  if (!at || at == p || at == p + n - 1) return false;
  return !memchr(at + 1, '@', n - (size_t)(at + 1 - p));
}

bool ph__address_valid(const char *p, size_t n) {
  return n > 0 && n <= PH_MAX_ADDRESS && printable(p, n) && memchr(p, ':', n) && !memchr(p, '@', n);
}

bool ph__name_less(const char *a, size_t an, const char *b, size_t bn) {
  int order = memcmp(a, b, an < bn ? an : bn);
  return order ? order < 0 : an < bn;
}

static bool equal(const char *text, const char *p, size_t n) {
  return text && strlen(text) == n && memcmp(text, p, n) == 0;
}

bool ph__is_self(const ph_cluster *c, const char *text, size_t n) {
  return equal(c->name, text, n) || equal(c->advertise, text, n) || equal(c->address, text, n);
}

/* ---- the table ---- */

typedef struct key {
  const char *p;
  size_t n;
} key;

static bool name_eq(const void *item, const void *k) {
  const ph__node *node = item;
  const key *name = k;
  return node->name_len == name->n && memcmp(node->name, name->p, name->n) == 0;
}

static bool peer_eq(const void *item, const void *k) {
  return ((const ph__node *)item)->peer == *(const uint64_t *)k;
}

ph__node *ph__node_find(ph_cluster *c, const char *name, size_t n) {
  key k = {name, n};
  return ph_index_find(&c->by_name, ph_hash(name, n, c->seed), name_eq, &k);
}

ph__node *ph__node_of(ph_cluster *c, uint64_t peer) {
  return peer ? ph_index_find(&c->by_peer, ph_hash64(peer), peer_eq, &peer) : NULL;
}

static bool is_before(const ph_list *e, const char *name, size_t n) {
  const ph__node *node = PH_CONTAINER(e, ph__node, in_all);
  return ph__name_less(node->name, node->name_len, name, n);
}

ph__node *ph__node_get(ph_cluster *c, const char *name, size_t n) {
  ph__node *node = ph__node_find(c, name, n);
  if (node) return node;
  node = ph_zalloc(&c->env, sizeof *node + n + 1);
  if (!node) return NULL;
  memcpy(node->name, name, n);
  node->name_len = n;
  node->hash = ph_hash(name, n, c->seed);
  node->c = c;
  node->down_due = node->open_due = PH_NEVER;
  ph_list_init(&node->in_walk);
  if (ph_index_put(&c->by_name, node->hash, node) < 0) {
    ph_free(&c->env, node);
    return NULL;
  }
  ph_list *after = c->nodes.next;
  while (after != &c->nodes && is_before(after, name, n)) after = after->next;
  ph_list_push(after, &node->in_all); /* before `after` */
  ph__want(c, c->seen);               /* the scan removes it if nothing comes of it */
  return node;
}

ph__node *ph__node_at(ph_cluster *c, const char *text, size_t n) {
  if (memchr(text, '@', n)) return ph__node_find(c, text, n);
  for (ph_list *e = c->nodes.next; e != &c->nodes; e = e->next) {
    ph__node *node = PH_CONTAINER(e, ph__node, in_all);
    if (equal(node->address, text, n)) return node;
  }
  return NULL;
}

static void node_free(ph__node *node) {
  ph_cluster *c = node->c;
  (void)ph_index_remove(&c->by_name, node->hash, node);
  ph_list_remove(&node->in_all);
  for (ph_list *e = c->targets.next; e != &c->targets; e = e->next) {
    ph__target *t = PH_CONTAINER(e, ph__target, in_all);
    if (t->node == node) t->node = NULL;
  }
  ph_free(&c->env, node->edges);
  ph_free(&c->env, node->address);
  ph_free(&c->env, node);
}

void ph__members_free(ph_cluster *c) {
  while (!ph_list_empty(&c->nodes)) node_free(PH_CONTAINER(c->nodes.next, ph__node, in_all));
}

/* ---- up ---- */

static void attach(ph__node *node, ph__link *l, char *address) {
  ph_cluster *c = l->c;
  ph_free(&c->env, node->address);
  node->address = address;
  node->link = l;
  node->down_due = PH_NEVER;
  node->lost = node->left = node->disconnected = false;
  l->node = node;
  ph__edge_set(node, true);
  c->view_dirty = true; /* it has a way of its own now */
}

int ph__member_reached(ph__node *node) {
  ph_cluster *c = node->c;
  if (node->peer) {
    ph__tell(c, PH_EV_LINK_RESET, node->peer, node->incarnation, node->name, node->name_len);
    return 0;
  }
  uint64_t peer = c->next_peer;
  if (ph_index_put(&c->by_peer, ph_hash64(peer), node) < 0) return PH_ENOMEM;
  node->peer = peer;
  c->next_peer++;
  ph_logf(&c->env, PH_LOG_INFO, "cluster: %s is up", node->name);
  ph__tell(c, PH_EV_NODE_UP, peer, node->incarnation, node->name, node->name_len);
  return 0;
}

int ph__member_up(ph__link *l) {
  ph_cluster *c = l->c;
  const ph__hand *h = l->hand;
  ph__node *node = ph__node_get(c, h->name, h->name_len);
  if (!node) return PH_ENOMEM;
  bool stalled = c->stall_timeout && h->stall > c->stall_timeout;
  char *address = ph_strndup(&c->env, h->address, strlen(h->address));
  if (!address) return PH_ENOMEM;
  ph__target *t = l->target; /* apart, as it may be dropped, and must not end this link then */
  l->target = NULL;
  if (t) t->link = NULL;
  if (node->incarnation != h->incarnation) ph__state_renew(node, h->incarnation, NULL, 0);
  if (stalled) ph__member_down(node, false);
  if (!stalled && ph__member_reached(node) < 0) {
    if (t && !t->dead) t->link = l;
    if (t && !t->dead) l->target = t;
    ph_free(&c->env, address);
    return PH_ENOMEM;
  }
  ph__stream_end(node);
  node->stalled = stalled;
  attach(node, l, address);
  ph__link_up(l);
  ph__answered(node);
  ph__heartbeat_send(l);
  ph__summary_send(l, false);
  ph__targets_over(node, t, 0);
  ph__challenge_over(node);
  return 0;
}

/* ---- down ---- */

void ph__member_detach(ph__link *l) {
  ph_cluster *c = l->c;
  ph__node *node = l->node;
  node->link = NULL;
  node->stale += l->unconsumed;
  node->flaps = c->seen - l->since < PH_MS(LASTED) ? node->flaps + 1 : 0;
  node->down_due = l->heard + c->timeout > l->grace ? l->heard + c->timeout : l->grace;
}

void ph__member_down(ph__node *node, bool graceful) {
  ph_cluster *c = node->c;
  node->down_due = PH_NEVER;
  if (!node->peer) return;
  uint64_t peer = node->peer;
  (void)ph_index_remove(&c->by_peer, ph_hash64(peer), node);
  node->peer = 0;
  node->xoff = false;
  node->stale = 0;
  ph_logf(&c->env, PH_LOG_INFO, "cluster: %s %s", node->name, graceful ? "left" : "is down");
  ph__tell(c, PH_EV_NODE_DOWN, peer, graceful, NULL, 0);
}

void ph__member_lost(ph__node *node) {
  ph_cluster *c = node->c;
  if (c->leaving) {
    ph__edge_down(node);
    return;
  }
  node->lost = true;
  if (node->edge) ph__want(c, node->down_due);
  ph__challenge_over(node);
  if (node->link) return;
  /* At once; but links that break again and again right after they were made wait longer, though
   * not so long that the node is taken for dead. */
  uint64_t delay = 0, most = c->timeout / PH_MS(1) / 4;
  if (node->flaps > 1) {
    uint32_t shift = node->flaps - 2;
    delay = shift < FLAP_SHIFT ? (uint64_t)PH__REDIAL_MIN << shift : PH__REDIAL_MAX;
    if (delay > most) delay = most;
  }
  ph__redial(node, delay);
}

static void silent(ph__node *node) {
  ph_cluster *c = node->c;
  ph_logf(&c->env, PH_LOG_INFO, "cluster: %s: nothing heard for %llu ms", node->name,
          (unsigned long long)((c->seen - node->link->heard) / PH_MS(1)));
  ph__link_end(node->link, 0, false);
  ph__edge_down(node);
  ph__member_lost(node);
}

static void judge(ph__node *node, uint64_t now) {
  ph_cluster *c = node->c;
  if (node->link) {
    ph__link *l = node->link;
    uint64_t due = l->heard + c->timeout > l->grace ? l->heard + c->timeout : l->grace;
    if (now < due) {
      ph__want(c, due);
    } else {
      silent(node);
    }
  } else if (node->edge) {
    if (now < node->down_due) {
      ph__want(c, node->down_due);
    } else {
      ph__edge_down(node);
    }
  }
  if (node->challenger && now < node->probe_due) {
    ph__want(c, node->probe_due);
  } else if (node->challenger && node->link) {
    ph__link_end(node->link, 0, false);
    ph__member_lost(node);
  }
}

void ph__member_scan(ph_cluster *c, uint64_t now) {
  for (ph_list *e = c->nodes.next, *next; e != &c->nodes; e = next) {
    next = e->next;
    ph__node *node = PH_CONTAINER(e, ph__node, in_all);
    judge(node, now);
    if (node->left && now >= node->forget) node->left = false;
    if (node->left) ph__want(c, node->forget);
    if (node->lost && !node->link && !node->target && !c->leaving) ph__redial(node, PH__REDIAL_MIN);
    if (node->number && !node->in_view) {
      if (now >= node->state_due) ph__state_forget(node);
      if (node->number) ph__want(c, node->state_due);
    }
    bool used = node->peer || node->link || node->target || node->challenger || node->lost ||
                node->left || node->disconnected || node->number || node->edge || node->edge_dirty;
    if (!used) node_free(node);
  }
}
