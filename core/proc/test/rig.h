/* Help for the tests of proc: process systems joined by queues, and processes that note what they
 * get. All memory comes from one counting allocator, the queues' too, so that a refused allocation
 * also hits the port. */
#ifndef PH_PROC_TEST_RIG_H
#define PH_PROC_TEST_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/test/testenv.h"
#include "cluster/cluster.h"
#include "proc/proc.h"
#include "wire/proto.h"

enum { RIG_NODES = 3, PROBE_LOG = 64 };

typedef struct rig_item { /* something on its way to a node */
  struct rig_item *next;
  int from, to;
  bool reset;
  size_t n;
  uint8_t data[];
} rig_item;

struct rig;
typedef struct rig_node {
  struct rig *rig;
  int index;
  ph_sys sys;
  long dropped_host; /* host words freed by the system */
} rig_node;

typedef struct rig {
  te t;
  int count;
  rig_node node[RIG_NODES];
  rig_item *head, **tail;
  size_t max_frame;                     /* larger ones are refused; 0: none */
  long frames;                          /* sent since the start */
  uint32_t links[RIG_NODES][RIG_NODES]; /* peer number of b at a, 0: not linked */
  uint32_t next_peer;
} rig;

static inline void rig_queue(rig *r, int from, int to, bool reset, const void *p, size_t n,
                             rig_item *it) {
  it->next = NULL;
  it->from = from;
  it->to = to;
  it->reset = reset;
  it->n = n;
  if (n) memcpy(it->data, p, n);
  *r->tail = it;
  r->tail = &it->next;
}

static inline int rig_command(void *ctx, uint32_t type, uint64_t a, uint64_t b, const void *p,
                              size_t n) {
  rig_node *x = ctx;
  rig *r = x->rig;
  (void)b;
  int to = -1;
  for (int i = 0; i < r->count; i++)
    if (r->links[x->index][i] == a) to = i;
  assert_true(a != 0);
  assert_true(type == PH_CMD_SEND || type == PH_CMD_RESET);
  if (to < 0) return 0; /* the peer is gone */
  if (r->max_frame && n > r->max_frame) return PH_ETOOLARGE;
  rig_item *it = ph_alloc(&r->t.env, sizeof *it + n);
  if (!it) return PH_ENOMEM;
  if (type == PH_CMD_SEND) {
    r->frames++;
    rig_queue(r, x->index, to, false, p, n, it);
    return 0;
  }
  rig_item *back = ph_alloc(&r->t.env, sizeof *it);
  if (!back) {
    ph_free(&r->t.env, it);
    return PH_ENOMEM;
  }
  rig_queue(r, x->index, to, true, NULL, 0, it);
  rig_queue(r, to, x->index, true, NULL, 0, back);
  return 0;
}

static inline void rig_drop(void *ctx, uint64_t host) {
  (void)host;
  ((rig_node *)ctx)->dropped_host++;
}

/* a host word travels as its number; odd ones cannot */
static inline int rig_pack(void *ctx, uint64_t host, ph_buf *out) {
  (void)ctx;
  if (host & 1) return PH_ENOTSERIAL;
  ph_w_uint(out, host);
  return 0;
}

static inline int rig_node_init(rig *r, int i) {
  rig_node *x = &r->node[i];
  x->rig = r;
  x->index = i;
  x->dropped_host = 0;
  ph_sys_host host = {.ctx = x, .drop = rig_drop, .pack = rig_pack};
  ph_port port = {.ctx = x, .command = rig_command};
  return ph_sys_init(&x->sys, &r->t.env, &host, &port);
}

static inline void rig_init(rig *r, int count) {
  memset(r, 0, sizeof *r);
  te_init(&r->t, 42);
  r->tail = &r->head;
  r->count = count;
  for (int i = 0; i < count; i++) {
    char name[32];
    snprintf(name, sizeof name, "n%d@rig", i);
    assert_int_equal(rig_node_init(r, i), 0);
    assert_int_equal(ph_sys_name(&r->node[i].sys, name, strlen(name), (uint64_t)i + 1), 0);
  }
}

static inline void rig_up_one(rig *r, int a, int b) {
  ph_sys *sb = &r->node[b].sys;
  uint32_t peer = ++r->next_peer;
  r->links[a][b] = peer;
  assert_int_equal(ph_sys_node_up(&r->node[a].sys, peer, sb->nodes[0]->name, sb->nodes[0]->name_len,
                                  sb->nodes[0]->incarnation),
                   0);
}

