/* Messages with tables: rows name nodes and specs by their place in tables at the front, so that a
 * bulk operation carries each once. And the flush at the end of a turn. */
#include <string.h>

#include "cluster/cluster.h"
#include "hub/internal.h"

enum { RECENT = PH_BATCH_SPECS };

void ph__head(ph_hub *h, ph_buf *b, uint64_t type, uint32_t fields) {
  ph_buf_init(b, h->env);
  ph_w_array(b, fields + 2);
  ph_w_uint(b, type);
  ph_w_str(b, h->id, h->id_len);
}

int ph__send(ph_hub *h, ph_member *m, ph_buf *b) {
  int err = b->oom ? PH_ENOMEM : 0;
  const ph_port *port = &h->sys->port;
  if (!err && port->command && m->node->peer)
    err = port->command(port->ctx, PH_CMD_SEND, m->node->peer, 0, ph_buf_at(b), ph_buf_size(b));
  ph_buf_deinit(b);
  return err;
}

int ph__send_all(ph_hub *h, ph_buf *b) {
  int err = b->oom ? PH_ENOMEM : 0;
  const ph_port *port = &h->sys->port;
  for (ph_list *l = h->members.next; !err && l != &h->members; l = l->next) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (!m->hello || !m->node->peer) continue;
    err = port->command(port->ctx, PH_CMD_SEND, m->node->peer, 0, ph_buf_at(b), ph_buf_size(b));
  }
  ph_buf_deinit(b);
  return err;
}

int ph__send_number(ph_hub *h, ph_member *to, uint64_t type, uint64_t value) {
  ph_buf b;
  ph__head(h, &b, type, 1);
  ph_w_uint(&b, value);
  return to ? ph__send(h, to, &b) : ph__send_all(h, &b);
}

/* ---- Building */

static void forget_specs(ph_hub *h, ph_batch *b) {
  for (size_t i = 0; i < RECENT; i++) ph_spec_unref(&h->specs, b->recent[i]);
  memset(b->recent, 0, sizeof b->recent);
}

static void batch_reset(ph_hub *h, ph_batch *b) {
  ph_buf_reset(&b->body);
  ph_buf_reset(&b->node_ids);
  ph_buf_reset(&b->specs);
  b->node_count = b->spec_count = 0;
  forget_specs(h, b);
}

ph_batch *ph__batch(ph_hub *h, ph_batch **slot, uint64_t type) {
  ph_batch *b = *slot;
  if (b) {
    ph__kick(h);
    return b;
  }
  b = ph_zalloc(h->env, sizeof *b);
  if (!b) {
    ph__oom(h);
    return NULL;
  }
  b->type = type;
  ph_buf_init(&b->body, h->env);
  ph_buf_init(&b->node_ids, h->env);
  ph_buf_init(&b->specs, h->env);
  *slot = b;
  ph__kick(h);
  return b;
}

void ph__batch_free(ph_hub *h, ph_batch *b) {
  if (!b) return;
  forget_specs(h, b);
  ph_buf_deinit(&b->body);
  ph_buf_deinit(&b->node_ids);
  ph_buf_deinit(&b->specs);
  ph_free(h->env, b);
}

uint32_t ph__batch_node(ph_batch *b, uint32_t node) {
  const uint32_t *ids = (const uint32_t *)(const void *)ph_buf_at(&b->node_ids);
  for (uint32_t i = b->node_count; i > 0; i--)
    if (ids[i - 1] == node) return i - 1;
  if (ph_buf_append(&b->node_ids, &node, sizeof node)) return 0; /* oom is seen when it is sent */
  return b->node_count++;
}

void ph__batch_number(ph_hub *h, ph_batch *b, ph_number num) {
  (void)h;
  ph_w_uint(&b->body, ph__batch_node(b, num.node));
  ph_w_uint(&b->body, num.counter);
}

/* Only the specs last used are looked for: a bulk start repeats a few, and a distinct spec a child
 * would make any search quadratic. They are held: the memory of one that had gone could be another
 * spec's by now. */
uint32_t ph__batch_spec(ph_hub *h, ph_batch *b, ph_spec *spec) {
  for (size_t i = 0; i < RECENT; i++)
    if (b->recent[i] == spec) return b->recent_at[i];
  uint32_t at = b->spec_count++;
  ph_w_bin(&b->specs, spec->blob, spec->blob_len);
  ph_spec_unref(&h->specs, b->recent[at % RECENT]);
  b->recent[at % RECENT] = ph_spec_ref(spec);
  b->recent_at[at % RECENT] = at;
  return at;
}

/* id, live count, { number, hlc, writer, confirmed, spec, metadata } ..., ended count, { number,
 * kept } ... */
