/* Where to send messages by child id: at once, or when the child runs; never nowhere for ever. */
#include "hubsim.h"

static hs *world(uint64_t seed, int nodes) {
  hs *s = malloc(sizeof *s);
  assert_non_null(s);
  hs_init(s, seed);
  for (int i = 0; i < nodes; i++) hs_add(s);
  assert_true(hs_until(s, hs_formed, NULL, 30000));
  return s;
}

static void end(hs *s) {
  hs_end(s);
  free(s);
}

static void start(hs *s, int node, int from, int n, const char *fn) {
  hs_op o;
  assert_int_equal(hs_start(s, node, &o, from, n, fn, "permanent"), 0);
  hs_op_wait(s, &o, 10000);
  assert_int_equal(o.started, n);
  hs_op_end(&o);
}

static int order; /* of answers, over all ways */

typedef struct way {
  ph_route route;
  bool done;
  int err, at;
  ph_pid pid;
  struct way *cancel; /* what to cancel in done */
  struct way *more;   /* what to ask for in done */
} way;

static void ask(hs *s, int node, way *w, int id, uint64_t ms);

static void on_done(ph_route *r, int err, ph_pid pid) {
  way *w = PH_CONTAINER(r, way, route);
  assert_false(w->done);
  w->done = true;
  w->err = err;
  w->pid = pid;
  w->at = order++;
  if (w->cancel) ph_route_cancel(&w->cancel->route);
  if (w->more) {
    ph_hub *h = r->hub;
    w->more->route.done = on_done;
    int e = ph_hub_route(h, "c0", 2, PH_NEVER, &w->more->route, &w->more->pid);
    assert_int_equal(e, PH_EAGAIN); /* behind those that waited before it */
  }
}

static void ask(hs *s, int node, way *w, int id, uint64_t ms) {
  char text[16];
  int n = snprintf(text, sizeof text, "c%d", id);
  uint64_t due = ms == UINT64_MAX ? PH_NEVER : ph_memnet_now(s->net) + PH_MS(ms);
  memset(w, 0, sizeof *w);
  w->route.done = on_done;
  w->err = ph_hub_route(s->n[node].hub, text, (size_t)n, due, &w->route, &w->pid);
  w->done = w->err != PH_EAGAIN;
}

static bool is_done(hs *s, void *arg) {
  (void)s;
  return ((way *)arg)->done;
}

static ph_pid pid_of(hs *s, int node, int id) {
  ph_row *r = hs_row(s, node, id);
  return r && r->live ? ph_row_pid(s->n[node].hub, r) : 0;
}

/* a node's id that the ring gives to `owner` */
static int id_at(hs *s, int owner, int from) {
  for (int id = from;; id++) {
    char text[16];
    int n = snprintf(text, sizeof text, "c%d", id);
    ph_member *m = ph__first(s->n[owner].hub, ph_ring_hash(text, (size_t)n));
    if (m == &s->n[owner].hub->self) return id;
  }
}

static void what_runs_is_known_at_once(void **state) {
  (void)state;
  hs *s = world(1, 3);
  way w;
  start(s, 0, 0, 30, "ok");
  hs_ms(s, 10);
  for (int node = 0; node < 3; node++)
    for (int i = 0; i < 30; i++) {
      ask(s, node, &w, i, 1000);
      assert_int_equal(w.err, 0);
      assert_true(ph_is_pid(w.pid));
      int host = 0;
      while (!s->live[host][i]) host++;
      assert_string_equal(s->n[node].node.sys.nodes[ph_id_node(w.pid)]->name, s->n[host].name);
    }
  ph_pid pid;
  char long_id[PH_MAX_ID + 2] = "";
  memset(long_id, 'x', sizeof long_id - 1);
  w.route.done = on_done;
  assert_int_equal(ph_hub_route(s->n[0].hub, "", 0, 0, &w.route, &pid), PH_ENOCHILD);
  assert_int_equal(ph_hub_route(s->n[0].hub, long_id, PH_MAX_ID + 1, 0, &w.route, &pid),
                   PH_ENOCHILD);
  end(s);
}

