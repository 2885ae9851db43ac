#include "hub/node.h"

#include <string.h>

#include "cluster/cluster.h"
#include "hub/internal.h"
#include "wire/proto.h"

int ph_node_init(ph_node *n, const ph_env *env, const ph_sys_host *sys_host,
                 const ph_hub_host *hub_host, const ph_port *port) {
  memset(n, 0, sizeof *n);
  n->env = env;
  n->hub_host = *hub_host;
  ph_list_init(&n->hubs);
  return ph_sys_init(&n->sys, env, sys_host, port);
}

void ph_node_deinit(ph_node *n) {
  while (!ph_list_empty(&n->hubs)) ph_hub_free(PH_CONTAINER(n->hubs.next, ph_hub, all));
  ph_sys_deinit(&n->sys);
  ph_free(n->env, n->joins);
}

ph_hub *ph_node_hub_next(ph_node *n, ph_hub *prev) {
  ph_list *l = prev ? prev->all.next : n->hubs.next;
  return l == &n->hubs ? NULL : PH_CONTAINER(l, ph_hub, all);
}

ph_hub *ph_node_hub(ph_node *n, const char *id, size_t len) {
  for (ph_list *l = n->hubs.next; l != &n->hubs; l = l->next) {
    ph_hub *h = PH_CONTAINER(l, ph_hub, all);
    if (h->id_len == len && memcmp(h->id, id, len) == 0) return h;
  }
  return NULL;
}

int ph_node_name(ph_node *n, const char *name, size_t len, uint64_t incarnation) {
  int err = ph_sys_name(&n->sys, name, len, incarnation);
  if (err) return err;
  n->join_count = 0; /* of a node that this one was before */
  for (ph_list *l = n->hubs.next; l != &n->hubs; l = l->next)
    ph__renamed(PH_CONTAINER(l, ph_hub, all));
  return 0;
}

/* There was no memory to note that it is up: LINK_RESET says it again. */
static void missed(ph_node *n, uint64_t peer) {
  const ph_port *port = &n->sys.port;
  n->missed = true;
  (void)!port->command(port->ctx, PH_CMD_RESET, peer, 0, NULL, 0); /* else its next frame does it */
}

static void up(ph_node *n, uint64_t peer, uint64_t incarnation, const char *name, size_t len) {
  int err = ph_sys_node_up(&n->sys, peer, name, len, incarnation);
  if (err == PH_ENOMEM) missed(n, peer);
  if (err) return;
  ph_nodeent *ent = ph_sys_peer(&n->sys, peer);
  for (ph_list *l = n->hubs.next; l != &n->hubs; l = l->next)
    ph__sync_node_up(PH_CONTAINER(l, ph_hub, all), ent);
  if (n->on_node) n->on_node(n->on_node_ctx, true, ent->name, ent->name_len);
}

static void down(ph_node *n, uint64_t peer, bool left) {
  ph_nodeent *ent = ph_sys_peer(&n->sys, peer);
  if (!ent) return;
  ph_sys_node_down(&n->sys, peer);
  for (ph_list *l = n->hubs.next; l != &n->hubs; l = l->next)
    ph__sync_node_down(PH_CONTAINER(l, ph_hub, all), ent, left);
  if (n->on_node) n->on_node(n->on_node_ctx, false, ent->name, ent->name_len);
}

static void reset(ph_node *n, uint64_t peer, uint64_t incarnation, const char *name, size_t len) {
  ph_nodeent *ent = ph_sys_peer(&n->sys, peer);
  if (!ent) {
    up(n, peer, incarnation, name, len);
    return;
  }
  ph_sys_link_reset(&n->sys, peer);
  for (ph_list *l = n->hubs.next; l != &n->hubs; l = l->next)
    ph__sync_link_reset(PH_CONTAINER(l, ph_hub, all), ent);
}

/* A hub that this node does not run: whoever greets it is told, so that it need not wait; so is who
 * speaks to one that was here. */
