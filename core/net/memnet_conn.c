/* Connections of the simulated network: ends, delivery, the transport's operations. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "net/memnet_int.h"

enum {
  SEND_BUFFER = 256 * 1024, /* bytes under way to one end beyond which they count as queued */
  SPLIT_ONE_IN = 4          /* a write arrives in two pieces this often */
};

/* ---- ends ---- */

/* moves a timer that has its place in the heap: cannot fail */
static void move(ph_memnet *m, ph_timer *t, uint64_t due) {
  int err = ph_timer_start(&m->timers, t, due);
  assert(err == 0);
  (void)err;
}

static segment *head(const ph_conn *c) {
  return ph_list_empty(&c->inbox) ? NULL : PH_CONTAINER(c->inbox.next, segment, link);
}

static bool blocked(const ph_conn *c, const segment *s) {
  if (c->m->hosts[c->host]->paused) return true;
  return !s->local && route_of(c->m, c->remote, c->host)->cut;
}

static void rearm(ph_conn *c) {
  const segment *s = head(c);
  uint64_t due = PARKED;
  if (s && !blocked(c, s)) due = s->due > c->m->now ? s->due : c->m->now;
  move(c->m, &c->in, due);
}

static void push(ph_conn *c, segment *s, uint64_t due) {
  if (!ph_list_empty(&c->inbox)) {
    const segment *tail = PH_CONTAINER(c->inbox.prev, segment, link);
    if (due < tail->due) due = tail->due;
  }
  s->due = due;
  ph_list_push(&c->inbox, &s->link);
  rearm(c);
}

static void seg_free(ph_conn *c, segment *s) {
  ph_list_remove(&s->link);
  if (s->kind == SEG_DATA) ph_free(c->m->env, s);
}

static void empty_inbox(ph_conn *c) {
  while (head(c)) seg_free(c, head(c));
}

static void fire_in(ph_timer *t);
static void fire_aux(ph_timer *t);

static ph_conn *end_new(ph_memnet *m, life *lf, int host_no, int remote) {
  ph_conn *c = ph_zalloc(m->env, sizeof *c);
  if (!c) return NULL;
  c->m = m;
  c->life = lf;
  c->host = host_no;
  c->remote = remote;
  c->state = lf ? END_DIALING : END_SYN;
  ph_list_init(&c->inbox);
  ph_list_init(&c->opened.link);
  ph_list_init(&c->ended.link);
  ph_timer_init(&c->in, fire_in);
  ph_timer_init(&c->aux, fire_aux);
  if (ph_timer_start(&m->timers, &c->in, PARKED) < 0 ||
      ph_timer_start(&m->timers, &c->aux, PARKED) < 0) {
    ph_timer_stop(&m->timers, &c->in);
    ph_free(m->env, c);
    return NULL;
  }
  ph_list_push(&m->hosts[host_no]->ends, &c->link);
  return c;
}

void ph__mem_end_free(ph_conn *c) {
  ph_memnet *m = c->m;
  if (m->accepting == c) m->accepting = NULL;
  if (c->peer) c->peer->peer = NULL;
  empty_inbox(c);
  ph_timer_stop(&m->timers, &c->in);
  ph_timer_stop(&m->timers, &c->aux);
  ph_list_remove(&c->link);
  ph_free(m->env, c);
}

/* the last thing c will receive: after what is under way, or (now) in its place */
static void push_end(ph_conn *c, int reason, bool now) {
  if (c->state == END_OVER) return;
  if (now) empty_inbox(c);
  ph_list_remove(&c->ended.link);
  c->ended.kind = SEG_END;
  c->ended.err = reason;
  c->ended.local = now;
  push(c, &c->ended, c->m->now + (now ? 0 : ph__mem_delay(c->m, c->remote, c->host)));
}

static void push_opened(ph_conn *c, int err, bool local) {
  c->opened.kind = SEG_OPEN;
  c->opened.err = err;
  c->opened.local = local;
  push(c, &c->opened, c->m->now + ph__mem_delay(c->m, c->remote, c->host));
}

/* ---- delivery ---- */

