/* Entries of nodes: what the number in a pid stands for, and what happens to a node. */
#include <string.h>

#include "proc/proc_int.h"

/* MAX_HEARD: no peer's talk of others may fill the table, for who comes up needs a place in it. */
enum { MAX_NODES = 1 << PH_NODE_BITS, MAX_HEARD = MAX_NODES / 2, FIRST_NODES = 8 };

typedef struct node_key {
  const char *name;
  size_t n;
  uint64_t incarnation;
} node_key;

static bool same_name(const ph_nodeent *e, const char *name, size_t n) {
  return e->name_len == n && memcmp(e->name, name, n) == 0;
}

static bool node_eq(const void *item, const void *key) {
  const ph_nodeent *e = item;
  const node_key *k = key;
  return e->incarnation == k->incarnation && same_name(e, k->name, k->n);
}

static bool up_eq(const void *item, const void *key) {
  const node_key *k = key;
  return same_name(item, k->name, k->n);
}

static bool peer_eq(const void *item, const void *key) {
  return ((const ph_nodeent *)item)->peer == *(const uint64_t *)key;
}

static uint64_t node_hash(const ph_sys *s, const char *name, size_t n, uint64_t incarnation) {
  return ph_hash(name, n, s->seed ^ ph_hash64(incarnation));
}

static uint64_t up_hash(const ph_sys *s, const char *name, size_t n) {
  return ph_hash(name, n, s->seed);
}

static uint64_t peer_hash(const ph_sys *s, uint64_t peer) {
  return ph_hash64(peer ^ s->seed);
}

static ph_nodeent *ent_new(ph_sys *s, const char *name, size_t n, uint64_t incarnation) {
  ph_nodeent *e = ph_zalloc(s->env, sizeof *e);
  if (!e) return NULL;
  e->name = ph_strndup(s->env, name, n);
  if (!e->name) {
    ph_free(s->env, e);
    return NULL;
  }
  e->name_len = n;
  e->incarnation = incarnation;
  ph_list_init(&e->out);
  ph_list_init(&e->in);
  ph_list_init(&e->links);
  ph_list_init(&e->blocked);
  ph_list_init(&e->full);
  ph_list_init(&e->throttles);
  ph_list_init(&e->lossy);
  return e;
}

static void ent_free(ph_sys *s, ph_nodeent *e) {
  ph_free(s->env, e->name);
  ph_free(s->env, e);
}

static bool make_room(ph_sys *s) {
  if (s->node_count < s->node_cap) return true;
  if (s->node_cap >= MAX_NODES) return false;
  uint32_t cap = s->node_cap ? s->node_cap * 2 : FIRST_NODES;
  ph_nodeent **nodes = ph_realloc(s->env, s->nodes, cap * sizeof *nodes);
  if (!nodes) return false;
  s->nodes = nodes;
  s->node_cap = cap;
  return true;
}

static ph_nodeent *ent_find(ph_sys *s, const char *name, size_t n, uint64_t incarnation) {
  node_key k = {name, n, incarnation};
  ph_nodeent *e = ph_index_find(&s->node_ids, node_hash(s, name, n, incarnation), node_eq, &k);
  return e ? s->nodes[e->index] : NULL; /* an old name of this node leads to nodes[0] */
}

static ph_nodeent *ent_get(ph_sys *s, const char *name, size_t n, uint64_t incarnation,
                           uint32_t most) {
  ph_nodeent *e = ent_find(s, name, n, incarnation);
  if (e || n == 0 || n > PH_MAX_NAME || s->node_count >= most || !make_room(s)) return e;
  e = ent_new(s, name, n, incarnation);
  if (!e) return NULL;
  if (ph_index_put(&s->node_ids, node_hash(s, name, n, incarnation), e)) {
    ent_free(s, e);
    return NULL;
  }
  e->index = s->node_count;
  s->nodes[s->node_count++] = e;
  return e;
}

ph_nodeent *ph_sys_node(ph_sys *s, const char *name, size_t n, uint64_t incarnation) {
  return ent_get(s, name, n, incarnation, MAX_HEARD);
}

int ph__nodes_init(ph_sys *s) {
  static const char name[] = "nonode@nohost";
  return ph_sys_node(s, name, sizeof name - 1, ph_random64(s->env)) ? 0 : PH_ENOMEM;
}

void ph__nodes_deinit(ph_sys *s) {
  ph_index_iter it = {0};
  for (ph_nodeent *e; (e = ph_index_next(&s->node_ids, &it));) ent_free(s, e);
  ph_index_deinit(&s->node_ids);
  ph_index_deinit(&s->peers);
  ph_index_deinit(&s->ups);
  ph_free(s->env, s->nodes);
  s->nodes = NULL;
  s->node_count = s->node_cap = 0;
}

int ph_sys_name(ph_sys *s, const char *name, size_t n, uint64_t incarnation) {
  if (n == 0 || n > PH_MAX_NAME) return PH_EINVAL;
  ph_nodeent *self = s->nodes[PH_SELF];
  node_key k = {name, n, incarnation};
  if (node_eq(self, &k)) return 0;
  if (ent_find(s, name, n, incarnation)) return PH_EINVAL; /* another node's, or one of its past */
  ph_nodeent *past = ent_new(s, self->name, self->name_len, self->incarnation);
  char *copy = ph_strndup(s->env, name, n);
  uint64_t old_hash = node_hash(s, self->name, self->name_len, self->incarnation);
  if (!past || !copy || ph_index_put(&s->node_ids, old_hash, past)) goto failed;
  if (ph_index_put(&s->node_ids, node_hash(s, name, n, incarnation), self)) {
    ph_index_remove(&s->node_ids, old_hash, past);
    goto failed;
  }
  ph_index_remove(&s->node_ids, old_hash, self);
  ph_free(s->env, self->name);
  self->name = copy;
  self->name_len = n;
  self->incarnation = incarnation;
  return 0;
failed:
  if (past) ent_free(s, past);
  ph_free(s->env, copy);
  return PH_ENOMEM;
}

