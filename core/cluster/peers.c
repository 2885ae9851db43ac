/* Whom to dial: all in view are to be linked. */
#include <string.h>

#include "cluster/internal.h"

enum { HIGHER_WAITS = 100 };

static bool meeting(const ph_cluster *c, const char *name, size_t n) {
  for (const ph_list *e = c->pending.next; e != &c->pending; e = e->next) {
    const ph__hand *h = PH_CONTAINER(e, ph__link, in_all)->hand;
    if (h->name_len == n && memcmp(h->name, name, n) == 0) return true;
  }
  return false;
}

static bool missing(const ph__node *node) {
  return node->in_view && !node->link && !node->target && !node->disconnected && !node->left &&
         !node->leaver && !node->lost && node->address;
}

/* Without memory for a target the next scan tries again. */
static void dial(ph__node *node) {
  ph_cluster *c = node->c;
  size_t n = strlen(node->address);
  if (meeting(c, node->name, node->name_len) || c->hearsay >= PH__HEARSAY) return;
  ph__target *t = ph__target_find(c, node->address, n);
  if (t) return;
  t = ph__target_new(c, node->address, n, PH__HEARD);
  if (!t) return;
  t->node = node;
  node->target = t;
  /* Both ends hear of each other at once; the lower's connection would win anyway. */
  t->due = c->seen;
  if (!ph__name_less(c->name, c->name_len, node->name, node->name_len))
    t->due += PH_MS(HIGHER_WAITS) + ph_random64(&c->env) % PH_MS(HIGHER_WAITS);
  ph__want(c, t->due);
}

void ph__peers_scan(ph_cluster *c) {
  if (c->leaving) return;
  for (ph_list *e = c->nodes.next; e != &c->nodes; e = e->next) {
    ph__node *node = PH_CONTAINER(e, ph__node, in_all);
    if (missing(node)) dial(node);
  }
}
