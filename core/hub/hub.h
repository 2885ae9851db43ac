/* A hub: what should run, what runs where, and the work of making the two agree.
 *
 * PROTOCOL.md section 1 gives the rules; the files of this folder: spec (child specs), ring
 * (consistent hashing), registry (intents, running facts, digests), request (starts and stops
 * through the arbiter), place (level-triggered placement), child (local children: start, stop,
 * restart with backoff), sync (hello, facts, digests), route (messages by child id), tag (children
 * by metadata.tag), survey (every member's word). */
#ifndef PH_HUB_HUB_H
#define PH_HUB_HUB_H

#include "hub/node.h"
#include "hub/spec.h"

enum { PH_MAX_ID = 1024 };

typedef struct ph_hub ph_hub;
typedef struct ph_row ph_row; /* one child id in the registry */

typedef struct ph_hub_config { /* times in ms; see API.md section 3 */
  const char *hub_id;
  size_t hub_id_len;
  uint64_t strategies;         /* digest of strategies and their options */
  const char *strategies_text; /* the same, readable, for the log */
  uint64_t discover_interval, sync_interval;
  uint32_t max_restarts; /* dsup_* */
  uint64_t max_seconds;
  bool restart_all; /* dsup_limit_action */
  uint64_t shutdown_timeout;
  uint32_t max_concurrent_starts;
} ph_hub_config;

/* PH_EALREADY: this node runs a hub of this id. Static children: rows of an op (see below), or
 * NULL; owned by the hub from then on. */
int ph_hub_new(ph_node *n, const ph_hub_config *cfg, ph_hub **out) PH_MUST_CHECK;
/* A graceful leave: children are stopped and taken over by the others, then `done(ctx)` is called
 * and the hub is gone. A second call only adds nothing: the first one's done is called. */
void ph_hub_stop(ph_hub *h, void (*done)(void *ctx), void *ctx);
void ph_hub_free(
    ph_hub *h); /* at once, without leave: children are killed, ops answered with PH_ENOTALIVE */

ph_node *ph_hub_node(ph_hub *h);
ph_pid
ph_hub_pid(const ph_hub *h); /* its supervisor process (a C process; parent of the children) */
const char *ph_hub_id(const ph_hub *h, size_t *len);
ph_specs *ph_hub_specs(ph_hub *h);
void *ph_hub_user(const ph_hub *h); /* the host's own pointer */
void ph_hub_user_set(ph_hub *h, void *user);
bool ph_hub_stopping(const ph_hub *h);
bool ph_hub_locked(const ph_hub *h); /* this node has moves under way */
/* 0, or PH_EMISMATCH: this hub runs nothing; `why` (static until the hub ends) says which node
 * differs */
int ph_hub_state(const ph_hub *h, const char **why);
/* the i-th member (sorted by name; this node included), NULL past the end */
const ph_nodeent *ph_hub_member(ph_hub *h, size_t i);

/* The host answers a `start`: pid != 0 a local live process, else a packed reason (taken over). */
void ph_hub_started(ph_hub *h, uint64_t token, ph_pid pid, ph_bytes *reason);

/* ---- Reads: this node's registry, no network ---------------------------------------------------
 */
ph_row *ph_hub_find(ph_hub *h, const char *id, size_t len); /* a live child, or NULL */
const char *ph_row_id(const ph_row *r, size_t *len);
ph_spec *ph_row_spec(const ph_row *r);
ph_bytes *ph_row_metadata(const ph_row *r); /* a packed map, NULL: {} */
/* the i-th running instance: pid and node, sorted by node name; false past the end */
bool ph_row_instance(ph_hub *h, const ph_row *r, size_t i, ph_pid *pid, const ph_nodeent **node);
/* does this node hold it: it runs here, is being started, or waits? */
bool ph_row_is_here(const ph_row *r);
ph_pid ph_row_pid(ph_hub *h,
                  const ph_row *r); /* a local instance first, else by node name; 0: none */
const char *
ph_row_waiting(ph_hub *h,
               const ph_row *r); /* "backoff", "moving", ..., NULL: it runs or is about to */
ph_row *ph_hub_next(ph_hub *h,
                    ph_index_iter *it); /* all live children; no change to the hub meanwhile */
ph_row *ph_hub_next_local(ph_hub *h,
                          ph_row *prev); /* those with an instance here; prev NULL: the first */
/* those whose metadata.tag is this string; prev NULL: the first. Costs what it finds. */
ph_row *ph_hub_next_tagged(ph_hub *h, const char *tag, size_t len, ph_row *prev);
size_t ph_hub_tagged(ph_hub *h, const char *tag, size_t len); /* how many there are */
/* those that run on that node, a member of the hub or this one, and the pid; prev NULL: the first
 */
ph_row *ph_hub_next_on(ph_hub *h, const ph_nodeent *node, ph_row *prev, ph_pid *pid);
size_t ph_hub_count(const ph_hub *h);

