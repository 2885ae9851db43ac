/* Waiters and calls. A waiter is idle, waits (in the index of refs), or is woken (in the list of
 * those whose `done` is due). */
#include <assert.h>
#include <string.h>

#include "proc/proc_int.h"

enum { WOKEN_A_RUN = 512 };

/* the waiter waits no more and its `done` is due: takes m, references reason */
static void settle(ph_waiter *w, int err, ph_msg *m, ph_bytes *reason) {
  w->state = PH_W_WOKEN;
  w->err = err;
  w->msg = m;
  w->reason = ph_bytes_ref(reason);
  ph_list_push(&w->sys->woken, &w->woken);
}

static void unhook(ph_waiter *w) {
  ph__ref_remove(w->sys, &w->obj);
  ph_list_remove(&w->blocked);
  ph_timer_stop(&w->sys->timers, &w->timer);
}

/* a call that ends here tells the node that serves it */
static void tell_end(ph_waiter *w) {
  if (ph_list_empty(&w->obj.node)) return;
  ph__tell_demonitor(w->sys, ph__node_of(w->sys, w->obj.target_pid), w->obj.ref);
}

void ph__waiter_end(ph_waiter *w, int err, ph_msg *m, ph_bytes *reason) {
  assert(w->state == PH_W_WAITING);
  unhook(w);
  settle(w, err, m, reason);
}

void ph_wake(ph_waiter *w, int err, ph_msg *m) {
  if (w->state != PH_W_WAITING) {
    ph_msg_free(w->sys, m);
    return;
  }
  tell_end(w);
  ph__waiter_end(w, err, m, NULL);
}

static void on_timeout(ph_timer *t) {
  ph_wake(PH_CONTAINER(t, ph_waiter, timer), PH_ETIMEOUT, NULL);
}

void ph_waiter_init(ph_sys *s, ph_waiter *w, void (*done)(ph_waiter *, int, ph_msg *, ph_bytes *)) {
  memset(w, 0, sizeof *w);
  w->sys = s;
  w->done = done;
  ph__refobj_init(&w->obj, PH_R_WAITER, 0, 0);
  ph_timer_init(&w->timer, on_timeout);
  ph_list_init(&w->blocked);
  ph_list_init(&w->woken);
}

static int begin(ph_waiter *w, ph_pid target, uint64_t due) {
  ph_sys *s = w->sys;
  w->obj.ref = ph_ref_new(s);
  w->obj.target_pid = target;
  int rc = ph__ref_put(s, &w->obj);
  if (rc) return rc;
  rc = ph_timer_start(&s->timers, &w->timer, due);
  if (rc)
    ph__ref_remove(s, &w->obj);
  else
    w->state = PH_W_WAITING;
  return rc;
}

int ph_wait(ph_waiter *w, uint64_t due) {
  return w->state == PH_W_IDLE ? begin(w, 0, due) : PH_EINVAL;
}

int ph_wait_xon(ph_waiter *w, ph_nodeent *node, uint64_t due) {
  if (w->state != PH_W_IDLE) return PH_EINVAL;
  if (!node->xoff) {
    settle(w, node->peer || node->index == PH_SELF ? 0 : PH_ENOCONN, NULL, NULL);
    return 0;
  }
  int rc = begin(w, 0, due);
  if (rc == 0) ph_list_push(&node->blocked, &w->blocked);
  return rc;
}

static int wait_room(ph_waiter *w, ph_nodeent *e, const ph__dest *to, uint64_t due) {
  ph_list *waiters = e->xoff ? NULL : ph__flow_waiters(w->sys, ph__flow_key(e, to));
  if (!waiters) return ph_wait_xon(w, e, due);
  int rc = w->state == PH_W_IDLE ? begin(w, 0, due) : PH_EINVAL;
  if (rc == 0) ph_list_push(waiters, &w->blocked);
  return rc;
}

int ph_wait_room(ph_waiter *w, ph_pid to, uint64_t due) {
  ph_nodeent *e = ph__node_of(w->sys, to);
  if (!e) return PH_EINVAL;
  return wait_room(w, e, &(ph__dest){.serial = ph_id_serial(to)}, due);
}

int ph_wait_room_named(ph_waiter *w, const char *name, size_t n, ph_nodeent *node, uint64_t due) {
  return wait_room(w, node, &(ph__dest){.name = name, .n = n}, due);
}

ph_waiter *ph_waiter_find(ph_sys *s, ph_ref ref) {
  ph_refobj *o = ph__ref_find(s, ref);
  return o && o->kind == PH_R_WAITER ? PH_CONTAINER(o, ph_waiter, obj) : NULL;
}

static void drop_answer(ph_waiter *w) {
  ph_list_remove(&w->woken);
  ph_msg_free(w->sys, w->msg);
  ph_bytes_unref(w->sys->env, w->reason);
  w->msg = NULL;
  w->reason = NULL;
}

void ph_wait_cancel(ph_waiter *w) {
  if (w->state == PH_W_WAITING) {
    tell_end(w);
    unhook(w);
  } else if (w->state == PH_W_WOKEN) {
    drop_answer(w);
  }
  w->state = PH_W_IDLE;
}

