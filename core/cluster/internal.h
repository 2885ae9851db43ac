/* What the files of cluster/ share: the machine's objects and who owns them.
 *
 *   cluster.c    the public face, the turn, what runs when
 *   link.c       one connection: bytes in and out, its end
 *   flow.c       data on a link: queue, credit, xoff
 *   handshake.c  from a new connection to a proven peer
 *   admit.c      which of several connections to one name is kept
 *   member.c     nodes by name, and what becomes of them
 *   state.c      link states: who says to be linked to whom
 *   view.c       the view and its routes: the component of the link states
 *   route.c      data and heartbeats between members without a direct link
 *   peers.c      whom of the view to dial
 *   heartbeat.c  heartbeats, silence, stalls, a stopped process
 *   redial.c     whom to dial and when; requests to connect
 *   depart.c     leaving and disconnecting
 *
 * Control messages: HELLO, PROOF, WELCOME, REJECT (handshake.c); HEARTBEAT (heartbeat.c); STATE,
 * SUMMARY (state.c); RELAY (route.c); GRANT [7, bytes]: the other may send so many more data bytes;
 * PROBE [9, seq], answered by PROBE_ACK [10, seq]; LEAVE [8] and DISCONNECT [11], after which the
 * receiver closes.
 *
 * Nothing is freed while a call is under way: what ended is marked dead, put aside and freed when
 * the outermost entry returns (ph__exit). So any function may end any link or target, and its
 * caller looks at `state` or `dead` afterwards. Due times are plain fields that a scan over all
 * objects looks at (ph__want makes one happen): arming a timer can then not fail. */
#ifndef PH_CLUSTER_INTERNAL_H
#define PH_CLUSTER_INTERNAL_H

#include "base/index.h"
#include "base/list.h"
#include "cluster/cluster.h"
#include "wire/frame.h"
#include "wire/proto.h"
#include "wire/reader.h"
#include "wire/writer.h"

enum {
  PH__NONCE = 32,
  PH__PROOF = 32,
  PH__UNPROVEN_FRAME = 4 * 1024,    /* largest frame of an unproven peer */
  PH__UNPROVEN_BYTES = 16 * 1024,   /* all that an unproven peer may send */
  PH__SOCKET_FILL = 1024 * 1024,    /* bytes a link puts into a socket that does not drain */
  PH__SOCKET_MAX = 8 * 1024 * 1024, /* a peer that asks on and on without reading is cut off here */
  PH__DIALS = 64,                   /* dials under way at once */
  PH__HEARSAY = 4096,               /* targets known from link states only */
  PH__STATES = 4096,                /* link states kept */
  PH__RELAY_WINDOW = 256 * 1024,    /* credit of a relayed stream */
  PH__RELAY_MAX = 2 * 1024 * 1024,  /* bytes that wait on a link that relays to it */
  PH__LOST_MAX = 1024,              /* nodes that went without leaving and are redialled */
  PH__ONCE = 128,
  PH__KEEP = 512,         /* capacity that a buffer of an idle link keeps */
  PH__REDIAL_MIN = 500,   /* ms */
  PH__REDIAL_MAX = 10000, /* ms */
  PH__PROBE_WAIT = 1000   /* ms */
};

typedef struct ph__node ph__node;
typedef struct ph__link ph__link;
typedef struct ph__target ph__target;

typedef enum ph__state {
  PH__DIALLING, /* client: no connection yet */
  PH__HELLO,    /* waits for the other's HELLO */
  PH__PROVING,  /* waits for the other's PROOF */
  PH__PROBING,  /* the other is proven; an older link to its name is being probed */
  PH__WELCOME,  /* client: PROOF sent, waits for WELCOME */
  PH__UP,
  PH__DEAD
} ph__state;

/* A handshake; gone when the link is up. */
typedef struct ph__hand {
  ph_buf own, peer; /* the HELLO payloads, which the proofs cover */
  uint8_t nonce[PH__NONCE];
  char name[PH_MAX_NAME + 1];
  size_t name_len; /* 0: no HELLO yet */
  char address[PH_MAX_ADDRESS + 1];
  uint64_t incarnation, window, stall;
  size_t received; /* bytes */
  bool wanted;     /* a user asked for this connection, on either side */
} ph__hand;

struct ph__link {
  ph_list in_all;   /* c->pending until UP, then c->links, then c->dead */
  ph_list in_dirty; /* c->dirty: has something to write */
  ph_cluster *c;
  ph_conn *conn; /* NULL: none yet, or gone */
  ph__state state;
  bool client, unproven; /* unproven: counted in stats.unproven */
  bool relayed;          /* a relayed stream (route.c): no connection, always UP until DEAD */
  bool broken;           /* could not store what it must send: ends in the next flush */
  bool leaving, said_leave;
  uint64_t due; /* handshake: gives up */
  ph__hand *hand;
  ph__target *target; /* client, until UP */
  ph__node *node;     /* UP, or the node whose challenger it is */
  ph_splitter split;
  ph_buf out; /* frames of this turn */

