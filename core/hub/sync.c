/* Who runs this hub, and how two of them come to know the same: greeting, snapshots of running
 * facts, digests and rows, and the view that all act on.
 *
 * A greeting (HELLO) starts an exchange in both directions: a snapshot of the sender's running
 * facts and the digests of its buckets, which the other answers with the rows of the buckets that
 * differ. A hub that has everything of everyone it greeted says READY; a member enters the view
 * once both sides have everything. Until then the old views go on acting, so a big registry's
 * journey stops nobody. */
#include <stdio.h>
#include <string.h>

#include "cluster/cluster.h"
#include "hub/internal.h"

enum { SLICE_BYTES = 64 * 1024, GREET_AGAIN = 1000 /* ms */ };

ph_member *ph__member(ph_hub *h, const ph_nodeent *n) {
  if (n->index == PH_SELF) return &h->self;
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (m->node == n) return m;
  }
  return NULL;
}

ph_member *ph__first(ph_hub *h, uint64_t hash) {
  return ph_ring_first(&h->ring, hash);
}

/* ---- The view */

static uint64_t member_hash(const ph_member *m) {
  uint64_t x = ph_ring_hash(m->node->name, m->node->name_len);
  return ph_hash64(ph_hash64(x ^ m->node->incarnation) + (m->leaving ? 1 : 0));
}

static void tell_view(ph_hub *h, ph_member *to) {
  ph_buf b;
  ph__head(h, &b, PH_H_VIEW, 2);
  ph_w_uint(&b, h->view);
  ph_w_bool(&b, h->leaving);
  if (to ? ph__send(h, to, &b) : ph__send_all(h, &b)) ph__oom(h);
}

static int make_ring(ph_hub *h) {
  size_t n = 0, cap = 1;
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) cap++;
  ph_ring_node *nodes = ph_alloc(h->env, cap * sizeof *nodes);
  if (!nodes) return PH_ENOMEM;
  if (!h->leaving) nodes[n++] = (ph_ring_node){h->self.node->name, &h->self};
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (m->included && !m->leaving) nodes[n++] = (ph_ring_node){m->node->name, m};
  }
  int err = ph_ring_set(&h->ring, nodes, n);
  ph_free(h->env, nodes);
  return err;
}

void ph__view_changed(ph_hub *h) {
  h->agreed = false;
  h->ring_stale = make_ring(h) != 0;
  if (h->ring_stale) { /* a ring with a member that has gone must not be used: act on nothing until
                          there is one */
    ph_ring_deinit(&h->ring);
    ph__oom(h);
    return;
  }
  h->self.leaving = h->leaving;
  h->view = member_hash(&h->self);
  h->others = 0;
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (!m->included) continue;
    h->view += member_hash(m);
    h->others++;
  }
  ph__flush(h); /* what was done under the old view is told before the new one */
  tell_view(h, NULL);
  ph__route_view(h);
  ph__settle_check(h);
  ph__view_check(h);
}

void ph__view_check(ph_hub *h) {
  bool agreed = h->settled && !h->ring_stale;
  for (ph_list *l = h->members.next; agreed && l != &h->members; l = l->next) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (m->included && (m->view != h->view || !m->snap_ok || !m->rows_ok)) agreed = false;
  }
  if (agreed == h->agreed) return;
  h->agreed = agreed;
  if (!agreed) return;
  ph__deferred_run(h);
  ph__ops_view(h);
  ph__route_view(h);
  ph__place_agreed(h);
  ph__kick(h);
}

/* First synchronised, or nobody there: who was to be joined has been reached or does not answer,
 * every node in view has answered, every one that runs the hub is in the view. */
void ph__settle_check(ph_hub *h) {
  bool early = !h->greeted || h->node->join_count > 0;
  if (h->settled || early || h->lossy) return; /* lossy: it may lack a member */
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (!m->nohub && !m->included) return;
  }
  h->settled = true;
  ph__view_check(h);
  ph__kick(h);
}

static void meeting_check(ph_hub *h) {
  bool was = h->meeting;
  h->meeting = false;
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (m->hello && !m->included) h->meeting = true;
  }
  if (was && !h->meeting && h->agreed) ph__place_agreed(h);
}

