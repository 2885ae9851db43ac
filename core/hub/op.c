/* Operations: the requester's side of starts and stops. Each id of an operation is a request with a
 * number of its own; it goes to the id's arbiter, again after every change of view and every few
 * seconds, until its answer is known: start  the running fact that serves this number is here, and
 * its intent; stop   the arbiter has answered, and no running fact of an ended number is left in
 * view. An error withdraws the number first, so that what is reported failed never runs later. An
 * answer that rests on this node's memory alone waits in hub->held until a second node has it. */
#include <string.h>

#include "hub/internal.h"

enum { SLICE_ROWS = 2048, TURN_ROWS = 128, REPEAT_MS = 3000, ARENA = 64 * 1024 };
/* WAITS: a stop that this node asked for after a start which is not known yet */
enum { PHASE_NEW, PHASE_WAITS, PHASE_ASKED, PHASE_HELD, PHASE_FINAL };

typedef struct chunk {
  struct chunk *next;
  char data[];
} chunk;

/* ---- Building */

ph_op *ph_op_new(ph_hub *h, ph_op_kind kind, size_t rows) {
  ph_op *op = ph_zalloc(h->env, sizeof *op);
  if (!op) return NULL;
  op->rows = ph_zalloc(h->env, (rows ? rows : 1) * sizeof *op->rows);
  if (!op->rows) {
    ph_free(h->env, op);
    return NULL;
  }
  op->hub = h;
  op->env = h->env;
  op->kind = kind;
  op->cap = rows;
  ph_list_init(&op->all);
  ph_list_init(&op->work);
  ph_list_push(&h->known_ops, &op->known);
  ph_index_init(&op->ids, h->env);
  return op;
}

typedef struct id_key {
  const char *id;
  size_t n;
} id_key;

static bool same_id(const void *item, const void *key) {
  const ph_req *q = item;
  const id_key *k = key;
  return q->id_len == k->n && memcmp(q->id, k->id, k->n) == 0;
}

static char *arena(ph_op *op, const char *id, size_t n) {
  if (op->chunk_left < n) {
    size_t size = n > ARENA ? n : ARENA;
    chunk *c = ph_alloc(op->env, sizeof *c + size);
    if (!c) return NULL;
    c->next = op->chunks;
    op->chunks = c;
    op->chunk_at = c->data;
    op->chunk_left = size;
  }
  char *p = op->chunk_at;
  memcpy(p, id, n);
  op->chunk_at += n;
  op->chunk_left -= n;
  return p;
}

int ph_op_add(ph_op *op, const char *id, size_t len, ph_spec *spec, ph_bytes *metadata) {
  if (len == 0 || len > PH_MAX_ID || op->count == op->cap || op->submitted) return PH_EINVAL;
  if (!op->hub) return PH_ENOTALIVE;
  id_key k = {id, len};
  uint64_t hash = ph_hash(id, len, op->hub->seed);
  if (ph_index_find(&op->ids, hash, same_id, &k)) return PH_EDUPID;
  ph_req *q = &op->rows[op->count];
  char *copy = arena(op, id, len);
  if (!copy) return PH_ENOMEM;
  q->id = copy;
  q->id_len = (uint16_t)len;
  int err = ph_index_put(&op->ids, hash, q);
  if (err) return err;
  q->op = op;
  q->spec = spec;
  q->meta = ph_bytes_ref(metadata);
  ph_list_init(&q->held);
  op->count++;
  return 0;
}

/* the hub goes before the operation: what the operation has of it is given back */
static void detach(ph_op *op) {
  ph_hub *h = op->hub;
  if (!h) return;
  ph_timer_stop(&h->sys->timers, &op->timer);
  ph_list_remove(&op->all);
  ph_list_remove(&op->work);
  ph_list_remove(&op->known);
  for (size_t i = 0; i < op->count; i++) {
    ph_spec_unref(&h->specs, op->rows[i].spec);
    op->rows[i].spec = NULL;
  }
  op->hub = NULL;
}

