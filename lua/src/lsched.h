/* The scheduler of the binding: tasks (coroutines that phub runs), processes of Lua, and the one
 * context that ties them to the runtime. For the files of this folder that run or park Lua code;
 * the hub's binding needs only lphub.h.
 *
 * A *task* is one coroutine that the scheduler resumes, with the state of the one wait it can be
 * in. Its kinds: the body of a process, the start of a hub's child, a coroutine of the user's that
 * waits, and the main chunk, which is never resumed but drives the loop.
 *
 * ctx->cur is the task in whose name Lua code runs now. Code in a coroutine of the user's runs in
 * the name of the task that resumed it: what tells them apart is cur->L == L. */
#ifndef LSCHED_H
#define LSCHED_H

#include <signal.h>
#include <stdatomic.h>

#include "lphub.h"

enum { LPH_MAX_NEST = 8, LPH_MAX_POOL = 1024 };

typedef enum lph_kind { LPH_T_PROC, LPH_T_START, LPH_T_FOREIGN, LPH_T_MAIN } lph_kind;

struct lph_task {
  ph_waiter w; /* first: ph_waiter.done gets the task back from it */
  lph_ctx *ctx;
  lua_State *L;
  uint32_t slot; /* anchors L */
  uint8_t kind;
  bool waits;     /* yielded by lph_wait or receive, as against a yield of the user's own */
  bool over;      /* what it waits for has come: err, msg, reason hold it */
  bool receiving; /* waits for a message too */
  bool failed;    /* the body ended by an error: { "error", message, traceback } is on the stack */
  bool abandoned; /* START: nobody wants its end any more */
  bool hold;      /* its next resume must not be preempted: whoever resumes it cannot wait */
  int frozen;     /* coroutines that its preemption has stopped, its own among them */
  int nargs;      /* on its stack for the next resume */
  lph_proc *proc; /* NULL in the name of a process that is not Lua's */
  ph_pid self;
  lua_KFunction k; /* goes on when the wait is over */
  void *user;
  int err;
  uint64_t until;     /* gen_server: when its turn is over */
  ph_msg *msg, *scan; /* scan: the last message that receive has looked at */
  ph_bytes *reason;
  ph_bytes *exit_reason; /* START: it called process.exit */
  lph_done done;         /* START */
  void *arg;
  ph_list list;   /* FOREIGN: in proc->foreign; START: in ctx->starts; idle: unused */
  lph_task *next; /* idle: in ctx->pool */
};

/* What the module table of a gen_server is to C: kept once for all its servers. */
typedef struct lph_module {
  uint32_t slot, refs;
} lph_module;

struct lph_proc {
  lph_ctx *ctx;
  ph_proc *p;     /* NULL: the main chunk's, ended */
  lph_task *task; /* NULL: a gen_server between messages */
  ph_list foreign;
  ph_bytes *exit_reason; /* set: it ends with this as soon as it gives way */
  ph_bytes *stop;        /* gen_server: what terminate was called for */
  ph_msg *msg;           /* being handled */
  lph_module *module;    /* gen_server */
  uint32_t state;        /* gen_server: the slot of its state, 0 before init is over */
  uint8_t phase;         /* gen_server */
  bool matching;         /* inside a match function of receive */
  bool linked;           /* by start_link, until init is over */
  ph_pid parent;         /* who started it */
  ph_ref starter;        /* the wait of whoever waits for init */
};

/* A coroutine that runs now (preempt.c); on the C stack of whoever resumes it. */
typedef struct lph_level {
  lua_State *L;
  struct lph_level *up;      /* what it was resumed from, or whatever ran before */
  struct lph_level *base;    /* the task's; NULL: not to be preempted */
  int counts;                /* instructions after which the hook strikes; 0: it is not armed */
  int waited;                /* how often it found phub's own code */
  bool watched;              /* the ends of its functions are hooked */
  bool fixed;                /* base: what is above must not yield */
  uint8_t raises;            /* base: errors raised because it cannot yield */
  int user_mask, user_count; /* while a hook is set: the user's */
  lua_Hook user;
  uint64_t stuck_cpu; /* base: CPU time, ns, when it was seen that it cannot yield; 0: it can */
  uint64_t watch_cpu; /* ... since when ends of functions are hooked; 0: they are not */
} lph_level;

