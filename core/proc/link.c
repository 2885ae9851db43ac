/* Links and exit signals. A link is a record on each local side; one of them is in the index. */
#include "proc/proc_int.h"

typedef struct link_key {
  ph_pid a, b;
} link_key;

static bool link_eq(const void *item, const void *key) {
  const ph_link *l = item;
  const link_key *k = key;
  return (l->self->pid == k->a && l->other == k->b) || (l->self->pid == k->b && l->other == k->a);
}

static uint64_t link_hash(const ph_sys *s, ph_pid a, ph_pid b) {
  return a < b ? ph_hash64(a ^ ph_hash64(b ^ s->seed)) : ph_hash64(b ^ ph_hash64(a ^ s->seed));
}

ph_link *ph__link_find(ph_proc *p, ph_pid other) {
  ph_sys *s = p->sys;
  link_key k = {p->pid, other};
  ph_link *l = ph_index_find(&s->links, link_hash(s, p->pid, other), link_eq, &k);
  return l && l->self != p ? l->twin : l;
}

static ph_link *record(ph_proc *p, ph_pid other, bool remote) {
  ph_link *l = ph_alloc(p->sys->env, remote ? sizeof *l : offsetof(ph_link, node));
  if (!l) return NULL;
  l->self = p;
  l->twin = NULL;
  l->other = other;
  ph_list_init(&l->proc);
  if (remote) ph_list_init(&l->node);
  return l;
}

/* e: the node of a remote one, NULL for a local one that lives */
int ph__link_add(ph_proc *p, ph_pid other, ph_nodeent *e, ph_link **out) {
  ph_sys *s = p->sys;
  ph_proc *q = e ? NULL : ph_proc_find(s, other);
  ph_link *l = record(p, other, !q), *twin = q ? record(q, p->pid, false) : NULL;
  if (!l || (q && !twin) || ph_index_put(&s->links, link_hash(s, p->pid, other), l)) {
    ph_free(s->env, l);
    ph_free(s->env, twin);
    return PH_ENOMEM;
  }
  ph_list_push(&p->links, &l->proc);
  if (q) {
    l->twin = twin;
    twin->twin = l;
    ph_list_push(&q->links, &twin->proc);
  } else {
    ph_list_push(&e->links, &l->node);
  }
  if (out) *out = l;
  return 0;
}

void ph__link_remove(ph_link *l, bool free_it) {
  ph_sys *s = l->self->sys;
  uint64_t hash = link_hash(s, l->self->pid, l->other);
  if (!ph_index_remove(&s->links, hash, l) && l->twin) ph_index_remove(&s->links, hash, l->twin);
  ph_list_remove(&l->proc);
  if (!l->twin) ph_list_remove(&l->node);
  if (free_it) ph_free(s->env, l);
}

int ph__exit_signal(ph_proc *to, ph_pid from, ph_bytes *reason, bool kill, void *mem) {
  ph_sys *s = to->sys;
  if (kill && ph_reason_is(reason, "kill")) {
    reason = ph_reason_get(s, PH_REASON_KILLED);
  } else if (to->trap_exit) {
    ph_msg *m = ph__msg_notice(s, mem, PH_C_EXIT, from, 0, reason);
    if (!m) return PH_ENOMEM;
    ph_deliver(to, m);
    return 0;
  } else if (from != to->pid && ph_reason_is(reason, "normal")) {
    ph_free(s->env, mem);
    return 0;
  }
  if (!to->killed) {
    to->killed = ph_bytes_ref(reason);
    ph_ready(to);
  }
  ph_free(s->env, mem);
  return 0;
}

static int link_remote(ph_proc *p, ph_pid other) {
  ph_sys *s = p->sys;
  ph_nodeent *e = ph__node_of(s, other);
  if (!e) return PH_EINVAL;
  if (!e->peer) return ph__exit_signal(p, other, ph_reason_get(s, PH_REASON_NOCONN), false, NULL);
  ph_link *l;
  int rc = ph__link_add(p, other, e, &l);
  if (rc) return rc;
  rc = ph__tell_link(s, e, ph_id_serial(other), p->pid);
  if (rc) ph__link_remove(l, true);
  return rc;
}

int ph_link_procs(ph_proc *p, ph_pid other) {
  ph_sys *s = p->sys;
  if (!ph_is_pid(other)) return PH_EINVAL;
  if (other == p->pid || ph__link_find(p, other)) return 0;
  if (ph_id_node(other) != PH_SELF) return link_remote(p, other);
  if (ph_proc_find(s, other)) return ph__link_add(p, other, NULL, NULL);
  return ph__exit_signal(p, other, ph_reason_get(s, PH_REASON_NOPROC), false, NULL);
}

void ph_unlink(ph_proc *p, ph_pid other) {
  ph_link *l = ph__link_find(p, other), *twin = l ? l->twin : NULL;
  if (!l) return;
  ph__link_remove(l, true);
  if (twin) {
    ph_list_remove(&twin->proc);
    ph_free(p->sys->env, twin);
  } else {
    ph__tell_unlink(p->sys, ph__node_of(p->sys, other), ph_id_serial(other), p->pid);
  }
}

void ph__links_end(ph_proc *p, ph_bytes *reason) {
  ph_sys *s = p->sys;
  while (!ph_list_empty(&p->links)) {
    ph_link *l = PH_CONTAINER(p->links.next, ph_link, proc), *twin = l->twin;
    ph_pid other = l->other;
    ph__link_remove(l, true);
    if (!twin) {
      ph__tell_exit_surely(s, ph__node_of(s, other), ph_id_serial(other), p->pid, reason);
      continue;
    }
    ph_proc *q = twin->self;
    ph_list_remove(&twin->proc);
    (void)ph__exit_signal(q, p->pid, reason, false, twin); /* cannot fail: it has memory */
  }
}

void ph__links_lost(ph_sys *s, ph_nodeent *e) {
  ph_bytes *reason = ph_reason_get(s, PH_REASON_NOCONN);
  while (!ph_list_empty(&e->links)) {
    ph_link *l = PH_CONTAINER(e->links.next, ph_link, node);
    ph_proc *p = l->self;
    ph_pid other = l->other;
    ph__link_remove(l, false);
    ph__tell_exit_surely(s, e, ph_id_serial(other), p->pid, reason);
    (void)ph__exit_signal(p, other, reason, false, l); /* cannot fail: it has memory */
  }
}

int ph_signal(ph_sys *s, ph_pid from, ph_pid to, ph_bytes *reason, bool kill) {
  if (!ph_is_pid(to)) return PH_EINVAL;
  if (ph_id_node(to) == PH_SELF) {
    ph_proc *p = ph__proc_at(s, ph_id_serial(to));
    return p ? ph__exit_signal(p, from, reason, kill, NULL) : 0;
  }
  ph_nodeent *e = ph__node_of(s, to);
  if (!e) return PH_EINVAL;
  return e->peer ? ph__tell_exit(s, e, ph_id_serial(to), from, kill, reason) : 0;
}
