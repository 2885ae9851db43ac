/* Requests at the arbiter of their id, and the messages that carry requests and answers.
 *
 * An arbiter acts only while its view is agreed: before that, requests wait in hub->deferred. If
 * the view that is then agreed names another arbiter, the requester, which has the same view, has
 * asked that one. */
#include <string.h>

#include "hub/internal.h"

static void answer(ph_hub *h, ph_member *to, const ph_answer *a) {
  if (to == &h->self) {
    ph_answer mine = *a;
    mine.from = mine.where = h->self.node;
    ph__req_result(h, &mine);
    return;
  }
  ph_batch *b = to ? ph__out(h, to, PH_OUT_RESULT) : NULL;
  if (!b) return; /* the requester has gone, or asks again */
  ph_w_uint(&b->body, a->counter);
  ph_w_str(&b->body, a->id, a->id_len);
  ph_w_int(&b->body, a->code);
  ph_w_uint(&b->body, a->clock);
  ph_w_bool(&b->body, a->failed);
  if (a->pid)
    ph_w_id(h->sys, &b->body, a->pid);
  else
    ph_w_nil(&b->body);
  if (a->reason)
    ph_w_bin(&b->body, a->reason, a->reason_len);
  else
    ph_w_nil(&b->body);
}

static int defer(ph_hub *h, ph_op_kind kind, ph_number num, const char *id, size_t n, ph_spec *spec,
                 ph_bytes *meta, uint64_t clock, bool proposal, ph_member *from) {
  ph_deferred *d = ph_zalloc(h->env, sizeof *d + n);
  if (!d) return PH_ENOMEM; /* the requester asks again */
  d->kind = kind;
  d->num = num;
  d->spec = ph_spec_ref(spec);
  d->meta = ph_bytes_ref(meta);
  d->clock = clock;
  d->proposal = proposal;
  d->from = from;
  d->id_len = (uint16_t)n;
  memcpy(d->id, id, n);
  ph_list_push(&h->deferred, &d->list);
  return 0;
}

static void start(ph_hub *h, const ph_deferred *d, const char *id) {
  ph_row *r = ph__row_get(h, id, d->id_len, ph_ring_hash(id, d->id_len));
  if (!r) return;
  ph_answer a = {.counter = d->num.counter, .id = id, .id_len = d->id_len, .code = PH_EALREADY};
  ph__row_dirty(h, r);
  if (ph__is_ended(r, d->num)) {
    a.code = PH_ENOTFOUND;
    answer(h, d->from, &a);
  } else if (ph__intent_find(r, d->num)) { /* repeated: what there is to say is said again */
    if (r->child && r->child->state == PH_CH_FAILED && ph_number_eq(r->child->num, d->num))
      ph__report_failed(h, r->child);
    ph__change_row(h, r);
  } else if (r->live || (d->proposal && r->ended)) {
    a.pid = r->live ? ph_row_pid(h, r) : 0;
    answer(h, d->from, &a);
  } else {
    ph_intent in = {.num = d->num,
                    .hlc = d->proposal ? 0 : ph__clock(h),
                    .writer = PH_SELF,
                    .fresh = true,
                    .confirmed = d->proposal,
                    .spec = d->spec,
                    .meta = d->meta};
    if (ph__intent_add(h, r, &in) > 0) ph__change_row(h, r);
  }
}

static void stop(ph_hub *h, const ph_deferred *d, const char *id) {
  ph_row *r = ph__row_find(h, id, d->id_len, ph_ring_hash(id, d->id_len));
  ph_answer a = {.counter = d->num.counter, .id = id, .id_len = d->id_len};
  for (const ph_intent *in = r ? r->live : NULL; in; in = in->next)
    if (in->hlc > d->clock && in->hlc > a.clock) {
      a.code = 1;
      a.clock = in->hlc;
    }
  while (a.code == 0 && r && r->live)
    if (ph__intent_end(h, r, r->live)) return; /* not answered: asked again */
  answer(h, d->from, &a);
}

/* A requester that acts on a view with this node in it, while this node's is another one, asks
 * again once they agree. */
static void execute(ph_hub *h, const ph_deferred *d, const char *id) {
  if (d->from != &h->self && !d->from->included) return;
  if (ph__first(h, ph_ring_hash(id, d->id_len)) != &h->self) return;
  if (d->kind == PH_OP_START)
    start(h, d, id);
  else
    stop(h, d, id);
}