  uint64_t since, heard, grace; /* UP since, last byte, not judged silent before */
  uint64_t beats_differ, their_digest;
  uint64_t base; /* the number of its node's link state when it came up there; PH_NEVER: unknown */
  uint64_t tx, rx; /* relayed: numbers of the last pieces */
  uint64_t window;

  /* Sending: data bytes on the wire, and how many the other has allowed; sent <= allowed + one
   * frame. The queue holds whole messages, the first perhaps partly sent. */
  uint64_t sent, allowed;
  ph_list queue;
  size_t queued, filled; /* payload bytes in queue; bytes the socket had not taken when last seen */
  size_t held;           /* memory of the queue */
  bool busy;             /* wrote or read more than PH__KEEP at once, since the last heartbeat */

  /* Receiving: `received` counts messages that are whole (split.fragments the one that is not).
   * granted - received - fragments is what the other may still send. Bytes of an unfinished
   * message are granted ahead (`ahead`), else a message larger than the window never ends;
   * `owed` are those of messages already handed on, taken off what CONSUMED gives back. */
  uint64_t received, granted, ahead, owed;
  uint64_t unconsumed; /* handed on and not yet consumed */
  uint64_t pending;    /* consumed, not yet granted */
};

/* A name. Lives while anything is known of it that matters (see ph__member_scan). */
struct ph__node {
  ph_cluster *c;
  ph_list in_all;
  uint64_t hash;
  uint64_t incarnation; /* the newest that was linked or heard of; 0: none */
  uint64_t key;         /* of name and incarnation */
  uint64_t peer;        /* 0: down */
  char *address;        /* advertised; NULL: neither linked nor heard of */
  ph__link *link;       /* direct */

  /* Its link state, as it says: `edges` are the keys of those it is linked to, in order. */
  uint64_t number; /* 0: not known */
  uint64_t *edges;
  uint32_t edge_count;
  bool leaver;     /* it says that it leaves */
  bool edge;       /* own link state: linked to it, or its link is being made again */
  bool edge_dirty; /* `edge` has changed since it was last told */

  /* The view (view.c). hop: the link that leads there, NULL: none does now. path: a digest of the
   * nodes on the way. */
  ph_list in_walk;
  bool in_view, reached;
  ph__link *hop;
  uint64_t path;
  uint64_t state_due; /* out of the view: when its link state is forgotten */
  bool asked;         /* this process was stopped: it has not answered since */

  /* The relayed stream (route.c): `mine` and `theirs` are the epoch, 0: none. */
  ph__link *stream;
  uint64_t mine, theirs, stream_path, stream_window;
  uint64_t open_due; /* when to open it, or to ask again; PH_NEVER: not wanted */
  uint32_t open_tries, stream_flaps;

  ph__link *challenger; /* proven, waits while `link` is probed */
  uint64_t probe_seq, probe_due;
  ph__target *target; /* its redial */
  uint64_t down_due;  /* up without a link: when it is down */
  uint64_t forget;    /* left: when that need no longer be remembered */
  uint64_t stale;     /* handed on from an earlier link, not yet consumed */
  uint32_t flaps;     /* links in a row that did not last */
  bool lost;          /* went without leaving: to be redialled */
  bool left, disconnected, stalled, xoff;
  size_t name_len;
  char name[];
};

enum { PH__JOIN = 1, PH__LOST = 2, PH__HEARD = 4, PH__USER = 8 }; /* why a target is dialled */

typedef struct ph__request {
  ph_list in_target;
  uint64_t id; /* 0: nobody wants an answer */
  uint64_t due;
} ph__request;

struct ph__target {
  ph_list in_all;
  ph_cluster *c;
  int why;
  bool dead, warned;
  bool by_address; /* the name was not found on this host: dials the node's last address */
  bool by_name;    /* lost, not at its address: perhaps elsewhere on this host, by its name */
  ph__node *node;  /* whom it leads to, if known */
  ph__link *link;  /* the dial or handshake under way */
  uint64_t due;
  uint64_t delay; /* the next one, ms */
  uint32_t fails;
  ph_list requests;
  size_t text_len;
  char text[]; /* address or name */
};

struct ph_cluster {
  ph_env env;
  ph_transport *t;
  ph_emit emit;
  void *emit_ctx;

  char *name, *advertise;
  size_t name_len;
  uint64_t incarnation;
  char address[PH_MAX_ADDRESS + 1];
  uint8_t *cookie;
  size_t cookie_len;
  uint64_t interval, timeout, stall_timeout, handshake_timeout; /* ns */
  size_t max_message, window, max_queue;
  uint32_t max_unproven;
  bool listening, announced;

