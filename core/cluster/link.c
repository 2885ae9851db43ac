/* One connection: bytes in, bytes out, its end. */
#include "cluster/internal.h"

#include <string.h>

enum { SLICE = 4 * 1024, WRITES_A_TURN = 8 };

/* ---- making and ending ---- */

ph__link *ph__link_new(ph_cluster *c, bool client) {
  ph__link *l = ph_zalloc(&c->env, sizeof *l);
  ph__hand *h = l ? ph_zalloc(&c->env, sizeof *h) : NULL;
  if (!h) {
    ph_free(&c->env, l);
    return NULL;
  }
  ph_buf_init(&h->own, &c->env);
  ph_buf_init(&h->peer, &c->env);
  l->c = c;
  l->hand = h;
  l->client = client;
  l->state = client ? PH__DIALLING : PH__HELLO;
  ph_list_init(&l->in_dirty);
  ph_list_init(&l->queue);
  ph_splitter_init(&l->split, &c->env, PH__UNPROVEN_FRAME, c->max_message);
  ph_buf_init(&l->out, &c->env);
  l->due = c->seen + c->handshake_timeout;
  l->granted = l->window = c->window;
  l->base = PH_NEVER;
  ph_list_push(&c->pending, &l->in_all);
  if (client) c->dialling++;
  ph__want(c, l->due);
  return l;
}

ph__link *ph__link_relayed(ph__node *node) {
  ph_cluster *c = node->c;
  ph__link *l = ph_zalloc(&c->env, sizeof *l);
  if (!l) return NULL;
  l->c = c;
  l->node = node;
  l->relayed = true;
  l->state = PH__UP;
  ph_list_init(&l->in_dirty);
  ph_list_init(&l->queue);
  ph_splitter_init(&l->split, &c->env, PH_FRAGMENT, c->max_message);
  ph_buf_init(&l->out, &c->env);
  l->since = l->heard = c->seen;
  l->granted = l->window = c->window < PH__RELAY_WINDOW ? c->window : PH__RELAY_WINDOW;
  ph_list_push(&c->streams, &l->in_all);
  return l;
}

static void hand_free(ph__link *l) {
  if (!l->hand) return;
  ph_buf_deinit(&l->hand->own);
  ph_buf_deinit(&l->hand->peer);
  ph_free(&l->c->env, l->hand);
  l->hand = NULL;
}

void ph__link_free(ph__link *l) {
  ph_cluster *c = l->c;
  hand_free(l);
  ph__flow_clear(l);
  ph_splitter_deinit(&l->split);
  ph_buf_deinit(&l->out);
  ph_free(&c->env, l);
}

static void leave_pending(ph__link *l) {
  if (l->client) l->c->dialling--;
  if (l->unproven) l->c->stats.unproven--;
  l->unproven = false;
}

void ph__link_end(ph__link *l, int err, bool flush) {
  ph_cluster *c = l->c;
  if (l->state == PH__DEAD) return;
  if (flush && l->conn) flush = ph__link_write(l) >= 0;
  if (l->state == PH__UP) {
    ph__member_detach(l);
    c->stats.links--;
    c->view_dirty = true;
  } else {
    leave_pending(l);
    if (!l->client) c->stats.refused++;
  }
  l->state = PH__DEAD;
  if (l->conn) c->t->ops->close(c->t, l->conn, flush);
  l->conn = NULL;
  ph__flow_clear(l);
  ph_list_remove(&l->in_dirty);
  ph_list_remove(&l->in_all);
  ph_list_push(&c->dead, &l->in_all);
  if (l->node && l->node->challenger == l) l->node->challenger = NULL;
  l->node = NULL;
  ph__target *t = l->target;
  l->target = NULL;
  if (t) {
    t->link = NULL;
    if (err == PH_EDUPLICATE && !t->node)
      t->node = ph__node_get(c, l->hand->name, l->hand->name_len);
    if (err < 0) ph__target_failed(t, err);
  }
}

void ph__link_failed(ph__link *l, int err) {
  ph__node *node = l->node;
  if (l->relayed) {
    if (node) ph__stream_reset(node);
    return;
  }
  bool up = l->state == PH__UP;
  ph__link_end(l, err, false);
  if (up) ph__member_lost(node);
}

void ph__link_up(ph__link *l) {
  ph_cluster *c = l->c;
  leave_pending(l);
  l->state = PH__UP;
  l->since = l->heard = c->seen;
  l->allowed = l->hand->window;
  l->split.max_frame = PH_FRAGMENT;
  ph_list_remove(&l->in_all);
  ph_list_push(&c->links, &l->in_all);
  c->stats.links++;
  hand_free(l);
}

/* ---- out ---- */

