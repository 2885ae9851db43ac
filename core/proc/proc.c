/* Processes: the table, the run queue, and the end. */
#include <string.h>

#include "proc/proc_int.h"

static bool proc_eq(const void *item, const void *key) {
  return ph_id_serial(((const ph_proc *)item)->pid) == *(const uint64_t *)key;
}

ph_proc *ph__proc_at(ph_sys *s, uint64_t serial) {
  return ph_index_find(&s->procs, ph_hash64(serial), proc_eq, &serial);
}

ph_proc *ph_proc_find(ph_sys *s, ph_pid pid) {
  if (!ph_is_pid(pid) || ph_id_node(pid) != PH_SELF) return NULL;
  return ph__proc_at(s, ph_id_serial(pid));
}

ph_proc *ph_spawn(ph_sys *s, const ph_behaviour *bh, void *data) {
  if (s->closing || s->next_serial > PH_SERIAL_MASK) return NULL;
  ph_proc *p = ph_zalloc(s->env, sizeof *p);
  if (!p) return NULL;
  uint64_t serial = s->next_serial;
  if (ph_index_put(&s->procs, ph_hash64(serial), p)) {
    ph_free(s->env, p);
    return NULL;
  }
  s->next_serial++;
  p->sys = s;
  p->bh = bh;
  p->data = data;
  p->pid = ph_pid_make(PH_SELF, serial);
  p->mailbox.tail = &p->mailbox.head;
  ph_list_init(&p->links);
  ph_list_init(&p->watched);
  ph_list_init(&p->watching);
  ph_list_init(&p->names);
  return p;
}

void ph_ready(ph_proc *p) {
  if (p->queued) return;
  ph_sys *s = p->sys;
  p->queued = 1;
  p->rq_next = NULL;
  *s->rq_tail = p;
  s->rq_tail = &p->rq_next;
  s->runnable++;
}

static void free_record(ph_proc *p) {
  ph_sys *s = p->sys;
  for (ph_msg *m; (m = ph_recv(p));) ph_msg_free(s, m);
  ph_bytes_unref(s->env, p->killed);
  if (p->queued)
    p->bh = NULL; /* the run queue frees it */
  else
    ph_free(s->env, p);
}

void ph_exit(ph_proc *p, ph_bytes *reason) {
  ph_sys *s = p->sys;
  uint64_t serial = ph_id_serial(p->pid);
  ph_bytes_ref(reason); /* it may be p->killed, or the behaviour's */
  ph_index_remove(&s->procs, ph_hash64(serial), p);
  if (s->current == p) s->current = NULL;
  p->running = 0;
  p->bh->ended(s, p, reason);
  ph__names_end(p); /* before the owner, who may start another that takes the names */
  if (p->on_exit) p->on_exit(p, p->owner, reason);
  ph__links_end(p, reason);
  ph__monitors_end(p, reason);
  ph__flow_open(p); /* the dead take everything */
  free_record(p);
  ph_bytes_unref(s->env, reason);
}
