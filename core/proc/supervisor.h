/* Supervisors: a process that starts children in order, watches them, restarts them and stops them
 * in reverse order, as OTP's supervisor does. A behaviour of its own; how a child is started is the
 * host's.
 *
 * Requests come as calls through the mailbox and are served one after the other. While a start
 * function is under way or a child is being stopped the supervisor does nothing else: requests and
 * exit signals wait, ends of other children are noted and looked at afterwards, in their order.
 * Everything happens in the supervisor's own turn; what the host tells it is only noted.
 *
 * It traps exits. Ends of children come by ph_proc.on_exit, not by links, so a child that is not
 * linked is watched as well; EXIT messages matter from the parent alone, who ends it.
 *
 * Guarantees: a child is started only when no process of it is left; the start function of one
 * child at a time; whatever ends the supervisor, `release` and `drop` of each child come once.
 *
 * Left out on purpose: simple_one_for_one, significant children, processes of other nodes. */
#ifndef PH_PROC_SUPERVISOR_H
#define PH_PROC_SUPERVISOR_H

#include "proc/proc.h"

/* ---- What all child specs have ------------------------------------------------------------- */
typedef enum { PH_RESTART_PERMANENT, PH_RESTART_TRANSIENT, PH_RESTART_TEMPORARY } ph_restart;
#define PH_SHUTDOWN_BRUTAL   0 /* "brutal_kill" */
#define PH_SHUTDOWN_INFINITY UINT64_MAX
/* "normal", "shutdown" or { "shutdown", ... }: no failure of a transient child */
bool ph_reason_clean(const ph_bytes *reason);

/* ---- Supervisors ----------------------------------------------------------------------------- */
typedef enum { PH_ONE_FOR_ONE, PH_ONE_FOR_ALL, PH_REST_FOR_ONE } ph_sup_strategy;
typedef struct ph_sup_config {
  ph_sup_strategy strategy;
  uint32_t max_restarts; /* more than these ... */
  uint64_t period;       /* ... in this time (ns) end it with "shutdown" */
} ph_sup_config;

typedef struct ph_sup ph_sup;

typedef struct ph_sup_spec {
  const char *id; /* copied */
  size_t id_len;
  ph_restart restart;
  bool supervisor;   /* type */
  uint64_t shutdown; /* ms, or PH_SHUTDOWN_* */
  void *user;        /* the host's */
} ph_sup_spec;

typedef struct ph_sup_child { /* to be read; the machine alone writes */
  ph_list all;                /* in ph_sup.children, in order of start */
  ph_list due;                /* in ph_sup.dead or ph_sup.again */
  ph_sup *sup;
  void *user;
  ph_proc *proc;    /* NULL: it does not run */
  ph_bytes *reason; /* in `dead`: why it ended */
  uint64_t shutdown;
  uint8_t restart, supervisor;
  bool restarting; /* its restart failed and is tried again */
  bool stopping;
  bool held;  /* its next end is one that was asked for */
  bool ended; /* the host has yet to release what it holds for the process */
  size_t id_len;
  char id[];
} ph_sup_child;

typedef enum {
  PH_SUP_INIT, /* starts the children there are; answer: pid = the supervisor's */
  PH_SUP_ADD,  /* a further child; answer: its pid */
  PH_SUP_TERMINATE,
  PH_SUP_RESTART, /* answer: the pid */
  PH_SUP_DELETE,
  PH_SUP_WHICH, /* answered by host.look */
  PH_SUP_COUNT
} ph_sup_op;

/* All are called in the supervisor's turn or at its end. */
typedef struct ph_sup_host {
  void *ctx;
  /* answers with ph_sup_started, before it returns or later, from the loop */
  void (*start)(void *ctx, ph_sup *s, ph_sup_child *c, uint64_t token);
  /* nobody waits for the answer of the start under way any more */
  void (*abandon)(void *ctx, ph_sup_child *c);
  /* ends the child gracefully in a way of its own; false: by the exit signal "shutdown" */
  bool (*stop)(void *ctx, ph_sup_child *c);
  /* the child's process has ended, or its supervisor is ending without having stopped it */
  void (*release)(void *ctx, ph_sup_child *c);
  void (*drop)(void *ctx, void *user); /* the spec goes */
  /* answers a WHICH or COUNT: ph_reply(sys, from, ref, ...) */
  void (*look)(void *ctx, ph_sup *s, ph_sup_op op, ph_pid from, ph_ref ref);
} ph_sup_host;

/* A supervisor that waits for its INIT. `parent` ends it by an exit signal; a link to it, if any,
 * is the caller's to make and is taken back before an INIT fails. Unwanted: ph_exit its process. */
int ph_sup_new(ph_sys *sys, const ph_sup_config *cfg, const ph_sup_host *host, ph_pid parent,
               ph_sup **out) PH_MUST_CHECK;
ph_sup *ph_sup_find(ph_sys *sys, ph_pid pid); /* NULL: no live supervisor */
ph_proc *ph_sup_proc(const ph_sup *s);

/* A child for ph_sup_add or an ADD. On success `user` goes with it, to host.drop. */
int ph_sup_child_new(ph_sup *s, const ph_sup_spec *spec, ph_sup_child **out) PH_MUST_CHECK;
void ph_sup_child_free(ph_sup_child *c); /* one that was given to nobody */
/* One more, before INIT; takes it on success. PH_EDUPID, PH_ENOMEM. */
int ph_sup_add(ph_sup *s, ph_sup_child *c) PH_MUST_CHECK;

/* Asks; w->done gets the answer (ph_sup_answer_read; of WHICH and COUNT the host's), PH_EEXIT when
 * the supervisor ends before. `id` is for TERMINATE, RESTART and DELETE, `c` for ADD, taken on
 * success. */
int ph_sup_ask(ph_sup *s, ph_pid from, ph_sup_op op, const char *id, size_t id_len, ph_sup_child *c,
               ph_waiter *w) PH_MUST_CHECK;
typedef struct ph_sup_answer { /* pointers into the message */
  int err;                     /* 0, PH_ESTARTFAILED, PH_EPRESENT, PH_EALREADY, PH_ENOTFOUND,
                                  PH_ERUNNING, PH_ERESTARTING */
  ph_pid pid;                  /* also of what runs already; 0: none */
  const uint8_t *reason;       /* STARTFAILED: packed, why */
  size_t reason_len;
  const char *id; /* STARTFAILED: of which child */
  size_t id_len;
} ph_sup_answer;
void ph_sup_answer_read(const ph_msg *m, ph_sup_answer *out);

/* pid != 0: the child's process, of this node; else `reason`, which is taken over (NULL: no
 * memory). */
void ph_sup_started(ph_sup *s, uint64_t token, ph_pid pid, ph_bytes *reason);
/* the child of a supervisor that this process is, or NULL */
ph_sup_child *ph_sup_child_of(const ph_proc *p);
/* Somebody ends the child on purpose: whatever its restart type, it stays ended. */
void ph_sup_hold(ph_sup_child *c);
ph_sup_child *ph_sup_next(const ph_sup *s, const ph_sup_child *prev); /* prev NULL: the first */

#endif
