/* What ended stays ended; and the memory of it goes when nobody can bring it back. */
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

static void quiet(hs *s, int children) {
  bool ok = hs_until(s, hs_quiet, NULL, 60000);
  if (!ok) hs_dump(s);
  assert_true(ok);
  for (int i = 0; i < s->count; i++)
    if (s->n[i].up && s->n[i].hub) assert_int_equal(hs_known(s, i), children);
}

static void start(hs *s, int node, int from, int n) {
  hs_op o;
  assert_int_equal(hs_start(s, node, &o, from, n, "ok", "permanent"), 0);
  hs_op_wait(s, &o, 10000);
  assert_int_equal(o.started, n);
  hs_op_end(&o);
}

static void stop(hs *s, int node, int from, int n) {
  hs_op o;
  assert_int_equal(hs_stop(s, node, &o, from, n), 0);
  hs_op_wait(s, &o, 10000);
  assert_int_equal(o.stopped, n);
  hs_op_end(&o);
}

static int tombs(hs *s, int node) {
  int n = 0;
  const ph_hub *h = s->n[node].hub;
  for (ph_list *l = h->tombs.next; l != &h->tombs; l = l->next) n++;
  return n;
}

static void nobody_runs(hs *s, int from, int n) {
  for (int i = from; i < from + n; i++) {
    assert_int_equal(s->runs[i], 0);
    assert_int_equal(s->most[i], 0);
  }
}

static void they_go_after_a_while(void **state) {
  (void)state;
  hs *s = world(1, 3);
  start(s, 0, 0, 5000);
  stop(s, 1, 0, 5000);
  hs_ms(s, 55000);
  for (int i = 0; i < 3; i++) assert_int_equal(tombs(s, i), 5000);
  hs_ms(s, 60000);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(tombs(s, i), 0);
    assert_int_equal(ph_index_count(&s->n[i].hub->rows), 0);
    for (size_t b = 0; b < PH_BUCKETS; b++) assert_int_equal(s->n[i].hub->bucket_tombs[b], 0);
  }
  end(s);
}

/* under starts and stops without end, when no two digests are ever equal */
static void they_go_while_others_come(void **state) {
  (void)state;
  hs *s = world(2, 2);
  int most = 0;
  for (int round = 0; round < 120; round++) {
    int from = round % 40 * 100;
    start(s, 0, from, 100);
    hs_op o;
    hs_ms(s, 1990);
    assert_int_equal(hs_stop(s, 1, &o, from, 100), 0);
    start(s, 0, 10000 + round, 1); /* so that something is always under way */
    hs_op_wait(s, &o, 1000);
    hs_op_end(&o);
    if (tombs(s, 0) > most) most = tombs(s, 0);
  }
  assert_in_range(most, 2900, 5000);
  end(s);
}

static void a_crashed_node_that_comes_back_brings_nothing(void **state) {
  (void)state;
  hs *s = world(3, 3);
  start(s, 0, 0, 300);
  hs_ms(s, 100);
  hs_crash(s, 2);
  stop(s, 0, 0, 100);
  hs_mark(s);
  hs_ms(s, 1000);
  hs_restart(s, 2);
  hs_join(s, 2, 0);
  quiet(s, 200);
  nobody_runs(s, 0, 100);
  end(s);
}

/* behind a cut, for longer than tombstones are kept otherwise: they wait for it, for a day */
static void tombstones_wait_for_a_node_that_is_cut_off(void **state) {
  (void)state;
  for (int restart = 0; restart < 2; restart++) {
    hs *s = world(4, 3);
    start(s, 0, 0, 100);
    quiet(s, 100);
    hs_cut(s, 2, 0, true);
    hs_cut(s, 2, 1, true);
    hs_ms(s, 20000);
    stop(s, 0, 0, 50);
    hs_ms(s, 600000);
    assert_int_equal(tombs(s, 0), 50);
    assert_int_equal(tombs(s, 1), 50);
    for (int i = 0; i < 50; i++) assert_int_equal(s->runs[i], 1); /* there */
    if (restart) { /* it dies there; what comes back has nothing, and they go */
      hs_crash(s, 2);
      hs_restart(s, 2);
      hs_join(s, 2, 1);
    }
    hs_cut(s, 2, 0, false);
    hs_cut(s, 2, 1, false);
    quiet(s, 50);
    hs_mark(s);
    hs_ms(s, 100000);
    nobody_runs(s, 0, 50);
    for (int i = 0; i < 3; i++) assert_int_equal(tombs(s, i), 0);
    end(s);
  }
}

/* A node that joined after the stop keeps the tombstone, and waits for the node it has never met:
 * also when it alone is left to meet it. */
static void a_newcomer_knows_what_ended_before_it_came(void **state) {
  (void)state;
  for (int how = 0; how < 3; how++) {
    hs *s = world(5, 2);
    start(s, 0, 0, 60);
    quiet(s, 60);
    hs_cut(s, 0, 1, true);
    hs_ms(s, 20000);
    stop(s, 0, 0, 60);
    hs_ms(s, 1000);
    hs_add_alone(s);
    hs_cut(s, 2, 1, true);
    hs_join(s, 2, 0);
    hs_ms(s, 200000);
    assert_int_equal(tombs(s, 2), 60);
    if (how == 1) hs_leave(s, 0);
    if (how == 2) hs_crash(s, 0);
    hs_ms(s, 200000);
    for (int i = 0; i < 60; i++) assert_int_equal(s->live[1][i], 1);
    hs_cut(s, 2, 1, false);
    hs_cut(s, 0, 1, false);
    hs_join(s, 2, 1);
    quiet(s, 0);
    for (int i = 0; i < 60; i++) assert_int_equal(s->live[2][i], 0);
    end(s);
  }
}

/* An arbiter dies when only one node has heard of its starts, and its successors have yet to hear
 * of them when they hear of a stop: it stops them all the same. */
static void a_stop_ends_what_its_arbiter_does_not_know(void **state) {
  (void)state;
  hs *s = world(6, 4);
  hs_op o, x;
  hs_cut_way(s, 3, 1, true);
  hs_cut_way(s, 3, 2, true);
  hs_options.timeout = 30000;
  assert_int_equal(hs_start(s, 0, &o, 0, 60, "ok", "permanent"), 0);
  hs_ms(s, 2);
  hs_cut_way(s, 3, 0, true); /* so that it sees the crash last, by its heartbeats */
  hs_crash(s, 3);
  int alone = 0;
  for (int i = 0; i < 60; i++) alone += hs_row(s, 0, i)->live && !hs_row(s, 1, i);
  assert_in_range(alone, 5, 60);
  assert_int_equal(hs_stop(s, 0, &x, 0, 60), 0);
  hs_op_wait(s, &x, 30000);
  hs_options.timeout = 10000;
  assert_int_equal(x.stopped, 60);
  hs_op_wait(s, &o, 30000);
  hs_mark(s);
  quiet(s, 0);
  hs_ms(s, 60000);
  nobody_runs(s, 0, 60);
  hs_op_end(&o);
  hs_op_end(&x);
  end(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(they_go_after_a_while),
      cmocka_unit_test(they_go_while_others_come),
      cmocka_unit_test(a_crashed_node_that_comes_back_brings_nothing),
      cmocka_unit_test(tombstones_wait_for_a_node_that_is_cut_off),
      cmocka_unit_test(a_newcomer_knows_what_ended_before_it_came),
      cmocka_unit_test(a_stop_ends_what_its_arbiter_does_not_know),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
