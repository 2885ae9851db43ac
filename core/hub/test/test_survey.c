/* Surveys: who answers, who does not, and what is known afterwards. */
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

typedef struct asked {
  ph_survey survey;
  int done;
} asked;

static void on_done(ph_survey *x) {
  PH_CONTAINER(x, asked, survey)->done++;
  if (x->rows[0].err == PH_ENOTALIVE) ph_survey_end(x);
}

static bool is_done(hs *s, void *arg) {
  (void)s;
  return ((asked *)arg)->done > 0;
}

static int ask(hs *s, int node, asked *a, uint64_t ms) {
  *a = (asked){.survey.done = on_done};
  return ph_hub_survey(s->n[node].hub, ph_due(&s->n[node].env, ms), &a->survey);
}

static void expect(asked *a, int count, const int *errs) {
  assert_int_equal(a->done, 1);
  assert_int_equal(a->survey.count, count);
  for (int i = 0; i < count; i++) {
    char name[16];
    snprintf(name, sizeof name, "n%d@sim", i);
    assert_string_equal(a->survey.rows[i].node->name, name);
    assert_int_equal(a->survey.rows[i].err, errs[i]);
  }
  ph_survey_end(&a->survey);
  ph_survey_end(&a->survey); /* twice is harmless */
}

static int runs_on(hs *s, int node, const ph_nodeent *on) {
  ph_row *r = NULL;
  ph_pid pid;
  int n = 0;
  while ((r = ph_hub_next_on(s->n[node].hub, on, r, &pid))) {
    assert_int_equal(ph_id_node(pid), on->index);
    n++;
  }
  return n;
}

static void everyone_answers_and_is_known_then(void **state) {
  (void)state;
  hs *s = world(1, 3);
  hs_op o;
  asked a;
  assert_int_equal(hs_start(s, 0, &o, 0, 3000, "ok", "permanent"), 0);
  hs_op_wait(s, &o, 10000);
  hs_op_end(&o);
  assert_int_equal(ask(s, 2, &a, 5000), 0); /* at once: node 2 may not have heard of all */
  assert_int_equal(a.done, 0);              /* never from inside */
  assert_true(hs_until(s, is_done, &a, 1000));
  int total = 0;
  for (size_t i = 0; i < 3; i++) {
    int n = runs_on(s, 2, a.survey.rows[i].node), real = 0;
    for (int c = 0; c < 3000; c++) real += s->live[i][c];
    assert_int_equal(n, real);
    total += n;
  }
  assert_int_equal(total, 3000);
  expect(&a, 3, (int[]){0, 0, 0});
  end(s);
}

static void a_node_alone_answers_itself(void **state) {
  (void)state;
  hs *s = world(2, 1);
  asked a;
  assert_int_equal(ask(s, 0, &a, 5000), 0);
  assert_int_equal(a.done, 0);
  assert_true(hs_until(s, is_done, &a, 10));
  expect(&a, 1, (int[]){0});
  end(s);
}

static void a_silent_node_times_out_alone(void **state) {
  (void)state;
  hs *s = world(3, 4);
  asked a, b;
  hs_pause(s, 1, true);
  assert_int_equal(ask(s, 0, &a, 300), 0);
  assert_int_equal(ask(s, 0, &b, 3000), 0);
  hs_ms(s, 200);
  assert_int_equal(a.done, 0);
  assert_int_equal(a.survey.open, 1);
  hs_ms(s, 110);
  expect(&a, 4, (int[]){0, PH_ETIMEOUT, 0, 0});
  hs_pause(s, 1, false); /* the other one waits longer, and is told */
  assert_true(hs_until(s, is_done, &b, 2000));
  expect(&b, 4, (int[]){0, 0, 0, 0});
  end(s);
}

static void a_node_that_dies_is_said_to(void **state) {
  (void)state;
  hs *s = world(4, 3);
  asked a;
  hs_pause(s, 2, true);
  assert_int_equal(ask(s, 0, &a, 60000), 0);
  hs_ms(s, 10);
  hs_crash(s, 2);
  assert_true(hs_until(s, is_done, &a, 30000));
  expect(&a, 3, (int[]){0, 0, PH_ENOCONN});
  end(s);
}

static void a_broken_link_loses_no_answer(void **state) {
  (void)state;
  hs *s = world(5, 3);
  for (int i = 0; i < 20; i++) {
    asked a;
    assert_int_equal(ask(s, 0, &a, 20000), 0);
    ph_memnet_break(s->net, 0, 1 + i % 2);
    assert_true(hs_until(s, is_done, &a, 15000));
    expect(&a, 3, (int[]){0, 0, 0});
    hs_ms(s, 1000);
  }
  end(s);
}

static void the_end_of_the_hub_ends_it(void **state) {
  (void)state;
  hs *s = world(6, 2);
  asked a, b;
  hs_pause(s, 1, true);
  assert_int_equal(ask(s, 0, &a, PH_NEVER), 0);
  assert_int_equal(ask(s, 0, &b, 60000), 0);
  ph_survey_end(&b.survey); /* nobody wants to know any more */
  hs_crash(s, 0);
  assert_int_equal(a.done, 1);
  assert_int_equal(b.done, 0);
  end(s);
}

static void without_memory_nothing_is_asked(void **state) {
  (void)state;
  for (long n = 1;; n++) {
    hs *s = world(7, 3);
    asked a;
    te_fail_in(&s->n[0].mem, n);
    int err = ask(s, 0, &a, 5000);
    bool tripped = te_tripped(&s->n[0].mem);
    if (err) {
      assert_int_equal(err, PH_ENOMEM);
      hs_ms(s, 6000);
      assert_int_equal(a.done, 0);
    } else {
      assert_true(hs_until(s, is_done, &a, 6000));
      tripped = te_tripped(&s->n[0].mem);
      te_fail_in(&s->n[0].mem, 0);
      ph_survey_end(&a.survey);
    }
    te_fail_in(&s->n[0].mem, 0);
    end(s);
    if (!tripped) break;
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(everyone_answers_and_is_known_then),
      cmocka_unit_test(a_node_alone_answers_itself),
      cmocka_unit_test(a_silent_node_times_out_alone),
      cmocka_unit_test(a_node_that_dies_is_said_to),
      cmocka_unit_test(a_broken_link_loses_no_answer),
      cmocka_unit_test(the_end_of_the_hub_ends_it),
      cmocka_unit_test(without_memory_nothing_is_asked),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
