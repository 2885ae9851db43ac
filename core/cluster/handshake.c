/* From a new connection to a proven peer.
 *
 *   client                                          server
 *   HELLO [1, "PHUB", vmin, vmax, name, incarnation,
 *          address, features, nonce, window]  ---->
 *                                             <----  HELLO, PROOF [2, hmac, stall ms]
 *   PROOF [2, hmac, stall ms, wanted]         ---->
 *                                             <----  WELCOME [3, stall ms]
 *
 * Either side may answer REJECT [4, error number, newest incarnation] instead, and closes. A proof
 * is HMAC-SHA256 with the cookie over the prover's role and both HELLO payloads, client's first: it
 * covers both nonces, and neither side's proof serves as the other's. */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#include "cluster/internal.h"

#define MAGIC  "PHUB"
#define SERVER "phub proof of server"
#define CLIENT "phub proof of client"

enum { HELLO_FIELDS = 10, WINDOW_DEFAULT = 4 * 1024 * 1024 };

uint64_t ph__stall(const ph_cluster *c) {
  return c->seen > c->alive ? (c->seen - c->alive) / PH_MS(1) : 0;
}

/* ---- proofs ---- */

static int prove(const ph__link *l, bool by_client, uint8_t out[PH__PROOF]) {
  ph_cluster *c = l->c;
  const ph_buf *first = l->client ? &l->hand->own : &l->hand->peer;
  const ph_buf *second = l->client ? &l->hand->peer : &l->hand->own;
  const char *role = by_client ? CLIENT : SERVER;
  ph_buf *b = &c->scratch;
  ph_buf_reset(b);
  int err = ph_buf_append(b, role, strlen(role) + 1);
  if (!err) err = ph_buf_append(b, ph_buf_at(first), ph_buf_size(first));
  if (!err) err = ph_buf_append(b, ph_buf_at(second), ph_buf_size(second));
  if (err < 0) return err;
  unsigned n = PH__PROOF;
  if (!HMAC(EVP_sha256(), c->cookie, (int)c->cookie_len, ph_buf_at(b), ph_buf_size(b), out, &n))
    return PH_ENOMEM;
  return 0;
}

/* ---- sending ---- */

int ph__hello_send(ph__link *l) {
  ph_cluster *c = l->c;
  ph__hand *h = l->hand;
  c->env.random(c->env.ctx, h->nonce, sizeof h->nonce);
  ph_buf *b = ph__control(c, PH_M_HELLO, HELLO_FIELDS - 1);
  ph_w_cstr(b, MAGIC);
  ph_w_uint(b, PH_PROTOCOL_MIN);
  ph_w_uint(b, PH_PROTOCOL_MAX);
  ph_w_str(b, c->name, c->name_len);
  ph_w_uint(b, c->incarnation);
  ph_w_cstr(b, c->advertise);
  ph_w_uint(b, 0); /* features: none yet */
  ph_w_bin(b, h->nonce, sizeof h->nonce);
  ph_w_uint(b, c->window);
  if (b->oom) return PH_ENOMEM;
  int err = ph_buf_append(&h->own, ph_buf_at(b), ph_buf_size(b));
  return err < 0 ? err : ph__control_end(l);
}

static int send_proof(ph__link *l) {
  ph_cluster *c = l->c;
  uint8_t mac[PH__PROOF];
  int err = prove(l, l->client, mac);
  if (err < 0) return err;
  ph_buf *b = ph__control(c, PH_M_PROOF, l->client ? 3 : 2);
  ph_w_bin(b, mac, sizeof mac);
  ph_w_uint(b, ph__stall(c));
  if (l->client) ph_w_bool(b, l->target && ph__target_wanted(l->target));
  return ph__control_end(l);
}

void ph__reject(ph__link *l, int err) {
  ph__control_number(l, PH_M_REJECT, (uint64_t)-err);
  ph__link_end(l, err, true);
}

void ph__proceed(ph__link *l) {
  ph_cluster *c = l->c;
  l->node = NULL;
  if (l->client) {
    int err = send_proof(l);
    if (err < 0) {
      ph__link_end(l, err, false);
      return;
    }
    l->state = PH__WELCOME;
    return;
  }
  ph_w_uint(ph__control(c, PH_M_WELCOME, 1), ph__stall(c));
  int err = ph__control_end(l);
  if (!err) err = ph__member_up(l);
  if (err < 0) ph__link_end(l, err, false);
}

