/* The cluster machine: handshakes, links, membership, heartbeats, discovery and redial.
 *
 * It alone knows which link leads to which node. Deterministic: it is driven by its transport, its
 * timers (ph_cluster_turn) and the commands below, and tells the other machine (proc and hub) what
 * happened by `emit`, in order. All calls come from the thread that holds the loop.
 *
 * A *peer* is one incarnation of one node; its number is never used again. Of a peer, events come
 * in this order: NODE_UP, then FRAME, XOFF, XON, LINK_RESET in any order, then NODE_DOWN.
 *
 * Nodes tell each other their links; a node's view is what these connect it to. A member without a
 * direct link (all want one) is reached through others, in order, each frame at most once; whenever
 * frames may have been lost on the way both ends are told (LINK_RESET). A link that breaks is no
 * dead node: NODE_DOWN comes when no path is left. */
#ifndef PH_CLUSTER_CLUSTER_H
#define PH_CLUSTER_CLUSTER_H

#include <stdbool.h>

#include "net/transport.h"

enum { PH_MAX_NAME = 255, PH_MAX_COOKIE = 1024, PH_MAX_ADDRESS = 280 };

typedef struct ph_cluster_config {
  const char *name;      /* "short@host" */
  uint64_t incarnation;  /* max(wall ms, last used + 1) */
  const char *listen;    /* "host:port" */
  const char *advertise; /* NULL: the address really listened on; port 0: that one's */
  const void *cookie; /* may be empty only where the caller has checked that listen is loopback */
  size_t cookie_len;
  uint64_t heartbeat_interval, heartbeat_timeout; /* ms; timeout at least two intervals */
  uint64_t stall_timeout;                         /* ms; 0: never */
  size_t max_message;
  size_t window;              /* credit a link has, bytes; 0: 4 MiB */
  size_t max_queue;           /* bytes that may wait to be sent to one node; 0: 256 MiB */
  uint32_t max_unproven;      /* unproven connections; 0: 64 */
  uint64_t handshake_timeout; /* ms; 0: 5000 */
} ph_cluster_config;

enum {                    /* events, to the other machine */
       PH_EV_NODE_UP = 1, /* a = peer, b = incarnation, bytes = name */
       PH_EV_NODE_DOWN,   /* a = peer, b = 1 when it left gracefully */
       PH_EV_LINK_RESET,  /* as NODE_UP: the link was lost and made again, frames may be lost either
                             way */
       PH_EV_FRAME, /* a = peer, b = bytes on the wire (to give back by CONSUMED), bytes = message
                     */
       PH_EV_XOFF,  /* a = peer: more than one window waits to be sent there */
       PH_EV_XON,   /* a = peer: less than a quarter of a window waits */
       PH_EV_CONNECTED, /* a = request, b = -error or 0, bytes = the node's name when it succeeded
                         */
       PH_EV_REPLACED /* a = incarnation: a newer node of this name has taken this one's place; the
                         others do not link this one any more */
};

enum {                  /* commands, from the other machine */
       PH_CMD_SEND = 1, /* a = peer, bytes = message; dropped when the peer is gone */
       PH_CMD_CONSUMED, /* a = peer, b = wire bytes */
       PH_CMD_CONNECT, /* a = request (0: no answer wanted), b = timeout ms, bytes = address or name
                        */
       PH_CMD_JOIN,    /* bytes = address or name: dialled again and again until it answers or is
                          disconnected */
       PH_CMD_DISCONNECT, /* bytes = name: drop the link; neither side dials until someone connects;
                             stays in view if others link it */
       PH_CMD_LEAVE, /* graceful: peers are told and do not redial; then all links close flushing */
       PH_CMD_RESET  /* a = peer: something of its link was lost here (out of memory): drop the link
                        and make it again, as if it had broken; both sides then see LINK_RESET */
};

typedef struct ph_cluster ph_cluster;
typedef void (*ph_emit)(void *ctx, uint32_t type, uint64_t a, uint64_t b, const void *p, size_t n);

/* Listens and announces the name; takes over t->ev. Errors: PH_ENOMEM, PH_EINVAL, PH_EIO, and what
 * listen returns. */
int ph_cluster_new(const ph_env *env, ph_transport *t, const ph_cluster_config *cfg, ph_emit emit,
                   void *ctx, ph_cluster **out) PH_MUST_CHECK;
void ph_cluster_free(ph_cluster *c); /* closes at once, tells nobody, emits nothing */
const char *ph_cluster_address(const ph_cluster *c); /* "host:port" listened on */
/* Call ph_cluster_turn after one or more commands: what they wrote leaves there. Errors: PH_EINVAL
 * (unknown command, malformed text), PH_ENOMEM, PH_ECLOSED (after LEAVE), SEND: PH_ETOOLARGE;
 * PH_EBUSY (max_queue); no error when the peer is gone. A SEND that fails for lack of memory, or
 * because too much waits for a node that does not read, resets the link, so that both sides are
 * told (LINK_RESET). What is sent while a link is being made again is dropped; LINK_RESET follows.
 * A CONNECT that fails at once also emits CONNECTED. */
int ph_cluster_command(ph_cluster *c, uint32_t type, uint64_t a, uint64_t b, const void *p,
                       size_t n);
/* after LEAVE: true once every link is closed and flushed */
bool ph_cluster_left(const ph_cluster *c);
void ph_cluster_turn(ph_cluster *c); /* runs what is due; writes what this turn gathered */
uint64_t ph_cluster_next(const ph_cluster *c); /* when turn is wanted again, ns */
/* The other machine says it lives: heartbeats carry the time since its last turn. */
void ph_cluster_alive(ph_cluster *c, uint64_t now);

typedef struct ph_cluster_stats { /* counters since start, for tests and benches */
  uint64_t bytes_in, bytes_out, frames_in, frames_out, refused, unknown;
  uint64_t relayed, dropped;         /* messages passed on for others, or not */
  uint32_t links, unproven, members; /* members: in view, this node too */
} ph_cluster_stats;
void ph_cluster_stats_get(const ph_cluster *c, ph_cluster_stats *out);

#endif
