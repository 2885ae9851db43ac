/* Messages by child id while children move: none is lost, none comes twice, each sender's order
 * holds. */
#include "hubsim.h"

enum { KIDS = 60, SENDERS = 3, LATEST = 4096 };

/* Children of this test: they read only once the world lets them. */
typedef struct reader_kid {
  int id;
} reader_kid;

static bool reading;
static uint32_t got[KIDS][SENDERS]; /* how many, in order */
static int wrong;

static void take(int id, ph_msg *m) {
  ph_reader r;
  uint64_t v;
  ph_reader_init(&r, m->data, m->len);
  assert_int_equal(ph_r_uint(&r, &v), 0);
  uint32_t *n = &got[id][v / LATEST];
  if (v % LATEST != *n) wrong++;
  ++*n;
}

static ph_run run(ph_sys *s, ph_proc *p) {
  ph_msg *m;
  while (reading && (m = ph_recv(p))) {
    take(((reader_kid *)p->data)->id, m);
    ph_msg_free(s, m);
  }
  return PH_RUN_WAIT;
}

static void ended(ph_sys *s, ph_proc *p, ph_bytes *reason) {
  (void)reason;
  ph_free(s->env, p->data);
}

static const ph_behaviour behaviour = {"reader", run, ended};

static void start(void *ctx, ph_hub *hub, const char *id, size_t n, const ph_spec *spec,
                  uint64_t token) {
  hs_node *node = ctx;
  char text[16] = "";
  (void)spec;
  memcpy(text, id + 1, n - 1);
  reader_kid *k = ph_zalloc(&node->env, sizeof *k);
  assert_non_null(k);
  k->id = atoi(text);
  ph_proc *p = ph_spawn(&node->node.sys, &behaviour, k);
  assert_non_null(p);
  ph_hub_started(hub, token, p->pid, NULL);
}

/* ---- Sending by id, as a process of a node does: at once, or when its route is known */

typedef struct post {
  ph_route route;
  hs_node *n;
  ph_msg *m;
} post;

static void deliver(hs_node *n, ph_pid pid, ph_msg *m) {
  m->by_id = true;
  assert_int_equal(ph_send(&n->node.sys, pid, m, true), 0);
}

static void routed(ph_route *r, int err, ph_pid pid) {
  post *x = PH_CONTAINER(r, post, route);
  assert_int_equal(err, 0);
  deliver(x->n, pid, x->m);
  free(x);
}

static void cast(hs *s, int sender, int id, uint32_t seq) {
  hs_node *n = &s->n[sender];
  ph_buf b;
  ph_pid pid;
  char text[16];
  ph_buf_init(&b, &n->env);
  ph_w_uint(&b, (uint64_t)sender * LATEST + seq);
  post *x = calloc(1, sizeof *x);
  x->n = n;
  x->m = ph_msg_bytes(&n->node.sys, PH_C_CAST, ph_buf_at(&b), ph_buf_size(&b));
  ph_buf_deinit(&b);
  x->route.done = routed;
  ph_list_init(&x->route.list);
  snprintf(text, sizeof text, "c%d", id);
  int err = ph_hub_route(n->hub, text, strlen(text), PH_NEVER, &x->route, &pid);
  if (err == PH_EAGAIN) return;
  assert_int_equal(err, 0);
  deliver(n, pid, x->m);
  free(x);
}

static hs *world(uint64_t seed, int nodes) {
  hs *s = malloc(sizeof *s);
  hs_init(s, seed);
  for (int i = 0; i < nodes; i++) {
    hs_add(s);
    s->n[i].node.hub_host.start = start;
  }
  assert_true(hs_until(s, hs_formed, NULL, 30000));
  hs_op o;
  assert_int_equal(hs_start(s, 0, &o, 0, KIDS, "read", "permanent"), 0);
  hs_op_wait(s, &o, 5000);
  assert_int_equal(o.started, KIDS);
  hs_op_end(&o);
  hs_ms(s, 10);
  memset(got, 0, sizeof got);
  wrong = 0;
  reading = false;
  return s;
}

static void all_send(hs *s, int senders, uint32_t seq) {
  for (int id = 0; id < KIDS; id++)
    for (int k = 0; k < senders; k++) cast(s, k, id, seq);
}

static void expect_all(hs *s, int senders, uint32_t n) {
  reading = true;
  all_send(s, senders, n);
  hs_ms(s, 3000);
  assert_int_equal(wrong, 0);
  for (int id = 0; id < KIDS; id++)
    for (int k = 0; k < senders; k++) assert_int_equal(got[id][k], n + 1);
  hs_end(s);
  free(s);
}

static void unread_messages_go_with_the_child(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed < 20; seed++) {
    hs *s = world(seed, 2);
    uint32_t seq = 0;
    for (; seq < 5; seq++) all_send(s, 2, seq);
    int n = hs_add(s);
    s->n[n].node.hub_host.start = start;
    for (; seq < 200; seq++) { /* before, while and after they move */
      all_send(s, 2, seq);
      hs_ms(s, 0);
      ph_memnet_advance(s->net, ph_memnet_now(s->net) + te_below(&s->te, 100000));
      if (seq % 20 == 0) reading = !reading;
    }
    hs_ms(s, 2000);
    assert_true(hs_until(s, hs_formed, NULL, 1000));
    assert_true(s->n[n].hub->child_count > KIDS / 6);
    expect_all(s, 2, seq);
  }
}

static void a_leaver_takes_nothing_with_it(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed < 20; seed++) {
    hs *s = world(100 + seed, 3);
    uint32_t seq = 0;
    for (; seq < 5; seq++) all_send(s, 2, seq);
    hs_leave(s, 2);
    for (; seq < 100; seq++) {
      all_send(s, 2, seq);
      hs_ms(s, 0);
      ph_memnet_advance(s->net, ph_memnet_now(s->net) + te_below(&s->te, 100000));
    }
    hs_ms(s, 2000);
    assert_true(s->n[2].stopped);
    expect_all(s, 2, seq);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(unread_messages_go_with_the_child),
      cmocka_unit_test(a_leaver_takes_nothing_with_it),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