ph_nodeent *ph_sys_peer(ph_sys *s, uint64_t peer) {
  return peer ? ph_index_find(&s->peers, peer_hash(s, peer), peer_eq, &peer) : NULL;
}

ph_nodeent *ph_sys_node_named(ph_sys *s, const char *name, size_t n) {
  node_key k = {name, n, 0};
  if (same_name(s->nodes[PH_SELF], name, n)) return s->nodes[PH_SELF];
  return ph_index_find(&s->ups, up_hash(s, name, n), up_eq, &k);
}

int ph_sys_node_up(ph_sys *s, uint64_t peer, const char *name, size_t n, uint64_t incarnation) {
  ph_nodeent *e = ent_get(s, name, n, incarnation, MAX_NODES);
  if (!e) return n == 0 || n > PH_MAX_NAME ? PH_EINVAL : PH_ENOMEM;
  if (e->index == PH_SELF || peer == 0 || ph_sys_peer(s, peer)) return PH_EINVAL;
  if (e->peer) ph_sys_node_down(s, e->peer);
  if (ph_index_put(&s->peers, peer_hash(s, peer), e)) return PH_ENOMEM;
  if (ph_index_put(&s->ups, up_hash(s, name, n), e)) {
    ph_index_remove(&s->peers, peer_hash(s, peer), e);
    return PH_ENOMEM;
  }
  e->peer = peer;
  e->xoff = false;
  return 0;
}

static void wake_blocked(ph_nodeent *e, int err) {
  for (ph_list *l; (l = ph_list_pop(&e->blocked));)
    ph__waiter_end(PH_CONTAINER(l, ph_waiter, blocked), err, NULL, NULL);
}

void ph_sys_node_down(ph_sys *s, uint64_t peer) {
  ph_nodeent *e = ph_sys_peer(s, peer);
  if (!e) return;
  ph_index_remove(&s->peers, peer_hash(s, peer), e);
  ph_index_remove(&s->ups, up_hash(s, e->name, e->name_len), e);
  e->peer = 0;
  e->xoff = false;
  ph_list_remove(&e->lossy);
  wake_blocked(e, PH_ENOCONN);
  ph__flow_lost(s, e, PH_ENOCONN);
  ph__monitors_lost(s, e);
  ph__links_lost(s, e);
}

/* A frame of ours may have been under way to the cluster when the link broke, and have gone over
 * the new one: so the other side is told of all that ends here. It ignores what it does not know.
 */
void ph_sys_link_reset(ph_sys *s, uint64_t peer) {
  ph_nodeent *e = ph_sys_peer(s, peer);
  if (!e) return;
  ph_list_remove(&e->lossy);
  ph__flow_lost(s, e, 0);
  ph__monitors_lost(s, e);
  ph__links_lost(s, e);
}

void ph_sys_xoff(ph_sys *s, uint64_t peer, bool on) {
  ph_nodeent *e = ph_sys_peer(s, peer);
  if (!e) return;
  e->xoff = on;
  if (!on) wake_blocked(e, 0);
}

void ph__lost(ph_sys *s, ph_nodeent *e) {
  if (!e->peer || !ph_list_empty(&e->lossy)) return;
  ph_logf(s->env, PH_LOG_WARN, "out of memory: the link to %.*s is made again", (int)e->name_len,
          e->name);
  ph_list_push(&s->lossy, &e->lossy);
}

void ph__reset_lossy(ph_sys *s) {
  ph_list again;
  ph_list_init(&again);
  for (ph_list *l; (l = ph_list_pop(&s->lossy));) {
    ph_nodeent *e = PH_CONTAINER(l, ph_nodeent, lossy);
    if (s->port.command(s->port.ctx, PH_CMD_RESET, e->peer, 0, NULL, 0) == PH_ENOMEM)
      ph_list_push(&again, l);
  }
  ph_list_move(&s->lossy, &again);
}

void ph_w_id(ph_sys *s, ph_buf *b, uint64_t id) {
  const ph_nodeent *e = ph__node_of(s, id);
  if (!e) { /* no such number was ever given out */
    ph_w_nil(b);
    return;
  }
  ph_buf_reset(&s->id);
  ph_w_str(&s->id, e->name, e->name_len);
  ph_w_uint(&s->id, e->incarnation);
  ph_w_uint(&s->id, ph_id_serial(id));
  if (s->id.oom)
    b->oom = true;
  else
    ph_w_ext(b, ph_is_ref(id) ? PH_EXT_REF : PH_EXT_PID, ph_buf_at(&s->id), ph_buf_size(&s->id));
}

int ph_id_from_ext(ph_sys *s, int ext, const void *p, size_t n, uint64_t *out) {
  const char *name;
  size_t len;
  uint64_t incarnation, serial;
  if ((ext != PH_EXT_PID && ext != PH_EXT_REF) ||
      ph_id_parse(p, n, &name, &len, &incarnation, &serial) || len > PH_MAX_NAME || serial == 0 ||
      serial > PH_SERIAL_MASK)
    return PH_EMALFORMED;
  ph_nodeent *e = ph_sys_node(s, name, len, incarnation);
  if (!e) return PH_ENOMEM;
  *out =
      (ext == PH_EXT_PID ? PH_TAG_PID : PH_TAG_REF) | (uint64_t)e->index << PH_SERIAL_BITS | serial;
  return 0;
}
