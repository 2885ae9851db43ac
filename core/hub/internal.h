/* What the files of hub/ share. Data flows one way: sync and request change the registry, the
 * registry marks rows dirty, place looks at dirty rows and asks child to start or stop, child
 * writes running facts, and the flush at the end of a turn tells the others.
 *
 * Invariants
 *  - row->live is sorted (ph__row_compare), largest first; no number in it is in row->ended.
 *  - digest covers live intents and the tombstones that are kept; others travel with the rows of
 * buckets that differ, and all of them to whoever is greeted.
 *  - a member in `view` (included) has given us all its facts and rows, and said that it has all of
 * ours.
 *  - what must be looked at whenever the view is agreed is in hub->homeless. */
#ifndef PH_HUB_INTERNAL_H
#define PH_HUB_INTERNAL_H

#include "hub/hub.h"
#include "hub/ring.h"

enum { PH_BUCKETS = 1024, PH_BATCH_BYTES = 48 * 1024, PH_BATCH_SPECS = 4 };

enum {                  /* messages between hubs: [type, hub id, ...] */
       PH_H_HELLO = 64, /* strategies, text, started, answer wanted */
       PH_H_NOHUB = 65,
       PH_H_FACTS = 66,   /* nodes, bin(items) */
       PH_H_CHANGES = 67, /* nodes, specs, bin(rows) */
       PH_H_VIEW = 68,    /* view hash, leaving */
       PH_H_SNAP = 69,    /* begin (true) or end (false) of a snapshot of the sender's facts */
       PH_H_ACKREQ = 70,  /* token */
       PH_H_ACK = 71,     /* token */
       PH_H_START = 72,   /* nodes, specs, bin(rows): to an arbiter */
       PH_H_STOP = 73,    /* nodes, clock, bin(rows): to an arbiter */
       PH_H_RESULT = 74,  /* bin(rows): to a requester */
       PH_H_DIGEST = 75,  /* top digest */
       PH_H_BUCKETS = 76, /* bin(digests), answer wanted, round */
       PH_H_SYNCED = 77,  /* round: the rows asked for by that BUCKETS have all been sent */
       PH_H_READY = 78,   /* the sender has everything of everyone it knows */
       PH_H_ASK = 79,     /* child id: to its arbiter */
       PH_H_ASKED = 80,   /* child id: what the arbiter knew came before */
       PH_H_BYE = 81,     /* the hub has left */
       PH_H_SETTLED =
           82, /* bin(rows): these starts were answered `started`, their failures wait in backoff */
       PH_H_MAIL = 84, /* bin(id, class, value ...): unread messages of a child that moves there */
       PH_H_SURVEY = 85,   /* token */
       PH_H_SURVEYED = 86, /* token: all that the sender had to tell came before */
       PH_H_GONE = 87,     /* [name, incarnation ...]: they may come back */
       PH_H_UNSURE = 83    /* child id, number: is this start settled? */
};

typedef struct ph_number {
  uint64_t counter;
  uint32_t node; /* index in sys.nodes: the requester's name and incarnation */
} ph_number;
static inline bool ph_number_eq(ph_number a, ph_number b) {
  return a.counter == b.counter && a.node == b.node;
}

typedef struct ph_intent {
  struct ph_intent *next; /* a smaller one */
  ph_number num;
  uint64_t hlc;
  uint32_t writer; /* node index */
  bool fresh;      /* written here, in the view acted on, and not yet started */
  bool confirmed;
  bool tagged; /* a ph_tagged follows */
  ph_spec *spec;
  ph_bytes *meta;
} ph_intent;

typedef struct ph_tag { /* a value of metadata.tag */
  ph_list bearers;      /* ph_tagged.list of the intents shown */
  size_t refs, count;
  uint32_t len;
  char text[];
} ph_tag;

typedef struct ph_tagged { /* behind an intent with a tag, in its allocation */
  ph_list list;            /* in tag->bearers while the intent is its row's first */
  ph_row *row;
  ph_tag *tag;
} ph_tagged;