static void deliver_syn(ph_conn *c) {
  ph_memnet *m = c->m;
  life *lf = m->hosts[c->host]->life;
  ph_conn *dialer = c->peer;
  if (!dialer) { /* its host has crashed meanwhile */
    ph__mem_end_free(c);
    return;
  }
  if (!lf || !lf->listening) {
    push_opened(dialer, PH_EREFUSED, false);
    ph__mem_end_free(c);
    return;
  }
  c->state = END_OPEN;
  c->life = lf;
  rearm(c);
  push_opened(dialer, 0, false);
  m->accepting = c;
  void *user = lf->t.ev.on_accept(lf->t.ev.ctx, c);
  if (m->accepting != c) return;
  m->accepting = NULL;
  if (c->state == END_OVER) return;
  c->user = user;
  if (!user) ph__mem_ops.close(&lf->t, c, 0);
}

/* the dial is over: the end is gone when this returns */
static void dial_failed(ph_conn *c, int err) {
  const ph_transport_events *ev = &c->life->t.ev;
  c->state = END_OVER;
  if (c->peer && c->peer->state == END_SYN) ph__mem_end_free(c->peer);
  if (c->peer) push_end(c->peer, PH_ECLOSED, false);
  ev->on_dialled(ev->ctx, c, c->user, err);
  ph__mem_end_free(c);
}

static void deliver_opened(ph_conn *c) {
  if (c->opened.err < 0) {
    dial_failed(c, c->opened.err);
    return;
  }
  c->state = END_OPEN;
  move(c->m, &c->aux, PARKED);
  c->aux_held = false;
  rearm(c);
  const ph_transport_events *ev = &c->life->t.ev;
  ev->on_dialled(ev->ctx, c, c->user, 0);
}

static void acked(ph_conn *sender, size_t n) {
  sender->unacked -= n;
  if (!sender->full || sender->unacked > SEND_BUFFER || sender->state != END_OPEN) return;
  sender->full = false;
  move(sender->m, &sender->aux,
       sender->m->now + ph__mem_delay(sender->m, sender->remote, sender->host));
}

static void deliver_data(ph_conn *c, segment *s) {
  const ph_env *env = c->m->env;
  const ph_transport_events *ev = &c->life->t.ev;
  if (c->peer) acked(c->peer, s->n);
  rearm(c);
  ev->on_data(ev->ctx, c, c->user, s->data, s->n);
  ph_free(env, s); /* c may be gone */
}

static void deliver_end(ph_conn *c, int reason) {
  const ph_transport_events *ev = &c->life->t.ev;
  if (c->state == END_DIALING) {
    dial_failed(c, PH_EREFUSED);
    return;
  }
  c->state = END_OVER;
  ev->on_close(ev->ctx, c, c->user, reason);
  ph__mem_end_free(c);
}

static void fire_in(ph_timer *t) {
  ph_conn *c = PH_CONTAINER(t, ph_conn, in);
  move(c->m, &c->in, PARKED); /* takes its place in the heap back before anyone else can */
  segment *s = head(c);
  if (!s || blocked(c, s)) return;
  ph_list_remove(&s->link);
  switch (s->kind) {
  case SEG_SYN:
    deliver_syn(c);
    break;
  case SEG_OPEN:
    deliver_opened(c);
    break;
  case SEG_DATA:
    deliver_data(c, s);
    break;
  case SEG_END:
    deliver_end(c, s->err);
    break;
  }
}

static void fire_aux(ph_timer *t) {
  ph_conn *c = PH_CONTAINER(t, ph_conn, aux);
  move(c->m, &c->aux, PARKED);
  c->aux_held = c->m->hosts[c->host]->paused;
  if (c->aux_held) return;
  if (c->state == END_DIALING) {
    dial_failed(c, PH_ETIMEOUT);
  } else if (c->state == END_OPEN) {
    const ph_transport_events *ev = &c->life->t.ev;
    ev->on_drain(ev->ctx, c, c->user);
  }
}

/* ---- the transport ---- */

static life *life_of(ph_transport *t) {
  return PH_CONTAINER(t, life, t);
}

