#include "raw.h"

static raw_conn *fresh(raw *r, ph_conn *conn) {
  assert_true(r->count < RAW_CONNS);
  raw_conn *c = &r->conns[r->count++];
  c->r = r;
  c->conn = conn;
  return c;
}

static void *on_accept(void *ctx, ph_conn *conn) {
  raw_conn *c = fresh(ctx, conn);
  c->open = true;
  return c;
}

static void on_dialled(void *ctx, ph_conn *conn, void *user, int err) {
  raw_conn *c = user;
  (void)ctx;
  c->conn = err < 0 ? NULL : conn;
  c->open = err >= 0;
}

static void on_data(void *ctx, ph_conn *conn, void *user, const uint8_t *p, size_t n) {
  raw_conn *c = user;
  (void)ctx, (void)conn;
  if (n > sizeof c->got - c->got_n) n = sizeof c->got - c->got_n;
  memcpy(c->got + c->got_n, p, n);
  c->got_n += n;
}

static void on_close(void *ctx, ph_conn *conn, void *user, int reason) {
  raw_conn *c = user;
  (void)ctx, (void)conn, (void)reason;
  c->conn = NULL;
  c->open = false;
}

static void on_drain(void *ctx, ph_conn *conn, void *user) {
  (void)ctx, (void)conn, (void)user;
}

static raw *make(sim *s, int host, bool listens) {
  raw *r = calloc(1, sizeof *r);
  assert_non_null(r);
  r->s = s;
  r->host = host;
  r->t = s->n[r->host].t;
  r->t->ev = (ph_transport_events){.ctx = r,
                                   .on_accept = on_accept,
                                   .on_dialled = on_dialled,
                                   .on_data = on_data,
                                   .on_close = on_close,
                                   .on_drain = on_drain};
  char bound[64];
  if (listens) assert_int_equal(r->t->ops->listen(r->t, "0:0", bound, sizeof bound), 0);
  return r;
}

raw *raw_new(sim *s, bool listens) {
  return make(s, sim_host(s), listens);
}

raw *raw_on(sim *s, int host, bool listens) {
  assert_int_equal(ph_memnet_restart(s->net, host, &s->n[host].t), 0);
  return make(s, host, listens);
}

raw_conn *raw_dial(raw *r, int host) {
  char address[16];
  snprintf(address, sizeof address, "mem:%d", host);
  raw_conn *c = fresh(r, NULL);
  assert_int_equal(r->t->ops->dial(r->t, address, 1000, c, &c->conn), 0);
  for (int i = 0; i < 100 && !c->open; i++) sim_ms(r->s, 1);
  assert_true(c->open);
  return c;
}

void raw_write(raw_conn *c, const void *p, size_t n) {
  if (c->conn) assert_int_equal(c->r->t->ops->write(c->r->t, c->conn, p, n), 0);
}

int raw_open(const raw *r) {
  int count = 0;
  for (int i = 0; i < r->count; i++) count += r->conns[i].open;
  return count;
}

void raw_hello(te *t, ph_buf *out, const char *name, uint64_t incarnation) {
  uint8_t nonce[32];
  ph_buf b;
  ph_buf_init(&b, &t->env);
  for (int i = 0; i < 32; i++) nonce[i] = (uint8_t)te_random64(t);
  ph_w_array(&b, 10);
  ph_w_uint(&b, PH_M_HELLO);
  ph_w_cstr(&b, "PHUB");
  ph_w_uint(&b, 1);
  ph_w_uint(&b, 1);
  ph_w_cstr(&b, name);
  ph_w_uint(&b, incarnation);
  ph_w_cstr(&b, "mem:1");
  ph_w_uint(&b, 0);
  ph_w_bin(&b, nonce, sizeof nonce);
  ph_w_uint(&b, 1000000);
  assert_int_equal(ph_frame_write(out, PH_FRAME_CONTROL, ph_buf_at(&b), ph_buf_size(&b)), 0);
  ph_buf_deinit(&b);
}
