#include "peer.h"

#include <assert.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>

#include "wire/proto.h"
#include "wire/reader.h"
#include "wire/writer.h"

enum { LIMIT = 64 * 1024 * 1024, HEARD = 4096 };

/* ---- writing ---- */

void fz_write(fz_conn *c, const void *p, size_t n) {
  if (!c->open || n == 0) return;
  c->peer->written += n;
  (void)!c->peer->t->ops->write(c->peer->t, c->conn, p, n);
}

void fz_frame(fz_conn *c, int kind, const void *p, size_t n) {
  ph_buf b;
  ph_buf_init(&b, &c->peer->te.env);
  int err = ph_frame_write(&b, kind, p, n);
  assert(err == 0);
  fz_write(c, ph_buf_at(&b), ph_buf_size(&b));
  ph_buf_deinit(&b);
}

static void number(fz_conn *c, uint64_t type, uint64_t v) {
  ph_buf b;
  ph_buf_init(&b, &c->peer->te.env);
  ph_w_array(&b, 2);
  ph_w_uint(&b, type);
  ph_w_uint(&b, v);
  fz_frame(c, PH_FRAME_CONTROL, ph_buf_at(&b), ph_buf_size(&b));
  ph_buf_deinit(&b);
}

void fz_hello(fz_conn *c, ph_buf *out) {
  fz_peer *p = c->peer;
  uint8_t nonce[32];
  te__random(&p->te, nonce, sizeof nonce);
  ph_w_array(out, 10);
  ph_w_uint(out, PH_M_HELLO);
  ph_w_cstr(out, "PHUB");
  ph_w_uint(out, PH_PROTOCOL_MIN);
  ph_w_uint(out, PH_PROTOCOL_MAX);
  ph_w_cstr(out, p->name);
  ph_w_uint(out, p->incarnation);
  ph_w_cstr(out, "mem:9");
  ph_w_uint(out, 0);
  ph_w_bin(out, nonce, sizeof nonce);
  ph_w_uint(out, 4 * 1024 * 1024);
}

static void greet(fz_conn *c) {
  ph_buf_reset(&c->own);
  fz_hello(c, &c->own);
  c->greeted = true;
  fz_frame(c, PH_FRAME_CONTROL, ph_buf_at(&c->own), ph_buf_size(&c->own));
}

static void prove(fz_conn *c) {
  fz_peer *p = c->peer;
  const char *role = c->client ? "phub proof of client" : "phub proof of server";
  const ph_buf *first = c->client ? &c->own : &c->theirs;
  const ph_buf *second = c->client ? &c->theirs : &c->own;
  uint8_t mac[32];
  unsigned n = sizeof mac;
  ph_buf b;
  ph_buf_init(&b, &p->te.env);
  ph_w_raw(&b, role, strlen(role) + 1);
  ph_w_raw(&b, ph_buf_at(first), ph_buf_size(first));
  ph_w_raw(&b, ph_buf_at(second), ph_buf_size(second));
  HMAC(EVP_sha256(), p->cookie, (int)strlen(p->cookie), ph_buf_at(&b), ph_buf_size(&b), mac, &n);
  ph_buf_reset(&b);
  ph_w_array(&b, c->client ? 4 : 3);
  ph_w_uint(&b, PH_M_PROOF);
  ph_w_bin(&b, mac, sizeof mac);
  ph_w_uint(&b, 0);
  if (c->client) ph_w_bool(&b, true);
  fz_frame(c, PH_FRAME_CONTROL, ph_buf_at(&b), ph_buf_size(&b));
  ph_buf_deinit(&b);
}

/* ---- reading ---- */

static void handshake(fz_conn *c, uint64_t type, const uint8_t *p, size_t n) {
  if (!c->peer->cookie) return;
  if (type == PH_M_HELLO) {
    ph_buf_reset(&c->theirs);
    ph_w_raw(&c->theirs, p, n);
    if (c->client) return;
    greet(c);
    prove(c);
  } else if (type == PH_M_PROOF && c->client) {
    prove(c);
  } else if (type == PH_M_PROOF) {
    number(c, PH_M_WELCOME, 0);
    c->proven = true;
  } else if (type == PH_M_WELCOME) {
    c->proven = true;
  }
}

static void beat(fz_conn *c, ph_reader *r) {
  uint64_t seq, stall, digest;
  ph_buf b;
  if (ph_r_uint(r, &seq) || ph_r_uint(r, &stall) || ph_r_uint(r, &digest)) return;
  ph_buf_init(&b, &c->peer->te.env);
  ph_w_array(&b, 4);
  ph_w_uint(&b, PH_M_HEARTBEAT);
  ph_w_uint(&b, seq);
  ph_w_uint(&b, 0);
  ph_w_uint(&b, digest);
  fz_frame(c, PH_FRAME_CONTROL, ph_buf_at(&b), ph_buf_size(&b));
  ph_buf_deinit(&b);
}