static void op_destroy(ph_op *op) {
  detach(op);
  for (size_t i = 0; i < op->count; i++) {
    ph_bytes_unref(op->env, op->rows[i].meta);
    ph_bytes_unref(op->env, op->rows[i].reason);
  }
  for (chunk *c = op->chunks, *next; c; c = next) {
    next = c->next;
    ph_free(op->env, c);
  }
  ph_index_deinit(&op->ids);
  ph_free(op->env, op->rows);
  ph_free(op->env, op);
}

void ph_op_free(ph_op *op) {
  if (op->submitted && !op->finished) {
    op->orphan = true;
    op->done = NULL;
    return;
  }
  op_destroy(op);
}

size_t ph_op_count(const ph_op *op) {
  return op->count;
}
bool ph_op_rolled_back(const ph_op *op) {
  return op->rolled_back;
}

void ph_op_row_get(const ph_op *op, size_t i, ph_op_row *out) {
  const ph_req *q = &op->rows[i];
  *out = (ph_op_row){.status = (ph_op_status)q->status,
                     .id = q->id,
                     .id_len = q->id_len,
                     .pid = q->pid,
                     .node = q->node,
                     .err = q->err,
                     .reason = q->reason};
}

/* ---- Numbers */

static ph_number number_of(const ph_req *q) {
  return (ph_number){.node = PH_SELF, .counter = q->op->base + (uint64_t)(q - q->op->rows)};
}

/* this node's unsettled request for an id, by its number */
static ph_req *req_of(const ph_row *r, uint64_t counter) {
  ph_req *q = r ? r->reqs : NULL;
  while (q && number_of(q).counter != counter) q = q->next_of_row;
  return q;
}

static bool is_start(const ph_op *op) {
  return op->kind == PH_OP_START && !op->proposal;
}

bool ph__op_starts(ph_hub *h, const char *id, size_t n) {
  ph_row *r = ph__row_find(h, id, n, ph_ring_hash(id, n));
  for (const ph_req *q = r ? r->reqs : NULL; q; q = q->next_of_row)
    if (is_start(q->op)) return true;
  id_key k = {id, n};
  uint64_t hash = ph_hash(id, n, h->seed);
  for (ph_list *l = h->work.next; l != &h->work; l = l->next) {
    ph_op *op = PH_CONTAINER(l, ph_op, work);
    if (!is_start(op) || op->cursor == op->count) continue;
    ph_req *q = ph_index_find(&op->ids, hash, same_id, &k);
    if (q && q->phase == PHASE_NEW) return true;
  }
  return false;
}

/* ---- Settling */

static void op_check(ph_op *op);

static void row_forget(ph_hub *h, ph_req *q) {
  ph_row *r = q->row;
  if (!r) return;
  ph_req **at = &r->reqs;
  while (*at != q) at = &(*at)->next_of_row;
  *at = q->next_of_row;
  q->row = NULL;
  ph__row_dirty(h, r);
}

static void finalise(ph_hub *h, ph_req *q) {
  ph_list_remove(&q->held);
  row_forget(h, q);
  q->phase = PHASE_FINAL;
  ph__route_own(h, q->id, q->id_len);
  q->op->unsettled--;
  op_check(q->op);
}

static bool covered(const ph_hub *h, const ph_req *q) {
  return q->barrier <= h->barrier_acked || h->others == 0;
}

/* the answer is known; it goes out now or once a second node holds what it rests on */
static void settle(ph_hub *h, ph_req *q, ph_op_status status) {
  q->status = (uint8_t)status;
  if (covered(h, q)) {
    finalise(h, q);
    return;
  }
  q->phase = PHASE_HELD;
  h->barrier_wanted = true;
  ph_list_push(&h->held, &q->held);
  ph__kick(h);
}

/* held requests stand in the order of their barriers */
void ph__held_run(ph_hub *h) {
  while (!ph_list_empty(&h->held)) {
    ph_req *q = PH_CONTAINER(h->held.next, ph_req, held);
    if (!covered(h, q)) {
      if (q->barrier <= h->barrier_asked || h->barrier_wanted) return; /* word is on the way */
      h->barrier_wanted = true;
      ph__kick(h);
      return;
    }
    finalise(h, q);
  }
}

