/* Relayed streams: data and heartbeats between members without a direct link.
 *
 * RELAY [14, hops, to, incarnation, from, incarnation, kind, source, target, number, bytes]: a node
 * that is not `to` sends it on to the first link on its way there, with one hop less. Kinds:
 *   OPEN   source: the sender's epoch; target: what it takes for the other's; number: its window;
 *          bytes: one, 1 when an answer is wanted
 *   DATA   a piece of a stream of frames as on a link, numbered from 1
 *   FAIL   of a node on the way, in the name of `from`: what had the epoch `target` got lost
 *
 * Each side numbers its epochs upwards and begins a new one whenever it finds that pieces may be
 * lost: the way has changed, a number is missing, a node on the way says FAIL, nothing is heard,
 * the other machine asks for it. A stream is a pair of epochs that both sides know; pieces of
 * another pair are dropped. So the pieces that arrive within one pair are those that were sent, in
 * order, without a gap; and whoever begins another pair tells its other machine (LINK_RESET).
 * Heartbeats are pieces like all others: the loss of the last ones before a pause shows.
 *
 * The stream ends in a ph__link without connection, so flow.c's credit is between the two ends. A
 * node on the way keeps nothing but what waits on its links; when that is too much it drops the
 * piece and says FAIL. Pieces do not count as heard on the direct link of their two ends. */
#include <string.h>

#include "cluster/internal.h"

enum { FIELDS = 10, OPEN = 1, DATA, FAIL };
enum {
  PIECE = 16 * 1024,
  HOPS = 8,
  HOPS_MAX = 255,
  ASK_AGAIN = 100, /* ms, then longer */
  ASK_SHIFT = 5,
  LASTED = 5000
};

typedef struct relay {
  uint64_t hops, kind, source, target, number;
  const char *to, *from;
  size_t to_len, from_len, n;
  uint64_t to_incarnation, from_incarnation;
  const uint8_t *p;
} relay;

static int write_relay(ph__link *hop, const relay *m) {
  ph_buf *b = ph__control(hop->c, PH_M_RELAY, FIELDS);
  ph_w_uint(b, m->hops);
  ph_w_str(b, m->to, m->to_len);
  ph_w_uint(b, m->to_incarnation);
  ph_w_str(b, m->from, m->from_len);
  ph_w_uint(b, m->from_incarnation);
  ph_w_uint(b, m->kind);
  ph_w_uint(b, m->source);
  ph_w_uint(b, m->target);
  ph_w_uint(b, m->number);
  ph_w_bin(b, m->p, m->n);
  return ph__control_end(hop);
}

static uint64_t hops(const ph_cluster *c) {
  return c->members < HOPS ? HOPS : c->members > HOPS_MAX ? HOPS_MAX : c->members;
}

/* 0 too when no way leads there: the piece is lost */
static int send(ph__node *to, uint64_t kind, uint64_t number, const void *p, size_t n) {
  ph_cluster *c = to->c;
  ph__link *hop = to->hop;
  if (!hop || hop->state != PH__UP || hop->said_leave) return 0;
  relay m = {.hops = hops(c),
             .kind = kind,
             .source = to->mine,
             .target = to->theirs,
             .number = number,
             .to = to->name,
             .to_len = to->name_len,
             .to_incarnation = to->incarnation,
             .from = c->name,
             .from_len = c->name_len,
             .from_incarnation = c->incarnation,
             .p = p,
             .n = n};
  return write_relay(hop, &m);
}

/* ---- beginning and ending ---- */

void ph__stream_want(ph__node *node, uint64_t due) {
  if (due != PH_NEVER && node->open_due != PH_NEVER) return;
  node->open_due = due;
  node->open_tries = 0;
  ph__want(node->c, due);
}

void ph__stream_end(ph__node *node) {
  ph_cluster *c = node->c;
  ph__link *l = node->stream;
  node->mine = 0;
  if (!l) return;
  node->stale += l->unconsumed;
  node->stream_flaps = c->seen - l->since < PH_MS(LASTED) ? node->stream_flaps + 1 : 0;
  node->stream = NULL;
  l->node = NULL;
  l->state = PH__DEAD;
  ph__flow_clear(l);
  ph_list_remove(&l->in_dirty);
  ph_list_remove(&l->in_all);
  ph_list_push(&c->dead, &l->in_all);
}

