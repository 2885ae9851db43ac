/* Link states: who says to be linked to whom.
 *
 * STATE [12, name, incarnation, from, number, flags, address, added, removed]: what changed in a
 * node's links between two of its numbers; from 0: `added` is all of them. Links are given by keys,
 * 8 bytes each, little-endian (ph__key). Its owner sends a change to all its links, once; who
 * learns something new by it passes it on, once, but not to those that the owner or the sender is
 * linked to, for these told them, nor where FORWARDERS others do it. Flags: 1 it leaves.
 *
 * SUMMARY [13, answer, pairs]: key and number (8 bytes each) of all in view. The other sends the
 * STATE of those of which it knows more and, if asked, its own SUMMARY when it knows less. Both
 * sides send one when a link is made; later only where heartbeats show that they differ, or a
 * change does not follow on what is known. */
#include <stdlib.h>
#include <string.h>

#include "cluster/internal.h"

enum {
  KEY = 8,
  PAIR = 16,
  LEAVES = 1,
  AT_ONCE = 2, /* so many changes are told at once, */
  GATHER = 20, /* ms; then those of this time together */
  FORWARDERS = 2,
  EDGES_MAX = PH__STATES
};

uint64_t ph__key(const char *name, size_t n, uint64_t incarnation) {
  return ph_hash(name, n, incarnation);
}

static uint64_t get(const uint8_t *p) {
  uint64_t x = 0;
  for (int i = KEY - 1; i >= 0; i--) x = x << 8 | p[i];
  return x;
}

static void put(ph_buf *b, uint64_t x) {
  uint8_t bytes[KEY];
  for (int i = 0; i < KEY; i++) bytes[i] = (uint8_t)(x >> (8 * i));
  (void)!ph_buf_append(b, bytes, KEY);
}

/* c->keys becomes a field of the message being written */
static void write_keys(ph_cluster *c) {
  ph_w_bin(&c->scratch, ph_buf_at(&c->keys), ph_buf_size(&c->keys));
  if (c->keys.oom) c->scratch.oom = true;
  ph_buf_reset(&c->keys);
}

/* ---- this node's own ---- */

static void own_changed(ph_cluster *c, bool urgent) {
  c->number++;
  c->own_dirty = true;
  c->own_urgent |= urgent;
  c->view_dirty = true;
  ph__want(c, c->seen);
}

void ph__edge_set(ph__node *node, bool up) {
  if (node->edge == up) return;
  node->edge = up;
  node->edge_dirty = true;
  own_changed(node->c, !up);
}

void ph__state_leaving(ph_cluster *c) {
  own_changed(c, true);
  ph__state_flush(c);
}

static void own_keys(ph_cluster *c, bool whole, bool up) {
  for (ph_list *e = c->nodes.next; e != &c->nodes; e = e->next) {
    const ph__node *node = PH_CONTAINER(e, ph__node, in_all);
    if (node->edge == up && (whole ? up : node->edge_dirty)) put(&c->keys, node->key);
  }
  write_keys(c);
}

static void write_own(ph_cluster *c, bool whole) {
  ph_buf *b = ph__control(c, PH_M_STATE, 8);
  ph_w_str(b, c->name, c->name_len);
  ph_w_uint(b, c->incarnation);
  ph_w_uint(b, whole ? 0 : c->told);
  ph_w_uint(b, c->number);
  ph_w_uint(b, c->leaving ? LEAVES : 0);
  ph_w_cstr(b, c->advertise);
  own_keys(c, whole, true);
  own_keys(c, whole, false);
}

void ph__state_flush(ph_cluster *c) {
  if (!c->own_dirty) return;
  if (c->seen >= c->tell_due) c->tells = 0;
  if (!c->own_urgent && c->tells >= AT_ONCE && c->seen < c->tell_due) {
    ph__want(c, c->tell_due);
    return;
  }
  write_own(c, c->own_whole || c->told == 0);
  for (ph_list *e = c->links.next; e != &c->links; e = e->next)
    (void)ph__control_end(PH_CONTAINER(e, ph__link, in_all));
  for (ph_list *e = c->nodes.next; e != &c->nodes; e = e->next)
    PH_CONTAINER(e, ph__node, in_all)->edge_dirty = false;
  c->told = c->number;
  c->tells++;
  c->tell_due = c->seen + PH_MS(GATHER);
  c->own_dirty = c->own_urgent = c->own_whole = false;
}

