/* Two or three process systems joined by queues. */
#include "rig.h"

typedef struct pair { /* a on node 0, b on node 1 */
  rig r;
  ph_sys *sa, *sb;
  probe a, b;
  ph_pid a_at_b, b_at_a;
} pair;

static void pair_init(pair *x) {
  rig_init(&x->r, 2);
  x->sa = &x->r.node[0].sys;
  x->sb = &x->r.node[1].sys;
  rig_up(&x->r, 0, 1);
  assert_true(probe_start(&x->a, x->sa) && probe_start(&x->b, x->sb));
  x->a_at_b = rig_pid(x->sb, x->sa, x->a.pid);
  x->b_at_a = rig_pid(x->sa, x->sb, x->b.pid);
}

static void pair_end(pair *x) {
  probe_clear(&x->a);
  probe_clear(&x->b);
  rig_end(&x->r);
}

static void no_traces(const ph_sys *s) {
  assert_int_equal(ph_index_count(&s->refs), 0);
  assert_int_equal(ph_index_count(&s->links), 0);
  for (uint32_t i = 1; i < s->node_count; i++) {
    assert_true(ph_list_empty(&s->nodes[i]->out));
    assert_true(ph_list_empty(&s->nodes[i]->in));
    assert_true(ph_list_empty(&s->nodes[i]->links));
    assert_true(ph_list_empty(&s->nodes[i]->blocked));
    assert_true(ph_list_empty(&s->nodes[i]->full));
    assert_true(ph_list_empty(&s->nodes[i]->throttles));
  }
}

static void messages_travel_in_order(void **state) {
  (void)state;
  pair x;
  pair_init(&x);
  SEND_TEXT(x.sa, x.b_at_a, "one");
  assert_int_equal(ph_send(x.sa, x.b_at_a, msg_text(x.sa, PH_C_CAST, "two"), false), 0);
  assert_int_equal(ph_send(x.sa, x.b_at_a, ph_msg_host(x.sa, PH_C_INFO, 8), false), 0);
  assert_int_equal(x.r.node[0].dropped_host, 1); /* it travelled as bytes */
  ph_msg *m = ph_msg_host(x.sa, PH_C_INFO, 7);
  assert_int_equal(ph_send(x.sa, x.b_at_a, m, false), PH_ENOTSERIAL);
  ph_msg_free(x.sa, m);
  m = ph_msg_bytes(x.sa, PH_C_STOP, NULL, 0);
  m->reason = reason_text(x.sa, "halt");
  assert_int_equal(ph_send(x.sa, x.b_at_a, m, false), 0);
  assert_int_equal(ph_register(x.b.p, "srv", 3), 0);
  ph_nodeent *at = ph_sys_node_named(x.sa, "n1@rig", 6);
  assert_non_null(at);
  assert_int_equal(ph_send_named(x.sa, "srv", 3, at, msg_text(x.sa, PH_C_INFO, "named"), false), 0);
  assert_int_equal(ph_send_named(x.sa, "nix", 3, at, msg_text(x.sa, PH_C_INFO, "lost"), false), 0);
  m = msg_text(x.sa, PH_C_DOWN, "no message of a process");
  assert_int_equal(ph_send(x.sa, x.b_at_a, m, false), PH_EINVAL);
  ph_msg_free(x.sa, m);
  rig_run(&x.r);
  assert_int_equal(x.b.count, 5);
  CHECK_MSG(&x.b, 0, PH_C_INFO, "one");
  CHECK_MSG(&x.b, 1, PH_C_CAST, "two");
  assert_int_equal(x.b.log[2]->len, 1);
  assert_int_equal(x.b.log[2]->data[0], 8);
  CHECK_MSG(&x.b, 3, PH_C_STOP, "halt");
  CHECK_MSG(&x.b, 4, PH_C_INFO, "named");
  assert_int_equal(x.sb->unknown_frames, 0);
  pair_end(&x);
}

static void a_node_that_is_down_takes_nothing(void **state) {
  (void)state;
  pair x;
  noted n;
  ph_ref ref;
  pair_init(&x);
  ph_nodeent *at = ph_sys_node_named(x.sa, "n1@rig", 6);
  rig_down(&x.r, 0, 1);
  assert_null(ph_sys_node_named(x.sa, "n1@rig", 6));
  SEND_TEXT(x.sa, x.b_at_a, "into the void");
  ph_msg *m = msg_text(x.sa, PH_C_INFO, "x");
  assert_int_equal(ph_send_named(x.sa, "srv", 3, at, m, false), PH_ENOCONN);
  ph_msg_free(x.sa, m);
  CALL_TEXT(x.sa, x.a.pid, x.b_at_a, "ping", &n, PH_NEVER);
  assert_int_equal(ph_signal(x.sa, 0, x.b_at_a, ph_reason_get(x.sa, PH_REASON_KILL), true), 0);
  assert_int_equal(ph_monitor(x.a.p, x.b_at_a, &ref), 0);
  x.a.p->trap_exit = 1;
  assert_int_equal(ph_link_procs(x.a.p, x.b_at_a), 0);
  rig_run(&x.r);
  assert_int_equal(n.err, PH_ENOCONN);
  CHECK_MSG(&x.a, 0, PH_C_DOWN, "noconnection");
  assert_true(x.a.log[0]->ref == ref && x.a.log[0]->from == x.b_at_a);
  CHECK_MSG(&x.a, 1, PH_C_EXIT, "noconnection");
  assert_int_equal(x.r.frames, 0);
  no_traces(x.sa);
  pair_end(&x);
}

