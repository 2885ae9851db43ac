/* Refs, and the monitors among them. */
#include "proc/proc_int.h"

static bool ref_eq(const void *item, const void *key) {
  return ((const ph_refobj *)item)->ref == *(const ph_ref *)key;
}

/* Seeded: a peer chooses the refs of its own calls. */
uint64_t ph__ref_hash(const ph_sys *s, ph_ref ref) {
  return ph_hash64(ref ^ s->seed);
}

ph_refobj *ph__ref_find(ph_sys *s, ph_ref ref) {
  return ph_index_find(&s->refs, ph__ref_hash(s, ref), ref_eq, &ref);
}

int ph__ref_put(ph_sys *s, ph_refobj *o) {
  return ph_index_put(&s->refs, ph__ref_hash(s, o->ref), o);
}

void ph__ref_remove(ph_sys *s, ph_refobj *o) {
  ph_index_remove(&s->refs, ph__ref_hash(s, o->ref), o);
  ph_list_remove(&o->target);
  ph_list_remove(&o->watcher);
  ph_list_remove(&o->node);
}

void ph__refobj_init(ph_refobj *o, ph_refkind kind, ph_ref ref, ph_pid target) {
  *o = (ph_refobj){.kind = (uint8_t)kind, .ref = ref, .target_pid = target};
  ph_list_init(&o->target);
  ph_list_init(&o->watcher);
  ph_list_init(&o->node);
}

/* Whoever knows a call's ref may answer it, so a ref must not be guessed: a Feistel network (Luby
 * and Rackoff, 1988) keyed by the seed makes a permutation of the counter, and no ref comes twice.
 */
ph_ref ph_ref_new(ph_sys *s) {
  enum { HALF = PH_SERIAL_BITS / 2, MASK = (1 << HALF) - 1 };
  uint64_t n = s->next_ref++;
  uint64_t left = n >> HALF & MASK, right = n & MASK;
  for (uint64_t round = 1; round <= 4; round++) {
    uint64_t next = left ^ (ph_hash64(right ^ s->seed ^ round << HALF) & MASK);
    left = right;
    right = next;
  }
  if (!(left | right)) return ph_ref_new(s); /* 0 is no serial */
  return PH_TAG_REF | left << HALF | right;
}

static ph_refobj *obj_new(ph_sys *s, ph_refkind kind, ph_ref ref, ph_pid target) {
  ph_refobj *o = ph_alloc(s->env, sizeof *o);
  if (!o) return NULL;
  ph__refobj_init(o, kind, ref, target);
  if (ph__ref_put(s, o)) {
    ph_free(s->env, o);
    return NULL;
  }
  return o;
}

/* `from` of the DOWN message of what this record watches */
static ph_pid known_pid(const ph_refobj *o) {
  return ph_id_serial(o->target_pid) ? o->target_pid : 0;
}

/* the monitor's record becomes its DOWN message */
static void down(ph_sys *s, ph_refobj *o, ph_bytes *reason) {
  ph_proc *watcher = o->proc;
  ph_pid from = known_pid(o);
  ph_ref ref = o->ref;
  ph__ref_remove(s, o);
  ph_deliver(watcher, ph__msg_notice(s, o, PH_C_DOWN, from, ref, reason));
}

static int down_at_once(ph_proc *watcher, ph_pid target, ph_reason r, ph_ref *out) {
  ph_sys *s = watcher->sys;
  ph_ref ref = ph_ref_new(s);
  ph_msg *m = ph__msg_notice(s, NULL, PH_C_DOWN, target, ref, ph_reason_get(s, r));
  if (!m) return PH_ENOMEM;
  ph_deliver(watcher, m);
  *out = ref;
  return 0;
}

static int monitor_local(ph_proc *watcher, ph_pid target, ph_ref *out) {
  ph_sys *s = watcher->sys;
  ph_proc *p = ph_proc_find(s, target);
  if (!p) return down_at_once(watcher, target, PH_REASON_NOPROC, out);
  ph_refobj *o = obj_new(s, PH_R_MONITOR, ph_ref_new(s), target);
  if (!o) return PH_ENOMEM;
  o->proc = watcher;
  ph_list_push(&watcher->watching, &o->watcher);
  ph_list_push(&p->watched, &o->target);
  *out = o->ref;
  return 0;
}

