/* Processes: table, mailboxes, run queue, links, monitors, waits, registered names, remote signals.
 *
 * A process is a C record; what runs in it is a behaviour (Lua is one, C children another). One
 * ph_sys is the process system of one node. Single-threaded and deterministic: it takes time,
 * memory and chance from its env, and speaks to other nodes through its port.
 *
 * Guarantees: messages of one sender to one receiver keep their order, local and remote; a pid's
 * serial is never used again; an exit is seen by every link and monitor exactly once; a remote node
 * that goes down gives "noconnection" to all that watched it. Nothing here scans all processes.
 *
 * Exits are asynchronous: ph_signal only marks its target and makes it runnable; it ends when the
 * run queue comes to it. So no behaviour is entered from inside another.
 *
 * Out of memory: what cannot be done is returned as PH_ENOMEM, and nothing has changed. Where
 * nobody is there to be told (a frame that cannot be stored, the news of an exit that cannot be
 * sent) the link to that node is reset, and both sides learn "noconnection" about what went over
 * it. */
#ifndef PH_PROC_PROC_H
#define PH_PROC_PROC_H

#include "base/buf.h"
#include "base/index.h"
#include "base/list.h"
#include "base/timer.h"
#include "wire/reader.h"
#include "wire/writer.h"

/* ---- Pids and refs -------------------------------------------------------------------------
 * 64 bits: tag (2: 10 pid, 11 ref), node index (20), serial (42). The top bit is never set in a
 * pointer of user space, so Lua carries them as light userdata. The node index is local to this OS
 * process and stands for (name, incarnation); 0 is this node, whatever its name. */
typedef uint64_t ph_pid;
typedef uint64_t ph_ref;
enum { PH_SERIAL_BITS = 42, PH_NODE_BITS = 20, PH_SELF = 0 };
#define PH_SERIAL_MASK ((UINT64_C(1) << PH_SERIAL_BITS) - 1)
#define PH_TAG_PID     (UINT64_C(2) << 62)
#define PH_TAG_REF     (UINT64_C(3) << 62)
static inline bool ph_is_pid(uint64_t v) {
  return v >> 62 == 2;
}
static inline bool ph_is_ref(uint64_t v) {
  return v >> 62 == 3;
}
static inline uint32_t ph_id_node(uint64_t v) {
  return (uint32_t)(v >> PH_SERIAL_BITS) & ((1u << PH_NODE_BITS) - 1);
}
static inline uint64_t ph_id_serial(uint64_t v) {
  return v & PH_SERIAL_MASK;
}
static inline ph_pid ph_pid_make(uint32_t node, uint64_t serial) {
  return PH_TAG_PID | (uint64_t)node << PH_SERIAL_BITS | serial;
}

/* ---- Nodes as pids see them ---------------------------------------------------------------- */
typedef struct ph_nodeent {
  char *name;
  size_t name_len;
  uint64_t incarnation;
  uint32_t index;    /* in pids */
  uint64_t peer;     /* the cluster's number while it is up, 0 while down or self */
  bool xoff;         /* more than a window waits to be sent there */
  ph_list out;       /* ph_refobj.node of monitors and calls of ours into that node */
  ph_list in;        /* ph_refobj.node of that node's monitors on our processes */
  ph_list links;     /* ph_link.node of our links into that node */
  ph_list blocked;   /* ph_waiter.blocked: senders that wait for XON */
  ph_list full;      /* processes there whose mailbox has no room */
  ph_list throttles; /* ph__throttle.node: processes here that told that node so */
  ph_list lossy;     /* in ph_sys.lossy: something was lost, its link has yet to be reset */
} ph_nodeent;

/* ---- Messages ------------------------------------------------------------------------------ */
typedef enum ph_class {
  PH_C_INFO = 0, /* an ordinary message */
  PH_C_CALL,     /* gen_server call: from, ref */
  PH_C_CAST,
  PH_C_DOWN, /* from = the process that ended, ref = the monitor, reason */
  PH_C_EXIT, /* from = the process that ended (only when trapping), reason */
  PH_C_STOP, /* gen_server.stop: reason; from/ref as in CALL when someone waits for the end */
  PH_C_REPLY /* only inside ph_waiter.done */
} ph_class;

