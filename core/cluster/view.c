/* The view: the connected component of the link states that this node is in, and the way to each
 * of its members.
 *
 * A link between two others counts when both say that they have it, with the incarnations that are
 * known. This node's own count as it sees them itself: those that are being made again (ph__node
 * edge without link) keep a member in view, but lead nowhere. The way is the shortest, of these the
 * first by the names on it; so each node on the way chooses the same one, and it suffices to know
 * its first link.
 *
 * A member is down when it leaves the view. This process was stopped: nobody is, before all have
 * answered, refused or timed out (`woken`), for a view of that age tells nothing. */
#include <stdlib.h>

#include "cluster/internal.h"

enum { OPEN_AFTER = 500 /* ms without a link; before that one is made again, mostly */ };

static bool says(const ph__node *a, uint64_t key) {
  size_t low = 0, high = a->edge_count;
  while (low < high) {
    size_t mid = (low + high) / 2;
    if (a->edges[mid] < key) {
      low = mid + 1;
    } else {
      high = mid;
    }
  }
  return low < a->edge_count && a->edges[low] == key;
}

static void reach(ph__node *node, ph_list *walk, ph__link *hop, uint64_t path) {
  ph_list_remove(&node->in_walk);
  ph_list_push(walk, &node->in_walk);
  node->reached = true;
  node->hop = hop;
  node->path = ph_hash64(path ^ node->key);
}

/* breadth first; `rest` is in the order of names, so `walk` is in the order of ways */
static void spread(ph_list *walk, ph_list *rest) {
  for (ph_list *e = walk->next; e != walk && !ph_list_empty(rest); e = e->next) {
    const ph__node *node = PH_CONTAINER(e, ph__node, in_walk);
    for (ph_list *u = rest->next, *next; u != rest; u = next) {
      next = u->next;
      ph__node *other = PH_CONTAINER(u, ph__node, in_walk);
      if (says(node, other->key) && says(other, node->key))
        reach(other, walk, node->hop, node->path);
    }
  }
}

static void walk_all(ph_cluster *c) {
  ph_list walk, being_made, rest;
  ph_list_init(&walk);
  ph_list_init(&being_made);
  ph_list_init(&rest);
  for (ph_list *e = c->nodes.next; e != &c->nodes; e = e->next) {
    ph__node *node = PH_CONTAINER(e, ph__node, in_all);
    ph_list_remove(&node->in_walk);
    node->reached = false;
    node->hop = NULL;
    if (node->left) continue;
    if (node->link) {
      reach(node, &walk, node->link, 0);
    } else if (node->number || node->edge) {
      ph_list_push(&rest, &node->in_walk);
    }
  }
  spread(&walk, &rest);
  for (ph_list *u = rest.next, *next; u != &rest; u = next) {
    next = u->next;
    ph__node *node = PH_CONTAINER(u, ph__node, in_walk);
    if (node->edge) reach(node, &being_made, NULL, 0);
  }
  spread(&being_made, &rest);
  for (ph_list *e; (e = ph_list_pop(&walk));) ph_list_init(e);
  for (ph_list *e; (e = ph_list_pop(&being_made));) ph_list_init(e);
  for (ph_list *e; (e = ph_list_pop(&rest));) ph_list_init(e);
}

/* ---- what follows for one node ---- */

static void look(ph__node *node, bool hold) {
  ph_cluster *c = node->c;
  bool was = node->in_view;
  node->in_view = node->reached;
  if (was && !node->in_view) node->state_due = c->seen + 10 * c->timeout;
  if (node->in_view) {
    c->members++;
    if (node->number) c->digest ^= ph_hash64(node->key ^ ph_hash64(node->number));
  }
  if (!node->in_view || node->link || node->leaver) {
    ph__stream_want(node, PH_NEVER);
    if (!node->in_view || node->link) ph__stream_end(node);
  } else if (!node->stream) {
    ph__stream_want(node, c->seen + PH_MS(OPEN_AFTER));
  }
  if (node->stream && node->stream_path != node->path) ph__stream_reset(node);
  if (node->peer && !node->in_view && !hold) ph__member_down(node, node->left || node->leaver);
}

static bool held(ph_cluster *c) {
  if (!c->woken) return false;
  bool asked = false;
  for (ph_list *e = c->nodes.next; e != &c->nodes && c->seen < c->woken; e = e->next)
    asked |= PH_CONTAINER(e, ph__node, in_all)->asked;
  if (!asked) c->woken = 0;
  return asked;
}

void ph__view_update(ph_cluster *c) {
  if (c->woken && c->seen >= c->woken) c->view_dirty = true;
  if (!c->view_dirty) return;
  c->view_dirty = false;
  bool hold = held(c);
  if (hold) ph__want(c, c->woken);
  walk_all(c);
  c->members = 1;
  c->digest = ph_hash64(c->key ^ ph_hash64(c->number));
  for (ph_list *e = c->nodes.next; e != &c->nodes; e = e->next)
    look(PH_CONTAINER(e, ph__node, in_all), hold);
  ph__want(c, c->seen); /* for the scans that dial and open */
}

void ph__answered(ph__node *node) {
  if (!node->asked) return;
  node->asked = false;
  node->c->view_dirty = true;
}

void ph__edge_down(ph__node *node) {
  node->down_due = PH_NEVER;
  ph__edge_set(node, false);
  ph__answered(node);
  node->c->view_dirty = true;
}