static void a_call_goes_there_and_back(void **state) {
  (void)state;
  pair x;
  noted n, named, nobody, unknown;
  pair_init(&x);
  x.b.echo = true;
  assert_int_equal(ph_register(x.b.p, "srv", 3), 0);
  ph_nodeent *at = ph_sys_node_named(x.sa, "n1@rig", 6);
  CALL_TEXT(x.sa, x.a.pid, x.b_at_a, "ping", &n, x.r.t.now + PH_MS(5000));
  noted_init(&named, x.sa);
  assert_int_equal(ph_call_named(x.sa, 0, "srv", 3, at, msg_text(x.sa, PH_C_CALL, "by name"),
                                 &named.w, PH_NEVER),
                   0);
  noted_init(&nobody, x.sa);
  assert_int_equal(
      ph_call_named(x.sa, 0, "nix", 3, at, msg_text(x.sa, PH_C_CALL, "lost"), &nobody.w, PH_NEVER),
      0);
  CALL_TEXT(x.sa, 0, ph_pid_make(at->index, 999), "lost", &unknown, PH_NEVER);
  rig_run(&x.r);
  assert_int_equal(n.err, 0);
  assert_string_equal(n.text, "ping");
  assert_string_equal(named.text, "by name");
  assert_int_equal(nobody.err, PH_ENOPROC);
  assert_int_equal(unknown.err, PH_ENOPROC);
  assert_true(x.b.log[0]->from == x.a_at_b);
  assert_true(x.b.log[1]->from == 0);
  assert_int_equal(x.sb->unknown_frames, 0);
  no_traces(x.sa);
  no_traces(x.sb);
  pair_end(&x);
}

static void a_remote_target_that_ends_answers_its_calls(void **state) {
  (void)state;
  pair x;
  noted n;
  pair_init(&x);
  CALL_TEXT(x.sa, x.a.pid, x.b_at_a, "ping", &n, PH_NEVER);
  rig_run(&x.r);
  assert_int_equal(n.calls, 0);
  assert_false(ph_list_empty(&x.b.p->watched));
  assert_int_equal(ph_signal(x.sa, x.a.pid, x.b_at_a, ph_reason_get(x.sa, PH_REASON_KILL), true),
                   0);
  rig_run(&x.r);
  assert_string_equal(x.b.reason, "killed");
  assert_int_equal(n.calls, 1);
  assert_int_equal(n.err, PH_EEXIT);
  assert_string_equal(n.text, "killed");
  no_traces(x.sb);
  pair_end(&x);
}

static void a_call_that_is_given_up_leaves_nothing_there(void **state) {
  (void)state;
  pair x;
  noted n, m;
  pair_init(&x);
  CALL_TEXT(x.sa, x.a.pid, x.b_at_a, "slow", &n, x.r.t.now + PH_MS(10));
  CALL_TEXT(x.sa, x.a.pid, x.b_at_a, "dropped", &m, PH_NEVER);
  rig_run(&x.r);
  ph_wait_cancel(&m.w);
  x.r.t.now += PH_MS(10);
  rig_run(&x.r);
  assert_int_equal(n.err, PH_ETIMEOUT);
  assert_int_equal(m.calls, 0);
  no_traces(x.sb); /* DEMONITOR has come */
  ph_ref ref = x.b.log[0]->ref;
  assert_true(ph_id_node(ref) != PH_SELF);
  assert_int_equal(ph_reply(x.sb, x.a_at_b, ref, msg_text(x.sb, PH_C_REPLY, "late")), 0);
  rig_run(&x.r); /* nobody waits */
  assert_int_equal(n.calls, 1);
  no_traces(x.sa);
  pair_end(&x);
}

/* b passes the call on, and a third node answers it */
static void a_third_node_may_reply(void **state) {
  (void)state;
  rig r;
  probe a, b;
  noted n, slept;
  rig_init(&r, 3);
  for (int i = 0; i < 3; i++) rig_up(&r, i, (i + 1) % 3);
  ph_sys *sa = &r.node[0].sys, *sb = &r.node[1].sys, *sc = &r.node[2].sys;
  assert_true(probe_start(&a, sa) && probe_start(&b, sb));
  CALL_TEXT(sa, a.pid, rig_pid(sa, sb, b.pid), "who?", &n, PH_NEVER);
  noted_init(&slept, sa);
  assert_int_equal(ph_wait(&slept.w, PH_NEVER), 0);
  rig_run(&r);
  uint64_t serial = ph_id_serial(b.log[0]->ref);
  ph_nodeent *at = ph_sys_node_named(sc, "n0@rig", 6);
  ph_ref ref = PH_TAG_REF | (uint64_t)at->index << PH_SERIAL_BITS | serial;
  ph_ref other = PH_TAG_REF | (uint64_t)at->index << PH_SERIAL_BITS | ph_id_serial(slept.w.obj.ref);
  assert_int_equal(ph_reply(sc, 0, other, msg_text(sc, PH_C_REPLY, "no call waits")), 0);
  assert_int_equal(ph_reply(sc, 0, ref, msg_text(sc, PH_C_REPLY, "the third")), 0);
  assert_int_equal(ph_reply(sc, 0, ref, msg_text(sc, PH_C_REPLY, "again")), 0);
  rig_run(&r);
  assert_int_equal(n.calls, 1);
  assert_string_equal(n.text, "the third");
  assert_int_equal(slept.calls, 0);
  ph_wait_cancel(&slept.w);
  no_traces(sa);
  no_traces(sb);
  probe_clear(&a);
  probe_clear(&b);
  rig_end(&r);
}

