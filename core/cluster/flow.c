/* Data on a link: the queue, the credit both ways, xoff and xon. */
#include <string.h>

#include "cluster/internal.h"

typedef struct message {
  ph_list in_queue;
  size_t n, off;
  uint8_t data[];
} message;

/* ---- sending ---- */

static bool may_send(const ph__link *l) {
  return l->sent < l->allowed && l->filled + ph_buf_size(&l->out) < PH__SOCKET_FILL;
}

bool ph__flow_ready(const ph__link *l) {
  return !ph_list_empty(&l->queue) && may_send(l);
}

static int write_frame(ph__link *l, int kind, const void *p, size_t n) {
  int err = ph_frame_write(&l->out, kind, p, n);
  if (err < 0) return err;
  l->sent += PH_FRAME_HEADER + n;
  l->c->stats.frames_out++;
  ph__link_dirty(l);
  return 0;
}

int ph__flow_send(ph__link *l, const void *p, size_t n) {
  ph_cluster *c = l->c;
  if (l->said_leave) return 0;
  if (ph_list_empty(&l->queue) && n <= PH_FRAGMENT && may_send(l))
    return write_frame(l, PH_FRAME_DATA, p, n);
  if (sizeof(message) + n > c->max_queue - l->held) {
    if (ph__once(c, "queue", l->node->name, l->node->name_len))
      ph_logf(&c->env, PH_LOG_WARN, "cluster: %s does not read: too much waits for it, link closed",
              l->node->name);
    return PH_EBUSY;
  }
  message *m = ph_alloc(&c->env, sizeof *m + n);
  if (!m) return PH_ENOMEM;
  m->n = n;
  m->off = 0;
  if (n) memcpy(m->data, p, n);
  ph_list_push(&l->queue, &m->in_queue);
  l->queued += n;
  l->held += sizeof *m + n;
  if (may_send(l)) ph__link_dirty(l);
  if (l->queued > l->window && !l->node->xoff) {
    l->node->xoff = true;
    ph__tell(c, PH_EV_XOFF, l->node->peer, 0, NULL, 0);
  }
  return 0;
}

void ph__flow_pump(ph__link *l) {
  ph_cluster *c = l->c;
  while (ph__flow_ready(l)) {
    message *m = PH_CONTAINER(l->queue.next, message, in_queue);
    size_t part = m->n - m->off;
    int kind = PH_FRAME_DATA;
    if (part > PH_FRAGMENT) {
      part = PH_FRAGMENT;
      kind |= PH_FRAME_MORE;
    }
    if (write_frame(l, kind, m->data + m->off, part) < 0) {
      l->broken = true;
      return;
    }
    m->off += part;
    l->queued -= part;
    if (kind & PH_FRAME_MORE) continue;
    ph_list_remove(&m->in_queue);
    l->held -= sizeof *m + m->n;
    ph_free(&c->env, m);
  }
  if (l->state != PH__UP || !l->node->xoff) return;
  if (l->queued && l->queued >= l->window / 4) return;
  l->node->xoff = false;
  if (l->node->peer) ph__tell(c, PH_EV_XON, l->node->peer, 0, NULL, 0);
}

void ph__flow_clear(ph__link *l) {
  for (ph_list *e; (e = ph_list_pop(&l->queue));)
    ph_free(&l->c->env, PH_CONTAINER(e, message, in_queue));
  l->queued = l->held = 0;
}

void ph__flow_granted(ph__link *l, uint64_t n) {
  l->allowed = n > UINT64_MAX - l->allowed ? UINT64_MAX : l->allowed + n;
  if (ph__flow_ready(l)) ph__link_dirty(l);
}

/* ---- receiving ---- */

static uint64_t left_to_receive(const ph__link *l) {
  uint64_t have = l->received + l->split.fragments;
  return l->granted > have ? l->granted - have : 0;
}

static void grant(ph__link *l) {
  uint64_t low = l->window / 8, left = left_to_receive(l), more = 0;
  /* Ahead only while nothing granted ahead waits to be consumed: so a peer that sends one large
   * message after the other makes this node hold two of them, not all. */
  if (l->split.fragments && left <= low && l->owed == 0) {
    more = l->split.fragments - l->ahead;
    l->ahead += more;
  }
  if (l->pending && (l->pending >= low || (left == 0 && l->unconsumed == 0))) {
    more += l->pending;
    l->pending = 0;
  }
  if (more == 0) return;
  l->granted += more;
  ph__control_number(l, PH_M_GRANT, more);
}

static void consume(ph__link *l, uint64_t n) {
  if (n > l->unconsumed) n = l->unconsumed;
  l->unconsumed -= n;
  uint64_t before = n < l->owed ? n : l->owed;
  l->owed -= before;
  l->pending += n - before;
}

/* The sender may begin a frame as long as it has credit: it may be over by one frame. */
static bool overrun(const ph__link *l) {
  return l->received + l->split.fragments > l->granted + PH_FRAGMENT + PH_FRAME_HEADER;
}

int ph__flow_received(ph__link *l, const uint8_t *p, size_t n, size_t wire) {
  l->received += wire;
  if (overrun(l)) return PH_EMALFORMED;
  l->owed += l->ahead;
  l->ahead = 0;
  l->unconsumed += wire;
  if (l->node->peer) {
    ph__tell(l->c, PH_EV_FRAME, l->node->peer, wire, p, n);
  } else {
    consume(l, wire); /* of a stalled peer, which is down here: nobody may see it */
  }
  return 0;
}

int ph__flow_check(ph__link *l) {
  if (overrun(l)) return PH_EMALFORMED;
  grant(l);
  return 0;
}

void ph__flow_consumed(ph__node *node, uint64_t n) {
  uint64_t before = n < node->stale ? n : node->stale;
  node->stale -= before;
  ph__link *l = ph__way(node);
  if (!l) return;
  consume(l, n - before);
  grant(l);
}
