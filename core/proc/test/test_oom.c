/* One scenario over everything, with each of its allocations refused once, alone or with all that
 * follow: nothing crashes, nothing leaks, and what was promised still comes. */
#include "rig.h"

typedef struct scene {
  rig r;
  ph_sys *sa, *sb;
  probe a, b, c, d;
  noted call, local, sleep;
  bool called, called_local, slept;
  ph_ref mon_b, mon_c, mon_d;
  bool has_mon_b, has_mon_c, has_mon_d, linked;
} scene;

static bool try_send(ph_sys *s, ph_pid to, const char *text) {
  ph_msg *m = msg_text(s, PH_C_INFO, text);
  if (!m) return false;
  int rc = ph_send(s, to, m, false);
  if (rc == 0) return true;
  assert_int_equal(rc, PH_ENOMEM);
  ph_msg_free(s, m);
  return false;
}

static bool try_call(ph_sys *s, ph_pid from, ph_pid to, noted *n, uint64_t due) {
  noted_init(n, s);
  ph_msg *m = msg_text(s, PH_C_CALL, "ping");
  if (!m) return false;
  int rc = ph_call(s, from, to, m, &n->w, due);
  if (rc == 0) return true;
  assert_int_equal(rc, PH_ENOMEM);
  ph_msg_free(s, m);
  return false;
}

static bool took(int rc) {
  if (rc) assert_int_equal(rc, PH_ENOMEM);
  return rc == 0;
}

/* Without any memory a reset cannot be asked for, and the systems go on trying: a bounded run. */
static void run_a_while(rig *r) {
  for (int i = 0; i < 50; i++) {
    while (rig_deliver_one(r)) {
    }
    for (int k = 0; k < r->count; k++) ph_sys_run(&r->node[k].sys, PH_NEVER);
  }
}

static void scene_init(scene *x) {
  rig_init(&x->r, 2);
  x->sa = &x->r.node[0].sys;
  x->sb = &x->r.node[1].sys;
  rig_up(&x->r, 0, 1);
}

/* a and c on node 0, b and d on node 1 */
static void play(scene *x) {
  rig *r = &x->r;
  bool a = probe_start(&x->a, x->sa), b_too = probe_start(&x->b, x->sb);
  bool c = probe_start(&x->c, x->sa), d_too = probe_start(&x->d, x->sb);
  if (!a || !b_too || !c || !d_too) return;
  x->b.echo = x->c.echo = true;
  x->a.p->trap_exit = 1;
  (void)took(ph_register(x->b.p, "srv", 3));
  ph_pid b = rig_pid(x->sa, x->sb, x->b.pid), d = rig_pid(x->sa, x->sb, x->d.pid);
  try_send(x->sa, x->c.pid, "local");
  try_send(x->sa, b, "remote");
  x->has_mon_b = took(ph_monitor(x->a.p, b, &x->mon_b));
  x->has_mon_c = took(ph_monitor(x->a.p, x->c.pid, &x->mon_c));
  x->has_mon_d = took(ph_monitor_named(x->a.p, "srv", 3, ph_sys_node_at(x->sa, 1), &x->mon_d));
  x->linked = took(ph_link_procs(x->a.p, d));
  (void)took(ph_link_procs(x->a.p, x->c.pid));
  x->called = try_call(x->sa, x->a.pid, b, &x->call, PH_NEVER);
  x->called_local = try_call(x->sa, x->a.pid, x->c.pid, &x->local, PH_NEVER);
  noted_init(&x->sleep, x->sa);
  x->slept = took(ph_wait(&x->sleep.w, r->t.now + PH_MS(3)));
  ph_msg *m = msg_text(x->sa, PH_C_INFO, "later");
  ph_ref timer;
  if (m && !took(ph_send_after(x->sa, r->t.now + PH_MS(2), b, m, &timer))) ph_msg_free(x->sa, m);
  run_a_while(r);
  r->t.now += PH_MS(5);
  run_a_while(r);
  ph_bytes *why = ph_reason_str(x->sb, "over", 4);
  if (!why) why = ph_bytes_ref(ph_reason_get(x->sb, PH_REASON_KILLED));
  (void)took(ph_signal(x->sb, 0, x->b.pid, why, true));
  (void)took(ph_signal(x->sa, x->a.pid, d, why, true));
  (void)took(ph_signal(x->sa, 0, x->c.pid, why, true));
  ph_bytes_unref(x->sb->env, why);
  run_a_while(r);
}