typedef enum ph_form {
  PH_F_NONE = 0, /* no value (DOWN, EXIT) */
  PH_F_BYTES,    /* one packed value in data[0..len) */
  PH_F_HOST      /* a word of the host's (a scalar or a reference of its own), freed by host.drop */
} ph_form;

typedef struct ph_msg {
  struct ph_msg *next;
  uint8_t cls, form;
  bool by_id; /* it was sent to a child id, and goes with the child when that moves */
  uint32_t len;
  ph_pid from;
  ph_ref ref;
  union {
    uint64_t host;
    ph_bytes *reason; /* DOWN, EXIT, STOP: a packed value; owned */
  };
  uint8_t data[];
} ph_msg;

typedef struct ph_msgq {
  ph_msg *head, **tail;
  size_t count;
  size_t bytes; /* of the packed values among them */
} ph_msgq;

/* ---- Processes ----------------------------------------------------------------------------- */
struct ph_sys;
struct ph_proc;

typedef enum ph_run { PH_RUN_WAIT, PH_RUN_AGAIN } ph_run;

typedef struct ph_behaviour {
  const char *name;
  /* The process has its turn: handle messages (ph_recv) until there is nothing to do (PH_RUN_WAIT)
   * or its share is over (PH_RUN_AGAIN). It may end itself with ph_exit(p, reason): then the record
   * is gone and the result is ignored. A process that p->killed != NULL is set for while it runs
   * must return soon; the system then ends it. */
  ph_run (*run)(struct ph_sys *sys, struct ph_proc *p);
  /* The process ends with this reason (a packed value): release all the behaviour holds for it.
   * Called once, before links and monitors hear of it; the mailbox is still there. */
  void (*ended)(struct ph_sys *sys, struct ph_proc *p, ph_bytes *reason);
} ph_behaviour;

typedef struct ph_proc {
  struct ph_sys *sys;
  const ph_behaviour *bh;
  ph_pid pid;
  ph_msgq mailbox;
  struct ph__throttle *throttled; /* nodes that were told that there is no room */
  struct ph_proc *rq_next;
  ph_bytes *killed; /* exit signal that has yet to end it */
  ph_list links;    /* ph_link.proc */
  ph_list watched;  /* ph_refobj.target: monitors and calls on it */
  ph_list watching; /* ph_refobj.watcher: its own monitors */
  ph_list names;    /* ph_name.proc */
  void *data;       /* the behaviour's */
  /* whoever started it as a child: told once when it has ended, before links and monitors */
  void (*on_exit)(struct ph_proc *p, void *owner, ph_bytes *reason);
  void *owner;
  uint8_t queued : 1, running : 1, trap_exit : 1;
  uint8_t waiting_msg : 1; /* the behaviour's own, as trap_exit is its to set */
} ph_proc;

typedef struct ph_link {
  ph_list proc; /* in ph_proc.links */
  ph_proc *self;
  struct ph_link *twin; /* the other side's record; NULL: the other side is remote */
  ph_pid other;
  ph_list node; /* remote: in ph_nodeent.links. A local link has no memory for it. */
} ph_link;

/* What a ref stands for. */
typedef enum ph_refkind { PH_R_MONITOR, PH_R_REMOTE_MONITOR, PH_R_WAITER, PH_R_TIMER } ph_refkind;
typedef struct ph_refobj {
  ph_ref ref; /* key in ph_sys.refs; of a REMOTE_MONITOR the remote node's own ref */
  uint8_t kind;
  ph_pid target_pid; /* serial 0: a name on a remote node */
  ph_list target;    /* in the local target's `watched` */
  ph_list watcher;   /* in the local watcher's `watching` */
  ph_list node;      /* in a ph_nodeent's `out` or `in` when one side is remote */
  ph_proc *proc;     /* the local watcher of a MONITOR */
} ph_refobj;

/* Something that waits for one answer, once: a call, a sleep, a connect, a start's future. Embedded
 * in the user's struct; not a process of its own, so that any coroutine can wait. `done` is called
 * exactly once (unless ph_wait_cancel came first) from the loop, never from inside ph_wait or
 * ph_call; in it the waiter may be freed or wait again. err: 0 with msg (owned by the callee from
 * then on; NULL when woken without a value), PH_ETIMEOUT, PH_ENOPROC, PH_ENOCONN, PH_ENOMEM (there
 * was a reply, but no memory for it), or PH_EEXIT with `reason` (borrowed). */