typedef struct lph_chunk { /* 256 slots */
  ph_list list;            /* in ctx->chunks_free while one is free; when vacant in chunks_vacant */
  uint32_t index;
  int ref; /* of its table in the registry */
  uint16_t nfree;
  uint8_t free[256];
} lph_chunk;

struct lph_ctx {
  ph_list all; /* the contexts of this OS process */
  ph_rt *rt;
  ph_node *node;
  ph_sys *sys;
  const ph_env *env;
  lua_State *main, *service; /* service: callbacks of the core enter Lua there */
  lph_task *cur;
  lua_State *driving; /* the state inside ph_rt_step, or NULL */
  int depth;          /* of nested resumes */

  struct ph_loop *loop;
  lph_level *volatile level;    /* the innermost, read by the handler of the signal */
  volatile sig_atomic_t arming; /* the handler keeps out */
  volatile uint64_t wanted;     /* the slice that is to give way */
  int slices;                   /* nested resumes that may be preempted */
  bool loses;                   /* it gives way whether anybody waits or not */
  bool gives_way;               /* coroutines of a task are yielding, one after the other */
  int unwound;                  /* ... that have done so */
  int frozen;                   /* coroutines that preemption has stopped, of all tasks */
  unsigned sent;                /* messages sent in this slice */
  uint64_t looked;              /* the last lph_main_turn, ns */
  atomic_bool *stir;            /* set whenever Lua calls phub */
  char own[LPH_PATH];           /* what the sources of phub's own code begin with */
  size_t own_len;

  int fork_gen;
  bool closing;
  size_t max_message;
  int64_t copied; /* left of max_message in the copy under way */

  lph_task *pool;
  int pooled;
  lph_task *spare; /* for the next coroutine of the user's that waits */
  ph_list starts;
  ph_list orphans; /* FOREIGN in the name of a process that is not Lua's */
  lph_task main_task;
  lph_proc main_proc;
  ph_bytes *main_ended; /* the main chunk's process was ended; its next wait says so */

  lph_chunk **chunks;
  uint32_t chunk_count, chunk_cap;
  ph_list chunks_free, chunks_vacant;
  uint32_t chunks_empty;
  const void *kinds[LPH_KIND_COUNT]; /* metatables */
  uint32_t kind_slots[LPH_KIND_COUNT];
  char trail[LPH_PATH];   /* where a copy or pack failed */
  const char *what;       /* ... and why */
  const void *module_ptr; /* the table of `module`, the last one looked up */
  lph_module *module;
  const void *stopping; /* metatable of gen_server.stopping's results */

  lph_proc *run_proc; /* of phub.run(fn) */
  bool run_over;
  int run_n; /* results on the driver's stack; -1: an error; -2: ended by run_reason */
  ph_bytes *run_reason;
  ph_bytes *taken; /* see lph_take_reason */
  bool halted, exits;
  int exit_code;
  int signal; /* the first one caught */
  bool signals_on, signals_off;
  lph_proc *leaver; /* ends the node before the program ends */
  bool leaves;      /* ... has been started */
  bool end_node;    /* ph_rt_node_end is due, outside the step */
  ph_ref end_waiter;
  struct {
    uint64_t request;
    ph_ref ref;
  } * connects;
  size_t nconnects, connects_cap;
  struct lph_owed { /* futures that could not be resolved yet for want of memory */
    uint32_t future;
    lua_CFunction make;
  } * owed;
  uint32_t owed_count, owed_cap, futures; /* room for all that are open, `futures` of them */
  bool node_events;
};

/* core.c */
extern const char lph_waiting_key;
/* error value -> { "error", message, traceback, [0] = value }; the message is the value itself
 * where that can travel, as far as can be seen without looking into tables, else its text */
int lph_msgh(lua_State *L);
void lph_push_message(lua_State *L, int idx); /* the message for the value at idx [-0, +1] */
void lph_check_fork(lua_State *L, lph_ctx *ctx);
void lph_log_error(lph_ctx *ctx, lua_State *L, int idx, ph_pid pid); /* of such a table */