typedef struct ph_ended { /* a tombstone: a number that never lives again */
  struct ph_ended *next;
  ph_list tombs; /* in hub->tombs, by arrival, unless it is kept */
  ph_row *row;
  ph_number num;
  uint64_t at; /* local arrival, ns */
  bool keep;   /* a static child was stopped: kept while the hub lives, and no proposal starts it */
} ph_ended;

typedef enum ph_fact_state {
  PH_FACT_STARTING = 1,
  PH_FACT_RUNNING,
  PH_FACT_STOPPING,
  PH_FACT_BACKOFF, /* ran and failed; waits at its holder */
  PH_FACT_FAILED   /* a first start failed; its requester has yet to say */
} ph_fact_state;

typedef struct ph_fact {
  ph_row *row;
  ph_list in_owner;
  ph_list dirty; /* own: in hub->dirty_facts until the flush */
  ph_number num;
  uint32_t gen; /* snapshot generation that last named it */
  uint8_t state;
  uint64_t serial; /* of the pid; 0: none */
  struct ph_member *owner;
  struct ph_fact *next; /* of the row */
} ph_fact;

/* What a read needs lies side by side, at the end: a cold row costs it one or two cache lines. */
struct ph_row {
  uint64_t hash; /* ph_ring_hash(id) */
  ph_list bucket, dirty;
  ph_list homeless;       /* in hub->homeless: live, and either nowhere or with two live intents */
  struct ph_child *child; /* local */
  struct ph_req *reqs;    /* local requests that wait for this row */
  ph_ended *ended;
  ph_fact first; /* room for one of the facts: most rows have no more */
  ph_fact *facts;
  ph_intent *live;
  bool first_used;
  uint16_t id_len;
  char id[];
};

/* what one member alone is sent in batches */
enum {
  PH_OUT_START,
  PH_OUT_STOP,
  PH_OUT_RESULT,
  PH_OUT_SETTLED,
  PH_OUT_UNSURE,
  PH_OUT_MAIL,
  PH_OUT_COUNT
};

typedef struct ph_member {
  ph_list all; /* hub->members; self is not in it */
  ph_hub *hub;
  ph_nodeent *node;
  uint64_t peer;       /* 0: self */
  uint64_t view;       /* the view it last said it acts on */
  uint64_t acked;      /* the last flush of ours it has acknowledged */
  uint64_t matched_at; /* since when it is known to have had no number as live that we had ended */
  ph_list facts;       /* ph_fact.in_owner */
  uint32_t gen;        /* of its snapshots */
  uint64_t started;    /* when its hub started: tells one hub from the next on one node */
  bool hello;          /* it runs the hub, with the same strategies */
  bool nohub;          /* it does not, or with other strategies */
  bool snap_ok, rows_ok; /* its facts, its rows are here */
  bool ready;            /* it has everything of ours since the link was last made */
  bool ready_sent;
  bool included; /* in the view */
  bool leaving;
  /* what is being sent to it, in slices */
  bool snapping;
  ph_fact *snap_at; /* the next own fact to send, NULL: at the end */
  bool rows_wanted;
  uint8_t buckets[PH_BUCKETS / 8]; /* those still to send */
  bool tombs_due;                  /* and the tombstones of all others: it was greeted */
  uint64_t round, round_at; /* our last comparison of all buckets: its number, and when, ns */
  uint64_t their_round;
  bool round_open; /* it has yet to answer the last one */
  bool differs;    /* a digest that differed came meanwhile: to be asked for again */
  bool greeted;    /* a greeting came meanwhile: to be answered with all again */
  bool round_over; /* its answer is here, what it asked of us has yet to be sent */
  uint32_t bucket_at;
  struct ph_batch *out[PH_OUT_COUNT]; /* gathered for it in this turn, NULL: nothing */
} ph_member;

typedef struct ph_gone { /* an incarnation that went down without leaving: tombstones wait for it */
  ph_list list;
  uint64_t at;
  ph_nodeent *node;
} ph_gone;

