/* What the cluster asks of a network: streams of bytes between nodes.
 *
 * Implementations: net/tcp (real), net/memnet (simulated). A connection belongs to the transport;
 * the user keeps a pointer between open and on_close. All calls and callbacks come from the thread
 * that holds the loop. No callback is made from inside a call, except that `write` and `dial` may
 * fail at once by their result. */
#ifndef PH_NET_TRANSPORT_H
#define PH_NET_TRANSPORT_H

#include "base/env.h"

typedef struct ph_conn ph_conn; /* the transport's; user data at ph_conn_user */
typedef struct ph_transport ph_transport;

typedef struct ph_transport_events {
  void *ctx;
  /* an inbound connection: returns the user data for it, NULL to refuse (the transport closes it)
   */
  void *(*on_accept)(void *ctx, ph_conn *c);
  /* a dialled connection is open (err 0), or will never be (err < 0: PH_EREFUSED, PH_ETIMEOUT,
   * PH_EUNREACHABLE, PH_ENOTFOUND for a name nobody knows here); after an error the ph_conn is gone
   * and no on_close follows */
  void (*on_dialled)(void *ctx, ph_conn *c, void *user, int err);
  void (*on_data)(void *ctx, ph_conn *c, void *user, const uint8_t *p, size_t n);
  /* the connection ended from the other side or broke (reason: PH_ECLOSED, PH_EIO); the ph_conn is
   * gone when this returns. Not called after ph_transport_close(c). */
  void (*on_close)(void *ctx, ph_conn *c, void *user, int reason);
  /* everything written has gone to the kernel (called after `write` left something queued) */
  void (*on_drain)(void *ctx, ph_conn *c, void *user);
} ph_transport_events;

struct ph_transport {
  const struct ph_transport_ops *ops;
  ph_transport_events ev; /* set by the user before listen or dial */
};

typedef struct ph_transport_ops {
  /* listens on "host:port" ("[::1]:0" for IPv6, port 0: chosen); a transport listens once.
   * `bound` receives the address really listened on. */
  int (*listen)(ph_transport *t, const char *address, char *bound, size_t bound_size);
  /* makes this node findable by name on this host (a small file), or not any more (name NULL) */
  int (*announce)(ph_transport *t, const char *name, const char *address);
  /* Dials "host:port", or a node name ("short@host") through the host's discovery files. The
   * result of dialling comes by on_dialled, at the latest after timeout_ms. */
  int (*dial)(ph_transport *t, const char *target, uint64_t timeout_ms, void *user, ph_conn **out);
  /* Writes all n bytes: to the kernel at once as far as it takes them, the rest is queued. After an
   * error nothing was taken: PH_ENOMEM, PH_ENOCONN (a dial still under way), PH_ECLOSED (broken;
   * on_close follows). */
  int (*write)(ph_transport *t, ph_conn *c, const void *p, size_t n);
  size_t (*queued)(ph_transport *t,
                   ph_conn *c); /* bytes written that the kernel has not yet taken */
  /* flush != 0: closes after what is queued has been sent (or a second has passed); either way no
   * further callback for this connection. Also ends a dial under way. */
  void (*close)(ph_transport *t, ph_conn *c, int flush);
  void (*unlisten)(ph_transport *t);
} ph_transport_ops;

#endif