void ph__batch_row(ph_hub *h, ph_batch *b, const ph_row *r, bool live, bool tombs) {
  const ph_intent *first = live ? r->live : NULL;
  const ph_ended *ended = tombs ? r->ended : NULL;
  uint32_t n = 0;
  ph_w_str(&b->body, r->id, r->id_len);
  for (const ph_intent *in = first; in; in = in->next) n++;
  ph_w_uint(&b->body, n);
  for (const ph_intent *in = first; in; in = in->next) {
    ph__batch_number(h, b, in->num);
    ph_w_uint(&b->body, in->hlc);
    ph_w_uint(&b->body, ph__batch_node(b, in->writer));
    ph_w_bool(&b->body, in->confirmed);
    ph_w_uint(&b->body, ph__batch_spec(h, b, in->spec));
    if (in->meta)
      ph_w_bin(&b->body, in->meta->data, in->meta->len);
    else
      ph_w_nil(&b->body);
  }
  n = 0;
  for (const ph_ended *e = ended; e; e = e->next) n++;
  ph_w_uint(&b->body, n);
  for (const ph_ended *e = ended; e; e = e->next) {
    ph__batch_number(h, b, e->num);
    ph_w_bool(&b->body, e->keep);
  }
}

void ph__batch_ended(ph_hub *h, ph_batch *b, const ph_row *r, ph_number num) {
  ph_w_str(&b->body, r->id, r->id_len);
  ph_w_uint(&b->body, 0);
  ph_w_uint(&b->body, 1);
  ph__batch_number(h, b, num);
  const ph_ended *e = ph__ended_find(r, num);
  ph_w_bool(&b->body, e && e->keep);
}

/* id, state, number, serial */
void ph__batch_fact(ph_hub *h, ph_batch *b, const ph_fact *f) {
  ph_w_str(&b->body, f->row->id, f->row->id_len);
  ph_w_uint(&b->body, f->state);
  ph__batch_number(h, b, f->num);
  ph_w_uint(&b->body, f->serial);
}

static int batch_pack(ph_hub *h, ph_batch *b, ph_buf *out) {
  const uint32_t *ids = (const uint32_t *)(const void *)ph_buf_at(&b->node_ids);
  ph__head(h, out, b->type, 4);
  ph_w_array(out, b->node_count * 2);
  for (uint32_t i = 0; i < b->node_count; i++) {
    const ph_nodeent *n = h->sys->nodes[ids[i]];
    ph_w_str(out, n->name, n->name_len);
    ph_w_uint(out, n->incarnation);
  }
  ph_w_array(out, b->spec_count);
  ph_w_raw(out, ph_buf_at(&b->specs), ph_buf_size(&b->specs));
  ph_w_uint(out, b->clock);
  ph_w_bin(out, ph_buf_at(&b->body), ph_buf_size(&b->body));
  return out->oom || b->body.oom || b->node_ids.oom || b->specs.oom ? PH_ENOMEM : 0;
}

int ph__batch_send(ph_hub *h, ph_batch **slot, ph_member *to) {
  ph_batch *b = *slot;
  if (!b) return 0;
  if (ph_buf_size(&b->body) == 0 && !b->body.oom) return 0;
  ph_buf out;
  int err = batch_pack(h, b, &out);
  if (err)
    ph_buf_deinit(&out);
  else
    err = to ? ph__send(h, to, &out) : ph__send_all(h, &out);
  batch_reset(h, b);
  return err;
}

static size_t batch_size(const ph_batch *b) {
  return ph_buf_size(&b->body) + ph_buf_size(&b->specs);
}

ph_batch *ph__out(ph_hub *h, ph_member *m, int which) {
  static const uint64_t types[PH_OUT_COUNT] = {PH_H_START,   PH_H_STOP,   PH_H_RESULT,
                                               PH_H_SETTLED, PH_H_UNSURE, PH_H_MAIL};
  const ph_batch *b = m->out[which];
  if (b && batch_size(b) > PH_BATCH_BYTES) ph__flush(h); /* what it rests on goes first */
  return ph__batch(h, &m->out[which], types[which]);
}

/* nobody to tell: no bytes are made */
static bool alone(const ph_hub *h) {
  return h->hellos == 0;
}

static ph_batch *changes(ph_hub *h) {
  if (alone(h)) return NULL;
  if (h->changes && batch_size(h->changes) > PH_BATCH_BYTES && ph__batch_send(h, &h->changes, NULL))
    ph__oom(h);
  return ph__batch(h, &h->changes, PH_H_CHANGES);
}

void ph__change_row(ph_hub *h, const ph_row *r) {
  ph_batch *b = changes(h);
  if (b) ph__batch_row(h, b, r, true, false);
}

void ph__change_ended(ph_hub *h, const ph_row *r, ph_number num) {
  ph_batch *b = changes(h);
  if (b) ph__batch_ended(h, b, r, num);
}