static void no_hub(ph_node *n, ph_nodeent *from, uint64_t type, const char *id, size_t len) {
  const ph_port *port = &n->sys.port;
  ph_buf b;
  if (type == PH_H_NOHUB || type == PH_H_BYE) return;
  ph_buf_init(&b, n->env);
  ph_w_array(&b, 2);
  ph_w_uint(&b, PH_H_NOHUB);
  ph_w_str(&b, id, len);
  if (b.oom || port->command(port->ctx, PH_CMD_SEND, from->peer, 0, ph_buf_at(&b), ph_buf_size(&b)))
    (void)!port->command(port->ctx, PH_CMD_RESET, from->peer, 0, NULL, 0);
  ph_buf_deinit(&b);
}

static void frame(ph_node *n, uint64_t peer, const uint8_t *p, size_t len) {
  ph_reader r;
  uint32_t fields;
  uint64_t type;
  const char *id;
  size_t id_len;
  ph_nodeent *from = ph_sys_peer(&n->sys, peer);
  ph_reader_init(&r, p, len);
  if (!from && n->missed) missed(n, peer);
  if (!from || ph_r_array(&r, &fields) || fields == 0 || ph_r_uint(&r, &type)) {
    n->unknown_frames++;
    return;
  }
  if (type < PH_M_HUB_FIRST) {
    ph_sys_frame(&n->sys, peer, type, &r);
    return;
  }
  if (type > PH_M_HUB_LAST || ph_r_str(&r, &id, &id_len, PH_MAX_ID)) {
    n->unknown_frames++;
    return;
  }
  ph_hub *h = ph_node_hub(n, id, id_len);
  if (h)
    ph__sync_frame(h, from, type, &r);
  else
    no_hub(n, from, type, id, id_len);
}

static void flow(ph_node *n, uint64_t peer, bool on) {
  ph_sys_xoff(&n->sys, peer, on);
  if (on) return;
  for (ph_list *l = n->hubs.next; l != &n->hubs; l = l->next)
    ph__kick(PH_CONTAINER(l, ph_hub, all));
}

/* ---- Joining */

int ph_node_joining(ph_node *n, uint64_t request) {
  if (n->join_count == n->join_cap) {
    size_t cap = n->join_cap ? n->join_cap * 2 : 8;
    uint64_t *more = ph_realloc(n->env, n->joins, cap * sizeof *more);
    if (!more) return PH_ENOMEM;
    n->joins = more;
    n->join_cap = cap;
  }
  n->joins[n->join_count++] = request;
  return 0;
}

static bool joined(ph_node *n, uint64_t request) {
  size_t i = 0;
  while (i < n->join_count && n->joins[i] != request) i++;
  if (i == n->join_count) return false;
  n->joins[i] = n->joins[--n->join_count];
  for (ph_list *l = n->hubs.next; n->join_count == 0 && l != &n->hubs; l = l->next)
    ph__settle_check(PH_CONTAINER(l, ph_hub, all));
  return true;
}

/* Another process runs what ran here, or will: nothing may go on, and nobody is left to hand over
 * to. */
static void replaced(ph_node *n, uint64_t incarnation) {
  while (!ph_list_empty(&n->hubs)) {
    ph_hub *h = PH_CONTAINER(n->hubs.next, ph_hub, all);
    ph_logf(n->env, PH_LOG_ERROR, "hub %s ends: a newer node has this node's name", h->id);
    if (n->hub_host.end)
      n->hub_host.end(n->hub_host.ctx, h);
    else
      ph_hub_free(h);
  }
  if (n->on_replaced) n->on_replaced(n->on_replaced_ctx, incarnation);
}

void ph_node_event(ph_node *n, uint32_t type, uint64_t a, uint64_t b, const uint8_t *p,
                   size_t len) {
  switch (type) {
  case PH_EV_NODE_UP:
    up(n, a, b, (const char *)p, len);
    break;
  case PH_EV_NODE_DOWN:
    down(n, a, b == 1);
    break;
  case PH_EV_LINK_RESET:
    reset(n, a, b, (const char *)p, len);
    break;
  case PH_EV_FRAME:
    frame(n, a, p, len);
    break;
  case PH_EV_XOFF:
    flow(n, a, true);
    break;
  case PH_EV_XON:
    flow(n, a, false);
    break;
  case PH_EV_CONNECTED:
    if (joined(n, a)) break;
    if (n->on_connected) n->on_connected(n->on_connected_ctx, a, -(int)b, (const char *)p, len);
    break;
  case PH_EV_REPLACED:
    replaced(n, a);
    break;
  default:
    break;
  }
}
