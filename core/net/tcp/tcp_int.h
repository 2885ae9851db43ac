/* What the files of net/tcp share: the loop (loop.c, standby.c), the transport (tcp.c, dial.c),
 * names (address.c, resolve.c, discovery.c).
 *
 * Sockets are read and written by phub itself under uv_poll, not through libuv's streams: so every
 * write carries MSG_NOSIGNAL (SIGPIPE is never raised, on neither thread), a send goes to the
 * kernel at once, and nothing of a connection is allocated by libuv. */
#ifndef PH_NET_TCP_INT_H
#define PH_NET_TCP_INT_H

#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <uv.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/timer.h"
#include "net/tcp/loop.h"

typedef struct ph__tcp ph__tcp;

typedef struct ph__preempt ph__preempt;

struct ph__preempt {
  void (*interrupt)(void *ctx); /* NULL: no preemption */
  void *ctx;

  /* written by the interpreter's thread */
  _Atomic uint64_t slice;  /* odd: one is under way */
  _Atomic uint64_t length; /* ns */
  _Atomic uint64_t due;    /* when somebody else wants the interpreter */
  _Atomic uint64_t who;
  atomic_bool stirred; /* `due` may have become earlier */
  atomic_bool armed;
  _Atomic pid_t thread;
  _Atomic clockid_t clock; /* its CPU time */
  ph__preempt *outer;      /* the slice of another loop that this one is inside */

  _Atomic uint64_t asked; /* the slice that a signal is on its way to, or 0 */

  /* the standby's */
  uint64_t seen, since;           /* the slice it looks at, and the time when it first did */
  uint64_t last_cpu;              /* CPU time of the thread at the last look, */
  uint64_t looked_cpu, asked_cpu; /* ... when the slice was last looked into, or asked, */
  uint64_t first_cpu;             /* ... and since when it has been asked in vain */
  bool hopeless;                  /* ... and that was logged */
};

struct ph_loop {
  const ph_env *env;
  uv_loop_t uv;
  uv_async_t async; /* ends a poll; a name was resolved */
  uv_timer_t timer;
  uint64_t armed; /* what `timer` stands for, PH_NEVER: stopped */
  uv_signal_t term, intr;
  bool signals_ready; /* term and intr are initialised */
  ph_loop_hooks hooks;
  ph__tcp *tcp;

  /* adaptive polling, the interpreter's alone */
  uint64_t traffic;       /* reads and writes so far */
  uint64_t traffic_spent; /* traffic that a poll has been granted for */
  int score;              /* polls are granted while it is positive */
  int penalty;            /* what the next yield to a busy core costs */

  pthread_mutex_t mutex; /* held by whoever runs the loop */
  atomic_bool wanted;    /* the interpreter waits for the mutex: the standby gives it back */
  atomic_bool woken;     /* ph_loop_wake since the last poll */
  atomic_uint signalled; /* bits: 1 SIGTERM, 2 SIGINT */
  void (*on_signal)(void *ctx, int signum);
  void *on_signal_ctx;

  /* Odd: the interpreter is away. Bumped by it alone, on leaving and on entering the loop. */
  _Atomic uint64_t seq;
  bool has_standby;
  pthread_t standby;
  pthread_mutex_t nap; /* with cond: the standby sleeps under it, never works under it */
  pthread_cond_t cond;
  atomic_bool asleep; /* the standby waits without a timeout */
  atomic_bool stop;
  ph__preempt preempt;
};

/* ---- loop.c ---- */

/* one turn of the hooks and of the transport's timers */
void ph__loop_turn(ph_loop *l);
/* waits for events or for the next due time, at most until `until`; 0: does not wait */
void ph__loop_wait(ph_loop *l, uint64_t until);

/* ---- standby.c ---- */

int ph__standby_init(ph_loop *l);
void ph__standby_deinit(ph_loop *l);
/* takes the mutex, from the standby if need be */
void ph__loop_take(ph_loop *l);
void ph__loop_enter(ph_loop *l); /* the interpreter comes into the loop: takes the mutex */
void ph__loop_leave(ph_loop *l);

/* ---- preempt.c ---- */

void ph__preempt_install(ph_loop *l); /* the handler of SIGURG, once a process */
void ph__preempt_forget(ph_loop *l);  /* the loop is about to be freed, on this thread */
bool ph__preempt_waits(ph_loop *l, uint64_t now);
/* the standby's look: ns until it wants to look again; PH_NEVER: there is no preemption */
uint64_t ph__preempt_tick(ph_loop *l, uint64_t now);

/* ---- tcp.c ---- */

typedef struct ph__sock ph__sock;

/* A socket under uv_poll. Outlives its connection until libuv has closed the handle, so a callback
 * that ended its connection shows as c == NULL. */
struct ph__sock {
  uv_poll_t poll;
  ph__tcp *tcp;
  ph_conn *c; /* NULL: a listener, or a socket being closed */
  int fd;
};