/* ---- receiving ---- */

/* The beginning of a HELLO, the same in every version. Negative: not ours at all. */
static int read_versions(ph_reader *r, uint32_t *fields, bool *common) {
  uint32_t type, vmin, vmax;
  const char *magic;
  size_t n;
  if (ph_r_array(r, fields) < 0 || *fields < 4) return PH_EMALFORMED;
  if (ph_r_u32(r, &type) < 0 || type != PH_M_HELLO) return PH_EMALFORMED;
  if (ph_r_str(r, &magic, &n, 4) < 0 || n != 4 || memcmp(magic, MAGIC, 4) != 0)
    return PH_EMALFORMED;
  if (ph_r_u32(r, &vmin) < 0 || ph_r_u32(r, &vmax) < 0 || vmin > vmax) return PH_EMALFORMED;
  *common = vmin <= PH_PROTOCOL_MAX && vmax >= PH_PROTOCOL_MIN;
  return 0;
}

static int read_hello(ph__hand *h, ph_reader *r, uint32_t fields, const uint8_t **nonce) {
  const char *name, *address;
  size_t name_len, address_len, nonce_len;
  uint64_t features;
  if (fields < HELLO_FIELDS - 1) return PH_EMALFORMED;
  if (ph_r_str(r, &name, &name_len, PH_MAX_NAME) < 0 || !ph__name_valid(name, name_len))
    return PH_EMALFORMED;
  if (ph_r_uint(r, &h->incarnation) < 0 || h->incarnation == 0) return PH_EMALFORMED;
  if (ph_r_str(r, &address, &address_len, PH_MAX_ADDRESS) < 0 ||
      !ph__address_valid(address, address_len))
    return PH_EMALFORMED;
  if (ph_r_uint(r, &features) < 0 || ph_r_bin(r, nonce, &nonce_len, PH__NONCE) < 0 ||
      nonce_len != PH__NONCE)
    return PH_EMALFORMED;
  h->window = WINDOW_DEFAULT;
  if (fields >= HELLO_FIELDS && ph_r_uint(r, &h->window) < 0) return PH_EMALFORMED;
  for (uint32_t i = HELLO_FIELDS; i < fields; i++) ph_r_skip(r);
  if (r->err || ph_reader_left(r)) return PH_EMALFORMED;
  memcpy(h->name, name, name_len);
  memcpy(h->address, address, address_len);
  h->name_len = name_len;
  return 0;
}

/* This node itself is at the other end: one of its own connections made that nonce. */
static bool is_own_nonce(const ph_cluster *c, const uint8_t *nonce) {
  for (const ph_list *e = c->pending.next; e != &c->pending; e = e->next) {
    const ph__link *l = PH_CONTAINER(e, ph__link, in_all);
    if (!l->client && memcmp(l->hand->nonce, nonce, PH__NONCE) == 0) return true;
  }
  return false;
}

/* Drops a connection to oneself. Its server side sees it close. */
static int met_self(ph__link *l) {
  ph__target *t = l->target;
  ph__link_end(l, 0, false);
  if (t) ph__target_is_self(t);
  return PH_ECLOSED;
}

static int on_hello(ph__link *l, const uint8_t *p, size_t n) {
  ph__hand *h = l->hand;
  const uint8_t *nonce;
  uint32_t fields;
  bool common;
  ph_reader r;
  ph_reader_init(&r, p, n);
  int err = read_versions(&r, &fields, &common);
  if (err < 0) return err;
  if (!common) {
    ph__reject(l, PH_EVERSION);
    return PH_ECLOSED;
  }
  err = read_hello(h, &r, fields, &nonce);
  if (!err) err = ph_buf_append(&h->peer, p, n);
  if (err < 0) return err;
  if (l->client && is_own_nonce(l->c, nonce)) return met_self(l);
  l->state = PH__PROVING;
  if (l->client) return 0;
  err = ph__hello_send(l);
  return err < 0 ? err : send_proof(l);
}

static void log_cookie(ph__link *l) {
  ph_cluster *c = l->c;
  const ph__hand *h = l->hand;
  const char *whom = h->name_len ? h->name : l->target ? l->target->text : NULL;
  if (!whom || !ph__once(c, "cookie", whom, strlen(whom))) return;
  ph_logf(&c->env, PH_LOG_WARN, "cluster: %s: the cookies differ, no connection", whom);
}

