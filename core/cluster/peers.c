/* How nodes learn of each other: PEERS [6, [[name, incarnation, address], ...]].
 *
 * Each new link carries all that its two ends know. A node that nobody has told about yet is
 * announced to all others; one that was heard of is not, for whoever told us has told them too.
 * What that misses shows in the heartbeats' digests (heartbeat.c). */
#include <string.h>

#include "cluster/internal.h"

enum { BATCH = 100, HIGHER_WAITS = 100 };

static void write_entry(ph_buf *b, const ph__node *node) {
  ph_w_array(b, 3);
  ph_w_str(b, node->name, node->name_len);
  ph_w_uint(b, node->incarnation);
  ph_w_cstr(b, node->address);
}

void ph__peers_send(ph__link *to) {
  ph_cluster *c = to->c;
  uint32_t left = c->stats.links - 1, batch = 0;
  for (ph_list *e = c->links.next; e != &c->links; e = e->next) {
    ph__link *l = PH_CONTAINER(e, ph__link, in_all);
    if (l == to) continue;
    if (batch == 0) {
      batch = left < BATCH ? left : BATCH;
      left -= batch;
      ph_w_array(ph__control(c, PH_M_PEERS, 1), batch);
    }
    write_entry(&c->scratch, l->node);
    if (--batch == 0) (void)ph__control_end(to);
  }
}

void ph__peers_announce(ph__node *node) {
  ph_cluster *c = node->c;
  ph_buf *b = ph__control(c, PH_M_PEERS, 1);
  ph_w_array(b, 1);
  write_entry(b, node);
  for (ph_list *e = c->links.next; e != &c->links; e = e->next) {
    ph__link *l = PH_CONTAINER(e, ph__link, in_all);
    if (l != node->link) (void)ph__control_end(l);
  }
}

static bool meeting(const ph_cluster *c, const char *name, size_t n) {
  for (const ph_list *e = c->pending.next; e != &c->pending; e = e->next) {
    const ph__hand *h = PH_CONTAINER(e, ph__link, in_all)->hand;
    if (h->name_len == n && memcmp(h->name, name, n) == 0) return true;
  }
  return false;
}

static int hear(ph_cluster *c, const char *name, size_t name_len, uint64_t incarnation,
                const char *address, size_t address_len) {
  if (ph__is_self(c, name, name_len)) {
    if (incarnation > c->incarnation && ph__once(c, "self", name, name_len))
      ph_logf(&c->env, PH_LOG_WARN, "cluster: another node has this node's name, %s", c->name);
    return 0;
  }
  ph__node *node = ph__node_find(c, name, name_len);
  if (node) {
    if (incarnation < node->incarnation || node->disconnected) return 0;
    bool same = incarnation == node->incarnation;
    node->announced = true;
    if (same && (node->link || node->peer || node->left)) return 0;
    if (node->target && (same || node->target->link)) return 0;
  }
  if (c->leaving || meeting(c, name, name_len) || ph__target_find(c, address, address_len) ||
      c->hearsay >= PH__HEARSAY)
    return 0;
  node = ph__node_get(c, name, name_len);
  if (!node) return PH_ENOMEM;
  node->announced = true;
  if (node->target) ph__target_drop(node->target, PH_ECLOSED); /* a newer one, at a new address */
  ph__target *t = ph__target_new(c, address, address_len, PH__HEARD);
  if (!t) return PH_ENOMEM;
  t->node = node;
  node->target = t;
  /* Both ends hear of each other at once; the lower's connection would win anyway. */
  t->due = c->seen;
  if (!ph__name_less(c->name, c->name_len, name, name_len))
    t->due += PH_MS(HIGHER_WAITS) + ph_random64(&c->env) % PH_MS(HIGHER_WAITS);
  ph__want(c, t->due);
  return 0;
}

int ph__peers_receive(ph__link *l, ph_reader *r, uint32_t fields) {
  uint32_t count;
  if (fields < 1 || ph_r_array(r, &count) < 0) return PH_EMALFORMED;
  for (uint32_t i = 0; i < count; i++) {
    uint32_t n;
    const char *name, *address;
    size_t name_len, address_len;
    uint64_t incarnation;
    if (ph_r_array(r, &n) < 0 || n < 3) return PH_EMALFORMED;
    if (ph_r_str(r, &name, &name_len, PH_MAX_NAME) < 0 || ph_r_uint(r, &incarnation) < 0 ||
        ph_r_str(r, &address, &address_len, PH_MAX_ADDRESS) < 0)
      return PH_EMALFORMED;
    if (!ph__name_valid(name, name_len) || !ph__address_valid(address, address_len))
      return PH_EMALFORMED;
    for (; n > 3; n--) ph_r_skip(r);
    if (r->err) return PH_EMALFORMED;
    int err = hear(l->c, name, name_len, incarnation, address, address_len);
    if (err < 0) return err;
  }
  return 0;
}
