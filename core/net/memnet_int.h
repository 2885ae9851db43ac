/* What memnet.c (hosts, faults, the clock) and memnet_conn.c (connections) share. */
#ifndef PH_NET_MEMNET_INT_H
#define PH_NET_MEMNET_INT_H

#include "base/list.h"
#include "base/timer.h"
#include "net/memnet.h"

/* A connection is two ends. What travels to an end waits in its inbox, in order, each segment with
 * the time it is due; one timer stands for the head of the inbox. So order within a connection
 * comes from the queue and order between connections from the heap of timers.
 *
 * Ending a connection must not fail for lack of memory: an end carries the two control segments it
 * can ever receive, and its timers keep their places in the heap from birth to death, parked while
 * there is nothing to wait for. */

#define PARKED (PH_NEVER - 1)

typedef enum { SEG_DATA, SEG_SYN, SEG_OPEN, SEG_END } seg_kind;

typedef struct segment {
  ph_list link; /* inbox */
  uint64_t due;
  seg_kind kind;
  int err;    /* SEG_OPEN: how the dial ended, SEG_END: the reason */
  bool local; /* comes from this host's own kernel: a cut does not stop it */
  size_t n;
  uint8_t *data; /* behind the struct */
} segment;

typedef enum {
  END_SYN,     /* the far end of a dial that has not arrived: its user does not know of it */
  END_DIALING, /* the near end of a dial under way */
  END_OPEN,
  END_OVER /* told to be over, or its host has crashed: only `close` may still name it */
} end_state;

typedef struct life life;

struct ph_conn {
  ph_memnet *m;
  ph_list link;  /* host.ends */
  life *life;    /* NULL while END_SYN */
  ph_conn *peer; /* NULL once the other end is closed */
  int host, remote;
  end_state state;
  bool zombie; /* END_OVER by a crash: freed by `close` or with the memnet */
  void *user;
  ph_list inbox;
  segment opened, ended;
  ph_timer in;    /* the head of the inbox is due */
  ph_timer aux;   /* dialling: the deadline; open: tells the user that it has drained */
  bool aux_held;  /* aux fired while the host was paused */
  size_t unacked; /* bytes written that have not been delivered */
  bool full;      /* unacked has been over SEND_BUFFER: on_drain is owed */
};

/* One run of a host, from its start to its crash. Kept until the memnet goes, so that what a
 * crashed node leaves behind may still close its connections. */
struct life {
  ph_transport t;
  ph_list link; /* host.lives */
  ph_memnet *m;
  int host;
  bool dead, listening;
  char *name; /* announced */
  char *address;
  uint64_t announced; /* order of announcing: the last one of a name is found */
};

typedef struct host {
  ph_memnet *m;
  int number;
  bool paused;
  int64_t skew;
  uint64_t random; /* state of this host's own stream */
  ph_env base;
  life *life; /* the current one, NULL after a crash */
  ph_list lives, ends;
} host;

typedef struct route {
  uint32_t min_us, max_us;
  bool cut;
} route;

struct ph_memnet {
  const ph_env *env;
  ph_timers timers;
  uint64_t now;
  uint64_t random;
  host **hosts;
  int count, cap;
  route *routes; /* cap x cap, [from * cap + to] */
  uint64_t announced;
  ph_conn *accepting; /* NULL once the end offered by on_accept is freed */
};

extern const ph_transport_ops ph__mem_ops;

/* ---- memnet.c ---- */

uint64_t ph__mem_random(uint64_t *state);
/* a delay for bytes on their way between these hosts, ns */
uint64_t ph__mem_delay(ph_memnet *m, int from, int to);
static inline route *route_of(const ph_memnet *m, int from, int to) {
  return &m->routes[(size_t)from * (size_t)m->cap + (size_t)to];
}

/* ---- memnet_conn.c ---- */

/* what waited for the way to be free arrives as a retransmission does, after a delay of its own;
 * from < 0: whatever the host received while it was paused */
void ph__mem_release(ph_memnet *m, int host_no, int from);
/* the ends of this run of the host become zombies, their peers see a reset */
void ph__mem_crash(host *h, life *lf);
void ph__mem_break(host *h, int other);
void ph__mem_end_free(ph_conn *c);
void ph__mem_forget_name(life *lf);

#endif