static int op_listen(ph_transport *t, const char *address, char *bound, size_t bound_size) {
  life *lf = life_of(t);
  (void)address; /* a host has one address and any number of ports that are all the same */
  if (lf->dead) return PH_ECLOSED;
  if (lf->listening) return PH_EINVAL;
  int n = snprintf(bound, bound_size, "mem:%d", lf->host);
  if (n < 0 || (size_t)n >= bound_size) return PH_EINVAL;
  lf->listening = true;
  return 0;
}

void ph__mem_forget_name(life *lf) {
  ph_free(lf->m->env, lf->name);
  ph_free(lf->m->env, lf->address);
  lf->name = lf->address = NULL;
}

static int op_announce(ph_transport *t, const char *name, const char *address) {
  life *lf = life_of(t);
  const ph_env *env = lf->m->env;
  if (lf->dead) return PH_ECLOSED;
  if (!name) {
    ph__mem_forget_name(lf);
    return 0;
  }
  char *name_copy = ph_strndup(env, name, strlen(name));
  char *address_copy = ph_strndup(env, address, strlen(address));
  if (!name_copy || !address_copy) {
    ph_free(env, name_copy);
    ph_free(env, address_copy);
    return PH_ENOMEM;
  }
  ph__mem_forget_name(lf);
  lf->name = name_copy;
  lf->address = address_copy;
  lf->announced = ++lf->m->announced;
  return 0;
}

static const char *find_name(const ph_memnet *m, const char *name) {
  const life *best = NULL;
  for (int i = 0; i < m->count; i++) {
    const life *lf = m->hosts[i]->life;
    if (!lf || !lf->name || strcmp(lf->name, name) != 0) continue;
    if (!best || lf->announced > best->announced) best = lf;
  }
  return best ? best->address : NULL;
}

/* a host number, or the error that the dial shall end with */
static int resolve(const ph_memnet *m, const char *target) {
  if (strchr(target, '@')) target = find_name(m, target);
  if (!target) return PH_ENOTFOUND;
  if (strncmp(target, "mem:", 4) != 0) return PH_EUNREACHABLE;
  int n = 0;
  const char *p = target + 4;
  if (*p < '0' || *p > '9') return PH_EUNREACHABLE;
  for (; *p >= '0' && *p <= '9'; p++) {
    n = n * 10 + (*p - '0');
    if (n >= m->count) return PH_EUNREACHABLE;
  }
  return *p == 0 || *p == ':' ? n : PH_EUNREACHABLE;
}

static int op_dial(ph_transport *t, const char *target, uint64_t timeout_ms, void *user,
                   ph_conn **out) {
  life *lf = life_of(t);
  ph_memnet *m = lf->m;
  if (lf->dead) return PH_ECLOSED;
  int to = resolve(m, target);
  ph_conn *c = end_new(m, lf, lf->host, to < 0 ? lf->host : to);
  if (!c) return PH_ENOMEM;
  c->user = user;
  if (to < 0) {
    push_opened(c, to, true);
    *out = c;
    return 0;
  }
  ph_conn *far = end_new(m, NULL, to, lf->host);
  if (!far) {
    ph__mem_end_free(c);
    return PH_ENOMEM;
  }
  c->peer = far;
  far->peer = c;
  uint64_t left = (PARKED - 1 - m->now) / PH_MS(1);
  move(m, &c->aux, m->now + PH_MS(timeout_ms < left ? timeout_ms : left));
  far->opened.kind = SEG_SYN;
  push(far, &far->opened, m->now + ph__mem_delay(m, lf->host, to));
  *out = c;
  return 0;
}

static segment *seg_new(ph_memnet *m, const uint8_t *p, size_t n) {
  if (n > SIZE_MAX - sizeof(segment)) return NULL;
  segment *s = ph_alloc(m->env, sizeof *s + n);
  if (!s) return NULL;
  memset(s, 0, sizeof *s);
  ph_list_init(&s->link);
  s->kind = SEG_DATA;
  s->n = n;
  s->data = (uint8_t *)(s + 1);
  memcpy(s->data, p, n);
  return s;
}