void ph__arbiter(ph_hub *h, ph_op_kind kind, ph_number num, const char *id, size_t n, ph_spec *spec,
                 ph_bytes *meta, uint64_t clock, bool proposal, ph_member *from) {
  if (!h->agreed) {
    if (defer(h, kind, num, id, n, spec, meta, clock, proposal, from)) ph__oom(h);
    return;
  }
  ph_deferred d = {.kind = kind,
                   .num = num,
                   .spec = spec,
                   .meta = meta,
                   .clock = clock,
                   .proposal = proposal,
                   .from = from,
                   .id_len = (uint16_t)n};
  execute(h, &d, id);
}

void ph__deferred_run(ph_hub *h) {
  ph_list ready;
  ph_list *l;
  ph_list_init(&ready);
  ph_list_move(&ready, &h->deferred);
  while ((l = ph_list_pop(&ready))) {
    ph_deferred *d = PH_CONTAINER(l, ph_deferred, list);
    execute(h, d, d->id);
    ph_spec_unref(&h->specs, d->spec);
    ph_bytes_unref(h->env, d->meta);
    ph_free(h->env, d);
  }
}

/* ---- A first start that failed, and the requester's word */

void ph__report_failed(ph_hub *h, ph_child *c) {
  ph_member *to = ph__member(h, h->sys->nodes[c->num.node]);
  ph_answer a = {.counter = c->num.counter,
                 .id = c->row->id,
                 .id_len = c->row->id_len,
                 .code = PH_EBADRESULT,
                 .failed = true,
                 .where = h->self.node};
  if (c->reason) {
    a.reason = c->reason->data;
    a.reason_len = c->reason->len;
  }
  answer(h, to, &a);
}

void ph__settled_send(ph_hub *h, ph_nodeent *to, const ph_row *r, ph_number num) {
  ph_member *m = ph__member(h, to);
  if (m == &h->self) {
    if (r->child && r->child->state == PH_CH_FAILED && ph_number_eq(r->child->num, num))
      ph__child_backoff(h, r->child);
    return;
  }
  ph_batch *b = m ? ph__out(h, m, PH_OUT_SETTLED) : NULL;
  if (!b) return;
  ph_w_str(&b->body, r->id, r->id_len);
  ph__batch_number(h, b, num);
}

void ph__unsure_send(ph_hub *h, ph_member *to, const ph_row *r, ph_number num) {
  if (to == &h->self) {
    ph__req_unsure(h, r->id, r->id_len, num.counter);
    return;
  }
  ph_batch *b = ph__out(h, to, PH_OUT_UNSURE);
  if (!b) return;
  ph_w_str(&b->body, r->id, r->id_len);
  ph__batch_number(h, b, num);
}

/* ---- Messages */

static int on_start(ph_hub *h, ph_member *m, ph_tables *t) {
  ph_reader *r = &t->rows;
  ph_number num = {.node = m->node->index};
  const char *id;
  const uint8_t *p = NULL;
  size_t n, len = 0;
  uint32_t spec;
  bool proposal;
  if (ph_r_uint(r, &num.counter) || ph_r_str(r, &id, &n, PH_MAX_ID) || n == 0 ||
      ph_r_u32(r, &spec) || spec >= t->spec_count)
    return PH_EMALFORMED;
  if (!ph_r_is_nil(r) && (ph_r_bin(r, &p, &len, UINT32_MAX) || ph_value_check(p, len)))
    return PH_EMALFORMED;
  if (ph_r_bool(r, &proposal)) return PH_EMALFORMED;
  ph_bytes *meta = NULL;
  if (p && !(meta = ph__meta_get(h, p, len))) return PH_ENOMEM;
  ph__arbiter(h, PH_OP_START, num, id, n, t->specs[spec], meta, 0, proposal, m);
  ph_bytes_unref(h->env, meta);
  return 0;
}

static int on_stop(ph_hub *h, ph_member *m, ph_tables *t) {
  ph_reader *r = &t->rows;
  ph_number num = {.node = m->node->index};
  const char *id;
  size_t n;
  uint64_t clock;
  if (ph_r_uint(r, &num.counter) || ph_r_str(r, &id, &n, PH_MAX_ID) || n == 0 ||
      ph_r_uint(r, &clock))
    return PH_EMALFORMED;
  ph__clock_saw(h, clock);
  ph__arbiter(h, PH_OP_STOP, num, id, n, NULL, NULL, clock, false, m);
  return 0;
}

