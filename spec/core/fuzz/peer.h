/* A peer of the fuzzers' own on the simulated network: it makes connections to a node, proves
 * itself if it knows the cookie, and then writes whatever it is told to. Besides, it does what
 * keeps a link up: answers heartbeats and probes, grants what it receives. */
#ifndef PH_FUZZ_PEER_H
#define PH_FUZZ_PEER_H

#include <stdbool.h>

#include "base/test/testenv.h"
#include "net/transport.h"
#include "wire/frame.h"

enum { FZ_CONNS = 96 };

typedef struct fz_conn {
  struct fz_peer *peer;
  ph_conn *conn; /* NULL: none, or gone */
  bool open, client, greeted, proven;
  ph_splitter split;
  ph_buf own, theirs; /* the HELLO payloads; without the cookie `theirs` is all that came */
} fz_conn;

typedef struct fz_peer {
  te te;
  ph_transport *t;
  const char *name, *cookie; /* cookie NULL: it does not know it */
  uint64_t incarnation;
  bool mute; /* neither answers nor grants */
  fz_conn conns[FZ_CONNS];
  int count;
  uint64_t written; /* bytes */
} fz_peer;

void fz_peer_init(fz_peer *p, ph_transport *t, const char *name, uint64_t incarnation,
                  const char *cookie);
void fz_peer_listen(fz_peer *p);
void fz_peer_deinit(fz_peer *p);        /* after its network: asserts that nothing is left */
fz_conn *fz_dial(fz_peer *p, int host); /* NULL: no connection is free */
void fz_close(fz_conn *c);
void fz_write(fz_conn *c, const void *p, size_t n);
void fz_frame(fz_conn *c, int kind, const void *p, size_t n);
/* appends its HELLO of that connection, as a payload */
void fz_hello(fz_conn *c, ph_buf *out);

#endif