/* A stream that breaks again and again right after it was made is made again more slowly. */
void ph__stream_reset(ph__node *node) {
  ph_cluster *c = node->c;
  if (!node->stream) return;
  ph__stream_end(node);
  node->mine = ++c->epoch;
  uint64_t delay = 0;
  if (node->stream_flaps > 1) {
    uint32_t shift = node->stream_flaps - 2;
    delay = PH_MS(ASK_AGAIN) << (shift < ASK_SHIFT ? shift : ASK_SHIFT);
  }
  node->open_due = c->seen + delay;
  node->open_tries = 0;
  ph__want(c, node->open_due);
}

static void open(ph__node *node, bool answer) {
  uint8_t wanted = answer;
  uint64_t window = node->c->window < PH__RELAY_WINDOW ? node->c->window : PH__RELAY_WINDOW;
  (void)send(node, OPEN, window, &wanted, 1);
}

static int establish(ph__node *node) {
  ph_cluster *c = node->c;
  ph__link *l = ph__link_relayed(node);
  if (!l) return PH_ENOMEM;
  l->allowed = node->stream_window;
  node->stream = l;
  int err = node->stalled ? 0 : ph__member_reached(node);
  if (err < 0) {
    uint64_t mine = node->mine;
    ph__stream_end(node);
    node->mine = mine; /* asked for again, in the same epoch */
    return err;
  }
  node->stream_path = node->path;
  node->open_due = PH_NEVER;
  node->asked = false;
  c->view_dirty |= c->woken != 0;
  ph__heartbeat_send(l);
  return 0;
}

void ph__stream_scan(ph_cluster *c, uint64_t now) {
  for (ph_list *e = c->nodes.next; e != &c->nodes; e = e->next) {
    ph__node *node = PH_CONTAINER(e, ph__node, in_all);
    if (node->stream) {
      ph__link *l = node->stream;
      uint64_t due = l->heard + c->timeout > l->grace ? l->heard + c->timeout : l->grace;
      if (now >= due) ph__stream_reset(node);
      if (now < due) ph__want(c, due);
    }
    if (node->open_due == PH_NEVER || c->leaving) continue;
    if (now >= node->open_due) {
      if (!node->mine) node->mine = ++c->epoch;
      open(node, true);
      uint32_t shift = node->open_tries < ASK_SHIFT ? node->open_tries++ : ASK_SHIFT;
      node->open_due = now + (PH_MS(ASK_AGAIN) << shift);
    }
    ph__want(c, node->open_due);
  }
}

/* ---- sending ---- */

int ph__stream_write(ph__link *l) {
  ph__node *node = l->node;
  ph__link *hop = node->hop;
  if (!hop || hop->state != PH__UP) return 0; /* ends with the next look at the view */
  while (ph_buf_size(&l->out)) {
    size_t part = ph_buf_size(&l->out) < PIECE ? ph_buf_size(&l->out) : PIECE;
    int err = send(node, DATA, ++l->tx, ph_buf_at(&l->out), part);
    if (err < 0) return err;
    ph_buf_consume(&l->out, part);
  }
  ph_buf_reset(&l->out);
  l->filled = hop->filled + ph_buf_size(&hop->out);
  return 0;
}

void ph__streams_wake(ph__link *hop) {
  ph_cluster *c = hop->c;
  for (ph_list *e = c->streams.next; e != &c->streams; e = e->next) {
    ph__link *l = PH_CONTAINER(e, ph__link, in_all);
    if (l->node->hop != hop) continue;
    l->filled = hop->filled + ph_buf_size(&hop->out);
    if (ph__flow_ready(l)) ph__link_dirty(l);
  }
}

/* ---- on the way ---- */

static int read_relay(relay *m, ph_reader *r, uint32_t fields) {
  if (fields < FIELDS) return PH_EMALFORMED;
  if (ph_r_uint(r, &m->hops) < 0 || ph_r_str(r, &m->to, &m->to_len, PH_MAX_NAME) < 0 ||
      ph_r_uint(r, &m->to_incarnation) < 0 ||
      ph_r_str(r, &m->from, &m->from_len, PH_MAX_NAME) < 0 ||
      ph_r_uint(r, &m->from_incarnation) < 0 || ph_r_uint(r, &m->kind) < 0 ||
      ph_r_uint(r, &m->source) < 0 || ph_r_uint(r, &m->target) < 0 ||
      ph_r_uint(r, &m->number) < 0 || ph_r_bin(r, &m->p, &m->n, PH_FRAGMENT) < 0)
    return PH_EMALFORMED;
  return 0;
}