/* ---- Starts and stops: one operation over many ids ----------------------------------------------
 */
typedef enum { PH_OP_START, PH_OP_STOP } ph_op_kind;
typedef struct ph_op ph_op;

typedef struct ph_op_options {
  uint64_t timeout, await_timeout; /* ms; UINT64_MAX: for ever */
  bool check_existing;             /* start: an id known here refuses the whole call */
  bool rollback;                   /* start: on_failure = "rollback" */
} ph_op_options;

typedef enum { PH_ROW_WAITS, PH_ROW_DONE, PH_ROW_ERROR } ph_op_status;
typedef struct ph_op_row { /* read it after done, or when submit refused */
  ph_op_status status;
  const char *id;
  size_t id_len;
  ph_pid pid;             /* DONE start: the instance; ERROR: of an already_started one, else 0 */
  const ph_nodeent *node; /* DONE: where it runs, or ran; ERROR: where it runs already, or failed,
                             or was to be answered; NULL when submit refused */
  int err;                /* ERROR: a PH_E* code, or 0 when `reason` says why */
  ph_bytes *reason;       /* ERROR: a packed reason, borrowed */
} ph_op_row;

ph_op *ph_op_new(ph_hub *h, ph_op_kind kind, size_t rows); /* NULL: out of memory */
/* Adds an id (at most PH_MAX_ID bytes). PH_EDUPID when it is in the op already. Start: the spec's
 * reference is taken over on success; metadata NULL or a packed map, referenced. */
int ph_op_add(ph_op *op, const char *id, size_t len, ph_spec *spec,
              ph_bytes *metadata) PH_MUST_CHECK;
/* Runs it. On success `done(ctx, op)` comes once, later, from the loop (never from inside); the op
 * is the caller's and ends with ph_op_free. Errors: PH_EALREADY (the rows concerned have status
 * ERROR, err PH_EALREADY), PH_EMISMATCH, PH_ENOTALIVE (stopping), PH_ENOMEM; the op is then the
 * caller's, unsubmitted. */
int ph_op_submit(ph_op *op, const ph_op_options *o, void (*done)(void *ctx, ph_op *op),
                 void *ctx) PH_MUST_CHECK;
size_t ph_op_count(const ph_op *op);
void ph_op_row_get(const ph_op *op, size_t i, ph_op_row *out); /* in the order added */
bool ph_op_rolled_back(const ph_op *op);
/* After done or unsubmitted: frees. While it runs: nobody wants the answer any more; the op goes on
 * and frees itself when it ends. */
void ph_op_free(ph_op *op);
/* Static children of the config: proposed once the hub has first synchronised. Takes the op over.
 */
void ph_hub_propose(ph_hub *h, ph_op *op);

/* ---- Messages by child id
 * ------------------------------------------------------------------------ A route waits while the
 * child has no running instance (it is being started, moved, or waits), and asks the arbiter once
 * about an id unknown here. Routes to one id are answered in their order. */
typedef struct ph_route {
  ph_list list; /* the hub's */
  ph_timer timer;
  ph_hub *hub;
  struct ph_pending *pending;
  /* pid != 0: send there; else err: PH_ENOCHILD, PH_ETIMEOUT, PH_ENOTALIVE. It must not free the
   * hub. */
  void (*done)(struct ph_route *r, int err, ph_pid pid);
} ph_route;
/* PH_OK with *pid when it is known now and nobody waits before; else PH_EAGAIN: r->done comes
 * later. PH_ENOCHILD, PH_ENOTALIVE, PH_ENOMEM. */
int ph_hub_route(ph_hub *h, const char *id, size_t len, uint64_t due, ph_route *r,
                 ph_pid *pid) PH_MUST_CHECK;
void ph_route_cancel(ph_route *r); /* done will not be called */

/* ---- Surveys: are all members there? What a member knew when it answered is in this node's
 * registry from then on. */
typedef struct ph_survey_row {
  const ph_nodeent *node;
  int err; /* 0: it has answered; PH_ETIMEOUT, PH_ENOCONN (it went down), PH_ENOTALIVE (this hub
              ended); PH_EAGAIN: not yet */
} ph_survey_row;

typedef struct ph_survey {
  ph_list list; /* the hub's */
  ph_timer timer;
  ph_sys *sys;
  uint64_t token;
  size_t count, open;
  ph_survey_row *rows; /* by node name, this node included */
  void (*done)(struct ph_survey *s);
} ph_survey;
/* With s->done set: asks, and calls done once, later, from the loop, at the latest when `due` is
 * reached. PH_ENOMEM: nothing was asked. */
int ph_hub_survey(ph_hub *h, uint64_t due, ph_survey *s) PH_MUST_CHECK;
void ph_survey_end(ph_survey *s); /* before or after done: frees the rows */

#endif