void ph__own_fact_changed(ph_hub *h, ph_fact *f) {
  if (alone(h) || !ph_list_empty(&f->dirty)) return;
  ph_list_push(&h->dirty_facts, &f->dirty);
  ph__kick(h);
}

/* state 0: gone */
void ph__own_fact_gone(ph_hub *h, ph_fact *f) {
  if (!alone(h)) {
    ph_batch *b = ph__batch(h, &h->facts, PH_H_FACTS);
    f->state = 0;
    ph_list_remove(&f->dirty);
    if (b) ph__batch_fact(h, b, f);
    if (b && batch_size(b) > PH_BATCH_BYTES) ph__flush(h);
  }
  ph__fact_drop(h, f);
}

/* ---- The flush: intents before the facts that serve them, facts before the answers that rest on
 * them */

static int flush_facts(ph_hub *h) {
  int err = 0;
  while (!ph_list_empty(&h->dirty_facts)) {
    ph_batch *b = ph__batch(h, &h->facts, PH_H_FACTS);
    if (!b) return PH_ENOMEM;
    ph__batch_fact(h, b, PH_CONTAINER(ph_list_pop(&h->dirty_facts), ph_fact, dirty));
    if (batch_size(b) > PH_BATCH_BYTES) {
      int e = ph__batch_send(h, &h->facts, NULL);
      if (e) err = e;
    }
  }
  int e = ph__batch_send(h, &h->facts, NULL);
  return e ? e : err;
}

void ph__flush(ph_hub *h) {
  int err = ph__batch_send(h, &h->changes, NULL);
  int e = flush_facts(h);
  if (e) err = e;
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    for (int i = 0; i < PH_OUT_COUNT; i++)
      if ((e = ph__batch_send(h, &m->out[i], m))) err = e;
  }
  if (err) ph__oom(h);
}

/* ---- Reading */

static int read_nodes(ph_hub *h, ph_reader *r, ph_tables *t) {
  uint32_t n;
  if (ph_r_array(r, &n) || n % 2) return PH_EMALFORMED;
  t->nodes = ph_alloc(h->env, (n / 2 + 1) * sizeof *t->nodes);
  if (!t->nodes) return PH_ENOMEM;
  for (uint32_t i = 0; i < n / 2; i++) {
    const char *name;
    size_t len;
    uint64_t incarnation;
    if (ph_r_str(r, &name, &len, PH_MAX_NAME) || ph_r_uint(r, &incarnation)) return PH_EMALFORMED;
    ph_nodeent *ent = ph_sys_node(h->sys, name, len, incarnation);
    if (!ent) return PH_ENOMEM;
    t->nodes[t->node_count++] = ent->index;
  }
  return 0;
}

static int read_specs(ph_hub *h, ph_reader *r, ph_tables *t) {
  uint32_t n;
  if (ph_r_array(r, &n)) return PH_EMALFORMED;
  t->specs = ph_alloc(h->env, ((size_t)n + 1) * sizeof(ph_spec *));
  if (!t->specs) return PH_ENOMEM;
  for (uint32_t i = 0; i < n; i++) {
    const uint8_t *p;
    size_t len;
    const char *key;
    if (ph_r_bin(r, &p, &len, UINT32_MAX)) return PH_EMALFORMED;
    int err = ph_spec_get(&h->specs, p, len, &t->specs[i], &key);
    if (err) return err == PH_ENOMEM ? err : PH_EMALFORMED;
    t->spec_count++;
  }
  return 0;
}

int ph__tables_read(ph_hub *h, ph_reader *r, ph_tables *t) {
  const uint8_t *p;
  size_t n;
  memset(t, 0, sizeof *t);
  int err = read_nodes(h, r, t);
  if (!err) err = read_specs(h, r, t);
  if (!err && (ph_r_uint(r, &t->clock) || ph_r_bin(r, &p, &n, UINT32_MAX))) err = PH_EMALFORMED;
  if (err)
    ph__tables_free(h, t);
  else
    ph_reader_init(&t->rows, p, n);
  return err;
}

void ph__tables_free(ph_hub *h, ph_tables *t) {
  for (uint32_t i = 0; i < t->spec_count; i++) ph_spec_unref(&h->specs, t->specs[i]);
  ph_free(h->env, t->specs);
  ph_free(h->env, t->nodes);
  t->specs = NULL;
  t->nodes = NULL;
  t->spec_count = t->node_count = 0;
}

int ph__r_number(ph_reader *r, const ph_tables *t, ph_number *out) {
  uint32_t at;
  if (ph_r_u32(r, &at) || at >= t->node_count || ph_r_uint(r, &out->counter)) return PH_EMALFORMED;
  out->node = t->nodes[at];
  return 0;
}