static void include_check(ph_hub *h) {
  bool all = true, changed = false;
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (m->hello && !(m->snap_ok && m->rows_ok)) all = false;
  }
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (!m->hello) continue;
    if (all && !m->ready_sent) {
      ph_buf b;
      ph__head(h, &b, PH_H_READY, 0);
      m->ready_sent = ph__send(h, m, &b) == 0;
      if (!m->ready_sent) ph__oom(h);
    }
    if (!m->included && m->snap_ok && m->rows_ok && m->ready) m->included = changed = true;
  }
  if (changed)
    ph__view_changed(h);
  else
    ph__view_check(h);
  meeting_check(h);
}

/* to one member, or to all (NULL) */
void ph__send_digest(ph_hub *h, ph_member *to, bool answer) {
  ph_buf b;
  ph__flush(h); /* what the digest covers goes first */
  ph__head(h, &b, PH_H_DIGEST, 2);
  ph_w_uint(&b, h->top);
  ph_w_bool(&b, answer);
  if (to ? ph__send(h, to, &b) : ph__send_all(h, &b)) ph__oom(h);
}

/* ---- Greeting */

static void hello(ph_hub *h, ph_member *m, bool answer) {
  ph_buf b;
  const char *text = h->strategies_text;
  if (h->state) {
    ph__head(h, &b, PH_H_NOHUB, 0);
  } else {
    ph__head(h, &b, PH_H_HELLO, 4);
    ph_w_uint(&b, h->cfg.strategies);
    ph_w_str(&b, text, strlen(text));
    ph_w_uint(&b, h->started);
    ph_w_bool(&b, answer);
  }
  if (ph__send(h, m, &b)) ph__oom(h);
}

static ph_member *member_new(ph_hub *h, ph_nodeent *n) {
  ph_member *m = ph_zalloc(h->env, sizeof *m);
  if (!m) return NULL;
  m->hub = h;
  m->node = n;
  m->peer = n->peer;
  ph_list_init(&m->facts);
  ph_list_push(&h->members, &m->all);
  return m;
}

void ph__sync_node_up(ph_hub *h, ph_nodeent *n) {
  if (ph__member(h, n)) return;
  ph_member *m = member_new(h, n);
  if (!m) {
    ph__oom(h);
    return;
  }
  hello(h, m, true);
}

static void end_exchange(ph_hub *h, ph_member *m) {
  for (int i = 0; i < PH_OUT_COUNT; i++) {
    ph__batch_free(h, m->out[i]);
    m->out[i] = NULL;
  }
  m->snapping = m->rows_wanted = m->tombs_due = m->round_over = false;
  m->round_open = m->differs = m->greeted = false;
  m->snap_at = NULL;
  memset(m->buckets, 0, sizeof m->buckets);
}

static void drop_deferred_of(ph_hub *h, const ph_member *m) {
  for (ph_list *l = h->deferred.next; l != &h->deferred;) {
    ph_deferred *d = PH_CONTAINER(l, ph_deferred, list);
    l = l->next;
    if (d->from != m) continue;
    ph_list_remove(&d->list);
    ph_spec_unref(&h->specs, d->spec);
    ph_bytes_unref(h->env, d->meta);
    ph_free(h->env, d);
  }
}

/* the hub there is not there any more; its node may still be */
static void hub_gone(ph_hub *h, ph_member *m, bool left) {
  bool was = m->included;
  if (m->hello && !left) ph__gone_add(h, m->node);
  drop_deferred_of(h, m);
  if (m->hello) h->hellos--;
  m->hello = m->included = m->snap_ok = m->rows_ok = m->ready = m->ready_sent = m->leaving = false;
  m->view = 0;
  end_exchange(h, m);
  ph__facts_drop_all(h, m);
  ph__surveys_gone(h, m->node);
  ph__barrier_lost(h, m);
  meeting_check(h);
  if (was) {
    ph__view_changed(h);
    if (!h->freeing) ph__send_digest(h, NULL, false);
  }
  if (!h->freeing) ph__held_run(h);
}