static inline void rig_up(rig *r, int a, int b) {
  rig_up_one(r, a, b);
  rig_up_one(r, b, a);
}

static inline void rig_down_one(rig *r, int a, int b) {
  uint32_t peer = r->links[a][b];
  r->links[a][b] = 0;
  ph_sys_node_down(&r->node[a].sys, peer);
}

/* what is under way between a and b is lost */
static inline void rig_lose(rig *r, int a, int b) {
  rig_item **at = &r->head;
  while (*at) {
    rig_item *it = *at;
    if ((it->from == a && it->to == b) || (it->from == b && it->to == a)) {
      *at = it->next;
      ph_free(&r->t.env, it);
    } else {
      at = &it->next;
    }
  }
  r->tail = at;
}

static inline void rig_down(rig *r, int a, int b) {
  rig_lose(r, a, b);
  rig_down_one(r, a, b);
  rig_down_one(r, b, a);
}

static inline void rig_frame(rig *r, int from, int to, const void *p, size_t n) {
  ph_reader rd;
  uint32_t fields;
  uint64_t type;
  ph_reader_init(&rd, p, n);
  if (ph_r_array(&rd, &fields) || ph_r_uint(&rd, &type)) return;
  ph_sys_frame(&r->node[to].sys, r->links[to][from], type, &rd);
}

static inline bool rig_deliver_one(rig *r) {
  rig_item *it = r->head;
  if (!it) return false;
  r->head = it->next;
  if (!r->head) r->tail = &r->head;
  if (it->reset)
    ph_sys_link_reset(&r->node[it->to].sys, r->links[it->to][it->from]);
  else
    rig_frame(r, it->from, it->to, it->data, it->n);
  ph_free(&r->t.env, it);
  return true;
}

/* runs everything until nothing is left to do */
static inline void rig_run(rig *r) {
  for (int rounds = 0;; rounds++) {
    bool more = false;
    assert_true(rounds < 10000);
    while (rig_deliver_one(r)) more = true;
    for (int i = 0; i < r->count; i++) more |= ph_sys_run(&r->node[i].sys, PH_NEVER);
    if (!more && !r->head) return;
  }
}

static inline void rig_end(rig *r) {
  for (int i = 0; i < r->count; i++) ph_sys_deinit(&r->node[i].sys);
  while (r->head) {
    rig_item *it = r->head;
    r->head = it->next;
    ph_free(&r->t.env, it);
  }
  TE_END(&r->t);
}

/* ---- probes: processes that keep what they get ------------------------------------------------
 */
typedef struct probe {
  ph_sys *sys;
  ph_proc *p; /* NULL once ended */
  ph_pid pid;
  ph_msg *log[PROBE_LOG];
  int count, runs, ended;
  char reason[64]; /* when it was one string */
  bool echo;       /* answers calls with their own value */
  bool leave;      /* leaves its mailbox alone */
  void (*each)(struct probe *, ph_msg *m);
  ph_bytes *exit_with; /* ends itself at its next run */
} probe;

/* a packed string as text, "?" when it is none */
static inline const char *rig_text(const void *p, size_t n, char *out, size_t size) {
  ph_reader r;
  ph_token t;
  ph_reader_init(&r, p, n);
  if (ph_r_next(&r, &t) || t.type != PH_T_STR)
    snprintf(out, size, "?");
  else
    snprintf(out, size, "%.*s", (int)t.len, (const char *)t.ptr);
  return out;
}

static inline void probe_take(probe *x, ph_msg *m) {
  assert_true(x->count < PROBE_LOG);
  x->log[x->count++] = m;
  if (x->echo && m->cls == PH_C_CALL) {
    ph_msg *a = ph_msg_bytes(x->sys, PH_C_REPLY, m->data, m->len);
    if (a && ph_reply(x->sys, m->from, m->ref, a)) ph_msg_free(x->sys, a);
  }
  if (x->each) x->each(x, m);
}

static inline ph_run probe_run(ph_sys *s, ph_proc *p) {
  probe *x = p->data;
  x->runs++;
  if (x->exit_with) {
    ph_bytes *reason = x->exit_with;
    x->exit_with = NULL;
    ph_exit(p, reason);
    ph_bytes_unref(s->env, reason);
    return PH_RUN_AGAIN; /* ignored */
  }
  for (ph_msg *m; !x->leave && x->p && (m = ph_recv(p));) probe_take(x, m);
  return PH_RUN_WAIT;
}

