/* Frames from the process system of another node. A peer is not believed: every number is checked,
 * and it speaks for its own processes and refs only. */
#include <string.h>

#include "proc/proc_int.h"

static int r_serial(ph_reader *r, uint64_t *out) {
  if (ph_r_uint(r, out) || *out == 0 || *out > PH_SERIAL_MASK) return PH_EMALFORMED;
  return 0;
}

static int r_class(ph_reader *r, bool call, ph_class *out, bool *by_id) {
  uint64_t v;
  if (ph_r_uint(r, &v)) return PH_EMALFORMED;
  *by_id = v & PH__BY_ID;
  v &= ~(uint64_t)PH__BY_ID;
  *out = (ph_class)v;
  if (v == PH_C_STOP) return 0;
  return (call ? v == PH_C_CALL : v == PH_C_INFO || v == PH_C_CAST) ? 0 : PH_EMALFORMED;
}

/* a serial or a registered name: the process, NULL when there is none */
static int r_dest(ph_sys *s, ph_reader *r, ph_proc **out, ph__dest *by) {
  ph_token t;
  if (ph_r_next(r, &t)) return PH_EMALFORMED;
  *by = (ph__dest){0};
  if (t.type == PH_T_UINT) by->serial = t.u;
  if (t.type == PH_T_STR) *by = (ph__dest){.name = (const char *)t.ptr, .n = t.len};
  if (t.type == PH_T_UINT)
    *out = ph__proc_at(s, t.u);
  else if (t.type == PH_T_STR)
    *out = ph_proc_find(s, ph_whereis(s, (const char *)t.ptr, t.len));
  else
    return PH_EMALFORMED;
  return 0;
}

/* a reason; without memory for it, one that says so */
static int r_reason(ph_sys *s, ph_reader *r, ph_bytes **out) {
  const uint8_t *p;
  size_t n;
  if (ph_r_value(r, &p, &n)) return PH_EMALFORMED;
  *out = ph_bytes_new(s->env, p, n);
  if (!*out) *out = ph_bytes_ref(ph_reason_get(s, PH_REASON_NOMEM));
  return 0;
}

static ph_msg *message(ph_sys *s, ph_class cls, const uint8_t *p, size_t n) {
  if (cls != PH_C_STOP) return ph_msg_bytes(s, cls, p, n);
  ph_msg *m = ph_msg_bytes(s, cls, NULL, 0);
  if (m && !(m->reason = ph_bytes_new(s->env, p, n))) {
    ph_msg_free(s, m);
    return NULL;
  }
  return m;
}

static ph_ref peers_ref(const ph_nodeent *e, uint64_t serial) {
  return PH_TAG_REF | (uint64_t)e->index << PH_SERIAL_BITS | serial;
}

/* what waits here for that node's answer, or NULL */
static ph_refobj *awaited(ph_sys *s, const ph_nodeent *e, uint64_t serial) {
  ph_refobj *o = ph__ref_find(s, PH_TAG_REF | serial);
  bool theirs = o && !ph_list_empty(&o->node) && ph_id_node(o->target_pid) == e->index;
  return theirs ? o : NULL;
}

static int on_send(ph_sys *s, ph_nodeent *e, ph_reader *r) {
  ph_proc *to;
  ph_class cls;
  bool by_id;
  const uint8_t *p;
  size_t n;
  ph__dest by;
  if (r_dest(s, r, &to, &by) || r_class(r, false, &cls, &by_id) || ph_r_value(r, &p, &n))
    return PH_EMALFORMED;
  if (!to) return 0;
  ph_msg *m = message(s, cls, p, n);
  if (!m) return PH_ENOMEM;
  m->by_id = by_id;
  ph_deliver(to, m);
  ph__flow_arrived(s, e, to, &by);
  return 0;
}

/* a pid of that node, or 0 for serial 0: nobody in particular */
static int r_from(const ph_nodeent *e, ph_reader *r, ph_pid *out) {
  const char *name;
  size_t n;
  uint64_t incarnation, serial;
  if (ph_r_id(r, PH_EXT_PID, &name, &n, &incarnation, &serial)) return PH_EMALFORMED;
  if (incarnation != e->incarnation || n != e->name_len || memcmp(name, e->name, n) != 0 ||
      serial > PH_SERIAL_MASK)
    return PH_EMALFORMED;
  *out = serial ? ph_pid_make(e->index, serial) : 0;
  return 0;
}

