/* What the files of this folder share. */
#ifndef PH_PROC_PROC_INT_H
#define PH_PROC_PROC_INT_H

#include "cluster/cluster.h"
#include "proc/proc.h"
#include "wire/proto.h"

static inline ph_nodeent *ph__node_of(ph_sys *s, uint64_t id) { /* NULL: a forged number */
  return ph_sys_node_at(s, ph_id_node(id));
}

/* sys.c: the run queue's end that frees nothing behind its back: a process that ends while queued
 * stays in the queue as a record without behaviour. */
ph_proc *ph__rq_pop(ph_sys *s);

/* node.c */
int ph__nodes_init(ph_sys *s);
void ph__nodes_deinit(ph_sys *s);
/* something meant for this node, or sent by it, could not be kept: its link will be reset */
void ph__lost(ph_sys *s, ph_nodeent *e);
void ph__reset_lossy(ph_sys *s);

/* proc.c */
ph_proc *ph__proc_at(ph_sys *s, uint64_t serial);

/* msg.c */
/* `mem`, memory of at least sizeof(ph_msg) from ph_alloc, becomes a message; NULL: new memory.
 * Only that can fail. References the reason. */
ph_msg *ph__msg_notice(ph_sys *s, void *mem, ph_class cls, ph_pid from, ph_ref ref,
                       ph_bytes *reason);
int ph__w_value(ph_sys *s, ph_buf *b, const ph_msg *m);

/* link.c */
/* An exit signal that has arrived. `mem` (or NULL) as for ph__msg_notice, freed when not needed;
 * with it nothing can fail. */
int ph__exit_signal(ph_proc *to, ph_pid from, ph_bytes *reason, bool kill, void *mem);
int ph__link_add(ph_proc *p, ph_pid other, ph_nodeent *e, ph_link **out) PH_MUST_CHECK;
ph_link *ph__link_find(ph_proc *p, ph_pid other);
void ph__link_remove(ph_link *l, bool free_it); /* one side's record, out of all lists */
/* p has ended */
void ph__links_end(ph_proc *p, ph_bytes *reason);
/* the node went down or its link was reset */
void ph__links_lost(ph_sys *s, ph_nodeent *e);

/* monitor.c */
uint64_t ph__ref_hash(const ph_sys *s, ph_ref ref);
ph_refobj *ph__ref_find(ph_sys *s, ph_ref ref);
int ph__ref_put(ph_sys *s, ph_refobj *o) PH_MUST_CHECK;
void ph__ref_remove(ph_sys *s, ph_refobj *o); /* out of the index and of all lists */
void ph__refobj_init(ph_refobj *o, ph_refkind kind, ph_ref ref, ph_pid target);
/* a remote node's monitor or call on the local p */
int ph__remote_monitor(ph_sys *s, ph_nodeent *e, ph_proc *p, ph_ref ref) PH_MUST_CHECK;
/* the target of a monitor or call ended: DOWN, a frame, or a woken waiter */
void ph__watched_end(ph_sys *s, ph_refobj *o, ph_bytes *reason);
void ph__monitors_end(ph_proc *p, ph_bytes *reason);
void ph__monitors_lost(ph_sys *s, ph_nodeent *e);

/* wait.c */
void ph__waiter_end(ph_waiter *w, int err, ph_msg *m, ph_bytes *reason); /* needs no demonitor */
bool ph__run_woken(ph_sys *s);        /* true while more wait for their `done` */
void ph__waiter_forget(ph_waiter *w); /* the system ends; the index of refs is left alone */

/* after.c */
void ph__after_free(ph_sys *s, ph_refobj *o);

typedef struct ph__dest { /* a process there: by serial, or by name when name != NULL */
  uint64_t serial;
  const char *name;
  size_t n;
} ph__dest;

/* flow.c */
typedef struct ph__throttle {
  struct ph__throttle *next; /* of the process */
  ph_list node;              /* in ph_nodeent.throttles */
  ph_proc *p;
  ph_nodeent *e;
  size_t n; /* of the registered name by which that node sends; 0: by pid */
  char name[];
} ph__throttle;
void ph__flow_arrived(ph_sys *s, ph_nodeent *e, ph_proc *p,
                      const ph__dest *by); /* a message from that node */
void ph__flow_taken(ph_proc *p);           /* a message left the mailbox */
void ph__flow_open(ph_proc *p);            /* who was held back may go on */
uint64_t ph__flow_key(const ph_nodeent *e,
                      const ph__dest *to); /* names a process there; no name is a pid */
bool ph__flow_full(ph_sys *s, uint64_t key);
int ph__flow_told(ph_sys *s, ph_nodeent *e, const ph__dest *who, bool on);
ph_list *ph__flow_waiters(ph_sys *s, uint64_t key); /* NULL: there is room */
void ph__flow_deinit(ph_sys *s);
void ph__flow_lost(ph_sys *s, ph_nodeent *e, int err);

/* name.c */
void ph__names_end(ph_proc *p);

/* tell.c: frames to a node that is up */
enum { PH__BY_ID = 16 }; /* beside the class in SEND: ph_msg.by_id */
int ph__tell_send(ph_sys *s, ph_nodeent *e, const ph__dest *to, const ph_msg *m) PH_MUST_CHECK;
int ph__tell_call(ph_sys *s, ph_nodeent *e, const ph__dest *to, const ph_msg *m) PH_MUST_CHECK;
int ph__tell_reply(ph_sys *s, ph_nodeent *e, ph_ref ref, const ph_msg *m) PH_MUST_CHECK;
int ph__tell_monitor(ph_sys *s, ph_nodeent *e, const ph__dest *to, ph_pid watcher,
                     ph_ref ref) PH_MUST_CHECK;
/* These have nobody to return an error to. */
void ph__tell_demonitor(ph_sys *s, ph_nodeent *e, ph_ref ref);
void ph__tell_down(ph_sys *s, ph_nodeent *e, ph_ref ref, ph_bytes *reason, uint64_t serial);
int ph__tell_xoff(ph_sys *s, ph_nodeent *e, const ph__dest *who, bool on) PH_MUST_CHECK;
int ph__tell_link(ph_sys *s, ph_nodeent *e, uint64_t to, ph_pid from) PH_MUST_CHECK;
void ph__tell_unlink(ph_sys *s, ph_nodeent *e, uint64_t to, ph_pid from);
int ph__tell_exit(ph_sys *s, ph_nodeent *e, uint64_t to, ph_pid from, bool kill,
                  ph_bytes *reason) PH_MUST_CHECK;
/* the same as news that must arrive, or the link is reset */
void ph__tell_exit_surely(ph_sys *s, ph_nodeent *e, uint64_t to, ph_pid from, ph_bytes *reason);

#endif