void ph__sync_node_down(ph_hub *h, ph_nodeent *n, bool left) {
  ph_member *m = ph__member(h, n);
  if (!m || m == &h->self) return;
  m->peer = 0;
  hub_gone(h, m, left);
  ph_list_remove(&m->all);
  ph_free(h->env, m);
  include_check(h);
  ph__settle_check(h);
  ph__held_run(h);
}

/* frames may have been lost either way: greet again, which sends everything that is needed */
void ph__sync_link_reset(ph_hub *h, ph_nodeent *n) {
  ph_member *m = ph__member(h, n);
  if (!m) {
    ph__sync_node_up(h, n);
    return;
  }
  m->snap_ok = m->rows_ok = m->ready = m->ready_sent = false;
  end_exchange(h, m);
  ph__barrier_lost(h, m);
  ph__view_check(h); /* until all that it has is here again */
  hello(h, m, true);
  ph__route_view(h);
  ph__surveys_again(h);
  ph__held_run(h);
}

void ph__sync_greet(ph_hub *h) {
  for (uint32_t i = 1; i < h->sys->node_count; i++)
    if (h->sys->nodes[i]->peer) ph__sync_node_up(h, h->sys->nodes[i]);
}

void ph__sync_start(ph_hub *h) {
  ph__sync_greet(h);
  h->greeted = true;
  ph__settle_check(h);
}

/* Begins a round: the other sends what differs, then SYNCED with the round's number; and its own
 * digests come before that. When both have sent what differs, nothing lives there that had ended
 * here when the round began. */
static void send_buckets(ph_hub *h, ph_member *m, bool answer) {
  uint8_t raw[PH_BUCKETS * 8];
  ph_buf b;
  m->round++;
  m->round_at = ph_now(h->env);
  m->round_over = m->differs = false;
  m->round_open = true;
  for (size_t i = 0; i < PH_BUCKETS; i++)
    for (int k = 0; k < 8; k++) raw[i * 8 + (size_t)k] = (uint8_t)(h->digest[i] >> (8 * k));
  ph__head(h, &b, PH_H_BUCKETS, 3);
  ph_w_bin(&b, raw, sizeof raw);
  ph_w_bool(&b, answer);
  ph_w_uint(&b, m->round);
  if (ph__send(h, m, &b)) ph__oom(h);
}

static void round_ends(ph_member *m) {
  m->round_over = false;
  if (m->round_at > m->matched_at) m->matched_at = m->round_at;
}

static void send_snap(ph_hub *h, ph_member *m, bool begin) {
  ph_buf b;
  ph__head(h, &b, PH_H_SNAP, 1);
  ph_w_bool(&b, begin);
  if (ph__send(h, m, &b)) ph__oom(h);
}

/* Greeted again while what the last greeting was answered with is on its way: that must do until it
 * is answered (or the next sync interval), for a greeting is small and the answer is not. */
static bool exchanging(ph_hub *h, ph_member *m) {
  if (!m->round_open || ph_now(h->env) - m->round_at >= PH_MS(GREET_AGAIN)) return false;
  m->greeted = true;
  return true;
}

static void exchange(ph_hub *h, ph_member *m) {
  m->greeted = false;
  ph__flush(h); /* facts told before the snapshot begins must not come after it ends */
  send_snap(h, m, true);
  m->snapping = true;
  m->snap_at = ph__own_fact_after(h, NULL);
  m->tombs_due = true;
  ph__gone_send(h, m);
  send_buckets(h, m, false);
  tell_view(h, m);
  ph__kick(h);
}

/* Runs nothing from now on: starts without an answer are withdrawn, the others take over what ran
 * here, if they hold it, and hear that this hub is not there. */
static void step_aside(ph_hub *h) {
  ph__ops_withdraw(h);
  ph__ops_end(h, h->state);
  ph__routes_end(h);
  ph__flush(h);
  ph__bye(h);
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    hub_gone(h, m, true);
    m->nohub = true;
  }
  ph__registry_forget(h);
}