static void a_late_reply_on_the_way_is_dropped(void **state) {
  (void)state;
  pair x;
  noted n;
  pair_init(&x);
  x.b.echo = true;
  CALL_TEXT(x.sa, x.a.pid, x.b_at_a, "ping", &n, x.r.t.now + PH_MS(10));
  assert_true(rig_deliver_one(&x.r));
  ph_sys_run(x.sb, PH_NEVER); /* the reply is on its way */
  x.r.t.now += PH_MS(10);
  ph_sys_run(x.sa, PH_NEVER);
  rig_run(&x.r);
  assert_int_equal(n.calls, 1);
  assert_int_equal(n.err, PH_ETIMEOUT);
  assert_int_equal(x.sa->unknown_frames + x.sb->unknown_frames, 0);
  no_traces(x.sa);
  no_traces(x.sb);
  pair_end(&x);
}

static void remote_monitors_tell_once(void **state) {
  (void)state;
  pair x;
  ph_ref one, gone, named, dead, nobody;
  pair_init(&x);
  assert_int_equal(ph_register(x.b.p, "srv", 3), 0);
  ph_nodeent *at = ph_sys_node_named(x.sa, "n1@rig", 6);
  assert_int_equal(ph_monitor(x.a.p, x.b_at_a, &one), 0);
  assert_int_equal(ph_monitor(x.a.p, x.b_at_a, &gone), 0);
  assert_int_equal(ph_monitor_named(x.a.p, "srv", 3, at, &named), 0);
  assert_int_equal(ph_monitor(x.a.p, ph_pid_make(at->index, 999), &dead), 0);
  assert_int_equal(ph_monitor_named(x.a.p, "nix", 3, at, &nobody), 0);
  rig_run(&x.r);
  assert_int_equal(x.a.count, 2);
  CHECK_MSG(&x.a, 0, PH_C_DOWN, "noproc");
  CHECK_MSG(&x.a, 1, PH_C_DOWN, "noproc");
  assert_true(x.a.log[0]->ref == dead && ph_id_serial(x.a.log[0]->from) == 999);
  assert_true(x.a.log[1]->ref == nobody && x.a.log[1]->from == 0);
  ph_demonitor(x.a.p, gone);
  rig_run(&x.r);
  x.b.exit_with = reason_text(x.sb, "bye");
  ph_ready(x.b.p);
  rig_run(&x.r);
  assert_int_equal(x.a.count, 4);
  CHECK_MSG(&x.a, 2, PH_C_DOWN, "bye");
  CHECK_MSG(&x.a, 3, PH_C_DOWN, "bye");
  assert_true(x.a.log[2]->ref == one && x.a.log[2]->from == x.b_at_a);
  assert_true(x.a.log[3]->ref == named && x.a.log[3]->from == x.b_at_a);
  no_traces(x.sa);
  no_traces(x.sb);
  pair_end(&x);
}

static void a_remote_watcher_that_ends_demonitors(void **state) {
  (void)state;
  pair x;
  ph_ref ref;
  pair_init(&x);
  assert_int_equal(ph_monitor(x.a.p, x.b_at_a, &ref), 0);
  rig_run(&x.r);
  assert_int_equal(ph_index_count(&x.sb->refs), 1);
  x.a.exit_with = reason_text(x.sa, "bye");
  ph_ready(x.a.p);
  rig_run(&x.r);
  no_traces(x.sa);
  no_traces(x.sb);
  pair_end(&x);
}

static void remote_links_carry_exits(void **state) {
  (void)state;
  for (int trap = 0; trap < 2; trap++) {
    pair x;
    pair_init(&x);
    x.a.p->trap_exit = trap;
    assert_int_equal(ph_link_procs(x.a.p, x.b_at_a), 0);
    assert_int_equal(ph_link_procs(x.b.p, x.a_at_b), 0); /* both at once: one link */
    rig_run(&x.r);
    assert_int_equal(ph_index_count(&x.sa->links), 1);
    assert_int_equal(ph_index_count(&x.sb->links), 1);
    x.b.exit_with = reason_text(x.sb, "boom");
    ph_ready(x.b.p);
    rig_run(&x.r);
    assert_int_equal(x.a.ended, !trap);
    if (trap) {
      CHECK_MSG(&x.a, 0, PH_C_EXIT, "boom");
      assert_true(x.a.log[0]->from == x.b_at_a);
    } else {
      assert_string_equal(x.a.reason, "boom");
    }
    no_traces(x.sa);
    no_traces(x.sb);
    pair_end(&x);
  }
}