/* the node that an error is about: where the child runs, or who failed, or was to answer */
static ph_nodeent *node_about(ph_hub *h, const ph_req *q) {
  ph_nodeent *node = q->pid ? ph_sys_node_at(h->sys, ph_id_node(q->pid)) : NULL;
  if (!node) node = q->node;
  if (node) return node;
  ph_member *m = ph__first(h, ph_ring_hash(q->id, q->id_len));
  return m ? m->node : h->self.node;
}

/* false: its answer must wait until there is memory to hold the withdrawal */
static bool settle_error(ph_hub *h, ph_req *q, int err) {
  if (q->op->kind == PH_OP_START && q->phase == PHASE_ASKED && !q->op->proposal) {
    bool sure = err == PH_EALREADY &&
                !q->again; /* refused, and asked only once: there is nothing to withdraw */
    if (!sure) {
      if (ph__ended_add(h, q->row, number_of(q), false) < 0) {
        ph__oom(h);
        return false;
      }
      ph__change_ended(h, q->row, number_of(q));
      q->barrier = h->barrier;
    }
  }
  q->err = err;
  q->node = node_about(h, q);
  settle(h, q, PH_ROW_ERROR);
  return true;
}

static bool serves_ended(const ph_row *r) {
  for (const ph_fact *f = r->facts; f; f = f->next)
    if (ph__is_ended(r, f->num)) return true;
  return false;
}

static void check_start(ph_hub *h, ph_req *q, ph_row *r) {
  ph_number num = number_of(q);
  if (q->op->proposal) {
    if (r->live || r->ended) settle(h, q, PH_ROW_DONE);
    return;
  }
  if (ph__is_ended(r, num)) {
    (void)settle_error(h, q, PH_ENOTFOUND); /* stopped before it was seen to run */
    return;
  }
  ph_intent *in = ph__intent_find(r, num);
  if (!in) return;
  for (ph_fact *f = r->facts; f; f = f->next) {
    if (f->state != PH_FACT_RUNNING || !ph_number_eq(f->num, num)) continue;
    in->confirmed = true;
    if (r->live->next) ph__change_row(h, r); /* somebody waits to hear which of two holds */
    q->pid = ph_pid_make(f->owner->node->index, f->serial);
    q->node = f->owner->node;
    if (in->writer == PH_SELF) q->barrier = h->barrier;
    settle(h, q, PH_ROW_DONE);
    return;
  }
}

static void stop_ready(ph_hub *h, ph_req *q);

void ph__req_row_changed(ph_hub *h, ph_row *r) {
  for (ph_req *q = r->reqs, *next; q; q = next) {
    next = q->next_of_row;
    if (q->phase == PHASE_WAITS) stop_ready(h, q);
    if (q->phase != PHASE_ASKED) continue;
    if (q->op->kind == PH_OP_START)
      check_start(h, q, r);
    else if (q->intent && !serves_ended(r)) {
      if (q->sent_to == &h->self) q->barrier = h->barrier;
      settle(h, q, PH_ROW_DONE);
    }
  }
}

/* ---- Ending */

static void undo_done(void *ctx, ph_op *undo) {
  ph_op *op = ctx;
  op->rolled_back = true;
  for (size_t i = 0; i < undo->count; i++)
    if (undo->rows[i].status != PH_ROW_DONE && undo->rows[i].err != PH_ENOTFOUND)
      op->rolled_back = false; /* it did not stop in time */
  ph_op_free(undo);
  op->undo = NULL;
  op_check(op);
}

static uint64_t ms_left(const ph_op *op) {
  uint64_t now = ph_now(op->hub->env);
  if (op->await_due == PH_NEVER) return UINT64_MAX;
  return op->await_due > now ? (op->await_due - now + 999999) / 1000000 : 0;
}