static int on_message(void *ctx, int kind, const uint8_t *p, size_t n, size_t wire) {
  fz_conn *c = ctx;
  ph_reader r;
  uint32_t count;
  uint64_t type, v;
  if (c->peer->mute) return 0;
  if (kind == PH_FRAME_DATA) {
    number(c, PH_M_GRANT, wire);
    return 0;
  }
  ph_reader_init(&r, p, n);
  if (ph_r_array(&r, &count) || ph_r_uint(&r, &type)) return 0;
  if (!c->proven)
    handshake(c, type, p, n);
  else if (type == PH_M_HEARTBEAT)
    beat(c, &r);
  else if (type == PH_M_PROBE && ph_r_uint(&r, &v) == 0)
    number(c, PH_M_PROBE_ACK, v);
  return 0;
}

/* ---- the transport's events ---- */

static fz_conn *fresh(fz_peer *p, bool client) {
  if (p->count == FZ_CONNS) return NULL;
  fz_conn *c = &p->conns[p->count++];
  *c = (fz_conn){.peer = p, .client = client};
  ph_splitter_init(&c->split, &p->te.env, LIMIT, LIMIT);
  ph_buf_init(&c->own, &p->te.env);
  ph_buf_init(&c->theirs, &p->te.env);
  return c;
}

static void *on_accept(void *ctx, ph_conn *conn) {
  fz_conn *c = fresh(ctx, false);
  if (!c) return NULL;
  c->conn = conn;
  c->open = true;
  return c;
}

static void on_dialled(void *ctx, ph_conn *conn, void *user, int err) {
  fz_conn *c = user;
  (void)ctx;
  c->conn = err < 0 ? NULL : conn;
  c->open = err >= 0;
  if (c->open && c->peer->cookie) greet(c);
}

static void on_data(void *ctx, ph_conn *conn, void *user, const uint8_t *p, size_t n) {
  fz_conn *c = user;
  (void)ctx, (void)conn;
  if (!c->peer->cookie) {
    if (ph_buf_size(&c->theirs) < HEARD) ph_w_raw(&c->theirs, p, n);
    return;
  }
  int err = ph_splitter_feed(&c->split, p, n, on_message, c);
  assert(err == 0); /* a node writes nothing malformed */
}

static void on_close(void *ctx, ph_conn *conn, void *user, int reason) {
  fz_conn *c = user;
  (void)ctx, (void)conn, (void)reason;
  c->conn = NULL;
  c->open = c->proven = false;
}

static void on_drain(void *ctx, ph_conn *conn, void *user) {
  (void)ctx, (void)conn, (void)user;
}

/* ---- life ---- */

void fz_peer_init(fz_peer *p, ph_transport *t, const char *name, uint64_t incarnation,
                  const char *cookie) {
  p->t = t;
  p->name = name;
  p->incarnation = incarnation;
  p->cookie = cookie;
  p->mute = false;
  p->count = 0;
  p->written = 0;
  te_init(&p->te, 7);
  t->ev = (ph_transport_events){.ctx = p,
                                .on_accept = on_accept,
                                .on_dialled = on_dialled,
                                .on_data = on_data,
                                .on_close = on_close,
                                .on_drain = on_drain};
}

void fz_peer_listen(fz_peer *p) {
  char bound[64];
  int err = p->t->ops->listen(p->t, "0:0", bound, sizeof bound);
  assert(err == 0);
}

void fz_close(fz_conn *c) {
  if (c->conn) c->peer->t->ops->close(c->peer->t, c->conn, 0);
  c->conn = NULL;
  c->open = c->proven = false;
}

fz_conn *fz_dial(fz_peer *p, int host) {
  char address[16];
  fz_conn *c = fresh(p, true);
  if (!c) return NULL;
  snprintf(address, sizeof address, "mem:%d", host);
  if (p->t->ops->dial(p->t, address, 1000, c, &c->conn)) c->conn = NULL;
  return c;
}

void fz_peer_deinit(fz_peer *p) {
  for (int i = 0; i < p->count; i++) {
    ph_splitter_deinit(&p->conns[i].split);
    ph_buf_deinit(&p->conns[i].own);
    ph_buf_deinit(&p->conns[i].theirs);
  }
  assert(p->te.live == 0);
}