typedef enum ph_waiter_state { PH_W_IDLE, PH_W_WAITING, PH_W_WOKEN } ph_waiter_state;
typedef struct ph_waiter {
  ph_refobj obj;
  ph_timer timer;
  struct ph_sys *sys;
  ph_list blocked; /* in a ph_nodeent's `blocked` */
  ph_list woken;   /* in ph_sys.woken: its answer is known, `done` is due */
  uint8_t state;   /* ph_waiter_state */
  int err;
  ph_msg *msg;
  ph_bytes *reason;
  void (*done)(struct ph_waiter *w, int err, ph_msg *msg, ph_bytes *reason);
} ph_waiter;

/* ---- The system ---------------------------------------------------------------------------- */
typedef struct ph_sys_host {
  void *ctx;
  void (*drop)(void *ctx, uint64_t host); /* frees the host word of a message never received */
  /* a copy of a host word as one packed value, for a message that must travel after all;
   * PH_ENOTSERIAL .. */
  int (*pack)(void *ctx, uint64_t host, ph_buf *out);
} ph_sys_host;

typedef struct ph_port { /* commands to the cluster machine; see cluster.h for types */
  void *ctx;
  int (*command)(void *ctx, uint32_t type, uint64_t a, uint64_t b, const void *p, size_t n);
} ph_port;

typedef struct ph_sys {
  const ph_env *env;
  ph_timers timers; /* of this machine: processes and hubs */
  ph_sys_host host;
  ph_port port;
  ph_nodeent **nodes; /* by index */
  uint32_t node_count, node_cap;
  ph_index node_ids; /* by (name, incarnation); also this node under names it had before */
  ph_index peers;    /* by peer number */
  ph_index ups;      /* nodes that are up, by name */
  ph_index procs;    /* by serial */
  ph_index refs;     /* by ref */
  ph_index links;    /* one record of each link, by the pair of pids */
  ph_index names;
  ph_index full; /* remote processes whose mailbox has no room, by pid */
  uint64_t next_serial, next_ref, seed;
  ph_proc *rq_head, **rq_tail;
  size_t runnable;
  ph_proc *current; /* runs now; NULL also once it has ended itself */
  ph_list woken;
  ph_list lossy; /* ph_nodeent.lossy */
  ph_buf frame;  /* kept for the next frame */
  ph_buf id;     /* scratch of ph_w_id and ph_reason_str */
  bool closing;
  ph_bytes *reasons[8];    /* by ph_reason */
  uint64_t unknown_frames; /* skipped: unknown, malformed, or speaking for another node */
} ph_sys;

int ph_sys_init(ph_sys *s, const ph_env *env, const ph_sys_host *host,
                const ph_port *port) PH_MUST_CHECK;
void ph_sys_deinit(
    ph_sys *s); /* ends all processes with "shutdown" (their `ended` runs), frees all */

/* Runs what is due: timers, woken waiters, then runnable processes in order, each at most once and
 * for at most `budget_ns` together (at least one). Returns true while something is still runnable
 * or woken. */
bool ph_sys_run(ph_sys *s, uint64_t budget_ns);
static inline uint64_t ph_sys_next(const ph_sys *s) {
  return ph_timers_next(&s->timers);
}

/* This node's name and incarnation (before: "nonode@nohost" and a random number, so that no two
 * nodes without a name take each other's pids for their own). Pids stay valid, held or packed. */
int ph_sys_name(ph_sys *s, const char *name, size_t n, uint64_t incarnation) PH_MUST_CHECK;
/* the entry for (name, incarnation), made if need be; NULL: out of memory, or so many are known
 * already that the rest is kept for nodes that come up. This node's own:
 * nodes[0] */
ph_nodeent *ph_sys_node(ph_sys *s, const char *name, size_t n, uint64_t incarnation);
static inline ph_nodeent *ph_sys_node_at(ph_sys *s, uint32_t index) {
  return index < s->node_count ? s->nodes[index] : NULL;
}
ph_nodeent *ph_sys_peer(ph_sys *s, uint64_t peer); /* NULL: unknown */
/* this node, or the one of that name that is up; NULL: no such node in view */
ph_nodeent *ph_sys_node_named(ph_sys *s, const char *name, size_t n);
/* the cluster's events */
int ph_sys_node_up(ph_sys *s, uint64_t peer, const char *name, size_t n,
                   uint64_t incarnation) PH_MUST_CHECK;
