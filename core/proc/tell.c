/* Frames to the process system of another node (wire/proto.h). */
#include "proc/proc_int.h"

/* in place of the reason of an exit, packed, when that is larger than a message may be */
static const char too_large[] = "\xa9"
                                "too_large";

/* The buffer is taken out of the system while it is in use: packing a host's value may run code of
 * the host's, which may send frames too. */
static ph_buf open_frame(ph_sys *s, uint32_t type, uint32_t fields) {
  ph_buf b = s->frame;
  ph_buf_init(&s->frame, s->env);
  ph_w_array(&b, fields + 1);
  ph_w_uint(&b, type);
  return b;
}

static int send_frame(ph_sys *s, ph_nodeent *e, ph_buf *b, int rc) {
  if (rc == 0 && b->oom) rc = PH_ENOMEM;
  if (rc == 0 && e->peer)
    rc = s->port.command(s->port.ctx, PH_CMD_SEND, e->peer, 0, ph_buf_at(b), ph_buf_size(b));
  ph_buf_reset(b);
  if (s->frame.data)
    ph_buf_deinit(b);
  else
    s->frame = *b;
  return rc;
}

static void w_dest(ph_buf *b, const ph__dest *to) {
  if (to->name)
    ph_w_str(b, to->name, to->n);
  else
    ph_w_uint(b, to->serial);
}

int ph__tell_send(ph_sys *s, ph_nodeent *e, const ph__dest *to, const ph_msg *m) {
  ph_buf b = open_frame(s, to->name ? PH_M_SEND_NAMED : PH_M_SEND, 3);
  w_dest(&b, to);
  ph_w_uint(&b, m->cls | (m->by_id ? PH__BY_ID : 0u));
  return send_frame(s, e, &b, ph__w_value(s, &b, m));
}

int ph__tell_call(ph_sys *s, ph_nodeent *e, const ph__dest *to, const ph_msg *m) {
  ph_buf b = open_frame(s, PH_M_CALL, 5);
  w_dest(&b, to);
  ph_w_uint(&b, m->cls);
  ph_w_id(s, &b, m->from ? m->from : ph_pid_make(PH_SELF, 0));
  ph_w_uint(&b, ph_id_serial(m->ref));
  return send_frame(s, e, &b, ph__w_value(s, &b, m));
}

int ph__tell_reply(ph_sys *s, ph_nodeent *e, ph_ref ref, const ph_msg *m) {
  ph_buf b = open_frame(s, PH_M_REPLY, 2);
  ph_w_uint(&b, ph_id_serial(ref));
  return send_frame(s, e, &b, ph__w_value(s, &b, m));
}

int ph__tell_monitor(ph_sys *s, ph_nodeent *e, const ph__dest *to, ph_pid watcher, ph_ref ref) {
  ph_buf b = open_frame(s, PH_M_MONITOR, 3);
  w_dest(&b, to);
  ph_w_uint(&b, ph_id_serial(watcher));
  ph_w_uint(&b, ph_id_serial(ref));
  return send_frame(s, e, &b, 0);
}

/* Lost, it costs the other node a record until its process ends, and a DOWN that nobody awaits. */
void ph__tell_demonitor(ph_sys *s, ph_nodeent *e, ph_ref ref) {
  if (!e->peer) return;
  ph_buf b = open_frame(s, PH_M_DEMONITOR, 1);
  ph_w_uint(&b, ph_id_serial(ref));
  (void)send_frame(s, e, &b, 0);
}

static int down_frame(ph_sys *s, ph_nodeent *e, ph_ref ref, const void *reason, size_t n,
                      uint64_t serial) {
  ph_buf b = open_frame(s, PH_M_DOWN, 3);
  ph_w_uint(&b, ph_id_serial(ref));
  ph_w_raw(&b, reason, n);
  ph_w_uint(&b, serial);
  return send_frame(s, e, &b, 0);
}

void ph__tell_down(ph_sys *s, ph_nodeent *e, ph_ref ref, ph_bytes *reason, uint64_t serial) {
  if (!e->peer) return;
  int rc = down_frame(s, e, ref, reason->data, reason->len, serial);
  if (rc == PH_ETOOLARGE) rc = down_frame(s, e, ref, too_large, sizeof too_large - 1, serial);
  if (rc) ph__lost(s, e);
}

int ph__tell_xoff(ph_sys *s, ph_nodeent *e, const ph__dest *who, bool on) {
  ph_buf b = open_frame(s, PH_M_XOFF, 2);
  w_dest(&b, who);
  ph_w_bool(&b, on);
  return send_frame(s, e, &b, 0);
}

int ph__tell_link(ph_sys *s, ph_nodeent *e, uint64_t to, ph_pid from) {
  ph_buf b = open_frame(s, PH_M_LINK, 2);
  ph_w_uint(&b, to);
  ph_w_uint(&b, ph_id_serial(from));
  return send_frame(s, e, &b, 0);
}

/* Lost, the other side would be ended by a link that is no more. */
void ph__tell_unlink(ph_sys *s, ph_nodeent *e, uint64_t to, ph_pid from) {
  if (!e->peer) return;
  ph_buf b = open_frame(s, PH_M_UNLINK, 2);
  ph_w_uint(&b, to);
  ph_w_uint(&b, ph_id_serial(from));
  if (send_frame(s, e, &b, 0)) ph__lost(s, e);
}

static int exit_frame(ph_sys *s, ph_nodeent *e, uint64_t to, ph_pid from, bool kill,
                      const void *reason, size_t n) {
  ph_buf b = open_frame(s, PH_M_EXIT, 4);
  ph_w_uint(&b, to);
  ph_w_uint(&b, ph_id_serial(from));
  ph_w_bool(&b, kill);
  ph_w_raw(&b, reason, n);
  return send_frame(s, e, &b, 0);
}

int ph__tell_exit(ph_sys *s, ph_nodeent *e, uint64_t to, ph_pid from, bool kill, ph_bytes *reason) {
  return exit_frame(s, e, to, from, kill, reason->data, reason->len);
}

void ph__tell_exit_surely(ph_sys *s, ph_nodeent *e, uint64_t to, ph_pid from, ph_bytes *reason) {
  if (!e->peer) return;
  int rc = exit_frame(s, e, to, from, false, reason->data, reason->len);
  if (rc == PH_ETOOLARGE) rc = exit_frame(s, e, to, from, false, too_large, sizeof too_large - 1);
  if (rc) ph__lost(s, e);
}