static int on_call(ph_sys *s, ph_nodeent *e, ph_reader *r) {
  ph_proc *to;
  ph_class cls;
  bool by_id;
  ph_pid from;
  uint64_t serial;
  const uint8_t *p;
  size_t n;
  ph__dest by;
  if (r_dest(s, r, &to, &by) || r_class(r, true, &cls, &by_id) || r_from(e, r, &from) ||
      r_serial(r, &serial) || ph_r_value(r, &p, &n))
    return PH_EMALFORMED;
  ph_ref ref = peers_ref(e, serial);
  if (ph__ref_find(s, ref)) return PH_EMALFORMED; /* used twice */
  if (!to) {
    ph__tell_down(s, e, ref, ph_reason_get(s, PH_REASON_NOPROC), 0);
    return 0;
  }
  ph_msg *m = message(s, cls, p, n);
  if (!m || ph__remote_monitor(s, e, to, ref)) {
    ph_msg_free(s, m);
    return PH_ENOMEM;
  }
  m->from = from;
  m->ref = ref;
  ph_deliver(to, m);
  return 0;
}

static int on_reply(ph_sys *s, ph_nodeent *e, ph_reader *r) {
  uint64_t serial;
  const uint8_t *p;
  size_t n;
  if (r_serial(r, &serial) || ph_r_value(r, &p, &n)) return PH_EMALFORMED;
  ph_refobj *o = ph__ref_find(s, PH_TAG_REF | serial);
  if (!o || o->kind != PH_R_WAITER || !o->target_pid) return 0; /* late, or no call */
  ph_msg *m = ph_msg_bytes(s, PH_C_REPLY, p, n);
  if (ph_id_node(o->target_pid) != e->index) { /* who was called has passed the call on */
    ph_wake(PH_CONTAINER(o, ph_waiter, obj), m ? 0 : PH_ENOMEM, m);
    return 0;
  }
  ph__waiter_end(PH_CONTAINER(o, ph_waiter, obj), m ? 0 : PH_ENOMEM, m, NULL);
  return 0;
}

static int on_monitor(ph_sys *s, ph_nodeent *e, ph_reader *r) {
  ph_proc *to;
  uint64_t watcher, serial;
  ph__dest by;
  if (r_dest(s, r, &to, &by) || r_serial(r, &watcher) || r_serial(r, &serial)) return PH_EMALFORMED;
  ph_ref ref = peers_ref(e, serial);
  if (ph__ref_find(s, ref)) return PH_EMALFORMED;
  if (to) return ph__remote_monitor(s, e, to, ref);
  ph__tell_down(s, e, ref, ph_reason_get(s, PH_REASON_NOPROC), 0);
  return 0;
}

static int on_demonitor(ph_sys *s, ph_nodeent *e, ph_reader *r) {
  uint64_t serial;
  if (r_serial(r, &serial)) return PH_EMALFORMED;
  ph_refobj *o = ph__ref_find(s, peers_ref(e, serial));
  if (o) { /* only a REMOTE_MONITOR has a ref of that node */
    ph__ref_remove(s, o);
    ph_free(s->env, o);
  }
  return 0;
}

static int on_down(ph_sys *s, ph_nodeent *e, ph_reader *r) {
  uint64_t serial, pid_serial;
  ph_bytes *reason;
  if (r_serial(r, &serial) || r_reason(s, r, &reason)) return PH_EMALFORMED;
  ph_refobj *o = awaited(s, e, serial);
  if (o) {
    if (!ph_id_serial(o->target_pid) && r_serial(r, &pid_serial) == 0)
      o->target_pid = ph_pid_make(e->index, pid_serial); /* it was watched by name */
    if (o->kind == PH_R_WAITER && ph_reason_is(reason, "noproc"))
      ph__waiter_end(PH_CONTAINER(o, ph_waiter, obj), PH_ENOPROC, NULL, NULL);
    else
      ph__watched_end(s, o, reason);
  }
  ph_bytes_unref(s->env, reason);
  return 0;
}