/* sched.c */
lph_task *lph_task_get(lph_ctx *ctx, lph_kind kind); /* with a fresh coroutine; NULL: no memory */
void lph_task_put(lph_task *t, bool clean);          /* clean: its coroutine may be used again */
void lph_task_clear(lph_task *t);                    /* what its last wait left */
/* The one place where phub resumes a coroutine. Never raises. */
int lph_resume(lph_task *t, lua_State *from, int nargs, int *nres);
void lph_close(lph_task *t); /* ends its coroutine where it stands; <close> variables run */
void lph_log_raised(lph_ctx *ctx, lua_State *co); /* what they raised; it is taken from co */
/* the error on the top of a coroutine that died outside its body's pcall, as lph_msgh does it */
ph_bytes *lph_dead_reason(lph_task *t, int status);
bool lph_exiting(lph_ctx *ctx); /* what runs now has to end */
/* ... and gives way to the scheduler; where it cannot it raises, which no pcall keeps (coroutine.c)
 */
int lph_yield_exit(lua_State *L);
lph_proc *lph_proc_new(lph_ctx *ctx, const ph_behaviour *bh, ph_pid parent);
void lph_proc_free(lph_proc *lp); /* all it holds; the record too unless it is the main one */
extern const ph_behaviour lph_plain_bh;
/* Spawns a process whose body is the function on the top of L with the nargs values above it, which
 * are its own [-(1 + nargs), +0]. NULL: no memory. */
lph_proc *lph_spawn(lph_ctx *ctx, lua_State *L, int nargs);
/* the reason for the table of lph_msgh at the top of L, which is logged for pid; owned */
ph_bytes *lph_error_reason(lph_ctx *ctx, lua_State *L, ph_pid pid);
/* the same for one at idx, without a log; NULL and *err. A message that cannot travel after all is
 * replaced by its text. */
ph_bytes *lph_error_pack(lph_ctx *ctx, lua_State *L, int idx, int *err);
ph_run lph_end(lph_proc *lp, ph_bytes *reason); /* ends it of its own accord; takes reason */
lua_State *lph_resumer(lph_ctx *ctx);           /* `from` of a resume out of the loop */
/* the woken wait of a START or FOREIGN task goes on */
void lph_go_on(lph_task *t);

/* preempt.c: levels are entered and left in pairs, around lua_resume and closes of coroutines */
void lph_preempt_start(lph_ctx *ctx);
lph_ctx *lph_of(lua_State *L); /* the context, for functions without the upvalue */
void lph_task_enter(lph_task *t, lph_level *v, bool fixed);
void lph_task_leave(lph_task *t, lph_level *v);
void lph_task_thaw(lph_task *t); /* what was stopped with it goes on, or never will */
void lph_level_enter(lph_ctx *ctx, lph_level *v, lua_State *L, lua_State *from);
/* true: it was preempted; whoever has resumed it yields too, and resumes it again */
bool lph_level_leave(lph_ctx *ctx, lph_level *v);
void lph_lose_slice(lph_ctx *ctx, lua_State *L); /* what runs in L gives way soon, if it can */
/* Is the value at `idx` the error of preemption? Then the table at `t`, as lph_msgh makes it, says
 * so at [LPH_UNYIELDABLE]. May raise. */
enum { LPH_UNYIELDABLE = -1 };
bool lph_has_code(lua_State *L, int idx, int err); /* is it an error of phub's with that code? */
void lph_mark_unyieldable(lua_State *L, int idx, int t);
void lph_open_preempt(lph_ctx *ctx, lua_State *L);

/* coroutine.c */
int lph_closethread(lua_State *co, lua_State *from);
/* closes what a preempted coroutine has resumed, innermost first, and then itself */
int lph_close_chain(lph_ctx *ctx, lua_State *co, lua_State *from);

/* wait.c */
int lph_pause(lph_task *t); /* a START task that gave way goes on at the loop's next turn */
bool lph_can_wait(lua_State *L, lph_ctx *ctx);
void lph_cannot_wait(lua_State *L);
void lph_drive(lph_ctx *ctx, lua_State *L, bool (*over)(lph_ctx *ctx, void *arg), void *arg);
void lph_drop_foreign(ph_list *list);

/* run.c */
bool lph_drive_ends(lph_ctx *ctx); /* the program is about to end */
void lph_drive_turn(lph_ctx *ctx);
/* resolves the futures that there was no memory for; false: some are left */
bool lph_futures_settle(lph_ctx *ctx);
void lph_main_woken(lph_ctx *ctx); /* something that the driver looks at has changed */
void lph_os_exit(lph_ctx *ctx, lua_State *L, int code); /* does not return */
void lph_main_start(lph_ctx *ctx, lua_State *L);        /* the main chunk's process; raises */
void lph_main_check(lph_ctx *ctx, lua_State *L);        /* raises if that was ended */
int lph_signals(lph_ctx *ctx);
void lph_run_over(lph_proc *lp, lua_State *co, int n, ph_bytes *reason);
void lph_open_run(lph_ctx *ctx, lua_State *L);