static void a_reason_too_large_to_travel_is_replaced(void **state) {
  (void)state;
  pair x;
  ph_ref ref;
  pair_init(&x);
  x.a.p->trap_exit = 1;
  assert_int_equal(ph_link_procs(x.a.p, x.b_at_a), 0);
  assert_int_equal(ph_monitor(x.a.p, x.b_at_a, &ref), 0);
  rig_run(&x.r);
  char big[500];
  memset(big, 'x', sizeof big);
  x.b.exit_with = ph_reason_str(x.sb, big, sizeof big);
  ph_ready(x.b.p);
  x.r.max_frame = 200;
  rig_run(&x.r);
  assert_int_equal(x.a.count, 2);
  CHECK_MSG(&x.a, 0, PH_C_EXIT, "too_large");
  CHECK_MSG(&x.a, 1, PH_C_DOWN, "too_large");
  pair_end(&x);
}

static void remote_unlink_and_links_to_the_dead(void **state) {
  (void)state;
  pair x;
  pair_init(&x);
  assert_int_equal(ph_link_procs(x.a.p, x.b_at_a), 0);
  rig_run(&x.r);
  ph_unlink(x.b.p, x.a_at_b);
  rig_run(&x.r);
  no_traces(x.sa);
  no_traces(x.sb);
  x.b.exit_with = reason_text(x.sb, "boom");
  ph_ready(x.b.p);
  rig_run(&x.r);
  assert_int_equal(x.a.ended, 0);
  assert_int_equal(ph_link_procs(x.a.p, x.b_at_a), 0); /* it is dead by now */
  rig_run(&x.r);
  assert_int_equal(x.a.ended, 1);
  assert_string_equal(x.a.reason, "noproc");
  pair_end(&x);
}

static void remote_signals_do_as_local_ones(void **state) {
  (void)state;
  pair x;
  pair_init(&x);
  ph_bytes *boom = reason_text(x.sa, "boom");
  x.b.p->trap_exit = 1;
  assert_int_equal(ph_signal(x.sa, x.a.pid, x.b_at_a, boom, true), 0);
  assert_int_equal(ph_signal(x.sa, x.a.pid, x.b_at_a, boom, false), 0); /* no such link: nothing */
  ph_bytes_unref(x.sa->env, boom);
  rig_run(&x.r);
  assert_int_equal(x.b.count, 1);
  CHECK_MSG(&x.b, 0, PH_C_EXIT, "boom");
  assert_true(x.b.log[0]->from == x.a_at_b);
  pair_end(&x);
}

/* What is under way when the other node falls, or the link between them is made again. */
static void a_lost_link_ends_all_that_went_over_it(void **state) {
  (void)state;
  for (int reset = 0; reset < 2; reset++) {
    pair x;
    noted call, blocked;
    ph_ref ref, back;
    probe c;
    pair_init(&x);
    assert_true(probe_start(&c, x.sa));
    x.a.p->trap_exit = 1;
    assert_int_equal(ph_monitor(x.a.p, x.b_at_a, &ref), 0);
    assert_int_equal(ph_link_procs(x.a.p, x.b_at_a), 0);
    assert_int_equal(ph_link_procs(c.p, x.b_at_a), 0);
    assert_int_equal(ph_monitor(x.b.p, x.a_at_b, &back), 0);
    x.b.p->trap_exit = 1;
    CALL_TEXT(x.sa, x.a.pid, x.b_at_a, "ping", &call, PH_NEVER);
    rig_run(&x.r);
    assert_int_equal(x.b.count, 1);
    ph_nodeent *at = ph_sys_node_named(x.sa, "n1@rig", 6);
    ph_sys_xoff(x.sa, at->peer, true);
    noted_init(&blocked, x.sa);
    assert_int_equal(ph_wait_xon(&blocked.w, at, PH_NEVER), 0);
    if (reset) {
      ph_sys_link_reset(x.sa, x.r.links[0][1]);
      ph_sys_link_reset(x.sb, x.r.links[1][0]);
    } else {
      rig_down(&x.r, 0, 1);
    }
    rig_run(&x.r);
    assert_int_equal(x.a.count, 2);
    CHECK_MSG(&x.a, 0, PH_C_DOWN, "noconnection");
    CHECK_MSG(&x.a, 1, PH_C_EXIT, "noconnection");
    assert_int_equal(c.ended, 1);
    assert_string_equal(c.reason, "noconnection");
    assert_int_equal(call.err, PH_ENOCONN);
    assert_int_equal(x.b.count, 4); /* the call, two EXITs, one DOWN */
    int exits = 0, downs = 0;
    for (int i = 1; i < 4; i++) {
      exits += x.b.log[i]->cls == PH_C_EXIT;
      downs += x.b.log[i]->cls == PH_C_DOWN;
    }
    assert_int_equal(exits, 2);
    assert_int_equal(downs, 1);
    assert_int_equal(blocked.calls, !reset); /* a reset link keeps its xoff until XON */
    if (reset) {
      ph_sys_xoff(x.sa, at->peer, false);
      rig_run(&x.r);
    }
    assert_int_equal(blocked.err, reset ? 0 : PH_ENOCONN);
    no_traces(x.sa);
    no_traces(x.sb);
    pair_end(&x);
  }
}

