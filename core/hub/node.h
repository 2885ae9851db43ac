/* One node's upper machine: its process system and its hubs, fed with the cluster's events.
 *
 * It dispatches frames by their type: 32..63 to the process system, 64..127 to the hub they name.
 */
#ifndef PH_HUB_NODE_H
#define PH_HUB_NODE_H

#include "proc/proc.h"

struct ph_hub;
struct ph_spec;

/* What hubs ask of whoever hosts the children (Lua, or C tests). */
typedef struct ph_hub_host {
  void *ctx;
  /* Start the child: run the spec's start function. The answer is ph_hub_started(hub, token, ...),
   * at once or later, exactly once. */
  void (*start)(void *ctx, struct ph_hub *hub, const char *id, size_t id_len,
                const struct ph_spec *spec, uint64_t token);
  /* The start is no longer wanted (its hub stops, its start was withdrawn): end what it does if it
   * can be ended. ph_hub_started must still come, unless the hub is freed. */
  void (*abandon)(void *ctx, struct ph_hub *hub, uint64_t token);
  /* Another node has taken this one's place: ph_hub_free this hub, now. NULL: done without it. */
  void (*end)(void *ctx, struct ph_hub *hub);
} ph_hub_host;

typedef struct ph_node {
  ph_sys sys;
  const ph_env *env;
  ph_hub_host hub_host;
  ph_list hubs;      /* ph_hub.all */
  uint64_t last_hub; /* when the last one started, wall ms; no two are the same */
  uint64_t unknown_frames;
  uint64_t *joins; /* requests of ph_node_joining without an answer */
  size_t join_count, join_cap;
  bool missed; /* there was once no memory for a node that came up */
  /* nodeup (up = true) and nodedown, for the user's monitors */
  void (*on_node)(void *ctx, bool up, const char *name, size_t n);
  void *on_node_ctx;
  /* answers to PH_CMD_CONNECT */
  void (*on_connected)(void *ctx, uint64_t request, int err, const char *name, size_t n);
  void *on_connected_ctx;
  /* a newer incarnation of this node's name was seen; its hubs are gone already */
  void (*on_replaced)(void *ctx, uint64_t incarnation);
  void *on_replaced_ctx;
} ph_node;

int ph_node_init(ph_node *n, const ph_env *env, const ph_sys_host *sys_host,
                 const ph_hub_host *hub_host, const ph_port *port) PH_MUST_CHECK;
void ph_node_deinit(ph_node *n); /* hubs first, then processes */
/* this node gets a name (node.start): the process system and the hubs take it */
int ph_node_name(ph_node *n, const char *name, size_t len, uint64_t incarnation) PH_MUST_CHECK;
/* The first try to join somebody is under way, as that CONNECT request: until its answer, hubs do
 * not take it that nobody is there. Its PH_EV_CONNECTED goes no further. */
int ph_node_joining(ph_node *n, uint64_t request) PH_MUST_CHECK;
/* an event of the cluster machine (PH_EV_*) */
void ph_node_event(ph_node *n, uint32_t type, uint64_t a, uint64_t b, const uint8_t *p, size_t len);
/* the hub of this id on this node, or NULL */
struct ph_hub *ph_node_hub(ph_node *n, const char *id, size_t len);
struct ph_hub *ph_node_hub_next(ph_node *n, struct ph_hub *prev); /* prev NULL: the first */

#endif