typedef struct ph_batch { /* a message with tables of nodes and specs under construction:
                            [type, hub id, [name, incarnation ...], [spec ...], clock, bin(rows)] */
  uint64_t type, clock;
  ph_buf body;
  ph_buf node_ids; /* uint32_t */
  ph_buf specs;
  uint32_t node_count, spec_count;
  ph_spec *recent[PH_BATCH_SPECS]; /* the specs last put in, and where */
  uint32_t recent_at[PH_BATCH_SPECS];
} ph_batch;

typedef enum ph_child_state {
  PH_CH_QUEUED,
  PH_CH_STARTING,
  PH_CH_RUNNING,
  PH_CH_HOLDING, /* runs; nobody sends to it by id any more, it is about to move */
  PH_CH_STOPPING,
  PH_CH_BACKOFF,
  PH_CH_FAILED
} ph_child_state;

typedef struct ph_child {
  ph_hub *hub;
  ph_row *row;
  ph_fact *fact; /* own running fact */
  ph_number num;
  ph_list list;   /* hub->children, or hub->start_queue while queued */
  ph_timer timer; /* backoff, or the end of the shutdown time */
  ph_spec *spec;
  ph_proc *proc;
  union {
    uint64_t token; /* STARTING */
    uint64_t fence; /* HOLDING: until every member has acknowledged this flush */
  };
  uint64_t started_at, window_at;
  uint32_t restarts, backoffs;
  uint8_t state;
  bool unwanted;    /* STARTING: to be stopped as soon as it has started */
  bool moving;      /* HOLDING, STOPPING: it goes to another node */
  bool ran;         /* it has run here, or before */
  ph_bytes *reason; /* FAILED: why */
} ph_child;

typedef struct ph_req { /* one id of an operation */
  struct ph_req *next_of_row;
  ph_list held; /* waits for a second holder, in hub->held */
  ph_op *op;
  ph_row *row; /* while it waits */
  const char *id;
  ph_spec *spec;
  ph_bytes *meta, *reason;
  ph_pid pid;
  uint64_t barrier; /* a second holder is wanted from this flush on; 0: not */
  ph_nodeent *node;
  ph_member *sent_to;
  int err;
  uint16_t id_len;
  uint8_t status, phase;
  bool again;  /* sent more than once */
  bool intent; /* start: the intent is held here; stop: the arbiter has answered */
} ph_req;

struct ph_op {
  ph_list all;   /* hub->ops: those under way, by base */
  ph_list known; /* hub->known_ops: all that are not freed */
  ph_list work;  /* hub->work: there is something to do for some of its rows */
  ph_hub *hub;   /* NULL: gone */
  const ph_env *env;
  ph_op_kind kind;
  ph_op_options opt;
  uint64_t base;      /* number of row i: base + i */
  uint64_t clock;     /* stop: at issue */
  uint64_t due;       /* of its answers */
  uint64_t await_due; /* of the whole, rollback included */
  size_t count, cap, unsettled;
  size_t cursor; /* the next row to ask for, */
  size_t resend; /* to ask for again, if it has no answer, */
  size_t expire; /* to end with the error `over` */
  int over;      /* its time is over, or the hub goes: the error of what has no answer */
  ph_req *rows;
  ph_index ids;
  void *chunks; /* arena of the ids */
  size_t chunk_left;
  char *chunk_at;
  ph_timer timer; /* the next repetition, or the end */
  void (*done)(void *ctx, ph_op *op);
  void *ctx;
  ph_op *undo; /* rollback: the stop of what had started */
  bool submitted, finished, orphan, undone, rolled_back, proposal;
};

typedef struct ph_deferred { /* a request that waits here, at its arbiter, for one view */
  ph_list list;
  ph_op_kind kind;
  ph_number num;
  ph_spec *spec;
  ph_bytes *meta;
  uint64_t clock;
  ph_member *from;
  bool proposal;
  uint16_t id_len;
  char id[];
} ph_deferred;