void ph__replaced(ph_cluster *c, uint64_t by) {
  if (c->replaced || c->next_peer == 1) return; /* nobody knew this one: a conflict of names */
  c->replaced = true;
  ph_logf(&c->env, PH_LOG_WARN, "cluster: a newer node has taken this node's name, %s", c->name);
  ph__tell(c, PH_EV_REPLACED, by, 0, NULL, 0);
}

/* ---- those of others ---- */

void ph__state_forget(ph__node *node) {
  ph_cluster *c = node->c;
  if (node->number) c->states--;
  ph_free(&c->env, node->edges);
  node->edges = NULL;
  node->edge_count = 0;
  node->number = 0;
  c->view_dirty = true;
}

void ph__state_renew(ph__node *node, uint64_t incarnation, const void *say, size_t n) {
  ph_cluster *c = node->c;
  ph__link *l = node->link;
  if (l) {
    if (n) ph__control_raw(l, say, n); /* so that it learns that it was replaced */
    ph__link_end(l, 0, true);
  }
  ph__stream_end(node);
  if (node->edge || node->edge_dirty) c->own_whole = true; /* the key told is another one's */
  ph__edge_set(node, false);
  ph__member_down(node, node->leaver);
  ph__state_forget(node);
  node->down_due = PH_NEVER;
  node->left = node->leaver = node->lost = node->stalled = false;
  node->theirs = 0;
  /* what other processes of this name did says nothing of this one's links */
  node->flaps = node->stream_flaps = 0;
  node->incarnation = incarnation;
  node->key = ph__key(node->name, node->name_len, incarnation);
  if (node->target && !ph__target_wanted(node->target)) ph__target_drop(node->target, PH_ECLOSED);
}

static void write_state(const ph__node *node) {
  ph_cluster *c = node->c;
  ph_buf *b = ph__control(c, PH_M_STATE, 8);
  ph_w_str(b, node->name, node->name_len);
  ph_w_uint(b, node->incarnation);
  ph_w_uint(b, 0);
  ph_w_uint(b, node->number);
  ph_w_uint(b, node->leaver ? LEAVES : 0);
  ph_w_cstr(b, node->address);
  for (uint32_t i = 0; i < node->edge_count; i++) put(&c->keys, node->edges[i]);
  write_keys(c);
  write_keys(c);
}

typedef struct state {
  const char *name, *address;
  size_t name_len, address_len, added_len, removed_len;
  uint64_t incarnation, from, number, flags;
  const uint8_t *added, *removed;
} state;

static int read_state(state *s, ph_reader *r, uint32_t fields) {
  if (fields < 8) return PH_EMALFORMED;
  if (ph_r_str(r, &s->name, &s->name_len, PH_MAX_NAME) < 0 || ph_r_uint(r, &s->incarnation) < 0 ||
      ph_r_uint(r, &s->from) < 0 || ph_r_uint(r, &s->number) < 0 || ph_r_uint(r, &s->flags) < 0 ||
      ph_r_str(r, &s->address, &s->address_len, PH_MAX_ADDRESS) < 0 ||
      ph_r_bin(r, &s->added, &s->added_len, PH_FRAGMENT) < 0 ||
      ph_r_bin(r, &s->removed, &s->removed_len, PH_FRAGMENT) < 0)
    return PH_EMALFORMED;
  if (!ph__name_valid(s->name, s->name_len) || !ph__address_valid(s->address, s->address_len) ||
      s->incarnation == 0 || s->number == 0 || s->number == PH_NEVER || s->from >= s->number ||
      s->added_len % KEY || s->removed_len % KEY)
    return PH_EMALFORMED;
  return 0;
}