static int r_pair(ph_sys *s, const ph_nodeent *e, ph_reader *r, ph_proc **to, ph_pid *from) {
  uint64_t to_serial, from_serial;
  if (r_serial(r, &to_serial) || r_serial(r, &from_serial)) return PH_EMALFORMED;
  *to = ph__proc_at(s, to_serial);
  *from = ph_pid_make(e->index, from_serial);
  return 0;
}

static int on_link(ph_sys *s, ph_nodeent *e, ph_reader *r) {
  uint64_t to, from;
  if (r_serial(r, &to) || r_serial(r, &from)) return PH_EMALFORMED;
  ph_proc *p = ph__proc_at(s, to);
  ph_pid other = ph_pid_make(e->index, from);
  if (!p) {
    ph__tell_exit_surely(s, e, from, ph_pid_make(PH_SELF, to), ph_reason_get(s, PH_REASON_NOPROC));
    return 0;
  }
  return ph__link_find(p, other) ? 0 : ph__link_add(p, other, e, NULL);
}

static int on_unlink(ph_sys *s, ph_nodeent *e, ph_reader *r) {
  ph_proc *to;
  ph_pid from;
  if (r_pair(s, e, r, &to, &from)) return PH_EMALFORMED;
  ph_link *l = to ? ph__link_find(to, from) : NULL;
  if (l) ph__link_remove(l, true);
  return 0;
}

static int on_exit_signal(ph_sys *s, ph_nodeent *e, ph_reader *r) {
  uint64_t to, from;
  bool kill;
  ph_bytes *reason;
  if (ph_r_uint(r, &to) || ph_r_uint(r, &from) || from > PH_SERIAL_MASK || ph_r_bool(r, &kill) ||
      r_reason(s, r, &reason))
    return PH_EMALFORMED;
  ph_proc *p = ph__proc_at(s, to);
  ph_pid sender = from ? ph_pid_make(e->index, from) : 0;
  ph_link *l = p && !kill ? ph__link_find(p, sender) : NULL;
  int rc = 0;
  if (l) {
    ph__link_remove(l, false);
    rc = ph__exit_signal(p, sender, reason, false, l);
  } else if (p && kill) {
    rc = ph__exit_signal(p, sender, reason, true, NULL);
  }
  ph_bytes_unref(s->env, reason);
  return rc;
}

static int on_xoff(ph_sys *s, ph_nodeent *e, ph_reader *r) {
  ph_proc *mine;
  ph__dest who;
  bool on;
  if (r_dest(s, r, &mine, &who) || who.serial > PH_SERIAL_MASK || who.n > PH_MAX_NAME ||
      ph_r_bool(r, &on))
    return PH_EMALFORMED;
  return ph__flow_told(s, e, &who, on);
}

static int dispatch(ph_sys *s, ph_nodeent *e, uint64_t type, ph_reader *r) {
  switch (type) {
  case PH_M_SEND:
  case PH_M_SEND_NAMED:
    return on_send(s, e, r);
  case PH_M_CALL:
    return on_call(s, e, r);
  case PH_M_REPLY:
    return on_reply(s, e, r);
  case PH_M_MONITOR:
    return on_monitor(s, e, r);
  case PH_M_DEMONITOR:
    return on_demonitor(s, e, r);
  case PH_M_DOWN:
    return on_down(s, e, r);
  case PH_M_LINK:
    return on_link(s, e, r);
  case PH_M_UNLINK:
    return on_unlink(s, e, r);
  case PH_M_XOFF:
    return on_xoff(s, e, r);
  case PH_M_EXIT:
    return on_exit_signal(s, e, r);
  default:
    return PH_EMALFORMED;
  }
}

void ph_sys_frame(ph_sys *s, uint64_t peer, uint64_t type, ph_reader *r) {
  ph_nodeent *e = ph_sys_peer(s, peer);
  int rc = e ? dispatch(s, e, type, r) : PH_EMALFORMED;
  if (rc == PH_EMALFORMED) s->unknown_frames++;
  if (rc == PH_ENOMEM) ph__lost(s, e);
}