typedef struct ph_pending { /* by-id messages that wait for one id */
  uint64_t hash;
  ph_list routes;
  ph_list mail;  /* ph_route too: what a child that moved here had not read; goes first */
  ph_list ready; /* in hub->routed: to be looked at in this turn */
  bool asking;   /* unknown here: its arbiter was asked */
  bool own;      /* an operation of this node is about to start it */
  bool answering;
  uint16_t id_len;
  char id[];
} ph_pending;

struct ph_hub {
  ph_list all; /* node->hubs */
  ph_node *node;
  ph_sys *sys;
  const ph_env *env;
  ph_hub_config cfg;
  char *id;
  char *strategies_text, *why;
  size_t id_len;
  void *user;
  ph_proc *proc; /* the children's supervisor process */
  ph_pid pid;
  uint64_t seed;
  ph_specs specs;

  /* registry */
  ph_index rows;
  size_t live_count;
  ph_list buckets[PH_BUCKETS];
  uint64_t digest[PH_BUCKETS], top;
  ph_list tombs, homeless, dirty;
  uint32_t bucket_tombs[PH_BUCKETS]; /* how many each bucket has */
  bool purging;
  uint64_t hlc;
  ph_index tags;
  ph_bytes *last_meta; /* the metadata last seen, and its tag */
  ph_tag *last_tag;

  /* members and view */
  ph_member self;
  ph_list members; /* every node in view, whether it runs the hub or not */
  size_t hellos;   /* of them with `hello` */
  size_t others;   /* of them in the view acted on */
  bool meeting; /* some run the hub and are not in the view yet: they may hold what they tell of */
  ph_list gone; /* ph_gone: incarnations that went down without leaving */
  ph_ring ring;
  uint64_t view;   /* hash of the view acted on */
  bool agreed;     /* every member of it has said the same, and all that it has is here */
  bool greeted;    /* all nodes in view know of it */
  bool settled;    /* it has first synchronised, or found nobody */
  bool ring_stale; /* could not be made anew for lack of memory */
  uint64_t started;

  /* local children */
  ph_list children; /* all with a record here */
  ph_list start_queue;
  ph_list holding; /* in the order of their fences */
  ph_index tokens;
  uint64_t next_token;
  size_t child_count, starting, moving;
  ph_fact *scan_at;   /* own facts still to be looked at after a change of ring; NULL: none */
  uint64_t window_at; /* restarts since then: the supervisor's budget */
  uint32_t restarts;

  /* requests */
  ph_list ops, known_ops, work, held, deferred;
  uint64_t next_counter;
  uint64_t barrier;       /* number of the flush under way: what changes now is covered by its
                             acknowledgement */
  uint64_t barrier_sent;  /* the last that anyone was asked to acknowledge, */
  uint64_t barrier_asked; /* that barrier_at was asked to, */
  uint64_t barrier_acked; /* that a second holder has acknowledged */
  ph_member *barrier_at;
  bool barrier_wanted, fence_wanted;

  /* routes */
  ph_index pendings;
  ph_list routed;

  ph_list surveys;
  uint64_t next_survey;

  /* this turn's output */
  ph_batch *changes, *facts;
  ph_list dirty_facts;

  ph_timer kick, tick, mend; /* always armed: see hub.c */
  bool kicked, stopping, leaving, freeing, lossy;
  int state;
  uint64_t leave_at, leave_asked, stop_deadline;
  void (*stop_done)(void *ctx);
  void *stop_ctx;
};

