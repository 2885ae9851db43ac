/* The registry: rows by child id, their intents, tombstones and running facts, and the digests. */
#include <string.h>

#include "hub/internal.h"

typedef struct id_key {
  const char *id;
  size_t n;
} id_key;

static bool same_id(const void *item, const void *key) {
  const ph_row *r = item;
  const id_key *k = key;
  return r->id_len == k->n && memcmp(r->id, k->id, k->n) == 0;
}

static uint64_t slot_of(const ph_hub *h, uint64_t hash) {
  return ph_hash64(hash ^ h->seed);
}
ph_row *ph__row_find(ph_hub *h, const char *id, size_t n, uint64_t hash) {
  id_key k = {id, n};
  return ph_index_find(&h->rows, slot_of(h, hash), same_id, &k);
}

ph_row *ph__row_get(ph_hub *h, const char *id, size_t n, uint64_t hash) {
  ph_row *r = ph__row_find(h, id, n, hash);
  if (r) return r;
  r = ph_zalloc(h->env, sizeof *r + n + 1);
  if (!r) return NULL;
  r->hash = hash;
  r->id_len = (uint16_t)n;
  memcpy(r->id, id, n);
  if (ph_index_put(&h->rows, slot_of(h, hash), r)) {
    ph_free(h->env, r);
    return NULL;
  }
  ph_list_push(&h->buckets[ph__bucket(hash)], &r->bucket);
  ph_list_init(&r->dirty);
  ph_list_init(&r->homeless);
  return r;
}

void ph__row_release(ph_hub *h, ph_row *r) {
  if (r->live || r->ended || r->facts || r->child || r->reqs) return;
  ph_index_remove(&h->rows, slot_of(h, r->hash), r);
  ph_list_remove(&r->bucket);
  ph_list_remove(&r->dirty);
  ph_list_remove(&r->homeless);
  ph_free(h->env, r);
}

void ph__row_dirty(ph_hub *h, ph_row *r) {
  if (ph_list_empty(&r->dirty)) {
    ph_list_push(&h->dirty, &r->dirty);
    ph__kick(h);
  }
}

static void home_check(ph_hub *h, ph_row *r) {
  bool homeless = r->live && (!r->facts || r->live->next);
  if (homeless && ph_list_empty(&r->homeless))
    ph_list_push(&h->homeless, &r->homeless);
  else if (!homeless)
    ph_list_remove(&r->homeless);
}

/* ---- Intents */

/* the same on every node: the numbers' nodes enter by name and incarnation, not by local index */
static uint64_t intent_hash(const ph_hub *h, const ph_row *r, const ph_intent *in) {
  const ph_nodeent *a = h->sys->nodes[in->num.node], *w = h->sys->nodes[in->writer];
  uint64_t x = r->hash;
  x = ph_hash64(x ^ ph_ring_hash(a->name, a->name_len)) + a->incarnation;
  x = ph_hash64(x ^ in->num.counter);
  x = ph_hash64(x ^ in->hlc);
  x = ph_hash64(x ^ ph_ring_hash(w->name, w->name_len)) + w->incarnation;
  return ph_hash64(x);
}

void ph__digest_flip(ph_hub *h, const ph_row *r, uint64_t x) {
  h->digest[ph__bucket(r->hash)] ^= x;
  h->top ^= x;
}

static void digest_flip(ph_hub *h, const ph_row *r, const ph_intent *in) {
  ph__digest_flip(h, r, intent_hash(h, r, in));
}

static int by_node(const ph_hub *h, uint32_t a, uint32_t b) {
  if (a == b) return 0;
  const ph_nodeent *x = h->sys->nodes[a], *y = h->sys->nodes[b];
  int c = strcmp(x->name, y->name);
  return c ? c : (x->incarnation > y->incarnation) - (x->incarnation < y->incarnation);
}

static int by_number(uint64_t a, uint64_t b) {
  return (a > b) - (a < b);
}

/* Of one start, by version. Of two, by their numbers, which two arbiters in two views give no other
 * order: so whoever decides which of them stays comes to the same. Proposals stand behind all
 * others. */
int ph__row_compare(const ph_hub *h, const ph_intent *a, const ph_intent *b) {
  int c;
  if (ph_number_eq(a->num, b->num)) {
    c = by_number(a->hlc, b->hlc);
    return c ? c : by_node(h, a->writer, b->writer);
  }
  c = (a->hlc != 0) - (b->hlc != 0);
  if (!c) c = by_number(a->num.counter, b->num.counter);
  return c ? c : by_node(h, a->num.node, b->num.node);
}

static ph_intent *intent_new(ph_hub *h, ph_row *r, const ph_intent *from) {
  ph_tag *tag;
  if (ph__tag_of(h, from->meta, &tag)) return NULL;
  ph_intent *in = ph_alloc(h->env, sizeof *in + (tag ? sizeof(ph_tagged) : 0));
  if (!in) {
    ph__tag_unref(h, tag);
    return NULL;
  }
  *in = *from;
  ph_spec_ref(in->spec);
  ph_bytes_ref(in->meta);
  ph__tag_put(in, r, tag);
  return in;
}