/* A LINK sent just before this side hears of the reset goes over the new link. */
static void a_link_made_during_a_reset_does_not_stay_on_one_side(void **state) {
  (void)state;
  pair x;
  pair_init(&x);
  x.b.p->trap_exit = 1;
  ph_sys_link_reset(x.sb, x.r.links[1][0]);
  assert_int_equal(ph_link_procs(x.a.p, x.b_at_a), 0);
  ph_sys_link_reset(x.sa, x.r.links[0][1]);
  rig_run(&x.r);
  assert_string_equal(x.a.reason, "noconnection");
  CHECK_MSG(&x.b, 0, PH_C_EXIT, "noconnection");
  no_traces(x.sa);
  no_traces(x.sb);
  pair_end(&x);
}

static void the_same_incarnation_may_come_back_and_another_is_another(void **state) {
  (void)state;
  pair x;
  pair_init(&x);
  rig_down(&x.r, 0, 1);
  rig_up(&x.r, 0, 1);
  SEND_TEXT(x.sa, x.b_at_a, "back");
  rig_run(&x.r);
  assert_int_equal(x.b.count, 1);
  rig_down(&x.r, 0, 1);
  uint32_t peer = ++x.r.next_peer;
  assert_int_equal(ph_sys_node_up(x.sa, peer, "n1@rig", 6, 99), 0);
  x.r.links[0][1] = peer;
  long frames = x.r.frames;
  SEND_TEXT(x.sa, x.b_at_a, "to the old one"); /* which is down */
  assert_int_equal(x.r.frames, frames);
  assert_int_equal(ph_sys_node_named(x.sa, "n1@rig", 6)->incarnation, 99);
  assert_int_equal(ph_sys_node_up(x.sa, peer, "n9@rig", 6, 1), PH_EINVAL); /* peer in use */
  assert_int_equal(ph_sys_node_up(x.sa, 77, "n0@rig", 6, 1), PH_EINVAL);   /* that is this node */
  pair_end(&x);
}

static void xoff_stops_those_who_can_wait(void **state) {
  (void)state;
  pair x;
  noted wait, late, call;
  pair_init(&x);
  ph_nodeent *at = ph_sys_node_named(x.sa, "n1@rig", 6);
  ph_sys_xoff(x.sa, at->peer, true);
  ph_msg *m = msg_text(x.sa, PH_C_INFO, "waits");
  assert_int_equal(ph_send(x.sa, x.b_at_a, m, false), PH_EBUSY);
  assert_int_equal(ph_send_named(x.sa, "srv", 3, at, m, false), PH_EBUSY);
  ph_msg *c = msg_text(x.sa, PH_C_CALL, "waits");
  noted_init(&call, x.sa);
  assert_int_equal(ph_call(x.sa, 0, x.b_at_a, c, &call.w, PH_NEVER), PH_EBUSY);
  ph_msg_free(x.sa, c);
  assert_int_equal(ph_send(x.sa, x.b_at_a, msg_text(x.sa, PH_C_INFO, "forced"), true), 0);
  noted_init(&wait, x.sa);
  noted_init(&late, x.sa);
  assert_int_equal(ph_wait_xon(&wait.w, at, PH_NEVER), 0);
  assert_int_equal(ph_wait_xon(&late.w, at, x.r.t.now + PH_MS(5)), 0);
  x.r.t.now += PH_MS(5);
  rig_run(&x.r);
  assert_int_equal(late.err, PH_ETIMEOUT);
  assert_int_equal(wait.calls, 0);
  ph_sys_xoff(x.sa, at->peer, false);
  rig_run(&x.r);
  assert_int_equal(wait.calls, 1);
  assert_int_equal(wait.err, 0);
  assert_int_equal(ph_send(x.sa, x.b_at_a, m, false), 0);
  assert_int_equal(ph_wait_xon(&wait.w, at, PH_NEVER), 0); /* no need: woken at once */
  rig_run(&x.r);
  assert_int_equal(wait.calls, 2);
  assert_int_equal(call.calls, 0);
  assert_int_equal(x.b.count, 2);
  pair_end(&x);
}

/* ---- a peer that lies -------------------------------------------------------------------------
 */

static ph_run read_none(ph_sys *s, ph_proc *p) {
  (void)s;
  (void)p;
  return PH_RUN_WAIT;
}

static void end_none(ph_sys *s, ph_proc *p, ph_bytes *reason) {
  (void)s;
  (void)p;
  (void)reason;
}

static const ph_behaviour sleeper = {"sleeper", read_none, end_none};

static int try_text(ph_sys *s, ph_pid to, bool force) {
  ph_msg *m = msg_text(s, PH_C_INFO, "m");
  int rc = ph_send(s, to, m, force);
  if (rc) ph_msg_free(s, m);
  return rc;
}