/* also on the node that asked for the start, the moment it asks */
static void it_waits_for_a_slow_start(void **state) {
  (void)state;
  hs *s = world(2, 3);
  way own, other;
  hs_op o;
  assert_int_equal(hs_start(s, 0, &o, 0, 1, "slow", "permanent"), 0);
  ask(s, 0, &own, 0, 5000);
  assert_false(own.done);
  hs_ms(s, 10);
  ask(s, 1, &other, 0, 5000);
  hs_ms(s, 150);
  assert_false(own.done || other.done);
  hs_ms(s, 60);
  assert_true(own.done && other.done);
  assert_int_equal(own.err, 0);
  assert_int_equal(own.pid, pid_of(s, 0, 0));
  assert_int_equal(other.pid, pid_of(s, 1, 0));
  hs_op_end(&o);
  /* a start that fails is no child */
  assert_int_equal(hs_start(s, 0, &o, 1, 1, "fail", "permanent"), 0);
  ask(s, 0, &own, 1, UINT64_MAX);
  assert_true(hs_until(s, is_done, &own, 100));
  assert_int_equal(own.err, PH_ENOCHILD);
  hs_op_end(&o);
  /* nor one refused before it was begun */
  hs_options.check_existing = false;
  assert_int_equal(hs_start(s, 0, &o, 0, 1, "ok", "permanent"), 0);
  ask(s, 0, &own, 0, 1000);
  assert_int_equal(own.err, 0);
  hs_options.check_existing = true;
  hs_op_wait(s, &o, 100);
  assert_int_equal(o.failed, 1);
  hs_op_end(&o);
  end(s);
}

static void it_waits_while_a_child_moves(void **state) {
  (void)state;
  hs *s = world(3, 2);
  way *w = calloc(200, sizeof *w);
  int waited = 0, moved = 0;
  start(s, 0, 0, 200, "ok");
  hs_join(s, hs_add_alone(s), 0);
  for (int step = 0; step < 400; step++) {
    (void)hs_until(s, NULL, NULL, 0);
    ph_memnet_advance(s->net, ph_memnet_now(s->net) + 10000);
    for (int i = 0; i < 200; i++) {
      if (pid_of(s, 0, i) || !hs_row(s, 0, i)->live) continue;
      if (w[i].route.done) continue;
      ask(s, 0, &w[i], i, 5000);
      assert_false(w[i].done);
      waited++;
    }
  }
  hs_ms(s, 2000);
  for (int i = 0; i < 200; i++) {
    moved += s->live[2][i];
    if (!w[i].route.done) continue;
    assert_true(w[i].done);
    assert_int_equal(w[i].err, 0);
    assert_int_equal(w[i].pid, pid_of(s, 0, i));
  }
  assert_in_range(moved, 40, 100);
  assert_int_equal(waited, moved);
  free(w);
  end(s);
}

static void an_unknown_id_is_asked_of_its_arbiter(void **state) {
  (void)state;
  hs *s = world(4, 3);
  way w;
  int here = id_at(s, 0, 100), there = id_at(s, 1, 200), late = id_at(s, 1, 300);
  ask(s, 0, &w, here, UINT64_MAX); /* this node would know */
  hs_ms(s, 0);
  assert_true(w.done);
  assert_int_equal(w.err, PH_ENOCHILD);
  ask(s, 0, &w, there, UINT64_MAX);
  hs_ms(s, 0);
  assert_false(w.done);
  assert_true(hs_until(s, is_done, &w, 2));
  assert_int_equal(w.err, PH_ENOCHILD);
  hs_op o; /* known to its arbiter alone when it is asked */
  assert_int_equal(hs_start(s, 1, &o, late, 1, "slow", "permanent"), 0);
  ask(s, 0, &w, late, UINT64_MAX);
  hs_ms(s, 100);
  assert_false(w.done);
  assert_true(hs_until(s, is_done, &w, 200));
  assert_int_equal(w.err, 0);
  assert_int_equal(w.pid, pid_of(s, 0, late));
  hs_op_end(&o);
  assert_int_equal(ph_index_count(&s->n[0].hub->pendings), 0);
  end(s);
}

