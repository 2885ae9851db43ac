/* A live node and a proven peer whose every byte the fuzzer writes: cluster, processes, hub, and in
 * half of the runs an honest node besides.
 *
 * Input: a byte that says who is there, then steps (see `step`). While it runs the node may hold
 * what it held before and 100 times the bytes it got. Afterwards the peer is gone, and the node
 * answers its user, runs out of work, and frees all. */
#include <assert.h>

#include "message.h"
#include "peer.h"
#include "town.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

enum { OPS = 6, WAITERS = 8, STEPS = 400, SLACK = 192 * 1024, WORK = 80 * 1024, TIMES = 100 };

typedef struct world {
  hs s;
  town town, other;
  fz_peer peer;
  fz_conn *conn;
  fz_names who;
  size_t base, work; /* bytes held before, and allowed for the node's own work */
  int host;          /* the peer's */
  hs_op ops[OPS];
  int op_count, waiter_count, route_count, survey_count;
  ph_waiter waiters[WAITERS];
  ph_route routes[WAITERS];
  ph_survey surveys[WAITERS];
} world;

static world w;

static ph_node *node(void) {
  return &w.s.n[0].node;
}

/* ---- the node's own work ---- */

static void on_answer(ph_waiter *waiter, int err, ph_msg *m, ph_bytes *reason) {
  (void)err, (void)reason;
  ph_msg_free(waiter->sys, m);
}

static void on_route(ph_route *r, int err, ph_pid pid) {
  (void)r, (void)err, (void)pid;
}

static ph_pid theirs(fz_input *in) {
  ph_nodeent *e = ph_sys_node(&node()->sys, w.peer.name, strlen(w.peer.name), w.peer.incarnation);
  return ph_pid_make(e->index, 1u + fz_u8(in) % 16);
}

static void call(fz_input *in) {
  ph_sys *s = &node()->sys;
  if (w.waiter_count == WAITERS) return;
  ph_waiter *x = &w.waiters[w.waiter_count++];
  ph_waiter_init(s, x, on_answer);
  ph_msg *m = ph_msg_bytes(s, PH_C_CALL, "\x01", 1);
  if (ph_call(s, 0, theirs(in), m, x, ph_due(s->env, 5000))) ph_msg_free(s, m);
}

static void by_id(fz_input *in) {
  ph_pid pid;
  char id[16];
  ph_hub *h = w.s.n[0].hub;
  if (w.route_count == WAITERS || !h) return;
  ph_route *r = &w.routes[w.route_count];
  *r = (ph_route){.done = on_route};
  int n = snprintf(id, sizeof id, "c%d", fz_u8(in) % 24);
  if (ph_hub_route(h, id, (size_t)n, ph_due(&w.s.n[0].env, 3000), r, &pid) == PH_EAGAIN)
    w.route_count++;
}

static void survey(void) {
  ph_hub *h = w.s.n[0].hub;
  if (w.survey_count == WAITERS || !h) return;
  ph_survey *x = &w.surveys[w.survey_count++];
  x->done = ph_survey_end;
  int err = ph_hub_survey(h, ph_due(&w.s.n[0].env, 3000), x);
  assert(err == 0);
}

static void operate(fz_input *in) {
  uint8_t x = fz_u8(in);
  if (w.op_count == OPS || !w.s.n[0].hub) return;
  hs_op *o = &w.ops[w.op_count];
  int from = x % 20, n = 1 + x % 4;
  int err = x & 0x80 ? hs_stop(&w.s, 0, o, from, n)
                     : hs_start(&w.s, 0, o, from, n, x & 0x40 ? "fail" : "ok", "permanent");
  assert(err == 0 || err == PH_EALREADY || err == PH_EMISMATCH);
  if (err)
    hs_op_end(o);
  else
    w.op_count++;
}

static void command(uint32_t type, const char *text) {
  int err = ph_cluster_command(w.s.n[0].c, type, 0, 1000, text, strlen(text));
  assert(err == 0);
}

static void own_work(fz_input *in) {
  ph_sys *s = &node()->sys;
  ph_ref ref;
  w.work += WORK;
  switch (fz_u8(in) % 9) {
  case 0:
    call(in);
    break;
  case 1:
    by_id(in);
    break;
  case 2:
    survey();
    break;
  case 3:
    operate(in);
    break;
  case 4:
    if (w.town.trapper) (void)!ph_monitor(w.town.trapper, theirs(in), &ref);
    break;
  case 5:
    if (w.town.trapper) (void)!ph_link_procs(w.town.trapper, theirs(in));
    break;
  case 6: {
    ph_msg *m = ph_msg_bytes(s, PH_C_INFO, "\x01", 1);
    if (ph_send(s, theirs(in), m, false)) ph_msg_free(s, m);
    break;
  }
  case 7:
    command(PH_CMD_DISCONNECT, w.peer.name);
    break;
  default:
    command(PH_CMD_CONNECT, "mem:9");
  }
}