static int monitor_remote(ph_proc *watcher, ph_nodeent *e, const ph__dest *to, ph_ref *out) {
  ph_sys *s = watcher->sys;
  ph_pid target = ph_pid_make(e->index, to->serial);
  if (!e->peer) return down_at_once(watcher, to->name ? 0 : target, PH_REASON_NOCONN, out);
  ph_refobj *o = obj_new(s, PH_R_MONITOR, ph_ref_new(s), target);
  if (!o) return PH_ENOMEM;
  int rc = ph__tell_monitor(s, e, to, watcher->pid, o->ref);
  if (rc) {
    ph__ref_remove(s, o);
    ph_free(s->env, o);
    return rc;
  }
  o->proc = watcher;
  ph_list_push(&watcher->watching, &o->watcher);
  ph_list_push(&e->out, &o->node);
  *out = o->ref;
  return 0;
}

int ph_monitor(ph_proc *watcher, ph_pid target, ph_ref *out) {
  if (!ph_is_pid(target)) return PH_EINVAL;
  if (ph_id_node(target) == PH_SELF) return monitor_local(watcher, target, out);
  ph_nodeent *e = ph__node_of(watcher->sys, target);
  if (!e) return PH_EINVAL;
  return monitor_remote(watcher, e, &(ph__dest){.serial = ph_id_serial(target)}, out);
}

int ph_monitor_named(ph_proc *watcher, const char *name, size_t n, ph_nodeent *node, ph_ref *out) {
  if (!node || node->index == PH_SELF)
    return monitor_local(watcher, ph_whereis(watcher->sys, name, n), out);
  return monitor_remote(watcher, node, &(ph__dest){.name = name, .n = n}, out);
}

/* a monitor of a local process goes without news */
static void monitor_free(ph_sys *s, ph_refobj *o) {
  if (!ph_list_empty(&o->node)) ph__tell_demonitor(s, ph__node_of(s, o->target_pid), o->ref);
  ph__ref_remove(s, o);
  ph_free(s->env, o);
}

void ph_demonitor(ph_proc *watcher, ph_ref ref) {
  ph_sys *s = watcher->sys;
  ph_refobj *o = ph__ref_find(s, ref);
  if (o) {
    if (o->kind == PH_R_MONITOR && o->proc == watcher) monitor_free(s, o);
    return;
  }
  ph_msg *prev = NULL;
  for (ph_msg *m = watcher->mailbox.head; m; prev = m, m = m->next) {
    if (m->cls != PH_C_DOWN || m->ref != ref) continue;
    ph_msg_free(s, ph_recv_at(watcher, prev));
    return;
  }
}

int ph__remote_monitor(ph_sys *s, ph_nodeent *e, ph_proc *p, ph_ref ref) {
  ph_refobj *o = obj_new(s, PH_R_REMOTE_MONITOR, ref, p->pid);
  if (!o) return PH_ENOMEM;
  ph_list_push(&p->watched, &o->target);
  ph_list_push(&e->in, &o->node);
  return 0;
}

void ph__watched_end(ph_sys *s, ph_refobj *o, ph_bytes *reason) {
  switch ((ph_refkind)o->kind) {
  case PH_R_MONITOR:
    down(s, o, reason);
    break;
  case PH_R_WAITER:
    ph__waiter_end(PH_CONTAINER(o, ph_waiter, obj), PH_EEXIT, NULL, reason);
    break;
  case PH_R_REMOTE_MONITOR: {
    ph_nodeent *e = ph__node_of(s, o->ref);
    ph_ref ref = o->ref;
    uint64_t serial = ph_id_serial(o->target_pid);
    ph__ref_remove(s, o);
    ph_free(s->env, o);
    ph__tell_down(s, e, ref, reason, serial);
    break;
  }
  case PH_R_TIMER:
    break; /* watches nothing */
  }
}

void ph__monitors_end(ph_proc *p, ph_bytes *reason) {
  ph_sys *s = p->sys;
  while (!ph_list_empty(&p->watching)) /* first: one on itself brings no message */
    monitor_free(s, PH_CONTAINER(p->watching.next, ph_refobj, watcher));
  while (!ph_list_empty(&p->watched))
    ph__watched_end(s, PH_CONTAINER(p->watched.next, ph_refobj, target), reason);
}

void ph__monitors_lost(ph_sys *s, ph_nodeent *e) {
  while (!ph_list_empty(&e->out)) {
    ph_refobj *o = PH_CONTAINER(e->out.next, ph_refobj, node);
    ph__tell_demonitor(s, e, o->ref);
    if (o->kind == PH_R_MONITOR)
      down(s, o, ph_reason_get(s, PH_REASON_NOCONN));
    else
      ph__waiter_end(PH_CONTAINER(o, ph_waiter, obj), PH_ENOCONN, NULL, NULL);
  }
  while (!ph_list_empty(&e->in)) {
    ph_refobj *o = PH_CONTAINER(e->in.next, ph_refobj, node);
    ph__ref_remove(s, o);
    ph_free(s->env, o);
  }
}