typedef enum {
  CONN_FAILED,     /* a dial that failed inside `dial`: its timer tells */
  CONN_RESOLVING,  /* waits for a name */
  CONN_CONNECTING, /* one attempt under way */
  CONN_OPEN,
  CONN_FLUSHING, /* closed by its user: sends what is queued, reads only to see the end */
  CONN_OVER      /* its last callback runs */
} ph__conn_state;

typedef struct ph__job ph__job;

typedef struct ph__dial {
  struct addrinfo *list, *next; /* all addresses, the next to try */
  ph__job *job;                 /* while resolving */
  uint64_t deadline;
  int err; /* the most telling failure so far */
} ph__dial;

struct ph_conn {
  ph_list link; /* tcp.conns */
  ph__tcp *tcp;
  ph__sock *sock; /* NULL: none at the moment */
  ph__conn_state state;
  bool broken; /* a send failed: on_close is on its way */
  bool ended;  /* flushing, and the other side has sent its end */
  void *user;
  ph_buf out;     /* what the kernel has not yet taken */
  ph_timer timer; /* dial: end of the attempt; flush: end of patience. Keeps its place in the heap
                     from birth on, so that arming it cannot fail */
  ph__dial *dial; /* NULL once open */
};

#define PH__PARKED (PH_NEVER - 1)

struct ph__tcp {
  ph_transport t;
  ph_loop *loop;
  const ph_env *env;
  ph_timers timers;
  ph_list conns;
  ph__sock *listener;
  int spare;         /* given up to accept and close one connection at the limit of files */
  bool limit_logged; /* the limit of open files was logged */
  ph_timer relisten; /* takes up accepting again; always in the heap */
  ph_list jobs;      /* names being resolved, in order of asking */
  int resolving;     /* threads at it */
  char dir[128];     /* of discovery files */
  char *announced;   /* name */
  uint8_t read_buf[64 * 1024];
};

int ph__tcp_new(ph_loop *l, ph__tcp **out) PH_MUST_CHECK;
void ph__tcp_shut(ph__tcp *t); /* closes all; libuv's handles end in the loop's next turns */
void ph__tcp_free(ph__tcp *t);
bool ph__tcp_flushing(const ph__tcp *t); /* a closed connection still has bytes to send */

ph_conn *ph__conn_new(ph__tcp *t, ph__conn_state state, void *user);
void ph__conn_free(ph_conn *c); /* closes; calls nothing */
/* puts fd under uv_poll for c; the fd is closed on failure */
int ph__conn_attach(ph_conn *c, int fd, int events) PH_MUST_CHECK;
void ph__conn_detach(ph_conn *c); /* closes its socket */
void ph__conn_poll(ph_conn *c, int events);
void ph__conn_park(ph_conn *c, uint64_t due);
void ph__tcp_limit(ph__tcp *t); /* logs, once, that the limit of open files is reached */

/* ---- dial.c ---- */

int ph__dial_start(ph_transport *tr, const char *target, uint64_t timeout_ms, void *user,
                   ph_conn **out);
void ph__dial_ready(ph_conn *c);   /* its socket is connected or has failed */
void ph__dial_timeout(ph_conn *c); /* its timer fired */
void ph__dial_free(ph_conn *c);
void ph__dial_resolved(ph_conn *c, struct addrinfo *list, int err);

/* ---- resolve.c ---- */

/* asks for the addresses of host and port on a thread of its own; answers ph__dial_resolved(c) */
int ph__resolve(ph__tcp *t, ph_conn *c, const char *host, const char *port,
                ph__job **out) PH_MUST_CHECK;
void ph__resolve_forget(ph__job *j);  /* no answer is wanted any more */
void ph__resolve_collect(ph__tcp *t); /* gives out the answers that have come */
void ph__resolve_shut(ph__tcp *t);

/* ---- address.c ---- */

enum { PH__HOST_SIZE = 256, PH__PORT_SIZE = 6 };
/* "host:port" or "[v6]:port" */
int ph__addr_split(const char *address, char host[PH__HOST_SIZE], char port[PH__PORT_SIZE]);
/* the addresses; flags as of getaddrinfo: without AI_NUMERICHOST it may wait for name servers */
int ph__addr_find(const char *host, const char *port, int flags, struct addrinfo **out);
int ph__addr_format(const struct sockaddr *sa, char *out, size_t size);
int ph__addr_errno(int err); /* PH_E* of an errno of a socket call */

/* ---- discovery.c ---- */

/* chooses the directory of discovery files, without making it */
void ph__discovery_dir(char *out, size_t size);
int ph__discovery_put(const char *dir, const char *name, const char *address);
void ph__discovery_remove(const char *dir, const char *name); /* only a file of this process */
/* the address of the live process that announced the name, or PH_ENOTFOUND */
int ph__discovery_find(const char *dir, const char *name, char *address, size_t size);

#endif