/* sends until it is told to stop, running the other side now and then; how many it took */
static int fill(pair *x, ph_pid to) {
  int n = 0;
  while (n < 100000 && try_text(x->sa, to, false) == 0)
    if (++n % 100 == 0) rig_run(&x->r);
  return n;
}

static void a_long_mailbox_holds_its_remote_senders_back(void **state) {
  (void)state;
  pair x;
  noted room, call_room, end_room;
  pair_init(&x);
  ph_proc *p = ph_spawn(x.sb, &sleeper, NULL);
  ph_pid at_a = rig_pid(x.sa, x.sb, p->pid);
  int n = fill(&x, at_a);
  assert_in_range(n, 10000, 20000);
  assert_int_equal(try_text(x.sa, x.b_at_a, false), 0); /* others are not held back */
  assert_int_equal(try_text(x.sa, at_a, true), 0);      /* nor what must pass */
  noted_init(&room, x.sa);
  assert_int_equal(ph_wait_room(&room.w, at_a, PH_NEVER), 0);
  noted_init(&call_room, x.sa);
  ph_msg *m = msg_text(x.sa, PH_C_CALL, "call");
  assert_int_equal(ph_call(x.sa, x.a.pid, at_a, m, &call_room.w, PH_NEVER), PH_EBUSY);
  ph_msg_free(x.sa, m);
  rig_run(&x.r);
  assert_int_equal(room.calls, 0);
  while (p->mailbox.count > 100) ph_msg_free(x.sb, ph_recv(p));
  rig_run(&x.r);
  assert_int_equal(room.calls, 1);
  assert_int_equal(room.err, 0);
  assert_true(fill(&x, at_a) > 10000);
  noted_init(&end_room, x.sa);
  assert_int_equal(ph_wait_room(&end_room.w, at_a, PH_NEVER), 0);
  ph_exit(p, ph_reason_get(x.sb, PH_REASON_NORMAL)); /* the dead take everything */
  rig_run(&x.r);
  assert_int_equal(end_room.calls, 1);
  assert_int_equal(try_text(x.sa, at_a, false), 0);
  no_traces(x.sa);
  no_traces(x.sb);
  pair_end(&x);
}

static void senders_by_name_are_held_back_too(void **state) {
  (void)state;
  pair x;
  noted room;
  pair_init(&x);
  ph_proc *p = ph_spawn(x.sb, &sleeper, NULL);
  assert_int_equal(ph_register(p, "slow", 4), 0);
  ph_nodeent *at = ph_sys_node_named(x.sa, "n1@rig", 6);
  int n = 0, rc = 0;
  while (n < 100000 && rc == 0) {
    ph_msg *m = msg_text(x.sa, PH_C_INFO, "m");
    rc = ph_send_named(x.sa, "slow", 4, at, m, false);
    if (rc) ph_msg_free(x.sa, m);
    if (++n % 100 == 0) rig_run(&x.r);
  }
  assert_int_equal(rc, PH_EBUSY);
  noted_init(&room, x.sa);
  assert_int_equal(ph_wait_room_named(&room.w, "slow", 4, at, PH_NEVER), 0);
  rig_run(&x.r);
  assert_int_equal(room.calls, 0);
  while (p->mailbox.count) ph_msg_free(x.sb, ph_recv(p));
  rig_run(&x.r);
  assert_int_equal(room.calls, 1);
  no_traces(x.sa);
  no_traces(x.sb);
  pair_end(&x);
}

static void a_lost_node_holds_nobody_back(void **state) {
  (void)state;
  pair x;
  noted room;
  pair_init(&x);
  ph_proc *p = ph_spawn(x.sb, &sleeper, NULL);
  ph_pid at_a = rig_pid(x.sa, x.sb, p->pid);
  fill(&x, at_a);
  noted_init(&room, x.sa);
  assert_int_equal(ph_wait_room(&room.w, at_a, PH_NEVER), 0);
  rig_down(&x.r, 0, 1);
  rig_run(&x.r);
  assert_int_equal(room.calls, 1);
  assert_int_equal(room.err, PH_ENOCONN);
  rig_up(&x.r, 0, 1);
  assert_int_equal(try_text(x.sa, at_a, false), 0);
  rig_run(&x.r); /* it is still too long, and says so again */
  assert_int_equal(try_text(x.sa, at_a, false), PH_EBUSY);
  pair_end(&x);
}

static void frame(rig *r, int from, int to, const ph_buf *b) {
  assert_false(b->oom);
  rig_frame(r, from, to, ph_buf_at(b), ph_buf_size(b));
}

