/* Help for the cluster's tests: nodes on a simulated network, what they told, and the check that
 * each peer's events came in order. */
#ifndef PH_CLUSTER_TEST_SIM_H
#define PH_CLUSTER_TEST_SIM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/test/testenv.h"
#include "cluster/cluster.h"
#include "cluster/internal.h"
#include "net/memnet.h"

enum { SIM_NODES = 104, SIM_PEERS = 512 };

typedef struct sim_event {
  uint64_t at, a, b;
  uint32_t type;
  char text[64]; /* name of the peer, or of whom CONNECTED reached */
} sim_event;

typedef struct sim_peer {
  uint64_t id, to_consume, incarnation;
  char name[64];
  bool up, xoff, greeted;
  uint64_t sent, got; /* numbers of the last sim_say to and from it */
  bool fresh;         /* nothing was heard since NODE_UP or the last LINK_RESET */
} sim_peer;

typedef struct sim_node {
  struct sim *s;
  te te;
  ph_env env;
  ph_transport *t;
  ph_cluster *c;
  int host;
  bool paused, hold, frozen; /* hold: consumes nothing; frozen: its other machine does not run */
  size_t greeting;           /* sends so many bytes to whoever comes up */
  sim_event *events;
  size_t event_count, event_cap;
  sim_peer *peers;
  int peer_count;
  uint64_t incarnation;
  uint64_t frames, frame_bytes, wire_bytes; /* received */
  uint8_t last[64];                         /* beginning of the last frame */
  size_t last_n;
  uint64_t last_frame_at;
  int warnings; /* lines of level WARN and above */
  char last_warning[256];
} sim_node;

typedef struct sim {
  te te;
  ph_memnet *net;
  sim_node n[SIM_NODES];
  int count;
  ph_cluster_config cfg; /* of nodes made from now on, but for the name and so on */
} sim;

void sim_init(sim *s, uint64_t seed);
void sim_end(sim *s); /* frees all and asserts that no allocation is left */
/* a host and a node "n<number>@sim" with this incarnation and cookie */
int sim_add(sim *s);
int sim_host(sim *s); /* a host without a node */
int sim_start(sim *s, int i, const char *name, uint64_t incarnation, const char *cookie);
void sim_crash(sim *s, int i); /* as kill -9 does */
void sim_restart(sim *s, int i, const char *name, uint64_t incarnation);
void sim_pause(sim *s, int i, bool paused); /* as SIGSTOP does */
void sim_cut(sim *s, int a, int b, bool cut);

const char *sim_name(int i);
int sim_command(sim *s, int i, uint32_t type, uint64_t a, uint64_t b, const void *p, size_t n);
void sim_join(sim *s, int i, int to);
void sim_connect(sim *s, int i, uint64_t request, int to, uint64_t timeout_ms);
int sim_send(sim *s, int i, const char *name, const void *p, size_t n);

/* A numbered message: whoever receives it checks that of one peer they come in order, each at most
 * once and meant for this incarnation, and that none is missing but where LINK_RESET said so. */
void sim_say(sim *s, int i, const char *name);

void sim_ms(sim *s, uint64_t ms); /* lets this much time pass */
/* runs until cond(s) holds; false when it does not within ms */
bool sim_until(sim *s, bool (*cond)(sim *s), uint64_t ms);

sim_peer *sim_peer_of(sim *s, int i, const char *name);       /* the one that is up, or NULL */
int sim_ups(sim *s, int i);                                   /* peers up */
int sim_told(sim *s, int i, uint32_t type, const char *name); /* events so far; name NULL: any */
const sim_event *sim_last(sim *s, int i, uint32_t type, const char *name);
bool sim_mesh(sim *s); /* every node sees all others */
bool sim_view(sim *s); /* every node sees all others, linked or not */
uint32_t sim_links(sim *s, int i);
ph_cluster_stats sim_stats(sim *s, int i);
ph__node *sim_node_at(sim *s, int i, int of);
void sim_world(sim *s, uint64_t seed, int nodes); /* sim_init and a mesh */
void sim_talk(sim *s); /* everyone says something to all in its view, and all of it arrives */

#endif
