/* Messages and mailboxes. */
#include <string.h>

#include "proc/proc_int.h"

static ph_msg *msg_new(ph_sys *s, ph_class cls, ph_form form, size_t n) {
  if (n > UINT32_MAX) return NULL;
  ph_msg *m = ph_alloc(s->env, sizeof *m + n);
  if (!m) return NULL;
  *m = (ph_msg){.cls = (uint8_t)cls, .form = (uint8_t)form, .len = (uint32_t)n};
  return m;
}

ph_msg *ph_msg_bytes(ph_sys *s, ph_class cls, const void *p, size_t n) {
  ph_msg *m = msg_new(s, cls, n ? PH_F_BYTES : PH_F_NONE, n);
  if (m && n) memcpy(m->data, p, n);
  return m;
}

ph_msg *ph_msg_host(ph_sys *s, ph_class cls, uint64_t host) {
  ph_msg *m = msg_new(s, cls, PH_F_HOST, 0);
  if (m) m->host = host;
  return m;
}

ph_msg *ph__msg_notice(ph_sys *s, void *mem, ph_class cls, ph_pid from, ph_ref ref,
                       ph_bytes *reason) {
  _Static_assert(offsetof(ph_link, node) >= sizeof(ph_msg),
                 "a link's record becomes its EXIT message");
  _Static_assert(sizeof(ph_refobj) >= sizeof(ph_msg), "a monitor's becomes its DOWN message");
  ph_msg *m = mem ? mem : ph_alloc(s->env, sizeof *m);
  if (!m) return NULL;
  *m = (ph_msg){.cls = (uint8_t)cls, .from = from, .ref = ref, .reason = ph_bytes_ref(reason)};
  return m;
}

void ph_msg_free(ph_sys *s, ph_msg *m) {
  if (!m) return;
  if (m->form != PH_F_HOST)
    ph_bytes_unref(s->env, m->reason);
  else if (s->host.drop)
    s->host.drop(s->host.ctx, m->host);
  ph_free(s->env, m);
}

void ph_deliver(ph_proc *p, ph_msg *m) {
  m->next = NULL;
  *p->mailbox.tail = m;
  p->mailbox.tail = &m->next;
  p->mailbox.count++;
  p->mailbox.bytes += m->len;
  ph_ready(p);
}

static ph_msg *take(ph_msgq *q, ph_msg **at) {
  ph_msg *m = *at;
  if (!m) return NULL;
  *at = m->next;
  if (!*at) q->tail = at;
  q->count--;
  q->bytes -= m->len;
  return m;
}

ph_msg *ph_recv(ph_proc *p) {
  ph_msg *m = take(&p->mailbox, &p->mailbox.head);
  ph__flow_taken(p);
  return m;
}

ph_msg *ph_recv_at(ph_proc *p, ph_msg *prev) {
  ph_msg *m = take(&p->mailbox, prev ? &prev->next : &p->mailbox.head);
  ph__flow_taken(p);
  return m;
}

void ph_unrecv(ph_proc *p, ph_msg *m) {
  m->next = p->mailbox.head;
  if (!m->next) p->mailbox.tail = &m->next;
  p->mailbox.head = m;
  p->mailbox.count++;
  p->mailbox.bytes += m->len;
}

int ph__w_value(ph_sys *s, ph_buf *b, const ph_msg *m) {
  if (m->form == PH_F_HOST)
    return s->host.pack ? s->host.pack(s->host.ctx, m->host, b) : PH_ENOTSERIAL;
  if (m->form == PH_F_BYTES)
    ph_w_raw(b, m->data, m->len);
  else if (m->reason)
    ph_w_raw(b, m->reason->data, m->reason->len);
  else
    ph_w_nil(b);
  return 0;
}

int ph_msg_pack(ph_sys *s, ph_buf *b, const ph_msg *m) {
  return ph__w_value(s, b, m);
}

/* a call that nobody has seen */
static void bounce(ph_sys *s, ph_ref ref) {
  ph_refobj *o = ph__ref_find(s, ref);
  if (o && o->kind == PH_R_WAITER)
    ph__waiter_end(PH_CONTAINER(o, ph_waiter, obj), PH_ENOPROC, NULL, NULL);
  else if (o && o->kind == PH_R_REMOTE_MONITOR)
    ph__watched_end(s, o, ph_reason_get(s, PH_REASON_NOPROC));
}

ph_msg *ph_take_by_id(ph_proc *p, ph_msg **from) {
  ph_msg *prev = *from, *m;
  while ((m = prev ? prev->next : p->mailbox.head)) {
    *from = prev;
    if (m->by_id && (m->cls == PH_C_INFO || m->cls == PH_C_CAST)) return ph_recv_at(p, prev);
    if (m->cls == PH_C_CALL) {
      bounce(p->sys, m->ref);
      ph_msg_free(p->sys, ph_recv_at(p, prev));
    } else {
      prev = m;
    }
  }
  return NULL;
}

static bool travels(const ph_msg *m) {
  return m->cls == PH_C_INFO || m->cls == PH_C_CAST || m->cls == PH_C_STOP;
}

static int send_remote(ph_sys *s, ph_nodeent *e, const ph__dest *to, ph_msg *m, bool force) {
  if (!travels(m)) return PH_EINVAL;
  if (!force && (e->xoff || ph__flow_full(s, ph__flow_key(e, to)))) return PH_EBUSY;
  int rc = ph__tell_send(s, e, to, m);
  if (rc == 0) ph_msg_free(s, m);
  return rc;
}

int ph_send(ph_sys *s, ph_pid to, ph_msg *m, bool force) {
  if (!ph_is_pid(to)) return PH_EINVAL;
  if (ph_id_node(to) == PH_SELF) {
    ph_proc *p = ph__proc_at(s, ph_id_serial(to));
    if (p)
      ph_deliver(p, m);
    else
      ph_msg_free(s, m);
    return 0;
  }
  ph_nodeent *e = ph__node_of(s, to);
  if (!e) return PH_EINVAL;
  if (!e->peer) { /* as dead as a process can be */
    ph_msg_free(s, m);
    return 0;
  }
  return send_remote(s, e, &(ph__dest){.serial = ph_id_serial(to)}, m, force);
}

int ph_send_named(ph_sys *s, const char *name, size_t n, ph_nodeent *node, ph_msg *m, bool force) {
  if (!node || node->index == PH_SELF) {
    ph_proc *p = ph_proc_find(s, ph_whereis(s, name, n));
    if (!p) return PH_ENOPROC;
    ph_deliver(p, m);
    return 0;
  }
  if (!node->peer) return PH_ENOCONN;
  return send_remote(s, node, &(ph__dest){.name = name, .n = n}, m, force);
}