static void intent_free(ph_hub *h, ph_intent *in) {
  ph__tag_drop(h, in);
  ph_spec_unref(&h->specs, in->spec);
  ph__meta_unref(h, in->meta);
  ph_free(h->env, in);
}

ph_intent *ph__intent_find(ph_row *r, ph_number num) {
  ph_intent *in = r->live;
  while (in && !ph_number_eq(in->num, num)) in = in->next;
  return in;
}

static void intent_insert(ph_hub *h, ph_row *r, ph_intent *in) {
  ph_intent **at = &r->live;
  if (!*at) h->live_count++;
  ph__tag_show(r->live, false);
  while (*at && ph__row_compare(h, *at, in) > 0) at = &(*at)->next;
  in->next = *at;
  *at = in;
  ph__tag_show(r->live, true);
  digest_flip(h, r, in);
}

static void intent_unlink(ph_hub *h, ph_row *r, ph_intent *in) {
  ph_intent **at = &r->live;
  ph__tag_show(in, false);
  while (*at != in) at = &(*at)->next;
  *at = in->next;
  ph__tag_show(r->live, true);
  digest_flip(h, r, in);
  if (!r->live) h->live_count--;
}

/* takes it out of the row and frees it */
void ph__intent_drop(ph_hub *h, ph_row *r, ph_intent *in) {
  intent_unlink(h, r, in);
  intent_free(h, in);
  home_check(h, r);
  ph__row_dirty(h, r);
}

int ph__intent_add(ph_hub *h, ph_row *r, const ph_intent *in) {
  if (ph__is_ended(r, in->num)) return 0;
  ph_intent *old = ph__intent_find(r, in->num);
  bool confirmed = in->confirmed || (old && old->confirmed);
  if (old && ph__row_compare(h, old, in) >= 0) {
    if (old->confirmed == confirmed) return 0;
    old->confirmed = true;
    ph__row_dirty(h, r);
    return 1;
  }
  ph_intent *x = intent_new(h, r, in);
  if (!x) return PH_ENOMEM;
  x->confirmed = confirmed;
  if (old) {
    ph__intent_drop(h, r, old);
  }
  intent_insert(h, r, x);
  ph__clock_saw(h, in->hlc);
  home_check(h, r);
  ph__row_dirty(h, r);
  return 1;
}

/* names enter the digests: they are made anew */
void ph__renamed(ph_hub *h) {
  memset(h->digest, 0, sizeof h->digest);
  h->top = 0;
  for (size_t b = 0; b < PH_BUCKETS; b++)
    for (ph_list *l = h->buckets[b].next; l != &h->buckets[b]; l = l->next) {
      ph_row *r = PH_CONTAINER(l, ph_row, bucket);
      ph_intent *all = r->live, *in;
      r->live = NULL; /* their order depends on names, too */
      while ((in = all)) {
        ph_intent **at = &r->live;
        all = in->next;
        while (*at && ph__row_compare(h, *at, in) > 0) at = &(*at)->next;
        in->next = *at;
        *at = in;
        digest_flip(h, r, in);
      }
      for (const ph_ended *e = r->ended; e; e = e->next)
        if (e->keep) ph__digest_flip(h, r, ph__ended_hash(h, e));
    }
  ph__view_changed(h);
}

/* ---- Running facts */

ph_fact *ph__fact_find(ph_row *r, const ph_member *owner) {
  ph_fact *f = r->facts;
  while (f && f->owner != owner) f = f->next;
  return f;
}

static ph_fact *fact_new(ph_hub *h, ph_row *r) {
  if (r->first_used) return ph_zalloc(h->env, sizeof(ph_fact));
  r->first_used = true;
  memset(&r->first, 0, sizeof r->first);
  return &r->first;
}

static void fact_free(ph_hub *h, ph_row *r, ph_fact *f) {
  if (f == &r->first)
    r->first_used = false;
  else
    ph_free(h->env, f);
}

int ph__fact_set(ph_hub *h, ph_row *r, ph_member *owner, ph_number num, uint8_t state,
                 uint64_t serial, ph_fact **out) {
  ph_fact *f = ph__fact_find(r, owner);
  if (!f) {
    f = fact_new(h, r);
    if (!f) return PH_ENOMEM;
    f->row = r;
    f->owner = owner;
    ph_list_init(&f->dirty);
    ph_list_push(&owner->facts, &f->in_owner);
    f->next = r->facts;
    r->facts = f;
    home_check(h, r);
  }
  f->num = num;
  f->state = state;
  f->serial = serial;
  f->gen = owner->gen;
  ph__row_dirty(h, r);
  if (out) *out = f;
  return 0;
}

void ph__fact_drop(ph_hub *h, ph_fact *f) {
  ph_row *r = f->row;
  ph_fact **at = &r->facts;
  while (*at != f) at = &(*at)->next;
  *at = f->next;
  if (f->owner == &h->self) {
    ph__sync_fact_unlinked(h, f);
    ph_list_remove(&f->dirty);
  }
  ph_list_remove(&f->in_owner);
  fact_free(h, r, f);
  home_check(h, r);
  ph__row_dirty(h, r); /* place releases the row when nothing is left */
}