/* the question is lost, or its arbiter goes, or is another one by now */
static void a_question_that_is_lost_is_asked_again(void **state) {
  (void)state;
  hs *s = world(5, 3);
  way w[30];
  for (int i = 0; i < 10; i++) ask(s, 0, &w[i], id_at(s, 1, 100 * i), UINT64_MAX);
  ph_memnet_break(s->net, 0, 1);
  hs_ms(s, 2000);
  for (int i = 0; i < 10; i++) {
    assert_true(w[i].done);
    assert_int_equal(w[i].err, PH_ENOCHILD);
  }
  for (int i = 0; i < 10; i++) ask(s, 0, &w[i], id_at(s, 2, 100 * i), UINT64_MAX);
  hs_crash(s, 2);
  hs_ms(s, 2000);
  for (int i = 0; i < 10; i++) {
    assert_true(w[i].done);
    assert_int_equal(w[i].err, PH_ENOCHILD);
  }
  end(s);
}

/* while views differ nobody is the arbiter: then somebody is */
static void a_question_waits_for_one_view(void **state) {
  (void)state;
  hs *s = world(6, 2);
  ph_hub *h = s->n[0].hub;
  way w[300];
  int n = 0;
  hs_join(s, hs_add_alone(s), 0);
  for (int step = 0; step < 4000 && n < 300; step++) {
    (void)hs_until(s, NULL, NULL, 0);
    if (!h->agreed)
      for (int k = 0; k < 20 && n < 300; k++, n++) ask(s, 0, &w[n], 1000 + n, UINT64_MAX);
    ph_memnet_advance(s->net, ph_memnet_now(s->net) + 10000);
  }
  assert_in_range(n, 20, 300);
  hs_ms(s, 1000);
  for (int i = 0; i < n; i++) {
    assert_true(w[i].done);
    assert_int_equal(w[i].err, PH_ENOCHILD);
  }
  end(s);
}

static void a_route_may_time_out_or_be_cancelled(void **state) {
  (void)state;
  hs *s = world(7, 2);
  way late, cancelled, patient;
  hs_op o;
  assert_int_equal(hs_start(s, 0, &o, 0, 1, "slow", "permanent"), 0);
  ask(s, 0, &late, 0, 100);
  ask(s, 0, &cancelled, 0, 100);
  ask(s, 0, &patient, 0, 1000);
  hs_ms(s, 50);
  ph_route_cancel(&cancelled.route);
  ph_route_cancel(&cancelled.route); /* harmless */
  hs_ms(s, 60);
  assert_true(late.done);
  assert_int_equal(late.err, PH_ETIMEOUT);
  assert_false(cancelled.done || patient.done);
  hs_ms(s, 100);
  assert_int_equal(patient.err, 0);
  assert_false(cancelled.done);
  ph_route_cancel(&late.route);
  hs_op_end(&o);
  assert_int_equal(ph_index_count(&s->n[0].hub->pendings), 0);
  end(s);
}

static void answers_come_in_the_order_of_the_questions(void **state) {
  (void)state;
  enum { N = 50 };
  hs *s = world(8, 2);
  way w[N], more;
  hs_op o;
  order = 0;
  memset(&more, 0, sizeof more);
  assert_int_equal(hs_start(s, 0, &o, 0, 1, "slow", "permanent"), 0);
  for (int i = 0; i < N; i++) ask(s, 0, &w[i], 0, UINT64_MAX);
  w[3].cancel = &w[7];
  w[N - 1].cancel = &w[0]; /* it has its answer */
  w[5].more = &more;
  hs_ms(s, 300);
  for (int i = 0, expected = 0; i < N; i++) {
    if (i == 7) continue;
    assert_int_equal(w[i].at, expected++);
    assert_int_equal(w[i].err, 0);
    assert_int_equal(w[i].pid, w[0].pid);
  }
  assert_false(w[7].done);
  assert_true(more.done);
  assert_int_equal(more.at, N - 1);
  assert_int_equal(more.pid, w[0].pid);
  hs_op_end(&o);
  end(s);
}

