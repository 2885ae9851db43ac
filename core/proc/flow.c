/* Back-pressure of mailboxes between nodes. A process whose mailbox is over its mark says so to the
 * nodes whose messages arrive (XOFF with its serial, or the name they use), and that it has room
 * again once it is down to half. The sender's system answers PH_EBUSY meanwhile. Replies, signals
 * and system messages pass. Either end forgets all of it when the node goes or the link is reset; a
 * mailbox that is still too long then says so again at the next message.
 */
#include <string.h>

#include "proc/proc_int.h"

enum { MARK = 16384, MARK_BYTES = 8 * 1024 * 1024 };

/* ---- The receiver */

static bool over(const ph_msgq *q) {
  return q->count > MARK || q->bytes > MARK_BYTES;
}
static bool has_room(const ph_msgq *q) {
  return q->count <= MARK / 2 && q->bytes <= MARK_BYTES / 2;
}

static bool same_way(const ph__throttle *t, const ph_nodeent *e, const ph__dest *by) {
  return t->e == e && t->n == by->n && memcmp(t->name, by->name ? by->name : "", by->n) == 0;
}

void ph__flow_arrived(ph_sys *s, ph_nodeent *e, ph_proc *p, const ph__dest *by) {
  if (!over(&p->mailbox)) return;
  for (const ph__throttle *t = p->throttled; t; t = t->next)
    if (same_way(t, e, by)) return;
  ph__throttle *t = ph_alloc(s->env, sizeof *t + by->n);
  if (!t || ph__tell_xoff(s, e, by, true)) {
    ph_free(s->env, t); /* tried again at the next message */
    return;
  }
  t->p = p;
  t->e = e;
  t->n = by->n;
  if (by->n) memcpy(t->name, by->name, by->n);
  t->next = p->throttled;
  p->throttled = t;
  ph_list_push(&e->throttles, &t->node);
}

static void throttle_free(ph__throttle *t) {
  ph__throttle **at = &t->p->throttled;
  while (*at != t) at = &(*at)->next;
  *at = t->next;
  ph_list_remove(&t->node);
  ph_free(t->p->sys->env, t);
}

void ph__flow_open(ph_proc *p) {
  while (p->throttled) {
    ph__throttle *t = p->throttled;
    ph__dest by = {.serial = ph_id_serial(p->pid), .name = t->n ? t->name : NULL, .n = t->n};
    if (ph__tell_xoff(p->sys, t->e, &by, false)) ph__lost(p->sys, t->e);
    throttle_free(t);
  }
}

void ph__flow_taken(ph_proc *p) {
  if (p->throttled && has_room(&p->mailbox)) ph__flow_open(p);
}

/* ---- The sender */

typedef struct full { /* a remote process that has no room */
  uint64_t key;
  ph_list node;    /* ph_nodeent.full */
  ph_list waiters; /* ph_waiter.blocked */
} full;

static bool full_eq(const void *item, const void *key) {
  return ((const full *)item)->key == *(const uint64_t *)key;
}

uint64_t ph__flow_key(const ph_nodeent *e, const ph__dest *to) {
  if (!to->name) return ph_pid_make(e->index, to->serial);
  return ph_hash(to->name, to->n, e->index) >> 2 | UINT64_C(1) << 62; /* a tag that no pid has */
}

static full *full_find(ph_sys *s, uint64_t key) {
  if (ph_index_count(&s->full) == 0) return NULL;
  return ph_index_find(&s->full, ph_hash64(key ^ s->seed), full_eq, &key);
}

bool ph__flow_full(ph_sys *s, uint64_t key) {
  return full_find(s, key) != NULL;
}

static void full_end(ph_sys *s, full *f, int err) {
  ph_list *l;
  while ((l = ph_list_pop(&f->waiters)))
    ph__waiter_end(PH_CONTAINER(l, ph_waiter, blocked), err, NULL, NULL);
  ph_index_remove(&s->full, ph_hash64(f->key ^ s->seed), f);
  ph_list_remove(&f->node);
  ph_free(s->env, f);
}

int ph__flow_told(ph_sys *s, ph_nodeent *e, const ph__dest *who, bool on) {
  uint64_t key = ph__flow_key(e, who);
  full *f = full_find(s, key);
  if (!on || f) {
    if (!on && f) full_end(s, f, 0);
    return 0;
  }
  f = ph_alloc(s->env, sizeof *f);
  if (!f) return 0; /* nobody is held back, which is allowed */
  f->key = key;
  ph_list_init(&f->waiters);
  if (ph_index_put(&s->full, ph_hash64(key ^ s->seed), f)) {
    ph_free(s->env, f);
    return 0;
  }
  ph_list_push(&e->full, &f->node);
  return 0;
}

ph_list *ph__flow_waiters(ph_sys *s, uint64_t key) {
  full *f = full_find(s, key);
  return f ? &f->waiters : NULL;
}

void ph__flow_deinit(ph_sys *s) {
  ph_index_iter it = {0};
  for (full *f; (f = ph_index_next(&s->full, &it));) {
    while (ph_list_pop(&f->waiters)) continue; /* they are forgotten with the system */
    ph_free(s->env, f);
  }
  ph_index_deinit(&s->full);
}

void ph__flow_lost(ph_sys *s, ph_nodeent *e, int err) {
  while (!ph_list_empty(&e->full)) full_end(s, PH_CONTAINER(e->full.next, full, node), err);
  while (!ph_list_empty(&e->throttles))
    throttle_free(PH_CONTAINER(e->throttles.next, ph__throttle, node));
}