  ph_list pending, links, streams, dirty, dead, nodes, targets, dead_targets; /* nodes: by name */
  ph_index by_name, by_peer;
  uint64_t seed, next_peer;
  uint32_t dialling, hearsay, lost; /* dials under way; targets HEARD, LOST */
  uint64_t digest;                  /* of the link states in view */
  uint32_t members, states;         /* in view, this node too; link states kept */

  /* This node's link state: all links have been told up to number `told`. */
  uint64_t key, number, told, tell_due;
  uint32_t tells; /* in a row */
  bool own_dirty, own_urgent, own_whole, view_dirty;
  bool replaced;  /* a newer incarnation of this name was seen */
  uint64_t epoch; /* the last given to a stream */
  uint64_t woken; /* this process was stopped: nobody is down before this; 0: it was not */
  ph_buf keys;    /* keys being written */

  int depth;              /* of entries */
  uint64_t due, beat_due; /* next scan, next heartbeats */
  uint64_t seen, alive;   /* last entry; last turn of the other machine */
  uint64_t beat_seq, probe_seq;
  bool leaving;
  uint64_t leave_due;
  ph_buf scratch; /* the control message being written */

  uint64_t once[PH__ONCE]; /* hashes of what was logged once */
  uint32_t once_count;
  uint64_t once_at;
  ph_cluster_stats stats;
};

/* cluster.c */
void ph__enter(ph_cluster *c);
void ph__exit(ph_cluster *c);
static inline void ph__want(ph_cluster *c, uint64_t due) {
  if (due < c->due) c->due = due;
}
/* the way to a node: its link, else its relayed stream, else NULL */
static inline ph__link *ph__way(const ph__node *node) {
  return node->link ? node->link : node->stream;
}
static inline void ph__tell(ph_cluster *c, uint32_t type, uint64_t a, uint64_t b, const void *p,
                            size_t n) {
  c->emit(c->emit_ctx, type, a, b, p, n);
}
/* true the first time it is asked for this kind and these bytes (of a bounded table) */
bool ph__once(ph_cluster *c, const char *kind, const void *p, size_t n);

/* link.c */
ph__link *ph__link_new(ph_cluster *c, bool client);
ph__link *ph__link_relayed(ph__node *node); /* a relayed stream, UP; NULL: no memory */
void ph__link_feed(ph__link *l, const uint8_t *p, size_t n);
void ph__link_events(ph_cluster *c);
void ph__link_up(ph__link *l); /* from handshake to UP: the hand is freed */
/* Ends a link in any state; frees what it held. err: what its target is told (0: nothing). With
 * flush what was written leaves first. Makes no event: of a link that was UP the caller says what
 * becomes of the node. */
void ph__link_end(ph__link *l, int err, bool flush);
/* the connection failed: ends it with what follows from that in its state */
void ph__link_failed(ph__link *l, int err);
void ph__link_free(ph__link *l);
void ph__link_dirty(ph__link *l);
int ph__link_write(ph__link *l); /* what is gathered, now */
void ph__links_flush(ph_cluster *c);
/* starts a control message of `fields` fields in c->scratch; ph__control_end sends it */
ph_buf *ph__control(ph_cluster *c, uint32_t type, uint32_t fields);
int ph__control_end(ph__link *l);
void ph__control_raw(ph__link *l, const void *p, size_t n);      /* a control message as received */
void ph__control_number(ph__link *l, uint32_t type, uint64_t v); /* [type, v] */

/* flow.c */
int ph__flow_send(ph__link *l, const void *p, size_t n);
void ph__flow_pump(ph__link *l); /* moves from the queue to `out` what may be sent */
bool ph__flow_ready(const ph__link *l);
void ph__flow_clear(ph__link *l);
int ph__flow_received(ph__link *l, const uint8_t *p, size_t n, size_t wire);
int ph__flow_check(ph__link *l); /* after a feed: PH_EMALFORMED beyond the credit; grants */
void ph__flow_consumed(ph__node *node, uint64_t n);
void ph__flow_granted(ph__link *l, uint64_t n);

/* handshake.c */
int ph__hello_send(ph__link *l);
/* a control message before UP; negative ends the connection */
int ph__handshake_message(ph__link *l, const uint8_t *p, size_t n);
void ph__proceed(ph__link *l); /* admitted: WELCOME or the client's PROOF goes out */
void ph__reject(ph__link *l, int err);
uint64_t ph__stall(const ph_cluster *c); /* ms since the other machine's last turn */

/* admit.c */
void ph__admit(ph__link *l); /* the peer is proven: keep this connection, or which? */
int ph__probe_message(ph__link *l, uint32_t type, uint64_t seq);
void ph__challenge_over(ph__node *node); /* the old link is gone, or another took its place */