static int on_result(ph_hub *h, ph_member *m, ph_tables *t) {
  ph_reader *r = &t->rows;
  ph_answer a = {.from = m->node, .where = m->node};
  ph_token tok;
  if (ph_r_uint(r, &a.counter) || ph_r_str(r, &a.id, &a.id_len, PH_MAX_ID) || a.id_len == 0 ||
      ph_r_next(r, &tok) || (tok.type != PH_T_UINT && tok.type != PH_T_INT))
    return PH_EMALFORMED;
  a.code = tok.type == PH_T_INT ? tok.i : (int64_t)tok.u;
  if (a.code > 1 || a.code < -100 || ph_r_uint(r, &a.clock) || ph_r_bool(r, &a.failed))
    return PH_EMALFORMED;
  if (!ph_r_is_nil(r)) {
    if (ph_r_next(r, &tok) || tok.type != PH_T_EXT ||
        ph_id_from_ext(h->sys, tok.ext, tok.ptr, tok.len, &a.pid) || !ph_is_pid(a.pid))
      return PH_EMALFORMED;
  }
  if (!ph_r_is_nil(r) &&
      (ph_r_bin(r, &a.reason, &a.reason_len, UINT32_MAX) || ph_value_check(a.reason, a.reason_len)))
    return PH_EMALFORMED;
  ph__req_result(h, &a);
  return 0;
}

static int on_numbered(ph_hub *h, ph_tables *t, uint64_t type) {
  const char *id;
  size_t n;
  ph_number num;
  if (ph_r_str(&t->rows, &id, &n, PH_MAX_ID) || n == 0 || ph__r_number(&t->rows, t, &num))
    return PH_EMALFORMED;
  if (type == PH_H_UNSURE) {
    if (num.node == PH_SELF) ph__req_unsure(h, id, n, num.counter);
    return 0;
  }
  ph_row *r = ph__row_find(h, id, n, ph_ring_hash(id, n));
  if (r && r->child && r->child->state == PH_CH_FAILED && ph_number_eq(r->child->num, num))
    ph__child_backoff(h, r->child);
  return 0;
}

static int on_ask(ph_hub *h, ph_member *m, ph_reader *r) {
  const char *id;
  size_t n;
  ph_buf b;
  if (ph_r_str(r, &id, &n, PH_MAX_ID)) return PH_EMALFORMED;
  ph_row *row = ph__row_find(h, id, n, ph_ring_hash(id, n));
  if (row && row->live) { /* what is known goes first, to everyone who lacks it */
    ph__change_row(h, row);
    ph__flush(h);
  }
  ph__head(h, &b, PH_H_ASKED, 1);
  ph_w_str(&b, id, n);
  return ph__send(h, m, &b);
}

static int on_asked(ph_hub *h, ph_reader *r) {
  const char *id;
  size_t n;
  if (ph_r_str(r, &id, &n, PH_MAX_ID)) return PH_EMALFORMED;
  ph__route_asked(h, id, n);
  return 0;
}

static int row_of(ph_hub *h, ph_member *m, uint64_t type, ph_tables *t) {
  switch (type) {
  case PH_H_START:
    return on_start(h, m, t);
  case PH_H_STOP:
    return on_stop(h, m, t);
  case PH_H_RESULT:
    return on_result(h, m, t);
  case PH_H_MAIL:
    return ph__mail_row(h, &t->rows);
  default:
    return on_numbered(h, t, type);
  }
}

int ph__req_frame(ph_hub *h, ph_member *m, uint64_t type, ph_reader *r) {
  if (type == PH_H_ASK) return on_ask(h, m, r);
  if (type == PH_H_ASKED) return on_asked(h, r);
  if (type != PH_H_START && type != PH_H_STOP && type != PH_H_RESULT && type != PH_H_SETTLED &&
      type != PH_H_MAIL && type != PH_H_UNSURE) {
    h->node->unknown_frames++;
    return 0;
  }
  ph_tables t;
  int err = ph__tables_read(h, r, &t);
  while (!err && ph_reader_left(&t.rows)) err = row_of(h, m, type, &t);
  ph__tables_free(h, &t);
  return err;
}
