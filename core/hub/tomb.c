/* Tombstones: numbers of starts that never live again, and who may still bring them back.
 *
 * A tombstone is kept for a minute, longer than any request is repeated, and until every hub that
 * could hold its number as live has been compared with since: the members, and the incarnations
 * that went down without leaving (hub->gone), which may come back from behind a cut with all they
 * had. Those of static children that were stopped are kept while the hub lives. */
#include <string.h>

#include "cluster/cluster.h"
#include "hub/internal.h"

enum { KEEP_MS = 60000, LONGEST_MS = 24 * 3600 * 1000, SLICE = 2048, MOST_GONE = 10000 };

ph_ended *ph__ended_find(const ph_row *r, ph_number num) {
  ph_ended *e = r->ended;
  while (e && !ph_number_eq(e->num, num)) e = e->next;
  return e;
}

bool ph__is_ended(const ph_row *r, ph_number num) {
  return ph__ended_find(r, num) != NULL;
}

/* the same on every node, as of intents */
uint64_t ph__ended_hash(const ph_hub *h, const ph_ended *e) {
  const ph_nodeent *a = h->sys->nodes[e->num.node];
  uint64_t x = ph_hash64(e->row->hash ^ ph_ring_hash(a->name, a->name_len)) + a->incarnation;
  return ~ph_hash64(x ^ e->num.counter);
}

static ph_ended *ended_new(ph_hub *h, ph_row *r, ph_number num) {
  ph_ended *e = ph_zalloc(h->env, sizeof *e);
  if (!e) return NULL;
  e->row = r;
  e->num = num;
  e->at = ph_now(h->env);
  e->next = r->ended;
  r->ended = e;
  ph_list_init(&e->tombs);
  ph_list_push(&h->tombs, &e->tombs);
  h->bucket_tombs[ph__bucket(r->hash)]++;
  return e;
}

int ph__ended_add(ph_hub *h, ph_row *r, ph_number num, bool keep) {
  ph_ended *e = ph__ended_find(r, num);
  if (e && (e->keep || !keep)) return 0;
  if (!e && !(e = ended_new(h, r, num))) return PH_ENOMEM;
  if (keep) {
    e->keep = true;
    ph_list_remove(&e->tombs);
    ph__digest_flip(h, r, ph__ended_hash(h, e));
  }
  ph_intent *in = ph__intent_find(r, num);
  if (in) ph__intent_drop(h, r, in);
  ph__row_dirty(h, r);
  return 1;
}

int ph__intent_end(ph_hub *h, ph_row *r, const ph_intent *in) {
  ph_number num = in->num;
  int err = ph__ended_add(h, r, num, in->hlc == 0);
  if (err >= 0) ph__change_ended(h, r, num);
  return err < 0 ? err : 0;
}

void ph__ended_free(ph_hub *h, ph_ended *e) {
  ph_ended **at = &e->row->ended;
  while (*at != e) at = &(*at)->next;
  *at = e->next;
  ph_list_remove(&e->tombs);
  h->bucket_tombs[ph__bucket(e->row->hash)]--;
  ph_free(h->env, e);
}

/* ---- Purging */

/* since when every hub that may hold numbers as live has been compared with */
static uint64_t compared(const ph_hub *h) {
  uint64_t least = ph_list_empty(&h->gone) ? UINT64_MAX : 0;
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    const ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (m->hello && m->matched_at < least) least = m->matched_at;
  }
  return least;
}

void ph__tombs_tick(ph_hub *h) {
  uint64_t now = ph_now(h->env);
  for (ph_list *l = h->gone.next; l != &h->gone;) {
    ph_gone *g = PH_CONTAINER(l, ph_gone, list);
    l = l->next;
    if (now - g->at < PH_MS(LONGEST_MS)) continue;
    ph_list_remove(&g->list);
    ph_free(h->env, g);
  }
  h->purging = true;
}

bool ph__tombs_slice(ph_hub *h) {
  if (!h->purging) return false;
  uint64_t now = ph_now(h->env), since = compared(h);
  for (int i = 0; i < SLICE && !ph_list_empty(&h->tombs); i++) {
    ph_ended *e = PH_CONTAINER(h->tombs.next, ph_ended, tombs);
    uint64_t age = now - e->at;
    if (age < PH_MS(KEEP_MS) || (age < PH_MS(LONGEST_MS) && since <= e->at)) {
      h->purging = false; /* those that came after it have no better reason to go */
      return false;
    }
    ph_row *r = e->row;
    ph__ended_free(h, e);
    ph__row_release(h, r);
  }
  h->purging = !ph_list_empty(&h->tombs);
  return h->purging;
}

/* ---- Incarnations that went down without leaving */

void ph__gone_add(ph_hub *h, ph_nodeent *n) {
  size_t count = 0;
  for (ph_list *l = h->gone.next; l != &h->gone; l = l->next, count++)
    if (PH_CONTAINER(l, ph_gone, list)->node == n) return;
  ph_gone *g = count < MOST_GONE ? ph_zalloc(h->env, sizeof *g) : NULL;
  if (!g) return; /* tombstones may go early; what comes back can be stopped again */
  g->node = n;
  g->at = ph_now(h->env);
  ph_list_push(&h->gone, &g->list);
}

void ph__gone_back(ph_hub *h, const ph_nodeent *n) {
  for (ph_list *l = h->gone.next; l != &h->gone;) {
    ph_gone *g = PH_CONTAINER(l, ph_gone, list);
    l = l->next;
    if (strcmp(g->node->name, n->name) != 0) continue;
    ph_list_remove(&g->list); /* it is back, or another incarnation has replaced it */
    ph_free(h->env, g);
  }
}

void ph__gone_free(ph_hub *h) {
  ph_list *l;
  while ((l = ph_list_pop(&h->gone))) ph_free(h->env, PH_CONTAINER(l, ph_gone, list));
}

/* a newcomer waits for them, too */
void ph__gone_send(ph_hub *h, ph_member *to) {
  uint32_t count = 0;
  ph_buf b;
  if (ph_list_empty(&h->gone)) return;
  for (ph_list *l = h->gone.next; l != &h->gone; l = l->next) count++;
  ph__head(h, &b, PH_H_GONE, 1);
  ph_w_array(&b, count * 2);
  for (ph_list *l = h->gone.next; l != &h->gone; l = l->next) {
    const ph_nodeent *n = PH_CONTAINER(l, ph_gone, list)->node;
    ph_w_str(&b, n->name, n->name_len);
    ph_w_uint(&b, n->incarnation);
  }
  if (ph__send(h, to, &b)) ph__oom(h);
}

static bool is_here(const ph_hub *h, const ph_nodeent *n) {
  if (strcmp(h->self.node->name, n->name) == 0) return true;
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    const ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (m->hello && strcmp(m->node->name, n->name) == 0) return true;
  }
  return false;
}

int ph__on_gone(ph_hub *h, ph_reader *r) {
  uint32_t n;
  if (ph_r_array(r, &n) || n % 2 || n / 2 > MOST_GONE) return PH_EMALFORMED;
  for (uint32_t i = 0; i < n / 2; i++) {
    const char *name;
    size_t len;
    uint64_t incarnation;
    if (ph_r_str(r, &name, &len, PH_MAX_NAME) || len == 0 || ph_r_uint(r, &incarnation))
      return PH_EMALFORMED;
    ph_nodeent *ent = ph_sys_node(h->sys, name, len, incarnation);
    if (!ent) return PH_ENOMEM;
    if (!is_here(h, ent)) ph__gone_add(h, ent);
  }
  return 0;
}