static void a_peer_speaks_for_its_own_node_only(void **state) {
  (void)state;
  rig r;
  probe a, b;
  noted n;
  ph_ref ref;
  ph_buf f;
  rig_init(&r, 3);
  rig_up(&r, 0, 1);
  rig_up(&r, 0, 2);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&a, s) && probe_start(&b, &r.node[1].sys));
  ph_pid b_at_a = rig_pid(s, &r.node[1].sys, b.pid);
  CALL_TEXT(s, a.pid, b_at_a, "ping", &n, PH_NEVER);
  assert_int_equal(ph_monitor(a.p, b_at_a, &ref), 0);
  assert_int_equal(ph_link_procs(a.p, b_at_a), 0);
  rig_run(&r);
  ph_buf_init(&f, &r.t.env);
  uint64_t call_serial = ph_id_serial(n.w.obj.ref);
  /* node 2 answers what node 1 was asked, ends what node 1 runs, undoes what node 1 watches */
  uint64_t stolen[] = {call_serial, ph_id_serial(ref)};
  for (int i = 0; i < 2; i++) {
    ph_buf_reset(&f);
    ph_w_array(&f, 3);
    ph_w_uint(&f, PH_M_REPLY);
    ph_w_uint(&f, i == 0 ? call_serial + 1 : stolen[i]); /* a call's own ref is not to be guessed */
    ph_w_cstr(&f, "forged");
    frame(&r, 2, 0, &f);
    ph_buf_reset(&f);
    ph_w_array(&f, 3);
    ph_w_uint(&f, PH_M_DOWN);
    ph_w_uint(&f, stolen[i]);
    ph_w_cstr(&f, "forged");
    frame(&r, 2, 0, &f);
  }
  ph_buf_reset(&f);
  ph_w_array(&f, 5);
  ph_w_uint(&f, PH_M_EXIT);
  ph_w_uint(&f, ph_id_serial(a.pid));
  ph_w_uint(&f, ph_id_serial(b.pid));
  ph_w_bool(&f, false);
  ph_w_cstr(&f, "forged");
  frame(&r, 2, 0, &f);
  rig_run(&r);
  assert_int_equal(n.calls, 0);
  assert_int_equal(a.count, 0);
  assert_int_equal(a.ended, 0);
  /* a CALL from a pid of node 1, sent by node 2 */
  ph_buf_reset(&f);
  ph_w_array(&f, 6);
  ph_w_uint(&f, PH_M_CALL);
  ph_w_uint(&f, ph_id_serial(a.pid));
  ph_w_uint(&f, PH_C_CALL);
  ph_w_id(&r.node[1].sys, &f, b.pid);
  ph_w_uint(&f, 5);
  ph_w_cstr(&f, "forged");
  uint64_t unknown = s->unknown_frames;
  frame(&r, 2, 0, &f);
  assert_int_equal(s->unknown_frames, unknown + 1);
  frame(&r, 1, 0, &f); /* from its own node it is good */
  assert_int_equal(s->unknown_frames, unknown + 1);
  frame(&r, 1, 0, &f); /* but not twice */
  assert_int_equal(s->unknown_frames, unknown + 2);
  rig_run(&r);
  assert_int_equal(a.count, 1);
  /* from an earlier life of node 1 */
  ph_buf id;
  ph_buf_init(&id, &r.t.env);
  ph_w_cstr(&id, "n1@rig");
  ph_w_uint(&id, 99);
  ph_w_uint(&id, 3);
  ph_buf_reset(&f);
  ph_w_array(&f, 6);
  ph_w_uint(&f, PH_M_CALL);
  ph_w_uint(&f, ph_id_serial(a.pid));
  ph_w_uint(&f, PH_C_CALL);
  ph_w_ext(&f, PH_EXT_PID, ph_buf_at(&id), ph_buf_size(&id));
  ph_w_uint(&f, 6);
  ph_w_cstr(&f, "forged");
  frame(&r, 1, 0, &f);
  ph_buf_deinit(&id);
  assert_int_equal(s->unknown_frames, unknown + 3);
  ph_buf_deinit(&f);
  probe_clear(&a);
  probe_clear(&b);
  rig_end(&r);
}

static void w_random_value(te *t, ph_buf *b, ph_sys *s) {
  switch (te_below(t, 8)) {
  case 0:
    ph_w_uint(b, te_below(t, 12));
    break;
  case 1:
    ph_w_uint(b, te_random64(t));
    break;
  case 2:
    ph_w_cstr(b, te_below(t, 2) ? "srv" : "noproc");
    break;
  case 3:
    ph_w_bool(b, te_below(t, 2));
    break;
  case 4:
    ph_w_id(s, b, ph_pid_make(PH_SELF, te_below(t, 9)));
    break;
  case 5:
    ph_w_nil(b);
    break;
  case 6:
    ph_w_array(b, 2);
    ph_w_int(b, -5);
    ph_w_cstr(b, "kill");
    break;
  default:
    ph_w_double(b, 0.5);
  }
}

/* Frames of every type with fields of every kind, whole, cut and with flipped bits: nothing may
 * crash, and the system still works afterwards. */