static void mismatch(ph_hub *h, ph_member *m, uint64_t started, const char *text, size_t n) {
  bool mine_later =
      h->started != started ? h->started > started : strcmp(h->self.node->name, m->node->name) > 0;
  if (m->hello) hub_gone(h, m, true);
  m->nohub = true;
  if (!mine_later || h->state) return;
  size_t size = n + strlen(h->strategies_text) + m->node->name_len + 64;
  char *why = ph_alloc(h->env, size);
  if (why)
    snprintf(why, size, "%s runs this hub with %.*s, this node with %s", m->node->name, (int)n,
             text, h->strategies_text);
  h->why = why;
  h->state = PH_EMISMATCH;
  ph_logf(h->env, PH_LOG_ERROR, "hub %s runs nothing: %s", h->id, why ? why : "strategies differ");
  step_aside(h);
}

static int on_hello(ph_hub *h, ph_member *m, ph_reader *r) {
  uint64_t strategies, started;
  const char *text;
  size_t n;
  bool answer;
  if (ph_r_uint(r, &strategies) || ph_r_str(r, &text, &n, 4096) || ph_r_uint(r, &started) ||
      ph_r_bool(r, &answer))
    return PH_EMALFORMED;
  if (m->hello && m->started != started)
    hub_gone(h, m, false); /* another hub than the one we knew */
  if (answer) hello(h, m, false);
  if (h->state) return 0;
  m->started = started;
  if (strategies != h->cfg.strategies) {
    mismatch(h, m, started, text, n);
    ph__settle_check(h);
    return 0;
  }
  bool known = m->hello;
  if (!known) h->hellos++;
  m->hello = true;
  m->nohub = false;
  ph__gone_back(h, m->node);
  meeting_check(h);
  if (!known || !exchanging(h, m)) exchange(h, m);
  return 0;
}

/* ---- Received state */

static int on_facts(ph_hub *h, ph_member *m, ph_reader *r) {
  ph_tables t;
  int err = ph__tables_read(h, r, &t);
  while (!err && ph_reader_left(&t.rows)) {
    const char *id;
    size_t n;
    uint64_t state, serial;
    ph_number num;
    if (ph_r_str(&t.rows, &id, &n, PH_MAX_ID) || n == 0 || ph_r_uint(&t.rows, &state) ||
        ph__r_number(&t.rows, &t, &num) || ph_r_uint(&t.rows, &serial) || state > PH_FACT_FAILED ||
        serial > PH_SERIAL_MASK) {
      err = PH_EMALFORMED;
      break;
    }
    uint64_t hash = ph_ring_hash(id, n);
    if (state == 0) {
      ph_row *row = ph__row_find(h, id, n, hash);
      ph_fact *f = row ? ph__fact_find(row, m) : NULL;
      if (f) ph__fact_drop(h, f);
      continue;
    }
    ph_row *row = ph__row_get(h, id, n, hash);
    err = row ? ph__fact_set(h, row, m, num, (uint8_t)state, serial, NULL) : PH_ENOMEM;
  }
  ph__tables_free(h, &t);
  return err;
}

static int read_intent(ph_reader *r, const ph_tables *t, ph_intent *in, const uint8_t **meta,
                       size_t *n) {
  uint32_t writer, spec;
  memset(in, 0, sizeof *in);
  *meta = NULL;
  if (ph__r_number(r, t, &in->num) || ph_r_uint(r, &in->hlc) || ph_r_u32(r, &writer) ||
      writer >= t->node_count || ph_r_bool(r, &in->confirmed) || ph_r_u32(r, &spec) ||
      spec >= t->spec_count)
    return PH_EMALFORMED;
  in->writer = t->nodes[writer];
  in->spec = t->specs[spec];
  if (!ph_r_is_nil(r) && (ph_r_bin(r, meta, n, UINT32_MAX) || ph_value_check(*meta, *n)))
    return PH_EMALFORMED;
  return 0;
}

