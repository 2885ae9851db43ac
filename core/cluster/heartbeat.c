/* Heartbeats [5, seq, stall ms, digest]: that a node lives, how long its other machine has been
 * away, and whether it knows the same link states. */
#include "cluster/internal.h"

enum { DIFFER_AGAIN = 64 };

/* a link at rest keeps no large buffer */
static void trim(ph_buf *b) {
  if (b->cap > PH__KEEP && ph_buf_size(b) == 0) ph_buf_deinit(b);
}

void ph__heartbeat_send(ph__link *l) {
  ph_cluster *c = l->c;
  if (!l->busy) {
    trim(&l->out);
    trim(&l->split.in);
  }
  l->busy = false;
  ph_buf *b = ph__control(c, PH_M_HEARTBEAT, 3);
  ph_w_uint(b, c->beat_seq);
  ph_w_uint(b, ph__stall(c));
  ph_w_uint(b, c->digest);
  (void)ph__control_end(l);
}

/* Past stall_timeout the node is down though its link is not. When it runs again the link is made
 * anew, so that the other side learns (LINK_RESET) that frames were lost. */
static int judge_stall(ph__link *l, uint64_t stall) {
  ph_cluster *c = l->c;
  ph__node *node = l->node;
  bool stalled = c->stall_timeout && stall > c->stall_timeout;
  if (stalled == node->stalled) return 0;
  node->stalled = stalled;
  if (stalled) {
    ph_logf(&c->env, PH_LOG_WARN, "cluster: %s has stalled for %llu ms", node->name,
            (unsigned long long)stall);
    ph__member_down(node, false);
    return 0;
  }
  ph__link_failed(l, PH_ECLOSED);
  return PH_ECLOSED;
}

/* Who knows other link states than we do is asked which: soon, then ever more rarely, for what
 * keeps them apart may last. */
static void compare(ph__link *l, uint64_t digest) {
  if (digest == l->c->digest) {
    l->beats_differ = 0;
    return;
  }
  if (digest != l->their_digest) l->beats_differ = 0;
  l->their_digest = digest;
  uint64_t n = ++l->beats_differ;
  if (n >= 2 && ((n & (n - 1)) == 0 || n % DIFFER_AGAIN == 0)) ph__summary_send(l, true);
}

int ph__heartbeat_receive(ph__link *l, ph_reader *r, uint32_t fields) {
  uint64_t seq, stall, digest = 0;
  if (fields < 2 || ph_r_uint(r, &seq) < 0 || ph_r_uint(r, &stall) < 0) return PH_EMALFORMED;
  if (fields >= 3) {
    if (ph_r_uint(r, &digest) < 0) return PH_EMALFORMED;
    if (!l->relayed) compare(l, digest);
  }
  return judge_stall(l, stall);
}

void ph__heartbeat_scan(ph_cluster *c, uint64_t now) {
  if (now >= c->beat_due) {
    c->beat_seq++;
    for (ph_list *e = c->links.next; e != &c->links; e = e->next) {
      ph__link *l = PH_CONTAINER(e, ph__link, in_all);
      if (!l->said_leave) ph__heartbeat_send(l);
    }
    for (ph_list *e = c->streams.next; e != &c->streams; e = e->next)
      ph__heartbeat_send(PH_CONTAINER(e, ph__link, in_all));
    c->beat_due = now + c->interval;
  }
  ph__want(c, c->beat_due);
  for (ph_list *e = c->pending.next, *next; e != &c->pending; e = next) {
    next = e->next;
    ph__link *l = PH_CONTAINER(e, ph__link, in_all);
    if (now < l->due) {
      ph__want(c, l->due);
    } else {
      ph__link_end(l, PH_ETIMEOUT, false);
    }
  }
}

static void later(uint64_t *due, uint64_t at_least) {
  if (*due < at_least) *due = at_least;
}

/* What waits in the sockets must be read before anyone is judged by the clock. */
void ph__resumed(ph_cluster *c, uint64_t now) {
  uint64_t grace = now + 2 * c->interval;
  ph_logf(&c->env, PH_LOG_INFO, "cluster: this process was stopped for %llu ms",
          (unsigned long long)((now - c->seen) / PH_MS(1)));
  for (ph_list *e = c->nodes.next; e != &c->nodes; e = e->next) {
    ph__node *node = PH_CONTAINER(e, ph__node, in_all);
    if (ph__way(node)) ph__way(node)->grace = grace;
    node->asked = node->peer != 0;
    if (node->down_due != PH_NEVER) later(&node->down_due, grace);
    if (node->challenger) node->probe_due = now + PH_MS(PH__PROBE_WAIT);
  }
  for (ph_list *e = c->pending.next; e != &c->pending; e = e->next)
    later(&PH_CONTAINER(e, ph__link, in_all)->due, grace);
  for (ph_list *e = c->links.next; e != &c->links; e = e->next)
    ph__control_number(PH_CONTAINER(e, ph__link, in_all), PH_M_PROBE, 0); /* to be answered soon */
  c->woken = grace;
  c->view_dirty = true;
  c->beat_due = now;
  ph__want(c, now);
}