static void call_done(ph_sys *s, ph_waiter *w) {
  ph_msg *m = w->msg;
  ph_bytes *reason = w->reason;
  w->state = PH_W_IDLE;
  w->msg = NULL;
  w->reason = NULL;
  w->done(w, w->err, m, reason); /* may free w, or wait again */
  ph_bytes_unref(s->env, reason);
}

bool ph__run_woken(ph_sys *s) {
  ph_list due;
  ph_list_init(&due);
  ph_list_move(&due, &s->woken); /* those woken meanwhile wait for the next run */
  ph_list *l = NULL;
  for (int n = 0; n < WOKEN_A_RUN && (l = ph_list_pop(&due)); n++)
    call_done(s, PH_CONTAINER(l, ph_waiter, woken));
  ph_list_move(&due, &s->woken);
  ph_list_move(&s->woken, &due);
  return !ph_list_empty(&s->woken);
}

void ph__waiter_forget(ph_waiter *w) {
  ph_list_remove(&w->obj.target);
  ph_list_remove(&w->obj.node);
  ph_list_remove(&w->blocked);
  ph_timer_stop(&w->sys->timers, &w->timer);
  w->state = PH_W_IDLE;
}

/* ---- calls --------------------------------------------------------------------------------- */

static int check_call(const ph_waiter *w, const ph_msg *m) {
  return w->state == PH_W_IDLE && (m->cls == PH_C_CALL || m->cls == PH_C_STOP) ? 0 : PH_EINVAL;
}

static int call_local(ph_sys *s, ph_pid from, ph_proc *p, ph_msg *m, ph_waiter *w, uint64_t due) {
  if (!p) {
    settle(w, PH_ENOPROC, NULL, NULL);
    ph_msg_free(s, m);
    return 0;
  }
  int rc = begin(w, p->pid, due);
  if (rc) return rc;
  ph_list_push(&p->watched, &w->obj.target);
  m->from = from;
  m->ref = w->obj.ref;
  ph_deliver(p, m);
  return 0;
}

static int call_remote(ph_sys *s, ph_pid from, ph_nodeent *e, const ph__dest *to, ph_msg *m,
                       ph_waiter *w, uint64_t due) {
  if (!e->peer) {
    settle(w, PH_ENOCONN, NULL, NULL);
    ph_msg_free(s, m);
    return 0;
  }
  if (e->xoff || ph__flow_full(s, ph__flow_key(e, to))) return PH_EBUSY;
  int rc = begin(w, ph_pid_make(e->index, to->serial), due);
  if (rc) return rc;
  m->from = from;
  m->ref = w->obj.ref;
  rc = ph__tell_call(s, e, to, m);
  if (rc) {
    unhook(w);
    w->state = PH_W_IDLE;
    return rc;
  }
  ph_list_push(&e->out, &w->obj.node);
  ph_msg_free(s, m);
  return 0;
}

int ph_call(ph_sys *s, ph_pid from, ph_pid to, ph_msg *m, ph_waiter *w, uint64_t due) {
  int rc = ph_is_pid(to) ? check_call(w, m) : PH_EINVAL;
  if (rc) return rc;
  if (ph_id_node(to) == PH_SELF)
    return call_local(s, from, ph__proc_at(s, ph_id_serial(to)), m, w, due);
  ph_nodeent *e = ph__node_of(s, to);
  if (!e) return PH_EINVAL;
  return call_remote(s, from, e, &(ph__dest){.serial = ph_id_serial(to)}, m, w, due);
}

int ph_call_named(ph_sys *s, ph_pid from, const char *name, size_t n, ph_nodeent *node, ph_msg *m,
                  ph_waiter *w, uint64_t due) {
  int rc = check_call(w, m);
  if (rc) return rc;
  if (!node || node->index == PH_SELF)
    return call_local(s, from, ph_proc_find(s, ph_whereis(s, name, n)), m, w, due);
  return call_remote(s, from, node, &(ph__dest){.name = name, .n = n}, m, w, due);
}

/* The caller is of another node, and this one was not the one called: the `from` came here in a
 * message. */
static int reply_for_another(ph_sys *s, ph_ref ref, ph_msg *m) {
  ph_nodeent *e = ph__node_of(s, ref);
  int rc = e && e->peer ? ph__tell_reply(s, e, ref, m) : 0;
  if (rc == 0) ph_msg_free(s, m);
  return rc;
}

int ph_reply(ph_sys *s, ph_pid from, ph_ref ref, ph_msg *m) {
  (void)from; /* the ref alone says who waits */
  ph_refobj *o = ph__ref_find(s, ref);
  if (!o && ph_id_node(ref) != PH_SELF) return reply_for_another(s, ref, m);
  if (!o || (o->kind != PH_R_WAITER && o->kind != PH_R_REMOTE_MONITOR)) {
    ph_msg_free(s, m);
    return 0;
  }
  if (o->kind == PH_R_WAITER) {
    m->cls = PH_C_REPLY;
    ph_wake(PH_CONTAINER(o, ph_waiter, obj), 0, m);
    return 0;
  }
  int rc = ph__tell_reply(s, ph__node_of(s, ref), ref, m);
  if (rc) return rc;
  o = ph__ref_find(s, ref); /* packing the value may have run code of the host's */
  if (o) {
    ph__ref_remove(s, o);
    ph_free(s->env, o);
  }
  ph_msg_free(s, m);
  return 0;
}