/* on_failure = "rollback": what has started is stopped again before the answer */
static bool rollback(ph_op *op) {
  ph_hub *h = op->hub;
  size_t failed = 0, n = 0;
  for (size_t i = 0; i < op->count; i++) op->rows[i].status == PH_ROW_DONE ? n++ : failed++;
  if (!failed || op->undone || h->freeing) return false;
  op->undone = true;
  if (!n) {
    op->rolled_back = true;
    return false;
  }
  ph_op_options o = {.timeout = op->opt.timeout, .await_timeout = ms_left(op)};
  ph_op *undo = ph_op_new(h, PH_OP_STOP, n);
  int err = undo ? 0 : PH_ENOMEM;
  for (size_t i = 0; !err && i < op->count; i++)
    if (op->rows[i].status == PH_ROW_DONE)
      err = ph_op_add(undo, op->rows[i].id, op->rows[i].id_len, NULL, NULL);
  if (!err) err = ph_op_submit(undo, &o, undo_done, op);
  if (err) { /* the answer then says that nothing was rolled back */
    if (undo) ph_op_free(undo);
    return false;
  }
  op->undo = undo;
  return true;
}

static void op_check(ph_op *op) {
  if (op->unsettled || op->undo || op->finished) return;
  if (op->kind == PH_OP_START && op->opt.rollback && rollback(op)) return;
  op->finished = true;
  ph_timer_stop(&op->hub->sys->timers, &op->timer);
  ph_list_remove(&op->all);
  ph_list_remove(&op->work);
  if (op->done)
    op->done(op->ctx, op);
  else if (op->orphan)
    op_destroy(op);
}

/* ---- Asking */

/* Before the view is agreed there is no arbiter; then what has no answer goes out (ph__ops_view).
 */
static void req_send(ph_hub *h, ph_req *q) {
  ph_member *to = h->agreed ? ph__first(h, q->row->hash) : NULL;
  if (!to) return;
  if (q->sent_to) q->again = true;
  q->sent_to = to;
  if (to == &h->self) {
    ph__arbiter(h, q->op->kind, number_of(q), q->id, q->id_len, q->spec, q->meta, q->op->clock,
                q->op->proposal, &h->self);
    return;
  }
  ph_batch *b = ph__out(h, to, q->op->kind == PH_OP_START ? PH_OUT_START : PH_OUT_STOP);
  if (!b) return; /* asked again by the repeat timer */
  ph_w_uint(&b->body, number_of(q).counter);
  ph_w_str(&b->body, q->id, q->id_len);
  if (q->op->kind == PH_OP_STOP) {
    ph_w_uint(&b->body, q->op->clock);
    return;
  }
  ph_w_uint(&b->body, ph__batch_spec(h, b, q->spec));
  if (q->meta)
    ph_w_bin(&b->body, q->meta->data, q->meta->len);
  else
    ph_w_nil(&b->body);
  ph_w_bool(&b->body, q->op->proposal);
}

static void row_wait(ph_row *r, ph_req *q) {
  q->row = r;
  q->next_of_row = r->reqs;
  r->reqs = q;
}

static void start_begin(ph_hub *h, ph_req *q) {
  ph_row *r = ph__row_get(h, q->id, q->id_len, ph_ring_hash(q->id, q->id_len));
  if (!r) {
    (void)settle_error(h, q, PH_ENOMEM);
    return;
  }
  if (is_start(q->op) && r->live) {
    q->pid = ph_row_pid(h, r);
    (void)settle_error(h, q, PH_EALREADY);
    return;
  }
  row_wait(r, q);
  q->phase = PHASE_ASKED;
  req_send(h, q);
}

/* does a start that this node asked for before that stop have no answer yet? */
static bool start_before(const ph_row *r, const ph_req *stop) {
  for (const ph_req *q = r ? r->reqs : NULL; q; q = q->next_of_row)
    if (is_start(q->op) && q->op->base < stop->op->base) return true;
  return false;
}

