/* Waiting and calls on one node. */
#include "rig.h"

static void a_call_is_answered(void **state) {
  (void)state;
  rig r;
  probe a, b;
  noted n;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&a, s) && probe_start(&b, s));
  b.echo = true;
  CALL_TEXT(s, a.pid, b.pid, "ping", &n, PH_NEVER);
  assert_int_equal(n.calls, 0); /* never from inside ph_call */
  rig_run(&r);
  assert_int_equal(n.calls, 1);
  assert_int_equal(n.err, 0);
  assert_string_equal(n.text, "ping");
  CHECK_MSG(&b, 0, PH_C_CALL, "ping");
  assert_true(b.log[0]->from == a.pid && ph_is_ref(b.log[0]->ref));
  /* a second reply is dropped, as is one to a ref of nothing */
  assert_int_equal(ph_reply(s, a.pid, b.log[0]->ref, msg_text(s, PH_C_REPLY, "again")), 0);
  assert_int_equal(ph_reply(s, a.pid, 5, msg_text(s, PH_C_REPLY, "again")), 0);
  rig_run(&r);
  assert_int_equal(n.calls, 1);
  assert_int_equal(ph_index_count(&s->refs), 0);
  probe_clear(&b);
  rig_end(&r);
}

static void a_call_to_nobody_fails_later(void **state) {
  (void)state;
  rig r;
  noted n, named;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  CALL_TEXT(s, 0, ph_pid_make(PH_SELF, 77), "ping", &n, PH_NEVER);
  noted_init(&named, s);
  ph_msg *m = msg_text(s, PH_C_CALL, "ping");
  assert_int_equal(ph_call_named(s, 0, "nobody", 6, NULL, m, &named.w, PH_NEVER), 0);
  assert_int_equal(n.calls, 0);
  rig_run(&r);
  assert_int_equal(n.calls, 1);
  assert_int_equal(n.err, PH_ENOPROC);
  assert_int_equal(named.err, PH_ENOPROC);
  m = msg_text(s, PH_C_INFO, "no call");
  assert_int_equal(ph_call(s, 0, ph_pid_make(PH_SELF, 77), m, &n.w, PH_NEVER), PH_EINVAL);
  m->cls = PH_C_CALL;
  assert_int_equal(ph_call(s, 0, 3, m, &n.w, PH_NEVER), PH_EINVAL);
  ph_msg_free(s, m);
  rig_end(&r);
}

static void a_target_that_ends_gives_its_reason(void **state) {
  (void)state;
  rig r;
  probe a, b;
  noted n, stop;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&a, s) && probe_start(&b, s));
  assert_int_equal(ph_register(b.p, "srv", 3), 0);
  CALL_TEXT(s, a.pid, b.pid, "ping", &n, PH_NEVER);
  noted_init(&stop, s);
  ph_msg *m = ph_msg_bytes(s, PH_C_STOP, NULL, 0);
  m->reason = reason_text(s, "please");
  assert_int_equal(ph_call_named(s, a.pid, "srv", 3, NULL, m, &stop.w, PH_NEVER), 0);
  rig_run(&r);
  CHECK_MSG(&b, 1, PH_C_STOP, "please");
  assert_int_equal(n.calls, 0);
  b.exit_with = reason_text(s, "please");
  ph_ready(b.p);
  rig_run(&r);
  assert_int_equal(n.calls, 1);
  assert_int_equal(n.err, PH_EEXIT);
  assert_string_equal(n.text, "please");
  assert_int_equal(stop.err, PH_EEXIT);
  assert_string_equal(stop.text, "please");
  probe_clear(&b);
  rig_end(&r);
}

static void a_call_times_out_and_a_late_reply_is_dropped(void **state) {
  (void)state;
  rig r;
  probe b;
  noted n;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&b, s));
  CALL_TEXT(s, 0, b.pid, "ping", &n, r.t.now + PH_MS(50));
  rig_run(&r);
  r.t.now += PH_MS(49);
  rig_run(&r);
  assert_int_equal(n.calls, 0);
  r.t.now += PH_MS(1);
  rig_run(&r);
  assert_int_equal(n.calls, 1);
  assert_int_equal(n.err, PH_ETIMEOUT);
  assert_int_equal(ph_reply(s, 0, b.log[0]->ref, msg_text(s, PH_C_REPLY, "late")), 0);
  rig_run(&r);
  assert_int_equal(n.calls, 1);
  assert_true(ph_list_empty(&b.p->watched));
  probe_clear(&b);
  rig_end(&r);
}

static void a_cancelled_wait_is_never_done(void **state) {
  (void)state;
  rig r;
  probe b;
  noted call, woken, idle;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&b, s));
  CALL_TEXT(s, 0, b.pid, "ping", &call, r.t.now + PH_MS(50));
  ph_wait_cancel(&call.w);
  ph_wait_cancel(&call.w);
  noted_init(&woken, s);
  assert_int_equal(ph_wait(&woken.w, PH_NEVER), 0);
  assert_ptr_equal(ph_waiter_find(s, woken.w.obj.ref), &woken.w);
  ph_wake(&woken.w, 0, msg_text(s, PH_C_REPLY, "answer"));
  assert_null(ph_waiter_find(s, woken.w.obj.ref));
  ph_wait_cancel(&woken.w); /* its answer is freed */
  noted_init(&idle, s);
  ph_wait_cancel(&idle.w);
  ph_wake(&idle.w, 0, msg_text(s, PH_C_REPLY, "nobody waits"));
  r.t.now += PH_MS(100);
  rig_run(&r);
  assert_int_equal(call.calls + woken.calls + idle.calls, 0);
  assert_true(ph_list_empty(&b.p->watched));
  assert_true(ph_sys_next(s) == PH_NEVER);
  probe_clear(&b);
  rig_end(&r);
}