void ph__link_dirty(ph__link *l) {
  if (ph_list_empty(&l->in_dirty)) ph_list_push(&l->c->dirty, &l->in_dirty);
}

ph_buf *ph__control(ph_cluster *c, uint32_t type, uint32_t fields) {
  ph_buf_reset(&c->scratch);
  ph_w_array(&c->scratch, fields + 1);
  ph_w_uint(&c->scratch, type);
  return &c->scratch;
}

int ph__control_end(ph__link *l) {
  ph_buf *b = &l->c->scratch;
  int err = b->oom ? PH_ENOMEM : 0;
  if (!err) err = ph_frame_write(&l->out, PH_FRAME_CONTROL, ph_buf_at(b), ph_buf_size(b));
  if (err < 0) l->broken = true;
  l->c->stats.frames_out++;
  ph__link_dirty(l);
  return err;
}

void ph__control_raw(ph__link *l, const void *p, size_t n) {
  if (ph_frame_write(&l->out, PH_FRAME_CONTROL, p, n) < 0) l->broken = true;
  l->c->stats.frames_out++;
  ph__link_dirty(l);
}

void ph__control_number(ph__link *l, uint32_t type, uint64_t v) {
  ph_w_uint(ph__control(l->c, type, 1), v);
  (void)ph__control_end(l);
}

int ph__link_write(ph__link *l) {
  ph_cluster *c = l->c;
  size_t n = ph_buf_size(&l->out);
  if (l->broken) return PH_ENOMEM;
  if (n > PH__KEEP) l->busy = true;
  if (l->relayed) return ph__stream_write(l);
  if (n == 0 || !l->conn) return 0;
  int err = c->t->ops->write(c->t, l->conn, ph_buf_at(&l->out), n);
  if (err < 0) return err;
  c->stats.bytes_out += n;
  ph_buf_reset(&l->out);
  l->filled = c->t->ops->queued(c->t, l->conn);
  ph__streams_wake(l);
  return l->filled > PH__SOCKET_MAX ? PH_ETIMEOUT : 0;
}

/* Writes what was gathered, then moves more from the queue, as long as the socket takes it. What
 * is left after that waits for on_drain, for credit, or (having had its share of this turn) for
 * the next turn. Returns true in the last case. */
static bool flush(ph__link *l) {
  for (int i = 0; i < WRITES_A_TURN; i++) {
    ph__flow_pump(l);
    if (l->leaving && !l->said_leave && ph__leave_may(l)) ph__leave_say(l);
    if (ph_buf_size(&l->out) == 0 && !l->broken) return false;
    int err = ph__link_write(l);
    if (err < 0) {
      ph__link_failed(l, err);
      return false;
    }
  }
  return l->state == PH__UP && ph__flow_ready(l);
}

void ph__links_flush(ph_cluster *c) {
  ph_list now;
  ph_list_init(&now);
  ph_list_move(&now, &c->dirty);
  for (ph_list *e; (e = ph_list_pop(&now));) {
    ph__link *l = PH_CONTAINER(e, ph__link, in_dirty);
    if (flush(l)) ph__link_dirty(l);
  }
}

/* ---- in ---- */

static int control(ph__link *l, const uint8_t *p, size_t n) {
  ph_cluster *c = l->c;
  ph_reader r;
  uint32_t count, type;
  ph_reader_init(&r, p, n);
  if (ph_r_array(&r, &count) < 0 || count == 0 || ph_r_u32(&r, &type) < 0) return PH_EMALFORMED;
  uint32_t fields = count - 1;
  uint64_t v = 0;
  ph__node *node = l->node;
  if (l->relayed && type != PH_M_HEARTBEAT && type != PH_M_GRANT) {
    c->stats.unknown++; /* is said on links only */
    return 0;
  }
  switch (type) {
  case PH_M_HEARTBEAT:
    return ph__heartbeat_receive(l, &r, fields);
  case PH_M_STATE:
    return ph__state_receive(l, &r, fields, p, n);
  case PH_M_SUMMARY:
    return ph__summary_receive(l, &r, fields);
  case PH_M_RELAY:
    return ph__relay_receive(l, &r, fields);
  case PH_M_GRANT:
  case PH_M_PROBE:
  case PH_M_PROBE_ACK:
    if (fields < 1 || ph_r_uint(&r, &v) < 0) return PH_EMALFORMED;
    if (type != PH_M_GRANT) return ph__probe_message(l, type, v);
    ph__flow_granted(l, v);
    return 0;
  case PH_M_LEAVE:
    ph__link_end(l, 0, false);
    ph__peer_left(node);
    return PH_ECLOSED;
  case PH_M_DISCONNECT:
    ph__link_end(l, 0, false);
    ph__disconnected(node);
    return PH_ECLOSED;
  case PH_M_HELLO:
  case PH_M_PROOF:
  case PH_M_WELCOME:
  case PH_M_REJECT:
    return PH_EMALFORMED; /* belong to a handshake */
  default:
    c->stats.unknown++;
    return 0;
  }
}