static int downs(const probe *p, ph_ref ref) {
  int n = 0;
  for (int i = 0; i < p->count; i++) n += p->log[i]->cls == PH_C_DOWN && p->log[i]->ref == ref;
  return n;
}

/* memory is back: whatever was begun ends, once */
static void finish(scene *x) {
  rig *r = &x->r;
  te_fail_in(&r->t, 0);
  r->t.fail_rest = false;
  ph_bytes *kill = ph_reason_get(x->sa, PH_REASON_KILL);
  r->t.now += PH_MS(50);
  rig_run(r);
  if (x->b.p) assert_int_equal(ph_signal(x->sb, 0, x->b.pid, kill, true), 0);
  if (x->c.p) assert_int_equal(ph_signal(x->sa, 0, x->c.pid, kill, true), 0);
  if (x->d.p) assert_int_equal(ph_signal(x->sb, 0, x->d.pid, kill, true), 0);
  rig_run(r);
  assert_int_equal(x->call.calls, x->called);
  assert_int_equal(x->local.calls, x->called_local);
  assert_int_equal(x->sleep.calls, x->slept);
  if (x->has_mon_b) assert_int_equal(downs(&x->a, x->mon_b), 1);
  if (x->has_mon_c) assert_int_equal(downs(&x->a, x->mon_c), 1);
  if (x->has_mon_d) assert_int_equal(downs(&x->a, x->mon_d), 1);
  if (x->linked) {
    int exits = 0;
    for (int i = 0; i < x->a.count; i++)
      exits += x->a.log[i]->cls == PH_C_EXIT && ph_id_node(x->a.log[i]->from) != PH_SELF;
    assert_int_equal(exits, 1);
  }
  assert_int_equal(ph_index_count(&x->sa->links) + ph_index_count(&x->sb->links), 0);
  assert_int_equal(ph_index_count(&x->sa->refs) + ph_index_count(&x->sb->refs), 0);
  probe *all[] = {&x->a, &x->b, &x->c, &x->d};
  for (int i = 0; i < 4; i++) {
    if (all[i]->sys) probe_clear(all[i]);
  }
  rig_end(r);
}

static void walk(bool rest) {
  long n = 1, tripped = 0;
  for (;; n++) {
    scene *x = calloc(1, sizeof *x);
    scene_init(x);
    x->r.t.fail_rest = rest;
    te_fail_in(&x->r.t, n);
    play(x);
    bool now = te_tripped(&x->r.t);
    finish(x);
    free(x);
    if (!now) break;
    tripped++;
  }
  assert_true(tripped > 40);
  print_message("%ld points of failure\n", tripped);
}

static void each_allocation_may_fail_once(void **state) {
  (void)state;
  walk(false);
}

static void all_memory_may_go(void **state) {
  (void)state;
  walk(true);
}

static void systems_start_wholly_or_not_at_all(void **state) {
  (void)state;
  te t;
  for (long n = 1;; n++) {
    ph_sys s;
    te_init(&t, 1);
    te_fail_in(&t, n);
    int rc = ph_sys_init(&s, &t.env, NULL, NULL);
    bool tripped = te_tripped(&t);
    te_fail_in(&t, 0);
    if (rc == 0) {
      for (long k = 1;; k++) { /* the name is changed, or it stays */
        te_fail_in(&t, k);
        rc = ph_sys_name(&s, "x@y", 3, 9);
        bool late = te_tripped(&t);
        te_fail_in(&t, 0);
        assert_int_equal(s.nodes[0]->incarnation == 9, rc == 0);
        if (!late) break;
        if (rc == 0) break;
      }
      ph_sys_deinit(&s);
    } else {
      assert_int_equal(rc, PH_ENOMEM);
    }
    TE_END(&t);
    if (!tripped) break;
    assert_true(n < 1000);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(each_allocation_may_fail_once),
      cmocka_unit_test(all_memory_may_go),
      cmocka_unit_test(systems_start_wholly_or_not_at_all),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