static int read_row(ph_hub *h, ph_tables *t) {
  ph_reader *r = &t->rows;
  const char *id;
  size_t n;
  uint32_t count;
  if (ph_r_str(r, &id, &n, PH_MAX_ID) || n == 0 || ph_r_u32(r, &count)) return PH_EMALFORMED;
  ph_row *row = ph__row_get(h, id, n, ph_ring_hash(id, n));
  if (!row) return PH_ENOMEM;
  int err = 0;
  ph__row_dirty(h, row); /* so that it is looked at, and released if nothing comes of it */
  while (!err && count-- > 0) {
    ph_intent in;
    const uint8_t *meta;
    size_t len;
    err = read_intent(r, t, &in, &meta, &len);
    if (err) break;
    if (meta && !(in.meta = ph__meta_get(h, meta, len))) return PH_ENOMEM;
    err = ph__intent_add(h, row, &in);
    ph_bytes_unref(h->env, in.meta);
    if (err > 0) err = 0;
  }
  if (!err && ph_r_u32(r, &count)) err = PH_EMALFORMED;
  while (!err && count-- > 0) {
    ph_number num;
    bool keep;
    err = ph__r_number(r, t, &num);
    if (!err && ph_r_bool(r, &keep)) err = PH_EMALFORMED;
    if (!err) err = ph__ended_add(h, row, num, keep);
    if (err > 0) err = 0;
  }
  return err;
}

static int on_changes(ph_hub *h, ph_reader *r) {
  ph_tables t;
  int err = ph__tables_read(h, r, &t);
  while (!err && ph_reader_left(&t.rows)) err = read_row(h, &t);
  ph__tables_free(h, &t);
  return err;
}

static int on_snap(ph_hub *h, ph_member *m, ph_reader *r) {
  bool begin;
  if (ph_r_bool(r, &begin)) return PH_EMALFORMED;
  if (begin) {
    m->gen++;
    return 0;
  }
  for (ph_list *l = m->facts.next; l != &m->facts;) {
    ph_fact *f = PH_CONTAINER(l, ph_fact, in_owner);
    l = l->next;
    if (f->gen != m->gen) ph__fact_drop(h, f);
  }
  m->snap_ok = true;
  include_check(h);
  return 0;
}

static int on_view(ph_hub *h, ph_member *m, ph_reader *r) {
  uint64_t view;
  bool leaving;
  if (ph_r_uint(r, &view) || ph_r_bool(r, &leaving)) return PH_EMALFORMED;
  m->view = view;
  if (leaving != m->leaving) {
    m->leaving = leaving;
    ph__barrier_lost(h, m); /* another one's word is better */
    if (m->included) ph__view_changed(h);
    ph__held_run(h);
  }
  ph__view_check(h);
  return 0;
}

static int on_buckets(ph_hub *h, ph_member *m, ph_reader *r) {
  const uint8_t *raw;
  size_t n;
  bool answer;
  uint64_t round;
  if (ph_r_bin(r, &raw, &n, PH_BUCKETS * 8) || n != PH_BUCKETS * 8 || ph_r_bool(r, &answer) ||
      ph_r_uint(r, &round))
    return PH_EMALFORMED;
  for (size_t i = 0; i < PH_BUCKETS; i++) {
    uint64_t x = 0;
    for (int k = 7; k >= 0; k--) x = x << 8 | raw[i * 8 + (size_t)k];
    if (x != h->digest[i]) m->buckets[i / 8] |= (uint8_t)(1u << (i % 8));
  }
  m->their_round = round;
  m->rows_wanted = true;
  m->bucket_at = 0;
  if (answer) send_buckets(h, m, false);
  ph__kick(h);
  return 0;
}

static int on_digest(ph_hub *h, ph_member *m, ph_reader *r) {
  uint64_t top;
  bool answer;
  if (ph_r_uint(r, &top) || ph_r_bool(r, &answer)) return PH_EMALFORMED;
  if (answer) ph__send_digest(h, m, false);
  ph__kick(h);
  if (top == h->top)
    m->matched_at = ph_now(h->env);
  else if (m->round_open) /* one round at a time: 20 bytes of a peer's are answered with 8 KiB */
    m->differs = true;
  else
    send_buckets(h, m, true);
  return 0;
}

static int on_ackreq(ph_hub *h, ph_member *m, ph_reader *r) {
  uint64_t token;
  if (ph_r_uint(r, &token)) return PH_EMALFORMED;
  return ph__send_number(h, m, PH_H_ACK, token);
}