/* member.c */
bool ph__name_valid(const char *p, size_t n);
bool ph__address_valid(const char *p, size_t n);
ph__node *ph__node_find(ph_cluster *c, const char *name, size_t n);
ph__node *ph__node_get(ph_cluster *c, const char *name, size_t n); /* made if need be */
ph__node *ph__node_of(ph_cluster *c, uint64_t peer);
ph__node *ph__node_at(ph_cluster *c, const char *text, size_t n); /* by name or address */
bool ph__name_less(const char *a, size_t an, const char *b, size_t bn);
bool ph__is_self(const ph_cluster *c, const char *text, size_t n);
int ph__member_up(ph__link *l);       /* the handshake is over; negative: not up */
void ph__member_detach(ph__link *l);  /* node and link part; no event */
void ph__member_lost(ph__node *node); /* its link broke: redialled, down only later */
void ph__member_down(ph__node *node, bool graceful); /* the event, if it was up */
/* Up with a way to it: NODE_UP, or LINK_RESET if it was up before. Negative: nothing changed. */
int ph__member_reached(ph__node *node);
void ph__member_scan(ph_cluster *c, uint64_t now);
void ph__members_free(ph_cluster *c);

/* state.c */
uint64_t ph__key(const char *name, size_t n, uint64_t incarnation);
void ph__edge_set(ph__node *node,
                  bool up); /* this node's own; told to all at the end of the entry */
void ph__state_leaving(ph_cluster *c);
void ph__state_flush(ph_cluster *c);
/* A newer incarnation is known: what was of the older one ends. say: told to its link first. */
void ph__state_renew(ph__node *node, uint64_t incarnation, const void *say, size_t n);
void ph__state_forget(ph__node *node);
int ph__state_receive(ph__link *l, ph_reader *r, uint32_t fields, const void *p, size_t n);
void ph__summary_send(ph__link *l, bool answer);
int ph__summary_receive(ph__link *l, ph_reader *r, uint32_t fields);
void ph__replaced(ph_cluster *c, uint64_t by);

/* view.c */
void ph__view_update(ph_cluster *c); /* if something changed; streams may end, no link does */
void ph__edge_down(ph__node *node);  /* its link is gone for good; down if no path is left */
void ph__answered(ph__node *node);   /* after a stop of this process: it was heard, or is gone */

/* route.c */
void ph__stream_end(ph__node *node); /* no event */
void ph__stream_reset(ph__node *node);
void ph__stream_want(ph__node *node, uint64_t due); /* the view changed: open one then */
void ph__stream_scan(ph_cluster *c, uint64_t now);
int ph__stream_write(ph__link *l);
void ph__streams_wake(ph__link *hop); /* it takes more again */
int ph__relay_receive(ph__link *l, ph_reader *r, uint32_t fields);

/* peers.c */
void ph__peers_scan(ph_cluster *c);

/* heartbeat.c */
void ph__heartbeat_send(ph__link *l);
int ph__heartbeat_receive(ph__link *l, ph_reader *r, uint32_t fields);
void ph__heartbeat_scan(ph_cluster *c, uint64_t now);
void ph__resumed(ph_cluster *c, uint64_t now); /* this process had been stopped */

/* redial.c */
ph__target *ph__target_find(ph_cluster *c, const char *text, size_t n);
ph__target *ph__target_new(ph_cluster *c, const char *text, size_t n, int why);
void ph__target_drop(ph__target *t, int err); /* err answers its requests */
void ph__target_failed(ph__target *t, int err);
/* All targets that lead to this node, and `t`, are over: err 0, it is linked; else not wanted. */
void ph__targets_over(ph__node *node, ph__target *t, int err);
void ph__target_is_self(ph__target *t);
/* A proven node of this name answers there: whoever was looked for has moved. */
void ph__target_met(ph__target *t, const char *name, size_t n);
bool ph__target_wanted(const ph__target *t);
void ph__redial(ph__node *node, uint64_t delay_ms);
int ph__connect(ph_cluster *c, uint64_t request, uint64_t timeout_ms, const char *text, size_t n);
int ph__join(ph_cluster *c, const char *text, size_t n);
void ph__target_scan(ph_cluster *c, uint64_t now);
void ph__target_free(ph__target *t);

/* depart.c */
int ph__disconnect(ph_cluster *c, const char *name, size_t n);
void ph__disconnected(ph__node *node); /* the other side asked for it */
void ph__peer_left(ph__node *node);
void ph__leave_start(ph_cluster *c);
bool ph__leave_may(ph__link *l);
void ph__leave_say(ph__link *l);
void ph__leave_scan(ph_cluster *c, uint64_t now);

#endif