/* goes back the way it came */
static void fail(ph__link *l, const relay *m) {
  ph_cluster *c = l->c;
  c->stats.dropped++;
  if (m->kind != DATA) return; /* an OPEN is repeated */
  relay back = {.hops = hops(c),
                .kind = FAIL,
                .target = m->source,
                .to = m->from,
                .to_len = m->from_len,
                .to_incarnation = m->from_incarnation,
                .from = m->to,
                .from_len = m->to_len,
                .from_incarnation = m->to_incarnation,
                .p = (const uint8_t *)""};
  (void)write_relay(l, &back);
}

static void send_on(ph__link *l, relay *m) {
  ph_cluster *c = l->c;
  ph__node *node = ph__node_find(c, m->to, m->to_len);
  ph__link *hop = node && node->incarnation == m->to_incarnation ? node->hop : NULL;
  if (m->hops == 0 || !hop || hop == l || hop->state != PH__UP || hop->said_leave ||
      hop->filled + ph_buf_size(&hop->out) > PH__RELAY_MAX) {
    fail(l, m);
    return;
  }
  m->hops = m->hops < HOPS_MAX ? m->hops - 1 : HOPS_MAX - 1;
  c->stats.relayed++;
  if (write_relay(hop, m) < 0) fail(l, m);
}

/* ---- receiving ---- */

static void on_open(ph__node *node, const relay *m) {
  ph_cluster *c = node->c;
  bool wants = m->n > 0 && m->p[0];
  if (m->source < node->theirs) return;
  if (m->source > node->theirs) {
    uint64_t mine = node->mine;
    ph__stream_end(node);
    node->mine = mine;
    node->theirs = m->source;
    node->stream_window = m->number < PH__RELAY_WINDOW ? m->number : PH__RELAY_WINDOW;
  }
  if (!node->mine) node->mine = ++c->epoch;
  bool known = m->target == node->mine;
  int err = known && !node->stream ? establish(node) : 0;
  if (!err && (wants || !known)) open(node, !known);
  if (node->stream) return;
  node->open_due = c->seen + PH_MS(ASK_AGAIN); /* both want it now */
  node->open_tries = 0;
  ph__want(c, node->open_due);
}

static void on_piece(ph__node *node, const relay *m) {
  if (m->source != node->theirs || m->target != node->mine || !node->theirs || !node->mine) return;
  if (!node->stream && establish(node) < 0) return;
  ph__link *l = node->stream;
  if (m->number != l->rx + 1) {
    ph__stream_reset(node);
    return;
  }
  l->rx++;
  l->heard = node->c->seen;
  if (m->n > PH__KEEP) l->busy = true;
  ph__answered(node);
  ph__link_feed(l, m->p, m->n);
}

static bool is_self(const ph_cluster *c, const relay *m) {
  return m->to_len == c->name_len && memcmp(m->to, c->name, c->name_len) == 0;
}

/* A direct link stands above the stream: what arrives beside it is of another epoch. */
static void receive(ph_cluster *c, const relay *m) {
  ph__node *node = ph__node_find(c, m->from, m->from_len);
  if (!node || node->incarnation != m->from_incarnation || m->to_incarnation != c->incarnation)
    return;
  ph__view_update(c);
  if (!node->in_view || node->link || (c->leaving && !node->stream)) return;
  if (m->kind == OPEN) {
    on_open(node, m);
  } else if (m->kind == DATA) {
    on_piece(node, m);
  } else if (m->kind == FAIL && m->target == node->mine) {
    ph__stream_reset(node);
  }
}

int ph__relay_receive(ph__link *l, ph_reader *r, uint32_t fields) {
  relay m;
  int err = read_relay(&m, r, fields);
  if (err < 0) return err;
  if (is_self(l->c, &m)) {
    receive(l->c, &m);
  } else {
    send_on(l, &m);
  }
  return 0;
}