static int on_ack(ph_hub *h, ph_member *m, ph_reader *r) {
  uint64_t token;
  if (ph_r_uint(r, &token)) return PH_EMALFORMED;
  if (token > h->barrier_sent || token <= m->acked) return 0;
  m->acked = token;
  bool counts = m->included && m->ready && (!m->leaving || m == h->barrier_at);
  if (counts && token > h->barrier_acked) {
    h->barrier_acked = token;
    ph__held_run(h);
  }
  if (!ph_list_empty(&h->holding)) ph__kick(h);
  return 0;
}

static int on_synced(ph_hub *h, ph_member *m, ph_reader *r) {
  uint64_t round;
  if (ph_r_uint(r, &round)) return PH_EMALFORMED;
  m->rows_ok = true;
  if (round == m->round && m->round_open) {
    m->round_open = false;
    if (m->differs) ph__send_digest(h, m, true);
    m->differs = false;
    if (m->greeted) exchange(h, m);
  }
  if (round == m->round && m->rows_wanted)
    m->round_over = true;
  else if (round == m->round)
    round_ends(m);
  include_check(h);
  ph__kick(h);
  return 0;
}

/* It has all that was said before its link was last made, so what it acknowledges from now on it
 * knows; what it was asked to acknowledge before may be lost. */
static void on_ready(ph_hub *h, ph_member *m) {
  m->ready = true;
  if (!ph_list_empty(&h->holding)) h->fence_wanted = true;
  ph__kick(h);
  include_check(h);
}

/* it has none, or none any more */
static void on_nohub(ph_hub *h, ph_member *m) {
  if (m->hello) hub_gone(h, m, true);
  m->nohub = true;
  include_check(h);
  ph__settle_check(h);
}

static int dispatch(ph_hub *h, ph_member *m, uint64_t type, ph_reader *r) {
  switch (type) {
  case PH_H_FACTS:
    return on_facts(h, m, r);
  case PH_H_CHANGES:
    return on_changes(h, r);
  case PH_H_VIEW:
    return on_view(h, m, r);
  case PH_H_SNAP:
    return on_snap(h, m, r);
  case PH_H_ACKREQ:
    return on_ackreq(h, m, r);
  case PH_H_ACK:
    return on_ack(h, m, r);
  case PH_H_DIGEST:
    return on_digest(h, m, r);
  case PH_H_BUCKETS:
    return on_buckets(h, m, r);
  case PH_H_SURVEY:
    return ph__on_survey(h, m, r);
  case PH_H_SURVEYED:
    return ph__on_surveyed(h, m, r);
  case PH_H_SYNCED:
    return on_synced(h, m, r);
  case PH_H_GONE:
    return ph__on_gone(h, r);
  case PH_H_READY:
    on_ready(h, m);
    return 0;
  case PH_H_BYE:
    on_nohub(h, m);
    return 0;
  default:
    return ph__req_frame(h, m, type, r);
  }
}

/* A peer is not believed: what it says of others' facts is not in these messages, and what does not
 * parse resets its link, so that both sides start again from what they have. */
void ph__sync_frame(ph_hub *h, ph_nodeent *n, uint64_t type, ph_reader *r) {
  ph_member *m = ph__member(h, n);
  int err = 0;
  if (!m) { /* there was no memory when it came up */
    ph__sync_node_up(h, n);
    m = ph__member(h, n);
  }
  if (!m || m == &h->self) return;
  if (type == PH_H_HELLO)
    err = on_hello(h, m, r);
  else if (type == PH_H_NOHUB)
    on_nohub(h, m);
  else if (m->hello)
    err = dispatch(h, m, type, r);
  if (!err) return;
  ph_logf(h->env, PH_LOG_ERROR, "hub %s: message %d of %s: %s", h->id, (int)type, n->name,
          ph_err_text(err));
  const ph_port *port = &h->sys->port;
  if (n->peer && port->command(port->ctx, PH_CMD_RESET, n->peer, 0, NULL, 0)) ph__oom(h);
}

/* ---- Sending in slices */

/* Sends a slice; false: it could not, and the exchange ends: a new one follows once the link has
 * been made again (ph__oom). */
static bool send_slice(ph_hub *h, ph_member *m, ph_batch *b, bool whole) {
  int err = ph__batch_send(h, &b, m);
  ph__batch_free(h, b);
  if (whole && !err) return true;
  m->snapping = m->rows_wanted = false;
  m->snap_at = NULL;
  ph__oom(h);
  return false;
}