void ph_sys_node_down(ph_sys *s, uint64_t peer);     /* noconnection to all that watched it */
void ph_sys_link_reset(ph_sys *s, uint64_t peer);    /* the same, but the node stays up */
void ph_sys_xoff(ph_sys *s, uint64_t peer, bool on); /* on = false wakes the blocked senders */
/* a data frame of type 32..63: `r` stands after the type. Bad ones are skipped and counted. */
void ph_sys_frame(ph_sys *s, uint64_t peer, uint64_t type, ph_reader *r);

/* Processes. The new one is not runnable until ph_ready or a message. */
ph_proc *ph_spawn(ph_sys *s, const ph_behaviour *bh, void *data); /* NULL: out of memory */
ph_proc *ph_proc_find(ph_sys *s, ph_pid pid); /* a live local process, else NULL */
void ph_ready(ph_proc *p);                    /* puts it at the end of the run queue, once */
/* Ends it now: `ended`, names, owner, links, monitors, mailbox, record. Only from its own run, from
 * the system's, or for a process that never ran. Takes no ownership of reason. */
void ph_exit(ph_proc *p, ph_bytes *reason);

/* Messages. On success the message belongs to the receiver; sending to a dead process frees it.
 * n = 0 gives one without a value. A STOP carries its reason in m->reason, set by the caller. */
ph_msg *ph_msg_bytes(ph_sys *s, ph_class cls, const void *p, size_t n);
ph_msg *ph_msg_host(ph_sys *s, ph_class cls, uint64_t host);
void ph_msg_free(ph_sys *s, ph_msg *m); /* drops a host word, unrefs a reason */
void ph_deliver(ph_proc *p, ph_msg *m); /* local; makes it runnable */
ph_msg *ph_recv(ph_proc *p);            /* oldest message or NULL; the caller owns it */
void ph_unrecv(ph_proc *p, ph_msg *m);  /* back to the front */
/* takes out a message that is not the oldest: prev is its predecessor in the mailbox, NULL for the
 * head */
ph_msg *ph_recv_at(ph_proc *p, ph_msg *prev);
/* to a local or remote pid; a remote one needs form BYTES (a HOST word is packed by host.pack).
 * PH_EBUSY: the way there, or its mailbox, is full: wait with ph_wait_room and send again (m is
 * still the caller's). `force`: replies and system messages pass. Errors free nothing: m stays the
 * caller's. */
int ph_send(ph_sys *s, ph_pid to, ph_msg *m, bool force) PH_MUST_CHECK;
/* to a name on a node (NULL, 0: this one): PH_ENOPROC when the name is local and unknown,
 * PH_ENOCONN */
int ph_send_named(ph_sys *s, const char *name, size_t n, ph_nodeent *node, ph_msg *m,
                  bool force) PH_MUST_CHECK;

/* What a child leaves unread when it moves: the oldest message by id (INFO or CAST) is taken out of
 * the mailbox, NULL when there is none; *from is where to go on looking (NULL at first). Calls that
 * come before it are answered with PH_ENOPROC, as nobody has seen them: their callers ask again. */
ph_msg *ph_take_by_id(ph_proc *p, ph_msg **from);
/* the message's value, packed */
int ph_msg_pack(ph_sys *s, ph_buf *b, const ph_msg *m) PH_MUST_CHECK;

/* Waiting. */
void ph_waiter_init(ph_sys *s, ph_waiter *w, void (*done)(ph_waiter *, int, ph_msg *, ph_bytes *));
int ph_wait(ph_waiter *w,
            uint64_t due) PH_MUST_CHECK; /* for ph_wake, at most until due (PH_NEVER) */
void ph_wake(ph_waiter *w, int err,
             ph_msg *m); /* done is called soon; a second wake is ignored (m is freed) */
ph_waiter *ph_waiter_find(ph_sys *s, ph_ref ref); /* NULL when it does not wait any more */
void ph_wait_cancel(ph_waiter *w);                /* done will not be called */
/* for room on the way to a node, or on the way to and in the mailbox of a remote process */
int ph_wait_xon(ph_waiter *w, ph_nodeent *node, uint64_t due) PH_MUST_CHECK;
int ph_wait_room(ph_waiter *w, ph_pid to, uint64_t due) PH_MUST_CHECK;
int ph_wait_room_named(ph_waiter *w, const char *name, size_t n, ph_nodeent *node,
                       uint64_t due) PH_MUST_CHECK;