/* slot.c */
void lph_slots_free(lph_ctx *ctx);

/* value.c */
uint64_t lph_word(lph_ctx *ctx, lua_State *L, int idx, int *err); /* raises for lack of memory */
void lph_word_push(lph_ctx *ctx, lua_State *L, uint64_t word, bool take);
int lph_msg_push(lph_ctx *ctx, lua_State *L, ph_msg *m, bool take); /* its value [-0, +1] */
/* pushes a reason and unrefs it, also when that raises [-0, +1] */
void lph_take_reason(lph_ctx *ctx, lua_State *L, ph_bytes *reason);
void lph_sys_host(lph_ctx *ctx, ph_sys_host *out);
void lph_path_error(lph_ctx *ctx, int err, char *path, size_t path_size);
/* the kind of the table at idx by its metatable: 0 none, -1 one that does not travel */
int lph_table_kind(lph_ctx *ctx, lua_State *L, int idx);
bool lph_is_name(const char *s, size_t n); /* letters, digits and _, as in t.name */

/* text.c */
void lph_open_text(lph_ctx *ctx, lua_State *L);

/* pid.c, process.c, ... */
enum { LPH_ID_TEXT = 300 };
bool lph_id_text(lph_ctx *ctx, lua_State *L, int idx, char out[LPH_ID_TEXT]); /* false: no id */
void lph_open_pid(lph_ctx *ctx, lua_State *L);
void lph_open_process(lph_ctx *ctx, lua_State *L);
void lph_open_mailbox(lph_ctx *ctx, lua_State *L);
void lph_open_gen_server(lph_ctx *ctx, lua_State *L);
void lph_open_future(lph_ctx *ctx, lua_State *L);
void lph_open_wait(lph_ctx *ctx, lua_State *L);
void lph_open_node(lph_ctx *ctx, lua_State *L);
void lph_open_coroutine(lph_ctx *ctx, lua_State *L);
void lph_open_supervisor(lph_ctx *ctx, lua_State *L);

/* server.c: gen_servers as processes */
typedef enum lph_phase { LPH_G_INIT, LPH_G_RUN, LPH_G_TERM } lph_phase;
extern const ph_behaviour lph_server_bh;
extern const char lph_noreply_key; /* its address is gen_server.noreply */
/* A server of the module at index 1 of L, whose init has yet to run with the value on the top,
 * which is its own [-1, +0]. NULL: no memory. Raises for the same. */
lph_proc *lph_server_new(lph_ctx *ctx, lua_State *L, ph_pid parent);
/* Runs init at once. 1: it is over and the server lives; 0: it waits, or was put off because
 * resumes nest too deeply; -1: the server has ended with *reason (owned). */
int lph_server_init(lph_proc *lp, lua_State *L, ph_bytes **reason);
void lph_server_release(lph_proc *lp);

/* Where a message goes: a pid, or a name on a node. */
typedef struct lph_dest {
  ph_pid pid;
  const char *name; /* Lua's, anchored by the argument */
  size_t len;
  ph_nodeent *node; /* NULL: this node */
  bool remote;
  int err; /* PH_ENOCONN: a node that is not in view */
} lph_dest;
int lph_send(lua_State *L, ph_class cls); /* a C function of Lua: (dest, message[, timeout]) */
void lph_check_dest(lph_ctx *ctx, lua_State *L, int arg, lph_dest *out); /* raises */
/* Calls k(L, LUA_OK, 0), at once or, if `to` is on a node that is not in view while events of the
 * cluster wait to be handled, once they are: one of them may say that the node is there. For a C
 * function of Lua, as lph_wait. */
int lph_when_seen(lua_State *L, lph_ctx *ctx, const lph_dest *to, lua_KFunction k);
bool lph_unseen(lph_proc *lp); /* a message that its receive has not looked at */
bool lph_push_event(lph_ctx *ctx, lua_State *L, ph_msg *m, bool take); /* what receive hands out */

#endif