static void only_the_first_wake_counts(void **state) {
  (void)state;
  rig r;
  noted n;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  noted_init(&n, s);
  assert_int_equal(ph_wait(&n.w, r.t.now + PH_MS(5)), 0);
  assert_int_equal(ph_wait(&n.w, PH_NEVER), PH_EINVAL); /* it waits already */
  ph_wake(&n.w, 0, msg_text(s, PH_C_REPLY, "one"));
  ph_wake(&n.w, 0, msg_text(s, PH_C_REPLY, "two"));
  r.t.now += PH_MS(50);
  rig_run(&r);
  assert_int_equal(n.calls, 1);
  assert_string_equal(n.text, "one");
  rig_end(&r);
}

/* ---- done may free its waiter or wait again ---- */

typedef struct again {
  ph_waiter w;
  te *t;
  int left, *calls;
} again;

static void again_done(ph_waiter *w, int err, ph_msg *m, ph_bytes *reason) {
  again *x = (again *)(void *)w;
  (void)m;
  (void)reason;
  ++*x->calls;
  if (x->left-- == 0) {
    ph_free(w->sys->env, x);
    return;
  }
  assert_int_equal(err, PH_ETIMEOUT);
  assert_int_equal(ph_wait(w, x->t->now + PH_MS(10)), 0);
}

static void done_may_wait_again_and_at_last_free_its_waiter(void **state) {
  (void)state;
  rig r;
  int calls = 0;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  again *x = ph_alloc(&r.t.env, sizeof *x);
  ph_waiter_init(s, &x->w, again_done);
  x->t = &r.t;
  x->left = 3;
  x->calls = &calls;
  assert_int_equal(ph_wait(&x->w, r.t.now), 0); /* due at once: still from the loop */
  assert_int_equal(calls, 0);
  for (int i = 0; i < 10; i++) {
    rig_run(&r);
    r.t.now += PH_MS(10);
  }
  assert_int_equal(calls, 4);
  rig_end(&r);
}

static ph_waiter *victim;
static void cancel_victim(ph_waiter *w, int err, ph_msg *m, ph_bytes *reason) {
  (void)w;
  (void)err;
  (void)m;
  (void)reason;
  ph_wait_cancel(victim);
}

static void done_may_cancel_another_that_is_due(void **state) {
  (void)state;
  rig r;
  ph_waiter first;
  noted second;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  ph_waiter_init(s, &first, cancel_victim);
  noted_init(&second, s);
  victim = &second.w;
  assert_int_equal(ph_wait(&first, r.t.now), 0);
  assert_int_equal(ph_wait(&second.w, r.t.now), 0);
  rig_run(&r);
  assert_int_equal(second.calls, 0);
  rig_end(&r);
}

static void many_waits_end_over_several_runs(void **state) {
  (void)state;
  enum { MANY = 2000 };
  rig r;
  noted *n = malloc(MANY * sizeof *n);
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  for (int i = 0; i < MANY; i++) {
    noted_init(&n[i], s);
    assert_int_equal(ph_wait(&n[i].w, PH_NEVER), 0);
    ph_wake(&n[i].w, 0, NULL);
  }
  assert_true(ph_sys_run(s, PH_NEVER)); /* bounded */
  int done = 0;
  while (done < MANY && n[done].calls) done++;
  assert_in_range(done, 1, MANY - 1);
  for (int i = done; i < MANY; i++) assert_int_equal(n[i].calls, 0); /* in order */
  while (ph_sys_run(s, PH_NEVER)) {
  }
  for (int i = 0; i < MANY; i++) assert_int_equal(n[i].calls, 1);
  rig_end(&r);
  free(n);
}

static void waits_under_way_do_not_outlive_the_system(void **state) {
  (void)state;
  rig r;
  noted waits, woken;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  noted_init(&waits, s);
  noted_init(&woken, s);
  assert_int_equal(ph_wait(&waits.w, r.t.now + PH_MS(5)), 0);
  assert_int_equal(ph_wait(&woken.w, PH_NEVER), 0);
  ph_wake(&woken.w, 0, msg_text(s, PH_C_REPLY, "x"));
  rig_end(&r);
  assert_int_equal(waits.calls + woken.calls, 0);
  ph_wait_cancel(&waits.w);
  ph_wait_cancel(&woken.w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_call_is_answered),
      cmocka_unit_test(a_call_to_nobody_fails_later),
      cmocka_unit_test(a_target_that_ends_gives_its_reason),
      cmocka_unit_test(a_call_times_out_and_a_late_reply_is_dropped),
      cmocka_unit_test(a_cancelled_wait_is_never_done),
      cmocka_unit_test(only_the_first_wake_counts),
      cmocka_unit_test(done_may_wait_again_and_at_last_free_its_waiter),
      cmocka_unit_test(done_may_cancel_another_that_is_due),
      cmocka_unit_test(many_waits_end_over_several_runs),
      cmocka_unit_test(waits_under_way_do_not_outlive_the_system),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
