/* Which of several connections to one name is kept.
 *
 * 1. A newer incarnation of a linked name wins only when the old link does not answer a probe.
 *    An older one never does.
 * 2. The same incarnation of a linked name: a client that finds it linked gives up. A server probes
 *    too: mostly the client has lost its link and the probe finds that out at once; but a PROOF may
 *    also be old, sent before the client took this node's own connection and gave up its one.
 * 3. Two connections made at once, none up: a server that has sent its PROOF as a client elsewhere
 *    keeps that one if its own name is the lower, else gives it up for this one. Having sent its
 *    PROOF, the lower never takes another, so both keep the same. */
#include <string.h>

#include "cluster/internal.h"

static void challenge(ph__link *l, ph__node *node) {
  ph_cluster *c = l->c;
  ph__link *before = node->challenger;
  node->challenger = NULL;
  if (before) ph__reject(before, PH_EDUPLICATE);
  node->challenger = l;
  l->node = node;
  l->state = PH__PROBING;
  node->probe_seq = ++c->probe_seq;
  node->probe_due = c->seen + PH_MS(PH__PROBE_WAIT);
  ph__want(c, node->probe_due);
  ph__control_number(node->link, PH_M_PROBE, node->probe_seq);
}

/* Rule 3; false: l was rejected. */
static bool beats_rivals(ph__link *l) {
  ph_cluster *c = l->c;
  const ph__hand *h = l->hand;
  bool lower = ph__name_less(c->name, c->name_len, h->name, h->name_len);
  for (ph_list *e = c->pending.next, *next; e != &c->pending; e = next) {
    next = e->next;
    ph__link *x = PH_CONTAINER(e, ph__link, in_all);
    if (x == l || x->state != PH__WELCOME || x->hand->name_len != h->name_len ||
        memcmp(x->hand->name, h->name, h->name_len) != 0)
      continue;
    bool same = x->hand->incarnation == h->incarnation;
    if (x->hand->incarnation > h->incarnation || (same && (l->client || lower))) {
      ph__reject(l, same ? PH_EDUPLICATE : PH_ECONFLICT);
      return false;
    }
    ph__link_end(x, PH_EDUPLICATE, false);
  }
  return true;
}

static void conflict(ph__link *l) {
  ph_cluster *c = l->c;
  const ph__hand *h = l->hand;
  if (ph__once(c, "conflict", h->name, h->name_len))
    ph_logf(&c->env, PH_LOG_WARN, "cluster: %s: another live node has this name", h->name);
  /* who is older than a node of its name may be one that others have replaced */
  const ph__node *node = ph__node_find(c, h->name, h->name_len);
  ph_buf *b = ph__control(c, PH_M_REJECT, 2);
  ph_w_uint(b, (uint64_t)-PH_ECONFLICT);
  ph_w_uint(b, node ? node->incarnation : 0);
  (void)ph__control_end(l);
  ph__link_end(l, PH_ECONFLICT, true);
}

void ph__admit(ph__link *l) {
  ph_cluster *c = l->c;
  const ph__hand *h = l->hand;
  ph__node *node = ph__node_find(c, h->name, h->name_len);
  if (l->target) ph__target_met(l->target, h->name, h->name_len);
  if (c->leaving) {
    ph__link_end(l, 0, false);
  } else if (ph__is_self(c, h->name, h->name_len) || (node && h->incarnation < node->incarnation)) {
    conflict(l);
  } else if (node && node->disconnected && !h->wanted) {
    ph__reject(l, PH_ECLOSED);
  } else if (node && node->link && l->client && h->incarnation == node->incarnation) {
    ph__reject(l, PH_EDUPLICATE);
  } else if (node && node->link) {
    challenge(l, node);
  } else if (beats_rivals(l)) {
    ph__proceed(l);
  }
}

int ph__probe_message(ph__link *l, uint32_t type, uint64_t seq) {
  if (type == PH_M_PROBE) {
    ph__control_number(l, PH_M_PROBE_ACK, seq);
    return 0;
  }
  ph__node *node = l->node;
  ph__link *x = node->challenger;
  if (!x || seq != node->probe_seq) return 0;
  node->challenger = NULL;
  x->node = NULL;
  if (x->hand->incarnation == node->incarnation) {
    ph__reject(x, PH_EDUPLICATE);
  } else {
    conflict(x);
  }
  return 0;
}

void ph__challenge_over(ph__node *node) {
  ph__link *x = node->challenger;
  if (!x) return;
  node->challenger = NULL;
  x->node = NULL;
  ph__admit(x);
}