/* ---- the peer ---- */

static void dial(void) {
  fz_conn *c = fz_dial(&w.peer, 0);
  if (!c) return;
  if (w.conn) fz_close(w.conn);
  w.conn = c;
  for (int i = 0; i < 20 && !c->proven; i++) hs_ms(&w.s, 1);
}

static void again(uint8_t x) {
  if (x & 1) w.peer.incarnation++;
  w.who.incarnation[0] = w.peer.incarnation;
  dial();
}

static void raw(fz_input *in, int kind) {
  size_t n = fz_u16(in);
  const uint8_t *p = fz_take(in, &n);
  if (kind < 0)
    fz_write(w.conn, p, n);
  else
    fz_frame(w.conn, kind, p, n);
}

static void message(fz_input *in) {
  ph_buf b;
  ph_buf_init(&b, &w.peer.te.env);
  bool data = fz_message(in, &w.who, &b);
  fz_frame(w.conn, data ? PH_FRAME_DATA : PH_FRAME_CONTROL, ph_buf_at(&b), ph_buf_size(&b));
  ph_buf_deinit(&b);
}

static void held(void) {
  const hs_node *n = &w.s.n[0];
  size_t now = n->te.bytes + n->mem.bytes;
  size_t most = w.base + w.work + SLACK + TIMES * w.peer.written;
  if (now <= most) return;
  fprintf(stderr, "%zu bytes held, %zu of them by the cluster machine, %zu before, %zu written\n",
          now, (size_t)n->te.bytes, w.base, (size_t)w.peer.written);
  abort();
}

static void step(fz_input *in) {
  static const uint16_t ms[] = {0, 1, 1, 5, 20, 100, 500, 1000, 2500, 9000};
  switch (fz_u8(in) % 16) {
  case 0:
    raw(in, PH_FRAME_CONTROL);
    break;
  case 1:
  case 2:
    raw(in, PH_FRAME_DATA);
    break;
  case 3:
    raw(in, -1);
    break;
  case 4:
  case 5:
    own_work(in);
    break;
  case 6:
    again(fz_u8(in));
    break;
  case 7:
    w.peer.mute = !w.peer.mute;
    break;
  case 8:
  case 9:
  case 10:
    hs_ms(&w.s, ms[fz_u8(in) % (sizeof ms / sizeof *ms)]);
    held();
    break;
  default:
    message(in);
  }
}

/* ---- a run ---- */

static void begin(uint8_t with) {
  memset(&w.who, 0, sizeof w.who);
  w.op_count = w.waiter_count = w.route_count = w.survey_count = 0;
  w.work = 0;
  w.conn = NULL;
  hs_init(&w.s, 1);
  hs_add(&w.s);
  town_settle(&w.town, &w.s.n[0]);
  if (with & 1) {
    int i = hs_add_named(&w.s, "n2@sim", 100);
    hs_hub(&w.s, i);
    town_settle(&w.other, &w.s.n[i]);
    hs_join(&w.s, i, 0);
  }
  ph_transport *t;
  w.host = ph_memnet_host(w.s.net, &t);
  fz_peer_init(&w.peer, t, "n1@sim", 100, "x");
  w.who = (fz_names){{"n1@sim", "n0@sim", "n2@sim"}, {100, 100, 100}, 3};
  hs_ms(&w.s, 100);
  dial();
  hs_ms(&w.s, 5);
  w.base = w.s.n[0].te.bytes + w.s.n[0].mem.bytes;
  w.peer.written = 0;
}

static void end(void) {
  hs_op o;
  ph_memnet_crash(w.s.net, w.host);
  hs_ms(&w.s, 20000);
  ph_hub *h = w.s.n[0].hub;
  if (h) {
    if (hs_start(&w.s, 0, &o, 30, 2, "ok", "permanent") == 0) hs_op_wait(&w.s, &o, 70000);
    hs_op_end(&o);
  }
  hs_ms(&w.s, 70000);
  for (int i = 0; i < w.op_count; i++) {
    assert(w.ops[i].done);
    hs_op_end(&w.ops[i]);
  }
  for (int i = 0; i < w.peer.count; i++) fz_close(&w.peer.conns[i]);
  hs_end(&w.s);
  fz_peer_deinit(&w.peer);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
  fz_input in = {p, p + n};
  begin(fz_u8(&in));
  assert(w.conn->proven);
  for (int i = 0; i < STEPS && fz_left(&in); i++) {
    if (!w.conn->open) again(0);
    step(&in);
  }
  hs_ms(&w.s, 100);
  held();
  end();
  return 0;
}