/* ---- hub.c */
void ph__kick(ph_hub *h);      /* a turn soon */
void ph__oom(ph_hub *h);       /* something was lost for lack of memory: mended within a second */
uint64_t ph__clock(ph_hub *h); /* next hybrid logical clock */
void ph__clock_saw(ph_hub *h, uint64_t hlc);
void ph__bye(ph_hub *h);
void ph__renamed(ph_hub *h);                          /* this node has a new name */
void ph__barrier_lost(ph_hub *h, const ph_member *m); /* this member's word will not come */
/* ---- registry.c */
ph_row *ph__row_find(ph_hub *h, const char *id, size_t n, uint64_t hash);
ph_row *ph__row_get(ph_hub *h, const char *id, size_t n, uint64_t hash); /* NULL: no memory */
void ph__row_release(ph_hub *h, ph_row *r); /* frees it when nothing is left in it */
void ph__row_dirty(ph_hub *h, ph_row *r);
/* 1: something changed, 0: not, < 0: error. Takes references of its own. */
int ph__intent_add(ph_hub *h, ph_row *r, const ph_intent *in);
void ph__intent_drop(ph_hub *h, ph_row *r, ph_intent *in);
void ph__digest_flip(ph_hub *h, const ph_row *r, uint64_t x);
static inline size_t ph__bucket(uint64_t hash) {
  return (size_t)(hash >> 54);
}
ph_intent *ph__intent_find(ph_row *r, ph_number num);
ph_fact *ph__fact_find(ph_row *r, const ph_member *owner);
int ph__fact_set(ph_hub *h, ph_row *r, ph_member *owner, ph_number num, uint8_t state,
                 uint64_t serial, ph_fact **out);
void ph__fact_drop(ph_hub *h, ph_fact *f);
void ph__facts_drop_all(ph_hub *h, ph_member *m);
int ph__row_compare(const ph_hub *h, const ph_intent *a, const ph_intent *b);
void ph__registry_forget(ph_hub *h);
void ph__registry_free(ph_hub *h);
/* ---- tomb.c */
/* As ph__intent_add. keep: a static child was stopped, or ended for good; that is remembered as
 * long as the hub lives, and enters the digests. */
int ph__ended_add(ph_hub *h, ph_row *r, ph_number num, bool keep);
int ph__intent_end(ph_hub *h, ph_row *r,
                   const ph_intent *in); /* by a stop; tells all. 0 or error */
void ph__ended_free(ph_hub *h, ph_ended *e);
bool ph__is_ended(const ph_row *r, ph_number num);
ph_ended *ph__ended_find(const ph_row *r, ph_number num);
uint64_t ph__ended_hash(const ph_hub *h, const ph_ended *e);
void ph__tombs_tick(ph_hub *h);
bool ph__tombs_slice(ph_hub *h); /* true: there are more that may go */
void ph__gone_add(ph_hub *h, ph_nodeent *n);
void ph__gone_back(ph_hub *h, const ph_nodeent *n);
void ph__gone_free(ph_hub *h);
void ph__gone_send(ph_hub *h, ph_member *to);
int ph__on_gone(ph_hub *h, ph_reader *r);
/* ---- tag.c */
/* the tag in that metadata, a reference more; NULL: none */
int ph__tag_of(ph_hub *h, ph_bytes *meta, ph_tag **out) PH_MUST_CHECK;
void ph__tag_unref(ph_hub *h, ph_tag *t);
/* A new intent's record, which takes the reference over; t NULL: it has none. */
void ph__tag_put(ph_intent *in, ph_row *r, ph_tag *t);
void ph__tag_drop(ph_hub *h, ph_intent *in); /* it goes */
void ph__tag_show(ph_intent *in, bool shown);
/* Metadata as it came, the same blob when it came last time too; NULL: no memory. */
ph_bytes *ph__meta_get(ph_hub *h, const void *p, size_t n);
void ph__meta_unref(ph_hub *h, ph_bytes *meta); /* of an intent */
void ph__meta_forget(ph_hub *h);
/* ---- batch.c */
void ph__batch_free(ph_hub *h, ph_batch *b); /* NULL allowed */
/* the batch behind *slot, made if need be; NULL: no memory (the loss is made good by ph__oom) */
ph_batch *ph__batch(ph_hub *h, ph_batch **slot, uint64_t type);
void ph__batch_number(ph_hub *h, ph_batch *b, ph_number num);
uint32_t ph__batch_node(ph_batch *b, uint32_t node);
uint32_t ph__batch_spec(ph_hub *h, ph_batch *b, ph_spec *spec);
void ph__batch_row(ph_hub *h, ph_batch *b, const ph_row *r, bool live, bool tombs); /* CHANGES */
void ph__batch_ended(ph_hub *h, ph_batch *b, const ph_row *r, ph_number num);
void ph__batch_fact(ph_hub *h, ph_batch *b, const ph_fact *f);
/* sends the batch, if there is one with something in it, to one member or (NULL) to all, and
 * empties it */
