/* Messages by child id: where to send them. What has no running instance at the moment waits here,
 * in its order; an id that nobody here knows is asked once of its arbiter. */
#include <string.h>

#include "hub/internal.h"

typedef struct id_key {
  const char *id;
  size_t n;
} id_key;

static bool same_id(const void *item, const void *key) {
  const ph_pending *p = item;
  const id_key *k = key;
  return p->id_len == k->n && memcmp(p->id, k->id, k->n) == 0;
}

static ph_pending *find(ph_hub *h, const char *id, size_t n, uint64_t hash) {
  id_key k = {id, n};
  if (ph_index_count(&h->pendings) == 0) return NULL;
  return ph_index_find(&h->pendings, ph_hash64(hash ^ h->seed), same_id, &k);
}

static void drop(ph_hub *h, ph_pending *p) {
  ph_index_remove(&h->pendings, ph_hash64(p->hash ^ h->seed), p);
  ph_list_remove(&p->ready);
  ph_free(h->env, p);
}

static void look_again(ph_hub *h, ph_pending *p) {
  if (ph_list_empty(&p->ready)) ph_list_push(&h->routed, &p->ready);
  ph__kick(h);
}

static void drop_if_idle(ph_hub *h, ph_pending *p) {
  if (!p->answering && ph_list_empty(&p->routes) && ph_list_empty(&p->mail)) drop(h, p);
}

/* p stays until all have their answer: a `done` may cancel another route, or ask for one more,
 * which then waits behind those that were there before */
static void answer(ph_hub *h, ph_pending *p, int err, ph_pid pid) {
  ph_list routes, *l;
  if (p->answering) return;
  p->answering = true;
  ph_list_init(&routes);
  ph_list_move(&routes, &p->mail);
  ph_list_move(&routes, &p->routes);
  while ((l = ph_list_pop(&routes))) {
    ph_route *r = PH_CONTAINER(l, ph_route, list);
    ph_timer_stop(&h->sys->timers, &r->timer);
    r->pending = NULL;
    r->done(r, err, pid);
  }
  p->answering = false;
  drop_if_idle(h, p);
}

static void ask(ph_hub *h, ph_pending *p) {
  ph_member *to = ph__first(h, p->hash);
  p->asking = true;
  if (!to || to == &h->self) {
    if (h->agreed) { /* this node would know it */
      p->asking = false;
      look_again(h, p);
    }
    return;
  }
  ph_buf b;
  ph__head(h, &b, PH_H_ASK, 1);
  ph_w_str(&b, p->id, p->id_len);
  if (ph__send(h, to, &b)) ph__oom(h);
}

/* A start of this node's that is not in the registry yet: looked at again when it has its answer */
static void await_own(ph_hub *h, ph_pending *p) {
  p->own = ph__op_starts(h, p->id, p->id_len);
  if (!p->own) ask(h, p);
}

void ph__route_own(ph_hub *h, const char *id, size_t n) {
  ph_pending *p = ph_index_count(&h->pendings) ? find(h, id, n, ph_ring_hash(id, n)) : NULL;
  if (p && p->own) look_again(h, p);
}

static void try_answer(ph_hub *h, ph_pending *p) {
  ph_row *r = ph_hub_find(h, p->id, p->id_len);
  ph_pid pid = r ? ph_row_pid(h, r) : 0;
  if (pid)
    answer(h, p, 0, pid);
  else if (!r && p->own)
    await_own(h, p);
  else if (!r && !p->asking)
    answer(h, p, PH_ENOCHILD, 0);
}

static void timeout(ph_timer *t) {
  ph_route *r = PH_CONTAINER(t, ph_route, timer);
  ph_pending *p = r->pending;
  ph_list_remove(&r->list);
  r->pending = NULL;
  drop_if_idle(r->hub, p);
  r->done(r, PH_ETIMEOUT, 0);
}

static ph_pending *pending_new(ph_hub *h, const char *id, size_t n, uint64_t hash) {
  ph_pending *p = ph_zalloc(h->env, sizeof *p + n);
  if (!p) return NULL;
  p->hash = hash;
  p->id_len = (uint16_t)n;
  memcpy(p->id, id, n);
  ph_list_init(&p->routes);
  ph_list_init(&p->mail);
  ph_list_init(&p->ready);
  if (ph_index_put(&h->pendings, ph_hash64(hash ^ h->seed), p)) {
    ph_free(h->env, p);
    return NULL;
  }
  return p;
}