static int op_write(ph_transport *t, ph_conn *c, const void *p, size_t n) {
  (void)t;
  ph_memnet *m = c->m;
  if (c->state == END_OVER) return PH_ECLOSED;
  if (c->state != END_OPEN) return PH_ENOCONN;
  if (n == 0 || !c->peer) return 0; /* to an end that is closed: lost, as the kernel does it */
  size_t first = n;
  if (n > 1 && ph__mem_random(&m->random) % SPLIT_ONE_IN == 0)
    first = 1 + ph__mem_random(&m->random) % (n - 1);
  segment *a = seg_new(m, p, first);
  segment *b = first < n ? seg_new(m, (const uint8_t *)p + first, n - first) : NULL;
  if (!a || (first < n && !b)) {
    ph_free(m->env, a);
    ph_free(m->env, b);
    return PH_ENOMEM;
  }
  push(c->peer, a, m->now + ph__mem_delay(m, c->host, c->remote));
  if (b) push(c->peer, b, m->now + ph__mem_delay(m, c->host, c->remote));
  c->unacked += n;
  if (c->unacked > SEND_BUFFER) c->full = true;
  return 0;
}

static size_t op_queued(ph_transport *t, ph_conn *c) {
  (void)t;
  return c->unacked > SEND_BUFFER ? c->unacked - SEND_BUFFER : 0;
}

/* what its kernel has not taken dies with a connection that is closed without flushing */
static void drop_queued(ph_conn *receiver) {
  size_t taken = 0;
  ph_list *l = receiver->inbox.next;
  while (l != &receiver->inbox) {
    segment *s = PH_CONTAINER(l, segment, link);
    l = l->next;
    taken += s->n;
    if (s->kind == SEG_DATA && taken > SEND_BUFFER) seg_free(receiver, s);
  }
}

static void op_close(ph_transport *t, ph_conn *c, int flush) {
  (void)t;
  if (c->state == END_OVER && !c->zombie) return; /* its last callback runs; freed after it */
  ph_conn *peer = c->peer;
  if (peer && peer->state == END_SYN) {
    ph__mem_end_free(peer);
  } else if (peer) {
    if (!flush) drop_queued(peer);
    push_end(peer, PH_ECLOSED, false);
  }
  ph__mem_end_free(c);
}

static void op_unlisten(ph_transport *t) {
  life_of(t)->listening = false;
}

const ph_transport_ops ph__mem_ops = {
    .listen = op_listen,
    .announce = op_announce,
    .dial = op_dial,
    .write = op_write,
    .queued = op_queued,
    .close = op_close,
    .unlisten = op_unlisten,
};

/* ---- faults ---- */

void ph__mem_release(ph_memnet *m, int host_no, int from) {
  host *h = m->hosts[host_no];
  for (ph_list *l = h->ends.next; l != &h->ends; l = l->next) {
    ph_conn *c = PH_CONTAINER(l, ph_conn, link);
    if (from >= 0 && c->remote != from) continue;
    segment *s = head(c);
    if (s && !blocked(c, s)) {
      if (from >= 0) s->due = m->now + ph__mem_delay(m, c->remote, c->host);
      rearm(c);
    }
    if (c->aux_held && !h->paused) {
      c->aux_held = false;
      move(m, &c->aux, m->now);
    }
  }
}

void ph__mem_crash(host *h, life *lf) {
  for (ph_list *l = h->ends.next; l != &h->ends; l = l->next) {
    ph_conn *c = PH_CONTAINER(l, ph_conn, link);
    if (c->life != lf || c->state == END_OVER) continue;
    ph_conn *peer = c->peer;
    if (peer) {
      c->peer = peer->peer = NULL;
      if (peer->state != END_SYN) push_end(peer, PH_EIO, false);
    }
    empty_inbox(c);
    move(c->m, &c->in, PARKED);
    move(c->m, &c->aux, PARKED);
    c->state = END_OVER;
    c->zombie = true;
  }
}

void ph__mem_break(host *h, int other) {
  for (ph_list *l = h->ends.next; l != &h->ends; l = l->next) {
    ph_conn *c = PH_CONTAINER(l, ph_conn, link);
    ph_conn *peer = c->peer;
    if (c->remote != other || !peer || c->state == END_SYN || peer->state == END_SYN) continue;
    c->peer = peer->peer = NULL;
    push_end(c, PH_EIO, true);
    push_end(peer, PH_EIO, true);
  }
}