int ph__batch_send(ph_hub *h, ph_batch **slot, ph_member *to);
ph_batch *ph__out(ph_hub *h, ph_member *m,
                  int which);                    /* a member's own batch; full ones go out first */
void ph__change_row(ph_hub *h, const ph_row *r); /* what lives, to all, in this turn's CHANGES */
void ph__change_ended(ph_hub *h, const ph_row *r, ph_number num);
void ph__head(ph_hub *h, ph_buf *b, uint64_t type, uint32_t fields); /* fields after the hub id */
int ph__send(ph_hub *h, ph_member *m, ph_buf *b);                    /* and deinits b */
int ph__send_all(ph_hub *h, ph_buf *b); /* to every member with a hello; and deinits b */
int ph__send_number(ph_hub *h, ph_member *to, uint64_t type,
                    uint64_t value); /* [type, hub, value]; NULL: all */
void ph__flush(ph_hub *h);
void ph__own_fact_changed(ph_hub *h, ph_fact *f);
void ph__own_fact_gone(ph_hub *h, ph_fact *f);
typedef struct ph_tables { /* a received batch */
  uint32_t node_count, spec_count;
  uint32_t *nodes;
  ph_spec **specs;
  uint64_t clock;
  ph_reader rows;
} ph_tables;
int ph__tables_read(ph_hub *h, ph_reader *r, ph_tables *t) PH_MUST_CHECK;
void ph__tables_free(ph_hub *h, ph_tables *t);
int ph__r_number(ph_reader *r, const ph_tables *t, ph_number *out) PH_MUST_CHECK;
/* ---- sync.c */
void ph__sync_node_up(ph_hub *h, ph_nodeent *n);
void ph__sync_node_down(ph_hub *h, ph_nodeent *n, bool left);
void ph__sync_link_reset(ph_hub *h, ph_nodeent *n);
void ph__sync_frame(ph_hub *h, ph_nodeent *n, uint64_t type, ph_reader *r);
void ph__sync_start(ph_hub *h); /* greets all nodes in view */
void ph__sync_greet(ph_hub *h); /* those it does not know yet */
bool ph__sync_slice(ph_hub *h); /* sends some of what is wanted; true: there is more */
void ph__sync_tick(ph_hub *h);
void ph__send_digest(ph_hub *h, ph_member *to, bool answer);
void ph__sync_fact_unlinked(ph_hub *h, ph_fact *f);       /* an own fact goes: cursors move on */
ph_fact *ph__own_fact_after(ph_hub *h, const ph_fact *f); /* NULL: the first */
void ph__view_changed(ph_hub *h); /* makes the ring anew, tells the others */
void ph__view_check(ph_hub *h);
void ph__settle_check(ph_hub *h);
ph_member *ph__member(ph_hub *h, const ph_nodeent *n);
ph_member *ph__first(ph_hub *h, uint64_t hash); /* the ring's first; NULL: empty */
void ph__hub_members_free(ph_hub *h);
/* ---- op.c: the requester */
typedef struct ph_answer { /* a row of RESULT */
  uint64_t counter, clock;
  int64_t code; /* 0: a stop is done; 1: a stop met a younger start (clock); < 0: an error */
  bool failed;  /* the start function failed (the holder waits for the requester's word) */
  const char *id;
  size_t id_len;
  ph_pid pid;
  ph_nodeent *where, *from;
  const uint8_t *reason; /* a packed value or NULL */
  size_t reason_len;
} ph_answer;
bool ph__ops_slice(ph_hub *h);
void ph__ops_view(ph_hub *h);                   /* what has no answer goes to its arbiter, again */
void ph__req_row_changed(ph_hub *h, ph_row *r); /* do this row's requests have their answer? */
void ph__held_run(ph_hub *h);
void ph__req_result(ph_hub *h, const ph_answer *a);
void ph__req_unsure(ph_hub *h, const char *id, size_t n, uint64_t counter);
void ph__ops_over(ph_hub *h, int err); /* those under way end soon, this is their error */
void ph__ops_end(ph_hub *h, int err);  /* answers all of them at once */
void ph__ops_withdraw(ph_hub *h);      /* starts without an answer run nowhere */
void ph__ops_detach(ph_hub *h);        /* those not freed yet outlive the hub */
/* ---- arbiter.c: requests at their arbiter, and the messages of requests */
int ph__req_frame(ph_hub *h, ph_member *m, uint64_t type, ph_reader *r);
void ph__arbiter(ph_hub *h, ph_op_kind kind, ph_number num, const char *id, size_t n, ph_spec *spec,
                 ph_bytes *meta, uint64_t clock, bool proposal, ph_member *from);