int ph_hub_route(ph_hub *h, const char *id, size_t len, uint64_t due, ph_route *r, ph_pid *pid) {
  uint64_t hash = ph_ring_hash(id, len);
  if (len == 0 || len > PH_MAX_ID) return PH_ENOCHILD;
  if (h->freeing) return PH_ENOTALIVE;
  ph_pending *p = find(h, id, len, hash);
  ph_row *row = ph__row_find(h, id, len, hash);
  if (row && !row->live) row = NULL;
  if (!p) {
    *pid = row ? ph_row_pid(h, row) : 0;
    if (*pid) return 0;
    bool own = !row && ph__op_starts(h, id, len);
    if (!row && !own && h->settled && h->others == 0) return PH_ENOCHILD;
    p = pending_new(h, id, len, hash);
    if (!p) return PH_ENOMEM;
    p->own = own;
    if (own)
      await_own(h, p);
    else if (!row)
      ask(h, p);
  }
  ph_timer_init(&r->timer, timeout);
  if (ph_timer_start(&h->sys->timers, &r->timer, due)) {
    drop_if_idle(h, p);
    return PH_ENOMEM;
  }
  r->hub = h;
  r->pending = p;
  ph_list_push(&p->routes, &r->list);
  if (p->answering) look_again(h, p);
  return PH_EAGAIN;
}

/* ---- Mail of a child that moves here */

typedef struct mail {
  ph_route route;
  ph_msg *m;
} mail;

static void mail_done(ph_route *r, int err, ph_pid pid) {
  mail *x = PH_CONTAINER(r, mail, route);
  ph_hub *h = r->hub;
  if (err || ph_send(h->sys, pid, x->m, true)) ph_msg_free(h->sys, x->m);
  ph_free(h->env, x);
}

int ph__route_mail(ph_hub *h, const char *id, size_t n, ph_msg *m) {
  uint64_t hash = ph_ring_hash(id, n);
  ph_row *row = ph_hub_find(h, id, n);
  ph_pending *p = find(h, id, n, hash);
  if (!row && !p) { /* stopped meanwhile */
    ph_msg_free(h->sys, m);
    return 0;
  }
  mail *x = ph_zalloc(h->env, sizeof *x);
  if (x && !p) p = pending_new(h, id, n, hash);
  if (!x || !p) {
    ph_free(h->env, x);
    return PH_ENOMEM;
  }
  x->m = m;
  x->route.hub = h;
  x->route.pending = p;
  x->route.done = mail_done;
  ph_timer_init(&x->route.timer, NULL);
  ph_list_push(&p->mail, &x->route.list);
  if (row) ph__row_dirty(h, row); /* it may run here by now */
  return 0;
}

void ph_route_cancel(ph_route *r) {
  ph_pending *p = r->pending;
  if (!p) return;
  ph_timer_stop(&r->hub->sys->timers, &r->timer);
  ph_list_remove(&r->list);
  r->pending = NULL;
  drop_if_idle(r->hub, p);
}

void ph__route_row(ph_hub *h, ph_row *r) {
  ph_pending *p = find(h, r->id, r->id_len, r->hash);
  if (p) try_answer(h, p);
}

void ph__route_asked(ph_hub *h, const char *id, size_t n) {
  ph_pending *p = find(h, id, n, ph_ring_hash(id, n));
  if (!p) return;
  p->asking = false;
  try_answer(h, p);
}

void ph__route_view(ph_hub *h) {
  ph_index_iter it = {0};
  ph_pending *p;
  while ((p = ph_index_next(&h->pendings, &it)))
    if (p->asking) ask(h, p);
}

void ph__routes_run(ph_hub *h) {
  ph_list now, *l;
  ph_list_init(&now);
  ph_list_move(&now, &h->routed);
  while ((l = ph_list_pop(&now))) try_answer(h, PH_CONTAINER(l, ph_pending, ready));
}

void ph__routes_end(ph_hub *h) {
  ph_index_iter it = {0};
  ph_list all, *l;
  ph_pending *p;
  ph_list_init(&all);
  while ((p = ph_index_next(&h->pendings, &it))) {
    ph_list_remove(&p->ready);
    ph_list_push(&all, &p->ready);
  }
  while ((l = ph_list_pop(&all))) answer(h, PH_CONTAINER(l, ph_pending, ready), PH_ENOTALIVE, 0);
}