static inline void probe_ended(ph_sys *s, ph_proc *p, ph_bytes *reason) {
  probe *x = p->data;
  (void)s;
  x->p = NULL;
  x->ended++;
  rig_text(reason->data, reason->len, x->reason, sizeof x->reason);
}

static const ph_behaviour probe_behaviour = {"probe", probe_run, probe_ended};

static inline bool probe_start(probe *x, ph_sys *s) {
  memset(x, 0, sizeof *x);
  x->sys = s;
  x->p = ph_spawn(s, &probe_behaviour, x);
  if (!x->p) return false;
  x->pid = x->p->pid;
  return true;
}

static inline void probe_clear(probe *x) {
  for (int i = 0; i < x->count; i++) ph_msg_free(x->sys, x->log[i]);
  x->count = 0;
}

/* a pid of another system as system s sees it */
static inline ph_pid rig_pid(ph_sys *s, const ph_sys *owner, ph_pid pid) {
  const ph_nodeent *self = owner->nodes[0];
  ph_nodeent *e = ph_sys_node(s, self->name, self->name_len, self->incarnation);
  assert_non_null(e);
  return ph_pid_make(e->index, ph_id_serial(pid));
}

static inline ph_msg *msg_text(ph_sys *s, ph_class cls, const char *text) {
  uint8_t b[64];
  size_t n = strlen(text);
  assert_true(n < 32);
  b[0] = (uint8_t)(0xa0 | n);
  memcpy(b + 1, text, n);
  return ph_msg_bytes(s, cls, b, n + 1);
}

static inline ph_bytes *reason_text(ph_sys *s, const char *text) {
  ph_bytes *b = ph_reason_str(s, text, strlen(text));
  assert_non_null(b);
  return b;
}

#define SEND_TEXT(s, to, text)                                                                     \
  do {                                                                                             \
    ph_msg *m_ = msg_text(s, PH_C_INFO, text);                                                     \
    assert_non_null(m_);                                                                           \
    assert_int_equal(ph_send(s, to, m_, false), 0);                                                \
  } while (0)

/* message i of a probe: its class and its text, or its reason's */
#define CHECK_MSG(x, i, class_, text_)                                                             \
  do {                                                                                             \
    char buf_[64];                                                                                 \
    assert_true((x)->count > (i));                                                                 \
    const ph_msg *m_ = (x)->log[i];                                                                \
    assert_int_equal(m_->cls, class_);                                                             \
    if (m_->form == PH_F_BYTES)                                                                    \
      rig_text(m_->data, m_->len, buf_, sizeof buf_);                                              \
    else if (m_->reason)                                                                           \
      rig_text(m_->reason->data, m_->reason->len, buf_, sizeof buf_);                              \
    else                                                                                           \
      snprintf(buf_, sizeof buf_, "-");                                                            \
    assert_string_equal(buf_, text_);                                                              \
  } while (0)

/* ---- waiters that note their answer -----------------------------------------------------------
 */
typedef struct noted {
  ph_waiter w;
  int calls, err;
  char text[64]; /* the reply, or the exit reason */
} noted;

static inline void noted_done(ph_waiter *w, int err, ph_msg *m, ph_bytes *reason) {
  noted *n = (noted *)(void *)w;
  n->calls++;
  n->err = err;
  snprintf(n->text, sizeof n->text, "-");
  if (m && m->form == PH_F_BYTES) rig_text(m->data, m->len, n->text, sizeof n->text);
  if (reason) rig_text(reason->data, reason->len, n->text, sizeof n->text);
  ph_msg_free(w->sys, m);
}

static inline void noted_init(noted *n, ph_sys *s) {
  memset(n, 0, sizeof *n);
  ph_waiter_init(s, &n->w, noted_done);
}

#define CALL_TEXT(s, from, to, text, n, due)                                                       \
  do {                                                                                             \
    ph_msg *m_ = msg_text(s, PH_C_CALL, text);                                                     \
    assert_non_null(m_);                                                                           \
    noted_init(n, s);                                                                              \
    assert_int_equal(ph_call(s, from, to, m_, &(n)->w, due), 0);                                   \
  } while (0)

#endif