void ph__deferred_run(ph_hub *h);               /* the view is agreed */
void ph__report_failed(ph_hub *h, ph_child *c); /* a first start failed here: tell its requester */
void ph__settled_send(ph_hub *h, ph_nodeent *to, const ph_row *r, ph_number num);
void ph__unsure_send(ph_hub *h, ph_member *to, const ph_row *r, ph_number num);
/* an operation of this node, not answered yet, starts this id */
bool ph__op_starts(ph_hub *h, const char *id, size_t n);
/* ---- child.c */
int ph__child_start(ph_hub *h, ph_row *r);   /* by its shown intent */
void ph__child_stop(ph_hub *h, ph_child *c); /* may free it at once */
void ph__child_backoff(ph_hub *h, ph_child *c);
void ph__child_tell(ph_child *c, uint8_t state); /* its state, as this node's running fact */
bool ph__children_slice(ph_hub *h); /* begins queued starts; true: there are more to begin */
void ph__children_stop(ph_hub *h);  /* all of them */
void ph__children_kill(ph_hub *h);
void ph__children_mend(ph_hub *h); /* arms the timers that there was no memory for */
extern const ph_behaviour ph__hub_behaviour;
/* ---- move.c */
void ph__move(ph_hub *h, ph_child *c);        /* to the node that the ring names */
void ph__move_cancel(ph_hub *h, ph_child *c); /* HOLDING: it stays after all */
void ph__moves_run(ph_hub *h);                /* what has its fence goes */
int ph__mail_row(ph_hub *h, ph_reader *r) PH_MUST_CHECK;
/* ---- place.c */
bool ph__place_slice(ph_hub *h);
void ph__place_agreed(ph_hub *h);
void ph__place_homeless(ph_hub *h); /* looks at all that is nowhere, or has two starts */
/* ---- route.c */
void ph__route_row(ph_hub *h, ph_row *r); /* a row changed: can its pending messages go? */
void ph__route_asked(ph_hub *h, const char *id, size_t n);
void ph__route_own(ph_hub *h, const char *id, size_t n); /* a start of this node's has its answer */
/* a message for a child that is on its way here, before all others; takes m on success */
int ph__route_mail(ph_hub *h, const char *id, size_t n, ph_msg *m) PH_MUST_CHECK;
void ph__route_view(ph_hub *h); /* ask the new arbiters */
void ph__routes_run(ph_hub *h);
void ph__routes_end(ph_hub *h);
/* ---- survey.c */
int ph__on_survey(ph_hub *h, ph_member *m, ph_reader *r);
int ph__on_surveyed(ph_hub *h, ph_member *m, ph_reader *r);
void ph__surveys_gone(ph_hub *h, const ph_nodeent *node);
void ph__surveys_again(ph_hub *h);
void ph__surveys_end(ph_hub *h);

#endif