static int on_message(void *ctx, int kind, const uint8_t *p, size_t n, size_t wire) {
  ph__link *l = ctx;
  int err;
  l->c->stats.frames_in++;
  if (l->state != PH__UP) {
    if (kind != PH_FRAME_CONTROL) return PH_EMALFORMED;
    err = ph__handshake_message(l, p, n);
  } else if (kind == PH_FRAME_CONTROL) {
    err = control(l, p, n);
  } else {
    err = ph__flow_received(l, p, n, wire);
  }
  return l->state == PH__DEAD ? PH_ECLOSED : err;
}

/* The peer sent what it must not, or there was no memory for it. */
static void fault(ph__link *l, int err) {
  ph_cluster *c = l->c;
  if (l->state == PH__UP && err != PH_ENOMEM &&
      ph__once(c, "malformed", l->node->name, l->node->name_len)) {
    ph_logf(&c->env, PH_LOG_WARN, "cluster: %s: malformed bytes, link closed (%s)", l->node->name,
            ph_err_code(err));
  }
  ph__link_failed(l, err);
}

void ph__link_feed(ph__link *l, const uint8_t *p, size_t n) {
  while (n && l->state != PH__DEAD) {
    size_t part = n;
    if (l->state != PH__UP) { /* in slices: what follows the WELCOME is of a proven peer */
      if (part > SLICE) part = SLICE;
      l->hand->received += part;
      if (l->hand->received > PH__UNPROVEN_BYTES) {
        fault(l, PH_ETOOLARGE);
        return;
      }
    }
    int err = ph_splitter_feed(&l->split, p, part, on_message, l);
    if (err >= 0 && l->state == PH__UP) err = ph__flow_check(l);
    if (l->state == PH__DEAD) return;
    if (err < 0) {
      fault(l, err);
      return;
    }
    p += part;
    n -= part;
  }
}

/* ---- the transport's events ---- */

static void drop_oldest(ph_cluster *c) {
  for (ph_list *e = c->pending.next; e != &c->pending; e = e->next) {
    ph__link *l = PH_CONTAINER(e, ph__link, in_all);
    if (!l->unproven) continue;
    ph__link_end(l, 0, false);
    return;
  }
}

static void *on_accept(void *ctx, ph_conn *conn) {
  ph_cluster *c = ctx;
  ph__enter(c);
  ph__link *l = c->leaving ? NULL : ph__link_new(c, false);
  if (l) {
    l->conn = conn;
    l->unproven = true;
    if (++c->stats.unproven > c->max_unproven) drop_oldest(c);
  } else {
    c->stats.refused++;
  }
  ph__exit(c);
  return l;
}

static void on_dialled(void *ctx, ph_conn *conn, void *user, int err) {
  ph_cluster *c = ctx;
  ph__link *l = user;
  ph__enter(c);
  if (err >= 0) {
    l->conn = conn;
    l->state = PH__HELLO;
    l->due = c->seen + c->handshake_timeout;
    ph__want(c, l->due);
    err = ph__hello_send(l);
  } else {
    l->conn = NULL;
  }
  if (err < 0) ph__link_end(l, err, false);
  ph__exit(c);
}

static void on_data(void *ctx, ph_conn *conn, void *user, const uint8_t *p, size_t n) {
  ph_cluster *c = ctx;
  ph__link *l = user;
  (void)conn;
  ph__enter(c);
  c->stats.bytes_in += n;
  l->heard = c->seen;
  if (n > PH__KEEP) l->busy = true;
  if (l->state == PH__UP) ph__answered(l->node);
  ph__link_feed(l, p, n);
  ph__exit(c);
}

static void on_close(void *ctx, ph_conn *conn, void *user, int reason) {
  ph_cluster *c = ctx;
  ph__link *l = user;
  (void)conn, (void)reason;
  ph__enter(c);
  l->conn = NULL;
  ph__link_failed(l, PH_ECLOSED);
  ph__exit(c);
}

static void on_drain(void *ctx, ph_conn *conn, void *user) {
  ph_cluster *c = ctx;
  ph__link *l = user;
  ph__enter(c);
  l->filled = c->t->ops->queued(c->t, conn);
  ph__streams_wake(l);
  ph__link_dirty(l);
  ph__exit(c);
}

void ph__link_events(ph_cluster *c) {
  c->t->ev = (ph_transport_events){.ctx = c,
                                   .on_accept = on_accept,
                                   .on_dialled = on_dialled,
                                   .on_data = on_data,
                                   .on_close = on_close,
                                   .on_drain = on_drain};
}