static int compare_keys(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

/* the keys in order */
static void sorted(uint64_t *out, const uint8_t *keys, size_t n) {
  for (size_t i = 0; i < n; i++) out[i] = get(keys + i * KEY);
  if (n > 1) qsort(out, n, sizeof *out, compare_keys);
}

/* `old` without `removed`, and `added`; all in order, each once. Returns how many. */
static size_t combine(uint64_t *out, const uint64_t *old, size_t old_n, const uint64_t *added,
                      size_t added_n, const uint64_t *removed, size_t removed_n) {
  size_t n = 0, i = 0, k = 0, r = 0;
  while (i < old_n || k < added_n) {
    bool from_old = i < old_n && (k == added_n || old[i] < added[k]);
    uint64_t key = from_old ? old[i++] : added[k++];
    while (from_old && r < removed_n && removed[r] < key) r++;
    if (from_old && r < removed_n && removed[r] == key) continue;
    if (n == 0 || out[n - 1] != key) out[n++] = key;
  }
  return n;
}

/* In proportion to what it has and is told, for a peer may tell much. */
static int merge(ph__node *node, const state *s) {
  ph_cluster *c = node->c;
  size_t old = s->from ? node->edge_count : 0;
  size_t added = s->added_len / KEY, removed = s->removed_len / KEY;
  if (old + added > EDGES_MAX) return PH_EMALFORMED;
  uint64_t *edges = old + added ? ph_alloc(&c->env, (old + added) * sizeof *edges) : NULL;
  uint64_t *said = ph_alloc(&c->env, (added + removed + 1) * sizeof *said);
  if (!said || (old + added && !edges)) {
    ph_free(&c->env, edges);
    ph_free(&c->env, said);
    return PH_ENOMEM;
  }
  sorted(said, s->added, added);
  sorted(said + added, s->removed, removed);
  size_t n = combine(edges, node->edges, old, said, added, said + added, removed);
  ph_free(&c->env, said);
  ph_free(&c->env, node->edges);
  node->edges = edges;
  node->edge_count = (uint32_t)n;
  return 0;
}

static bool linked(const ph__node *node, uint64_t key) {
  return node->edge_count &&
         bsearch(&key, node->edges, node->edge_count, sizeof key, compare_keys) != NULL;
}

/* Of those that were told by `from` and are linked to `to`, the first by name tell it. */
static bool others_tell(const ph__node *from, const ph__node *to) {
  ph_cluster *c = to->c;
  int before = 0;
  for (ph_list *e = c->nodes.next; e != &c->nodes && before < FORWARDERS; e = e->next) {
    const ph__node *node = PH_CONTAINER(e, ph__node, in_all);
    if (!ph__name_less(node->name, node->name_len, c->name, c->name_len)) break;
    before += linked(from, node->key) && linked(node, to->key);
  }
  return before >= FORWARDERS;
}

static void pass_on(const ph__link *from, const ph__node *owner, const void *p, size_t n) {
  ph_cluster *c = from->c;
  for (ph_list *e = c->links.next; e != &c->links; e = e->next) {
    ph__link *l = PH_CONTAINER(e, ph__link, in_all);
    if (l == from || l->node == owner || linked(owner, l->node->key) ||
        linked(from->node, l->node->key) || others_tell(from->node, l->node))
      continue;
    ph__control_raw(l, p, n);
  }
}

/* its own word about this node, which may come by another way than its link */
static void check_link(ph__node *node) {
  ph__link *l = node->link;
  if (!l || l->base == PH_NEVER || node->number < l->base || linked(node, node->c->key)) return;
  ph__link_failed(l, PH_ECLOSED);
}

static void about_self(ph_cluster *c, const state *s) {
  if (s->incarnation > c->incarnation) {
    ph__replaced(c, s->incarnation);
  } else if (s->incarnation == c->incarnation && s->number > c->number) {
    c->number = s->number; /* of nobody's making; what follows has a larger one */
    c->own_whole = true;
    own_changed(c, true);
  }
}

/* The node that this is news of; NULL: none, err tells why. */
static ph__node *news(ph__link *l, const state *s, const void *p, size_t n, int *err) {
  ph_cluster *c = l->c;
  ph__node *node = ph__node_find(c, s->name, s->name_len);
  *err = 0;
  if (node && (s->incarnation < node->incarnation ||
               (s->incarnation == node->incarnation && s->number <= node->number)))
    return NULL;
  bool known = node && node->incarnation == s->incarnation && node->number;
  if (s->from && (!known || node->number < s->from)) {
    ph__summary_send(l, false); /* something between was missed: ask for the whole */
    return NULL;
  }
  if (!known && c->states >= PH__STATES) return NULL;
  if (!node) node = ph__node_get(c, s->name, s->name_len);
  char *address = NULL;
  if (node && (!node->address || node->incarnation != s->incarnation)) {
    address = ph_strndup(&c->env, s->address, s->address_len);
    if (!address) node = NULL;
  }
  if (!node) {
    *err = PH_ENOMEM;
    return NULL;
  }
  if (node->incarnation != s->incarnation) ph__state_renew(node, s->incarnation, p, n);
  if (address) {
    ph_free(&c->env, node->address);
    node->address = address;
  }
  return node;
}

int ph__state_receive(ph__link *l, ph_reader *r, uint32_t fields, const void *p, size_t n) {
  ph_cluster *c = l->c;
  state s;
  int err = read_state(&s, r, fields);
  if (err < 0) return err;
  if (s.name_len == c->name_len && memcmp(s.name, c->name, c->name_len) == 0) {
    about_self(c, &s);
    return 0;
  }
  ph__node *node = news(l, &s, p, n, &err);
  if (!node || l->state == PH__DEAD) return err;
  err = merge(node, &s);
  if (err < 0) return err;
  if (!node->number) c->states++;
  node->number = s.number;
  node->leaver = (s.flags & LEAVES) != 0;
  node->state_due = c->seen + 10 * c->timeout;
  c->view_dirty = true;
  pass_on(l, node, p, n);
  check_link(node);
  return 0;
}

/* ---- comparing ---- */

void ph__summary_send(ph__link *l, bool answer) {
  ph_cluster *c = l->c;
  ph_buf *b = ph__control(c, PH_M_SUMMARY, 2);
  ph_w_bool(b, answer);
  put(&c->keys, c->key);
  put(&c->keys, c->number);
  for (ph_list *e = c->nodes.next; e != &c->nodes; e = e->next) {
    const ph__node *node = PH_CONTAINER(e, ph__node, in_all);
    if (!node->in_view || !node->number) continue;
    put(&c->keys, node->key);
    put(&c->keys, node->number);
  }
  write_keys(c);
  (void)ph__control_end(l);
}

typedef struct pair {
  uint64_t key, number;
} pair;

typedef struct pairs { /* in order of their keys */
  pair *p;
  size_t count;
  size_t met; /* of which we know as much or more */
} pairs;

static int compare_pairs(const void *a, const void *b) {
  return compare_keys(&((const pair *)a)->key, &((const pair *)b)->key);
}

static int read_pairs(ph_cluster *c, pairs *s, const uint8_t *p, size_t n) {
  if (n == 0) return 0;
  s->p = ph_alloc(&c->env, n / PAIR * sizeof *s->p);
  if (!s->p) return PH_ENOMEM;
  for (s->count = 0; s->count < n / PAIR; s->count++, p += PAIR)
    s->p[s->count] = (pair){get(p), get(p + KEY)};
  qsort(s->p, s->count, sizeof *s->p, compare_pairs);
  return 0;
}

/* the other's number of this one; 0: not known there */
static uint64_t number_of(const pairs *s, uint64_t key) {
  pair k = {key, 0};
  const pair *found = s->count ? bsearch(&k, s->p, s->count, sizeof k, compare_pairs) : NULL;
  return found ? found->number : 0;
}

int ph__summary_receive(ph__link *l, ph_reader *r, uint32_t fields) {
  ph_cluster *c = l->c;
  pairs s = {0};
  bool answer;
  const uint8_t *p;
  size_t n;
  if (fields < 2 || ph_r_bool(r, &answer) < 0 || ph_r_bin(r, &p, &n, PH_FRAGMENT) < 0 || n % PAIR)
    return PH_EMALFORMED;
  int err = read_pairs(c, &s, p, n);
  if (err < 0) return err;
  uint64_t theirs = number_of(&s, c->key);
  s.met += theirs != 0;
  if (theirs < c->number && !(c->own_dirty && theirs && theirs >= c->told)) {
    write_own(c, true);
    (void)ph__control_end(l);
  }
  for (ph_list *e = c->nodes.next; e != &c->nodes; e = e->next) {
    const ph__node *node = PH_CONTAINER(e, ph__node, in_all);
    if (!node->number && node != l->node) continue;
    theirs = number_of(&s, node->key);
    if (node == l->node && theirs && l->base == PH_NEVER) l->base = theirs;
    s.met += theirs && theirs <= node->number;
    if (!node->in_view || theirs >= node->number || node == l->node) continue;
    if (!answer && linked(node, l->node->key)) continue; /* tells it itself */
    write_state(node);
    (void)ph__control_end(l);
  }
  if (answer && s.met < s.count) ph__summary_send(l, false);
  ph_free(&c->env, s.p);
  return 0;
}