void ph__facts_drop_all(ph_hub *h, ph_member *m) {
  while (!ph_list_empty(&m->facts))
    ph__fact_drop(h, PH_CONTAINER(m->facts.next, ph_fact, in_owner));
}

/* nothing lives any more as far as this hub is concerned; what runs here is stopped */
void ph__registry_forget(ph_hub *h) {
  for (size_t b = 0; b < PH_BUCKETS; b++)
    for (ph_list *l = h->buckets[b].next; l != &h->buckets[b]; l = l->next) {
      ph_row *r = PH_CONTAINER(l, ph_row, bucket);
      while (r->live) ph__intent_drop(h, r, r->live);
    }
}

void ph__registry_free(ph_hub *h) {
  for (size_t b = 0; b < PH_BUCKETS; b++)
    while (!ph_list_empty(&h->buckets[b])) {
      ph_row *r = PH_CONTAINER(h->buckets[b].next, ph_row, bucket);
      while (r->facts) ph__fact_drop(h, r->facts);
      while (r->ended) ph__ended_free(h, r->ended);
      while (r->live) {
        ph_intent *in = r->live;
        r->live = in->next;
        intent_free(h, in);
      }
      r->child = NULL;
      r->reqs = NULL;
      ph__row_release(h, r);
    }
  ph_index_deinit(&h->rows);
  ph__meta_forget(h);
  ph_index_deinit(&h->tags);
}

/* ---- Reads */

ph_row *ph_hub_find(ph_hub *h, const char *id, size_t len) {
  ph_row *r = ph__row_find(h, id, len, ph_ring_hash(id, len));
  return r && r->live ? r : NULL;
}

const char *ph_row_id(const ph_row *r, size_t *len) {
  *len = r->id_len;
  return r->id;
}

ph_spec *ph_row_spec(const ph_row *r) {
  return r->live->spec;
}
ph_bytes *ph_row_metadata(const ph_row *r) {
  return r->live->meta;
}
size_t ph_hub_count(const ph_hub *h) {
  return h->live_count;
}

static bool runs(const ph_hub *h, const ph_fact *f) {
  return f->state == PH_FACT_RUNNING && (f->owner->included || f->owner == &h->self);
}

/* the instance with the smallest node name above `above` (NULL: the smallest) */
static const ph_fact *next_instance(const ph_hub *h, const ph_row *r, const char *above) {
  const ph_fact *best = NULL;
  for (const ph_fact *f = r->facts; f; f = f->next) {
    if (!runs(h, f) || (above && strcmp(f->owner->node->name, above) <= 0)) continue;
    if (!best || strcmp(f->owner->node->name, best->owner->node->name) < 0) best = f;
  }
  return best;
}

bool ph_row_instance(ph_hub *h, const ph_row *r, size_t i, ph_pid *pid, const ph_nodeent **node) {
  const ph_fact *f = next_instance(h, r, NULL);
  while (f && i-- > 0) f = next_instance(h, r, f->owner->node->name);
  if (!f) return false;
  *pid = ph_pid_make(f->owner->node->index, f->serial);
  if (node) *node = f->owner->node;
  return true;
}

ph_pid ph_row_pid(ph_hub *h, const ph_row *r) {
  const ph_fact *best = NULL;
  for (const ph_fact *f = r->facts; f; f = f->next) {
    if (!runs(h, f)) continue;
    if (f->owner == &h->self) return ph_pid_make(PH_SELF, f->serial);
    if (!best || strcmp(f->owner->node->name, best->owner->node->name) < 0) best = f;
  }
  return best ? ph_pid_make(best->owner->node->index, best->serial) : 0;
}

bool ph_row_is_here(const ph_row *r) {
  return r->child && !r->child->moving;
}

const char *ph_row_waiting(ph_hub *h, const ph_row *r) {
  const char *why = "moving";
  if (!r->facts) return why;
  for (const ph_fact *f = r->facts; f; f = f->next) {
    if (runs(h, f)) return NULL;
    if (f->state == PH_FACT_BACKOFF || f->state == PH_FACT_FAILED) why = "backoff";
  }
  return why;
}

ph_row *ph_hub_next(ph_hub *h, ph_index_iter *it) {
  ph_row *r;
  while ((r = ph_index_next(&h->rows, it)))
    if (r->live) return r;
  return NULL;
}

ph_row *ph_hub_next_on(ph_hub *h, const ph_nodeent *node, ph_row *prev, ph_pid *pid) {
  ph_member *m = ph__member(h, node);
  if (!m) return NULL;
  ph_list *l = prev ? ph__fact_find(prev, m)->in_owner.next : m->facts.next;
  for (; l != &m->facts; l = l->next) {
    ph_fact *f = PH_CONTAINER(l, ph_fact, in_owner);
    if (!runs(h, f) || !f->row->live) continue;
    *pid = ph_pid_make(node->index, f->serial);
    return f->row;
  }
  return NULL;
}

ph_row *ph_hub_next_local(ph_hub *h, ph_row *prev) {
  ph_pid pid;
  return ph_hub_next_on(h, h->self.node, prev, &pid);
}