static void random_frames_do_no_harm(void **state) {
  (void)state;
  pair x;
  ph_buf f;
  noted n;
  pair_init(&x);
  te *t = &x.r.t;
  x.a.leave = true;
  x.a.p->trap_exit = 1;
  assert_int_equal(ph_register(x.a.p, "srv", 3), 0);
  ph_buf_init(&f, &t->env);
  for (int i = 0; i < 200000; i++) {
    ph_buf_reset(&f);
    uint32_t fields = (uint32_t)te_below(t, 7);
    ph_w_array(&f, fields);
    ph_w_uint(&f, 31 + te_below(t, 12));
    if (te_below(t, 2)) ph_w_uint(&f, te_below(t, 4));
    for (uint32_t k = 0; k < fields; k++) w_random_value(t, &f, x.sb);
    size_t len = ph_buf_size(&f);
    if (te_below(t, 3) == 0) len = te_below(t, len + 1);
    if (te_below(t, 3) == 0 && len) ph_buf_at(&f)[te_below(t, len)] = (uint8_t)te_random64(t);
    uint8_t *exact = malloc(len ? len : 1); /* so that a read beyond the end shows */
    memcpy(exact, ph_buf_at(&f), len);
    rig_frame(&x.r, 1, 0, exact, len);
    free(exact);
    if (i % 64 == 0) {
      while (x.a.p && x.a.p->mailbox.count) ph_msg_free(x.sa, ph_recv(x.a.p));
      rig_run(&x.r);
      if (!x.a.p) {
        assert_true(probe_start(&x.a, x.sa));
        x.a.leave = true;
        x.a.p->trap_exit = 1;
        assert_int_equal(ph_register(x.a.p, "srv", 3), 0);
      }
    }
  }
  assert_true(x.sa->unknown_frames > 1000);
  ph_buf_deinit(&f);
  rig_run(&x.r);
  x.b.echo = true;
  probe_clear(&x.b);
  CALL_TEXT(x.sa, x.a.pid, x.b_at_a, "ping", &n, PH_NEVER);
  rig_run(&x.r);
  assert_string_equal(n.text, "ping");
  pair_end(&x);
}

static void records_for_a_peer_are_bounded_by_its_bytes(void **state) {
  (void)state;
  pair x;
  ph_buf f;
  pair_init(&x);
  te *t = &x.r.t;
  ph_buf_init(&f, &t->env);
  size_t before = t->bytes, sent = 0;
  for (uint64_t i = 1; i <= 20000; i++) {
    ph_buf_reset(&f);
    ph_w_array(&f, i % 2 ? 4 : 3);
    ph_w_uint(&f, i % 2 ? PH_M_MONITOR : PH_M_LINK);
    ph_w_uint(&f, ph_id_serial(x.a.pid));
    ph_w_uint(&f, i);
    if (i % 2) ph_w_uint(&f, i);
    frame(&x.r, 1, 0, &f);
    sent += ph_buf_size(&f);
  }
  assert_true(t->bytes - before < 100 * sent);
  rig_down(&x.r, 0, 1); /* and go with it */
  no_traces(x.sa);
  ph_buf_deinit(&f);
  pair_end(&x);
}

/* A peer names half a million nodes that nobody knows: no more are noted, and one that comes up is.
 */
static void talk_of_nodes_leaves_room(void **state) {
  (void)state;
  rig r;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  uint64_t i = 1;
  while (ph_sys_node(s, "ghost@rig", 9, i)) i++;
  assert_int_equal(s->node_count, 1u << (PH_NODE_BITS - 1));
  assert_non_null(ph_sys_node(s, "ghost@rig", 9, i - 1)); /* those noted before are still found */
  assert_int_equal(ph_sys_node_up(s, 99, "real@rig", 8, 5), 0);
  assert_non_null(ph_sys_node_named(s, "real@rig", 8));
  rig_end(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(messages_travel_in_order),
      cmocka_unit_test(a_node_that_is_down_takes_nothing),
      cmocka_unit_test(a_call_goes_there_and_back),
      cmocka_unit_test(a_remote_target_that_ends_answers_its_calls),
      cmocka_unit_test(a_call_that_is_given_up_leaves_nothing_there),
      cmocka_unit_test(a_late_reply_on_the_way_is_dropped),
      cmocka_unit_test(a_third_node_may_reply),
      cmocka_unit_test(remote_monitors_tell_once),
      cmocka_unit_test(a_remote_watcher_that_ends_demonitors),
      cmocka_unit_test(remote_links_carry_exits),
      cmocka_unit_test(a_reason_too_large_to_travel_is_replaced),
      cmocka_unit_test(remote_unlink_and_links_to_the_dead),
      cmocka_unit_test(remote_signals_do_as_local_ones),
      cmocka_unit_test(a_lost_link_ends_all_that_went_over_it),
      cmocka_unit_test(a_link_made_during_a_reset_does_not_stay_on_one_side),
      cmocka_unit_test(the_same_incarnation_may_come_back_and_another_is_another),
      cmocka_unit_test(xoff_stops_those_who_can_wait),
      cmocka_unit_test(a_long_mailbox_holds_its_remote_senders_back),
      cmocka_unit_test(senders_by_name_are_held_back_too),
      cmocka_unit_test(a_lost_node_holds_nobody_back),
      cmocka_unit_test(a_peer_speaks_for_its_own_node_only),
      cmocka_unit_test(random_frames_do_no_harm),
      cmocka_unit_test(records_for_a_peer_are_bounded_by_its_bytes),
      cmocka_unit_test(talk_of_nodes_leaves_room),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