/* a start that it asked for before that stop, and whose turn has not come: it comes now */
static void hurry_start(ph_hub *h, const ph_req *stop) {
  id_key k = {stop->id, stop->id_len};
  uint64_t hash = ph_hash(stop->id, stop->id_len, h->seed);
  for (ph_list *l = h->work.next; l != &h->work; l = l->next) {
    ph_op *op = PH_CONTAINER(l, ph_op, work);
    if (!is_start(op) || op->cursor == op->count || op->base > stop->op->base) continue;
    ph_req *q = ph_index_find(&op->ids, hash, same_id, &k);
    if (!q || q->phase != PHASE_NEW) continue;
    start_begin(h, q);
    return;
  }
}

static void stop_ready(ph_hub *h, ph_req *q) {
  if (q->row->live) {
    if (q->row->facts) q->node = q->row->facts->owner->node;
    q->phase = PHASE_ASKED;
    req_send(h, q);
  } else if (!start_before(q->row, q)) {
    (void)settle_error(h, q, PH_ENOTFOUND);
  }
}

static void stop_begin(ph_hub *h, ph_req *q) {
  uint64_t hash = ph_ring_hash(q->id, q->id_len);
  ph_row *r = ph__row_find(h, q->id, q->id_len, hash);
  if (!r || !r->live) {
    hurry_start(h, q);
    r = ph__row_find(h, q->id, q->id_len, hash);
  }
  if (!r || (!r->live && !start_before(r, q))) {
    (void)settle_error(h, q, PH_ENOTFOUND);
    return;
  }
  row_wait(r, q);
  q->phase = PHASE_WAITS;
  stop_ready(h, q);
}

static void req_begin(ph_hub *h, ph_req *q) {
  if (q->phase != PHASE_NEW) return;
  if (q->op->kind == PH_OP_START)
    start_begin(h, q);
  else
    stop_begin(h, q);
}

/* ---- The work on operations, in slices */

static void work(ph_op *op) {
  if (ph_list_empty(&op->work)) ph_list_push(&op->hub->work, &op->work);
  ph__kick(op->hub);
}

static void again(ph_op *op) {
  if (op->cursor == 0) return;
  op->resend = 0;
  work(op);
}

/* what has no answer yet gets this error */
static void over(ph_op *op, int err) {
  if (op->over) return;
  op->over = err;
  op->cursor = op->count;
  op->expire = 0;
  work(op);
}

static void op_timer(ph_timer *t) {
  ph_op *op = PH_CONTAINER(t, ph_op, timer);
  ph_hub *h = op->hub;
  uint64_t due = ph_due(h->env, REPEAT_MS);
  if (ph_now(h->env) >= op->due) {
    over(op, PH_ENODETIMEOUT);
    return;
  }
  (void)!ph_timer_start(&h->sys->timers, t, due < op->due ? due : op->due); /* it has just fired:
                                                                               there is room */
  again(op);
}

static bool known(ph_hub *h, const ph_req *q) {
  return ph_hub_find(h, q->id, q->id_len) != NULL;
}

int ph_op_submit(ph_op *op, const ph_op_options *o, void (*done)(void *, ph_op *), void *ctx) {
  ph_hub *h = op->hub;
  if (!h || h->stopping) return PH_ENOTALIVE;
  if (h->state) return h->state;
  op->opt = *o;
  int err = 0;
  for (size_t i = 0; op->kind == PH_OP_START && o->check_existing && i < op->count; i++)
    if (known(h, &op->rows[i])) {
      op->rows[i].status = PH_ROW_ERROR;
      op->rows[i].err = err = PH_EALREADY;
    }
  if (err) return err;
  uint64_t repeat = ph_due(h->env, REPEAT_MS);
  op->due = ph_due(h->env, o->timeout < o->await_timeout ? o->timeout : o->await_timeout);
  op->await_due = ph_due(h->env, o->await_timeout);
  ph_timer_init(&op->timer, op_timer);
  err = ph_timer_start(&h->sys->timers, &op->timer, repeat < op->due ? repeat : op->due);
  if (err) return err;
  op->base = h->next_counter;
  h->next_counter += op->count ? op->count : 1;
  op->clock = ph__clock(h);
  op->unsettled = op->count;
  op->resend = op->expire = SIZE_MAX;
  op->done = done;
  op->ctx = ctx;
  op->submitted = true;
  ph_list_push(&h->ops, &op->all);
  work(op);
  return 0;
}