static bool snap_slice(ph_hub *h, ph_member *m) {
  ph_batch *b = NULL;
  size_t bytes = 0;
  bool whole = true;
  while (whole && m->snap_at && bytes < SLICE_BYTES) {
    ph_batch *x = ph__batch(h, &b, PH_H_FACTS);
    whole = x != NULL;
    if (!x) break;
    bytes += 24u + m->snap_at->row->id_len;
    ph__batch_fact(h, x, m->snap_at);
    m->snap_at = ph__own_fact_after(h, m->snap_at);
  }
  if (!send_slice(h, m, b, whole)) return false;
  if (m->snap_at) return true;
  m->snapping = false;
  send_snap(h, m, false);
  return false;
}

/* the rows of one bucket, or what has ended in it */
static bool bucket_rows(ph_hub *h, ph_batch **b, uint32_t i, bool live, size_t *bytes) {
  for (ph_list *l = h->buckets[i].next; l != &h->buckets[i]; l = l->next) {
    ph_row *r = PH_CONTAINER(l, ph_row, bucket);
    if (!r->ended && !(live && r->live)) continue;
    ph_batch *x = ph__batch(h, b, PH_H_CHANGES);
    if (!x) return false;
    ph__batch_row(h, x, r, live, true);
    *bytes += 64 + r->id_len + (live && r->live ? r->live->spec->blob_len : 0);
  }
  return true;
}

static bool rows_slice(ph_hub *h, ph_member *m) {
  ph_batch *b = NULL;
  size_t bytes = 0;
  bool whole = true;
  for (; whole && m->bucket_at < PH_BUCKETS && bytes < SLICE_BYTES; m->bucket_at++) {
    uint32_t i = m->bucket_at;
    bool differs = m->buckets[i / 8] & (1u << (i % 8));
    m->buckets[i / 8] &= (uint8_t) ~(1u << (i % 8));
    if (differs || (m->tombs_due && h->bucket_tombs[i]))
      whole = bucket_rows(h, &b, i, differs, &bytes);
  }
  if (!send_slice(h, m, b, whole)) return false;
  if (m->bucket_at < PH_BUCKETS) return true;
  m->rows_wanted = m->tombs_due = false;
  if (m->round_over) round_ends(m);
  if (ph__send_number(h, m, PH_H_SYNCED, m->their_round)) ph__oom(h);
  return false;
}

bool ph__sync_slice(ph_hub *h) {
  bool more = false;
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (m->node->xoff) continue; /* XON kicks the hub */
    if (m->snapping && snap_slice(h, m)) more = true;
    if (!m->snapping && m->rows_wanted && rows_slice(h, m)) more = true;
  }
  return more;
}

void ph__sync_fact_unlinked(ph_hub *h, ph_fact *f) {
  if (h->scan_at == f) h->scan_at = ph__own_fact_after(h, f);
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (m->snap_at == f) m->snap_at = ph__own_fact_after(h, f);
  }
}

ph_fact *ph__own_fact_after(ph_hub *h, const ph_fact *f) {
  ph_list *next = f ? f->in_owner.next : h->self.facts.next;
  return next == &h->self.facts ? NULL : PH_CONTAINER(next, ph_fact, in_owner);
}

/* each sync interval: a few bytes a member; and nodes that run no hub, or did not answer, are asked
 * again */
void ph__sync_tick(ph_hub *h) {
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (!m->hello && !m->nohub) hello(h, m, true);
    if (m->greeted) exchange(h, m);
  }
  ph__send_digest(h, NULL, false);
  if (h->ring_stale) ph__view_changed(h);
  ph__tombs_tick(h);
}

void ph__hub_members_free(ph_hub *h) {
  ph_list *l;
  while ((l = ph_list_pop(&h->members))) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    ph__facts_drop_all(h, m);
    end_exchange(h, m);
    ph_free(h->env, m);
  }
  ph__gone_free(h);
  while (!ph_list_empty(&h->deferred))
    drop_deferred_of(h, PH_CONTAINER(h->deferred.next, ph_deferred, list)->from);
}
