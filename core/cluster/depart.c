/* Leaving the cluster, and disconnecting one name from it. */
#include <string.h>

#include "cluster/internal.h"

enum { LEAVE_WAIT = 1500, REMEMBER_LEAVERS = 10 /* heartbeat timeouts */ };

/* ---- disconnect ---- */

static void end_meetings(ph_cluster *c, const ph__node *node) {
  for (ph_list *e = c->pending.next, *next; e != &c->pending; e = next) {
    next = e->next;
    ph__link *l = PH_CONTAINER(e, ph__link, in_all);
    if (l->hand->name_len == node->name_len &&
        memcmp(l->hand->name, node->name, node->name_len) == 0)
      ph__link_end(l, PH_ECLOSED, false);
  }
}

int ph__disconnect(ph_cluster *c, const char *name, size_t n) {
  if (!name || !ph__name_valid(name, n) || ph__is_self(c, name, n)) return PH_EINVAL;
  ph__node *node = ph__node_get(c, name, n);
  if (!node) return PH_ENOMEM;
  node->disconnected = true;
  node->lost = false;
  ph__targets_over(node, NULL, PH_ECLOSED);
  end_meetings(c, node);
  if (node->link) {
    ph__control(c, PH_M_DISCONNECT, 0);
    (void)ph__control_end(node->link);
    ph__link_end(node->link, 0, true);
  }
  ph__edge_down(node);
  return 0;
}

void ph__disconnected(ph__node *node) {
  if (node->link) return; /* someone has connected meanwhile */
  node->disconnected = true;
  node->lost = false;
  ph__targets_over(node, NULL, PH_ECLOSED);
  ph__edge_down(node);
  ph__challenge_over(node);
}

/* ---- leave ---- */

void ph__peer_left(ph__node *node) {
  ph_cluster *c = node->c;
  node->left = true; /* late hearsay of it must not have it dialled */
  node->forget = c->seen + REMEMBER_LEAVERS * c->timeout;
  node->lost = false;
  ph__want(c, node->forget);
  ph__targets_over(node, NULL, PH_ECLOSED);
  ph__edge_down(node);
  ph__challenge_over(node);
}

void ph__leave_start(ph_cluster *c) {
  if (c->leaving) return;
  c->leaving = true;
  c->leave_due = c->seen + PH_MS(LEAVE_WAIT);
  ph__want(c, c->leave_due);
  if (c->announced) (void)c->t->ops->announce(c->t, NULL, NULL);
  c->t->ops->unlisten(c->t);
  c->announced = c->listening = false;
  while (!ph_list_empty(&c->targets))
    ph__target_drop(PH_CONTAINER(c->targets.next, ph__target, in_all), PH_ECLOSED);
  while (!ph_list_empty(&c->pending))
    ph__link_end(PH_CONTAINER(c->pending.next, ph__link, in_all), 0, false);
  for (ph_list *e = c->nodes.next; e != &c->nodes; e = e->next) {
    ph__node *node = PH_CONTAINER(e, ph__node, in_all);
    if (!node->link) ph__edge_down(node);
  }
  ph__state_leaving(c);
  for (ph_list *e = c->links.next; e != &c->links; e = e->next) {
    ph__link *l = PH_CONTAINER(e, ph__link, in_all);
    l->leaving = true; /* LEAVE follows what is queued; then the other side closes */
    ph__link_dirty(l);
  }
}

/* what it was to send, and what it was to relay for this node, is on its way */
bool ph__leave_may(ph__link *l) {
  if (!ph_list_empty(&l->queue)) return false;
  for (ph_list *e = l->c->streams.next; e != &l->c->streams; e = e->next) {
    const ph__link *s = PH_CONTAINER(e, ph__link, in_all);
    if (s->node->hop == l && (!ph_list_empty(&s->queue) || ph_buf_size(&s->out))) return false;
  }
  return true;
}

void ph__leave_say(ph__link *l) {
  ph__control(l->c, PH_M_LEAVE, 0);
  (void)ph__control_end(l);
  l->said_leave = true;
}

void ph__leave_scan(ph_cluster *c, uint64_t now) {
  if (!c->leaving) return;
  if (now < c->leave_due) {
    ph__want(c, c->leave_due);
    return;
  }
  while (!ph_list_empty(&c->links)) {
    ph__link *l = PH_CONTAINER(c->links.next, ph__link, in_all);
    ph__node *node = l->node;
    if (!l->said_leave) ph__leave_say(l);
    ph__link_end(l, 0, true);
    ph__edge_down(node);
  }
}