/* One row, or the end of one without rows. What this does may end the operation. */
typedef enum { STEP, IDLE, BLOCKED } step;

static step op_step(ph_hub *h, ph_op *op) {
  if (op->count == 0) {
    op_check(op);
    return STEP;
  }
  if (op->expire < op->count) { /* withdrawn, then an error */
    ph_req *q = &op->rows[op->expire++];
    if (q->phase > PHASE_ASKED) return STEP;
    if (settle_error(h, q, op->over)) return STEP;
    op->expire--;
    return BLOCKED;
  }
  if (op->resend < op->cursor) {
    ph_req *q = &op->rows[op->resend++];
    if (q->phase == PHASE_ASKED) req_send(h, q);
    return STEP;
  }
  if (op->cursor == op->count) return IDLE;
  if (!h->settled || h->ring_stale) return BLOCKED;
  req_begin(h, &op->rows[op->cursor++]);
  return STEP;
}

bool ph__ops_slice(ph_hub *h) {
  ph_list blocked;
  ph_list_init(&blocked);
  for (size_t left = SLICE_ROWS; left > 0 && !ph_list_empty(&h->work);) {
    if (left % TURN_ROWS == 0 && left < SLICE_ROWS)
      ph_list_push(&h->work, ph_list_pop(&h->work)); /* the next one */
    ph_op *op = PH_CONTAINER(h->work.next, ph_op, work);
    step done = op_step(h, op);
    left--;
    if (done == STEP) continue; /* op may be gone */
    ph_list_remove(&op->work);
    if (done == BLOCKED) ph_list_push(&blocked, &op->work);
  }
  bool more = !ph_list_empty(&h->work);
  ph_list_move(&h->work, &blocked);
  return more;
}

/* requests whose arbiter is another one now, or lost what it was sent, go out again */
void ph__ops_view(ph_hub *h) {
  for (ph_list *l = h->ops.next; l != &h->ops; l = l->next) again(PH_CONTAINER(l, ph_op, all));
}

void ph__ops_over(ph_hub *h, int err) {
  for (ph_list *l = h->ops.next; l != &h->ops; l = l->next) over(PH_CONTAINER(l, ph_op, all), err);
}

void ph__ops_detach(ph_hub *h) {
  while (!ph_list_empty(&h->known_ops)) detach(PH_CONTAINER(h->known_ops.next, ph_op, known));
}

/* what was asked for and has no answer runs nowhere, as far as there is memory to say so */
void ph__ops_withdraw(ph_hub *h) {
  for (ph_list *l = h->ops.next; l != &h->ops; l = l->next) {
    ph_op *op = PH_CONTAINER(l, ph_op, all);
    for (size_t i = 0; is_start(op) && i < op->count; i++) {
      const ph_req *q = &op->rows[i];
      if (q->phase != PHASE_ASKED) continue;
      if (ph__ended_add(h, q->row, number_of(q), false) >= 0)
        ph__change_ended(h, q->row, number_of(q));
    }
  }
}

void ph__ops_end(ph_hub *h, int err) {
  while (!ph_list_empty(&h->ops)) {
    ph_op *op = PH_CONTAINER(h->ops.next, ph_op, all);
    op->opt.rollback = false;
    op->cursor = op->count;
    op->over = err;
    for (size_t i = 0; i < op->count; i++) {
      ph_req *q = &op->rows[i];
      if (q->phase == PHASE_FINAL) continue;
      if (q->phase != PHASE_HELD) {
        q->status = PH_ROW_ERROR;
        q->err = err;
        q->node = node_about(h, q);
      }
      ph_list_remove(&q->held);
      row_forget(h, q);
      q->phase = PHASE_FINAL;
      op->unsettled--;
    }
    if (op->undo) { /* it is in the list too and is ended by itself */
      op->undo->done = NULL;
      op->undo->orphan = true;
      op->undo = NULL;
    }
    op_check(op);
  }
}

