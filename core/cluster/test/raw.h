/* A stranger on the simulated network: writes any bytes, keeps what it gets. */
#ifndef PH_CLUSTER_TEST_RAW_H
#define PH_CLUSTER_TEST_RAW_H

#include "sim.h"

enum { RAW_CONNS = 128 };

typedef struct raw_conn {
  struct raw *r;
  ph_conn *conn; /* NULL: closed */
  bool open;
  size_t got_n;
  uint8_t got[2048];
} raw_conn;

typedef struct raw {
  sim *s;
  ph_transport *t;
  int host;
  bool accepts; /* listens too */
  raw_conn conns[RAW_CONNS];
  int count;
} raw;

raw *raw_new(sim *s, bool listens);          /* a host of its own; freed by free() before sim_end */
raw *raw_on(sim *s, int host, bool listens); /* in place of a node that crashed */
raw_conn *raw_dial(raw *r, int host);        /* and waits until it is open */
void raw_write(raw_conn *c, const void *p, size_t n);
int raw_open(const raw *r); /* how many connections are open */
/* a HELLO frame of this name, as a client of the first protocol sends it */
void raw_hello(te *t, ph_buf *out, const char *name, uint64_t incarnation);

#endif