/* Calls: m is a CALL or STOP message; sets its from and ref, monitors the target, waits for the
 * reply. A dead target gives PH_ENOPROC, one that ends PH_EEXIT, a lost node PH_ENOCONN, all by
 * `done`. On an error result m is still the caller's and nothing waits. */
int ph_call(ph_sys *s, ph_pid from, ph_pid to, ph_msg *m, ph_waiter *w, uint64_t due) PH_MUST_CHECK;
int ph_call_named(ph_sys *s, ph_pid from, const char *name, size_t n, ph_nodeent *node, ph_msg *m,
                  ph_waiter *w, uint64_t due) PH_MUST_CHECK;
/* answers a CALL: `from` and `ref` as it bore them; a late or second reply is dropped (m is freed)
 */
int ph_reply(ph_sys *s, ph_pid from, ph_ref ref, ph_msg *m) PH_MUST_CHECK;

/* Links, monitors, signals: local and remote. */
int ph_link_procs(ph_proc *p,
                  ph_pid other) PH_MUST_CHECK; /* a dead one: exit signal "noproc" comes */
void ph_unlink(ph_proc *p, ph_pid other);
int ph_monitor(ph_proc *watcher, ph_pid target,
               ph_ref *out) PH_MUST_CHECK; /* dead: DOWN "noproc" comes */
int ph_monitor_named(ph_proc *watcher, const char *name, size_t n, ph_nodeent *node,
                     ph_ref *out) PH_MUST_CHECK;
void ph_demonitor(ph_proc *watcher,
                  ph_ref ref); /* no DOWN comes after it; one in the mailbox is removed */
/* An exit signal: kill = true: `reason` from outside (process.kill; the reason "kill" cannot be
 * trapped and becomes "killed"), false: from a link (a remote process that has no such link ignores
 * it). "normal" from another process does nothing unless trapped. */
int ph_signal(ph_sys *s, ph_pid from, ph_pid to, ph_bytes *reason, bool kill) PH_MUST_CHECK;

/* Registered names: at most 255 bytes. */
int ph_register(ph_proc *p, const char *name, size_t n) PH_MUST_CHECK; /* PH_EREGISTERED */
int ph_unregister(ph_sys *s, const char *name, size_t n);              /* PH_ENOPROC */
ph_pid ph_whereis(ph_sys *s, const char *name, size_t n);              /* 0: unknown */

/* Timers with a ref: send m to a process (or name) later. */
int ph_send_after(ph_sys *s, uint64_t due, ph_pid to, ph_msg *m, ph_ref *out) PH_MUST_CHECK;
int ph_send_after_named(ph_sys *s, uint64_t due, const char *name, size_t n, ph_nodeent *node,
                        ph_msg *m, ph_ref *out) PH_MUST_CHECK;
bool ph_cancel_timer(ph_sys *s, ph_ref ref, uint64_t *left_ms); /* false: fired or unknown */

ph_ref ph_ref_new(ph_sys *s); /* a fresh ref of this node */

/* Pids and refs inside packed values. */
void ph_w_id(ph_sys *s, ph_buf *b, uint64_t pid_or_ref); /* as an extension */
/* from the payload of an extension (PH_EXT_PID or PH_EXT_REF) */
int ph_id_from_ext(ph_sys *s, int ext, const void *p, size_t n, uint64_t *out) PH_MUST_CHECK;

/* Reasons: packed values. The common ones are kept once: */
typedef enum {
  PH_REASON_NORMAL,
  PH_REASON_SHUTDOWN,
  PH_REASON_KILLED,
  PH_REASON_NOPROC,
  PH_REASON_NOCONN,
  PH_REASON_KILL,
  PH_REASON_UNYIELDABLE,
  PH_REASON_NOMEM,
  PH_REASON_COUNT
} ph_reason;
ph_bytes *ph_reason_get(ph_sys *s, ph_reason r); /* borrowed; never NULL */
ph_bytes *ph_reason_str(ph_sys *s, const char *p,
                        size_t n); /* a packed string, owned; NULL: no memory */
bool ph_reason_is(const ph_bytes *reason, const char *text); /* is it exactly this string? */

#endif