/* ---- Answers */

/* the number was never heard of, or was withdrawn: whoever runs it has to end it */
static void deny(ph_hub *h, const char *id, size_t n, ph_number num) {
  ph_row *r = ph__row_get(h, id, n, ph_ring_hash(id, n));
  if (!r || ph__ended_add(h, r, num, false) < 0) {
    ph__oom(h);
    return;
  }
  ph__change_ended(h, r, num);
}

/* An arbiter that is new to it may not have heard of a start that is known here, and may hear of it
 * only now: it is ended here, and asked for again. False: there was something left. */
static bool nothing_left(ph_hub *h, ph_req *q) {
  bool left = false;
  for (;;) {
    const ph_intent *in = q->row->live;
    while (in && in->hlc > q->op->clock) in = in->next;
    if (!in) break;
    left = true;
    if (ph__intent_end(h, q->row, in)) {
      ph__oom(h);
      return false;
    }
  }
  if (left) req_send(h, q);
  return !left;
}

void ph__req_result(ph_hub *h, const ph_answer *a) {
  ph_number num = {.node = PH_SELF, .counter = a->counter};
  ph_row *r = ph__row_find(h, a->id, a->id_len, ph_ring_hash(a->id, a->id_len));
  ph_req *q = req_of(r, a->counter);
  if (!q || q->phase != PHASE_ASKED) { /* settled before: a failure of a confirmed start waits in
                                          backoff, any other number is ended */
    ph_intent *in = r ? ph__intent_find(r, num) : NULL;
    if (!a->failed) return;
    if (!in)
      deny(h, a->id, a->id_len, num);
    else if (in->confirmed)
      ph__settled_send(h, a->from, r, num);
    return;
  }
  if (a->code == 0) { /* a stop: done by the arbiter */
    if (!nothing_left(h, q)) return;
    q->intent = true;
    ph__row_dirty(h, q->row);
  } else if (a->code > 0) { /* a stop that met a younger start: ask again, now with that clock */
    ph__clock_saw(h, a->clock);
    if (a->clock > q->op->clock) q->op->clock = a->clock;
    req_send(h, q);
  } else if (q->op->proposal) {
    settle(h, q, PH_ROW_DONE);
  } else {
    q->pid = a->pid;
    q->node = a->where;
    ph_bytes_unref(h->env, q->reason);
    q->reason = a->reason_len ? ph_bytes_new(h->env, a->reason, a->reason_len) : NULL;
    if (a->reason_len && !q->reason)
      ph__oom(h);
    else
      (void)settle_error(h, q, q->reason ? 0 : (int)a->code);
  }
}

/* somebody asks whether this start is settled, for it stands beside another one */
void ph__req_unsure(ph_hub *h, const char *id, size_t n, uint64_t counter) {
  ph_number num = {.node = PH_SELF, .counter = counter};
  ph_row *r = ph__row_find(h, id, n, ph_ring_hash(id, n));
  ph_intent *in = r ? ph__intent_find(r, num) : NULL;
  ph_req *q = req_of(r, counter);
  if (in && in->confirmed)
    ph__change_row(h, r);
  else if (!q || q->phase != PHASE_ASKED)
    deny(h, id, n, num);
}

static void proposal_done(void *ctx, ph_op *op) {
  (void)ctx;
  ph_op_free(op);
}

void ph_hub_propose(ph_hub *h, ph_op *op) {
  ph_op_options o = {.timeout = UINT64_MAX, .await_timeout = UINT64_MAX};
  op->proposal = true;
  if (ph_op_submit(op, &o, proposal_done, NULL)) {
    ph_logf(h->env, PH_LOG_ERROR, "hub %s: its static children could not be proposed", h->id);
    ph_op_free(op);
  }
}