static int on_proof(ph__link *l, ph_reader *r, uint32_t fields) {
  ph__hand *h = l->hand;
  const uint8_t *theirs;
  size_t n;
  uint8_t mac[PH__PROOF];
  if (fields < 1 || ph_r_bin(r, &theirs, &n, PH__PROOF) < 0 || n != PH__PROOF) return PH_EMALFORMED;
  if (fields >= 2 && ph_r_uint(r, &h->stall) < 0) return PH_EMALFORMED;
  h->wanted = true;
  if (l->client) {
    h->wanted = l->target && ph__target_wanted(l->target);
  } else if (fields >= 3 && ph_r_bool(r, &h->wanted) < 0) {
    return PH_EMALFORMED;
  }
  int err = prove(l, !l->client, mac);
  if (err < 0) return err;
  if (CRYPTO_memcmp(mac, theirs, sizeof mac) != 0) {
    log_cookie(l);
    ph__reject(l, PH_ECOOKIE);
    return PH_ECLOSED;
  }
  if (l->unproven) l->c->stats.unproven--;
  l->unproven = false;
  ph__admit(l);
  return 0;
}

static int on_welcome(ph__link *l, ph_reader *r, uint32_t fields) {
  if (fields >= 1 && ph_r_uint(r, &l->hand->stall) < 0) return PH_EMALFORMED;
  ph__node *node = ph__node_find(l->c, l->hand->name, l->hand->name_len);
  if (node && node->link) { /* made meanwhile by another way */
    if (node->incarnation >= l->hand->incarnation) {
      ph__link_end(l, PH_EDUPLICATE, false);
      return PH_ECLOSED;
    }
    ph__link_end(node->link, 0, false);
  }
  return ph__member_up(l);
}

static int on_reject(ph__link *l, ph_reader *r, uint32_t fields) {
  static const int known[] = {PH_ECOOKIE, PH_ECONFLICT, PH_EVERSION, PH_EDUPLICATE, PH_ECLOSED};
  uint32_t number;
  if (fields < 1 || ph_r_u32(r, &number) < 0) return PH_EMALFORMED;
  int err = PH_EIO;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (number == (uint32_t)-known[i]) err = known[i];
  }
  if (err == PH_ECOOKIE) log_cookie(l);
  if (err == PH_ECONFLICT && l->client && l->state == PH__WELCOME && fields >= 2) {
    uint64_t newest;
    if (ph_r_uint(r, &newest) < 0) return PH_EMALFORMED;
    if (newest > l->c->incarnation) ph__replaced(l->c, newest);
  }
  ph__node *node = NULL;
  if (l->client && (err == PH_ECLOSED || err == PH_EDUPLICATE)) {
    /* only the word of a proven peer ends redialling, or tells of another link */
    if (l->state != PH__WELCOME) err = PH_EIO;
    if (err == PH_ECLOSED) node = ph__node_find(l->c, l->hand->name, l->hand->name_len);
  }
  ph__link_end(l, err, false);
  if (node) ph__disconnected(node);
  return PH_ECLOSED;
}

int ph__handshake_message(ph__link *l, const uint8_t *p, size_t n) {
  if (l->state == PH__HELLO) {
    /* a server may reject before it says who it is */
    ph_reader r;
    uint32_t fields, type;
    ph_reader_init(&r, p, n);
    if (!l->client || ph_r_array(&r, &fields) < 0 || fields < 2 || ph_r_u32(&r, &type) < 0 ||
        type != PH_M_REJECT)
      return on_hello(l, p, n);
    return on_reject(l, &r, fields - 1);
  }
  ph_reader r;
  uint32_t count, type;
  ph_reader_init(&r, p, n);
  if (ph_r_array(&r, &count) < 0 || count == 0 || ph_r_u32(&r, &type) < 0) return PH_EMALFORMED;
  if (type == PH_M_REJECT) return on_reject(l, &r, count - 1);
  if (type == PH_M_PROOF && l->state == PH__PROVING) return on_proof(l, &r, count - 1);
  if (type == PH_M_WELCOME && l->state == PH__WELCOME) return on_welcome(l, &r, count - 1);
  return PH_EMALFORMED;
}