static void the_last_may_cancel_all_others(void **state) {
  (void)state;
  hs *s = world(9, 1);
  way a, b;
  hs_op o;
  assert_int_equal(hs_start(s, 0, &o, 0, 1, "slow", "permanent"), 0);
  ask(s, 0, &a, 0, UINT64_MAX);
  ask(s, 0, &b, 0, UINT64_MAX);
  a.cancel = &b;
  hs_ms(s, 300);
  assert_true(a.done);
  assert_false(b.done);
  assert_int_equal(ph_index_count(&s->n[0].hub->pendings), 0);
  hs_op_end(&o);
  end(s);
}

static void a_hub_that_ends_answers_all(void **state) {
  (void)state;
  enum { N = 2000 };
  for (int how = 0; how < 2; how++) {
    hs *s = world(10, 2);
    way *w = calloc(N, sizeof *w), after;
    hs_op o;
    assert_int_equal(hs_start(s, 0, &o, 0, N, "never", "permanent"), 0);
    hs_ms(s, 10);
    for (int i = 0; i < N; i++) ask(s, 0, &w[i], i, UINT64_MAX);
    if (how) {
      hs_hub_free(s, 0);
    } else {
      hs_leave(s, 0);
      ask(s, 0, &after, 1, UINT64_MAX);
      assert_false(after.done);
    }
    for (int i = 0; i < N; i++) assert_int_equal(w[i].err, PH_ENOTALIVE);
    hs_ms(s, 20000);
    if (!how) assert_true(after.done);
    hs_op_end(&o);
    free(w);
    end(s);
  }
}

static void without_memory_nothing_waits(void **state) {
  (void)state;
  hs *s = world(11, 2);
  way w;
  for (int known = 0; known < 2; known++) {
    hs_op o = {0};
    int id = id_at(s, 1, 50 * known);
    if (known) {
      assert_int_equal(hs_start(s, 0, &o, id, 1, "never", "permanent"), 0);
      hs_ms(s, 10);
    }
    for (long n = 1;; n++) {
      te_fail_in(&s->n[0].mem, n);
      ask(s, 0, &w, id, 1000);
      bool tripped = te_tripped(&s->n[0].mem);
      te_fail_in(&s->n[0].mem, 0);
      if (w.err == PH_EAGAIN) ph_route_cancel(&w.route);
      if (!tripped) break;
      assert_true(w.err == PH_ENOMEM || w.err == PH_EAGAIN);
      assert_int_equal(ph_index_count(&s->n[0].hub->pendings), 0);
    }
    assert_int_equal(w.err, PH_EAGAIN);
    if (known) hs_op_end(&o);
  }
  end(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_runs_is_known_at_once),
      cmocka_unit_test(it_waits_for_a_slow_start),
      cmocka_unit_test(it_waits_while_a_child_moves),
      cmocka_unit_test(an_unknown_id_is_asked_of_its_arbiter),
      cmocka_unit_test(a_question_that_is_lost_is_asked_again),
      cmocka_unit_test(a_question_waits_for_one_view),
      cmocka_unit_test(a_route_may_time_out_or_be_cancelled),
      cmocka_unit_test(answers_come_in_the_order_of_the_questions),
      cmocka_unit_test(the_last_may_cancel_all_others),
      cmocka_unit_test(a_hub_that_ends_answers_all),
      cmocka_unit_test(without_memory_nothing_waits),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
