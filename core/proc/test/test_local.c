/* Processes of one node: messages, exits, names, timers. */
#include "rig.h"

static void keeps_order_and_wakes_the_receiver(void **state) {
  (void)state;
  rig r;
  probe a, b;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&a, s));
  assert_true(probe_start(&b, s));
  assert_true(a.pid != b.pid);
  assert_false(ph_sys_run(s, PH_NEVER)); /* not runnable before a message */
  assert_int_equal(a.runs, 0);
  char text[16];
  for (int i = 0; i < 20; i++) {
    snprintf(text, sizeof text, "m%d", i);
    SEND_TEXT(s, a.pid, text);
  }
  assert_int_equal(s->runnable, 1);
  rig_run(&r);
  assert_int_equal(a.count, 20);
  assert_int_equal(a.runs, 1);
  for (int i = 0; i < 20; i++) {
    snprintf(text, sizeof text, "m%d", i);
    CHECK_MSG(&a, i, PH_C_INFO, text);
  }
  assert_int_equal(b.count, 0);
  ph_msg *m = msg_text(s, PH_C_INFO, "x"); /* to a dead pid: no error, freed */
  assert_int_equal(ph_send(s, ph_pid_make(PH_SELF, 999), m, false), 0);
  m = msg_text(s, PH_C_INFO, "x");
  assert_int_equal(ph_send(s, 7, m, false), PH_EINVAL);
  assert_int_equal(ph_send(s, ph_pid_make(77, 1), m, false), PH_EINVAL); /* no such node number */
  ph_msg_free(s, m);
  probe_clear(&a);
  rig_end(&r);
}

static void takes_messages_out_of_the_middle(void **state) {
  (void)state;
  rig r;
  probe a;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&a, s));
  a.leave = true;
  SEND_TEXT(s, a.pid, "1");
  SEND_TEXT(s, a.pid, "2");
  SEND_TEXT(s, a.pid, "3");
  ph_msg *first = a.p->mailbox.head;
  ph_msg *two = ph_recv_at(a.p, first);
  a.log[a.count++] = two;
  ph_msg *three = ph_recv_at(a.p, first); /* the last one: the tail must follow */
  a.log[a.count++] = three;
  assert_null(ph_recv_at(a.p, first));
  SEND_TEXT(s, a.pid, "4");
  assert_int_equal(a.p->mailbox.count, 2);
  ph_unrecv(a.p, ph_recv(a.p));
  a.log[a.count++] = ph_recv(a.p);
  a.log[a.count++] = ph_recv_at(a.p, NULL);
  assert_null(ph_recv(a.p));
  ph_unrecv(a.p, a.log[--a.count]); /* into an empty mailbox */
  SEND_TEXT(s, a.pid, "5");
  a.log[a.count++] = ph_recv(a.p);
  a.log[a.count++] = ph_recv(a.p);
  static const char *const want[] = {"2", "3", "1", "4", "5"};
  for (int i = 0; i < 5; i++) CHECK_MSG(&a, i, PH_C_INFO, want[i]);
  probe_clear(&a);
  rig_end(&r);
}

static void sends_host_words_and_frees_those_never_received(void **state) {
  (void)state;
  rig r;
  probe a;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&a, s));
  a.leave = true;
  for (int i = 0; i < 3; i++)
    assert_int_equal(ph_send(s, a.pid, ph_msg_host(s, PH_C_INFO, 17), false), 0);
  ph_msg *m = ph_recv(a.p);
  assert_int_equal(m->form, PH_F_HOST);
  assert_int_equal(m->host, 17);
  m->form = PH_F_NONE; /* the host has taken its word */
  m->reason = NULL;
  ph_msg_free(s, m);
  assert_int_equal(r.node[0].dropped_host, 0);
  assert_int_equal(ph_signal(s, 0, a.pid, ph_reason_get(s, PH_REASON_KILL), true), 0);
  rig_run(&r);
  assert_int_equal(r.node[0].dropped_host, 2);
  rig_end(&r);
}

/* ---- exit signals ---------------------------------------------------------------------------- */

/* One row: a signal to a process that traps or not. */
typedef struct signal_case {
  const char *reason;
  bool kill, trap, self;
  const char *ends;    /* reason it ends with, NULL: goes on */
  const char *trapped; /* reason of the EXIT message, NULL: none */
} signal_case;

static const signal_case signal_table[] = {
    /* process.kill */
    {"boom", true, false, false, "boom", NULL},
    {"boom", true, true, false, NULL, "boom"},
    {"normal", true, false, false, NULL, NULL},
    {"normal", true, true, false, NULL, "normal"},
    {"normal", true, false, true, "normal", NULL},
    {"normal", true, true, true, NULL, "normal"},
    {"shutdown", true, false, true, "shutdown", NULL},
    {"kill", true, false, false, "killed", NULL},
    {"kill", true, true, false, "killed", NULL},
    {"kill", true, true, true, "killed", NULL},
    /* from a link */
    {"boom", false, false, false, "boom", NULL},
    {"boom", false, true, false, NULL, "boom"},
    {"normal", false, false, false, NULL, NULL},
    {"normal", false, true, false, NULL, "normal"},
    {"kill", false, false, false, "kill", NULL},
    {"kill", false, true, false, NULL, "kill"},
    {"killed", false, true, false, NULL, "killed"},
};

static void signals_do_as_in_otp(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof signal_table / sizeof *signal_table; i++) {
    const signal_case *c = &signal_table[i];
    rig r;
    probe a, b;
    rig_init(&r, 1);
    ph_sys *s = &r.node[0].sys;
    assert_true(probe_start(&a, s) && probe_start(&b, s));
    a.p->trap_exit = c->trap;
    ph_bytes *reason = reason_text(s, c->reason);
    ph_pid from = c->self ? a.pid : b.pid;
    assert_int_equal(ph_signal(s, from, a.pid, reason, c->kill), 0);
    ph_bytes_unref(s->env, reason);
    assert_int_equal(a.ended, 0); /* asynchronous */
    rig_run(&r);
    assert_int_equal(a.ended, c->ends != NULL);
    if (c->ends) assert_string_equal(a.reason, c->ends);
    assert_int_equal(a.count, c->trapped != NULL);
    if (c->trapped) {
      CHECK_MSG(&a, 0, PH_C_EXIT, c->trapped);
      assert_true(a.log[0]->from == from);
    }
    assert_int_equal(ph_proc_find(s, a.pid) != NULL, c->ends == NULL);
    probe_clear(&a);
    rig_end(&r);
  }
}

static void a_first_reason_stays_and_a_doomed_process_does_not_run(void **state) {
  (void)state;
  rig r;
  probe a;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&a, s));
  SEND_TEXT(s, a.pid, "never handled");
  ph_bytes *one = reason_text(s, "one");
  assert_int_equal(ph_signal(s, 0, a.pid, one, true), 0);
  assert_int_equal(ph_signal(s, 0, a.pid, ph_reason_get(s, PH_REASON_KILL), true), 0);
  ph_bytes_unref(s->env, one);
  SEND_TEXT(s, a.pid, "nor this");
  rig_run(&r);
  assert_int_equal(a.runs, 0);
  assert_int_equal(a.ended, 1);
  assert_string_equal(a.reason, "one");
  rig_end(&r);
}

static void kill_self(probe *x, ph_msg *m) {
  (void)m;
  ph_bytes *b = ph_reason_get(x->sys, PH_REASON_KILL);
  assert_int_equal(ph_signal(x->sys, x->pid, x->pid, b, true), 0);
}

static void a_process_may_kill_itself_while_it_runs(void **state) {
  (void)state;
  rig r;
  probe a;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&a, s));
  a.each = kill_self;
  SEND_TEXT(s, a.pid, "now");
  assert_false(a.ended);
  rig_run(&r);
  assert_int_equal(a.ended, 1);
  assert_string_equal(a.reason, "killed");
  probe_clear(&a);
  rig_end(&r);
}

static void ends_itself_while_it_is_queued_again(void **state) {
  (void)state;
  rig r;
  probe a, b;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&a, s) && probe_start(&b, s));
  a.exit_with = reason_text(s, "done");
  ph_ready(a.p);
  ph_ready(a.p); /* once in the queue is enough */
  assert_int_equal(s->runnable, 1);
  rig_run(&r);
  assert_int_equal(a.ended, 1);
  assert_string_equal(a.reason, "done");
  /* the same with a message to itself on the way: its record waits for the run queue */
  assert_true(probe_start(&a, s));
  a.leave = true;
  SEND_TEXT(s, a.pid, "x");
  ph_bytes *why = reason_text(s, "gone");
  ph_exit(a.p, why);
  ph_bytes_unref(s->env, why);
  assert_int_equal(a.ended, 1);
  assert_null(ph_proc_find(s, a.pid));
  SEND_TEXT(s, b.pid, "alive");
  rig_run(&r);
  assert_int_equal(a.runs, 0);
  assert_int_equal(b.count, 1);
  probe_clear(&b);
  rig_end(&r);
}

/* ---- links ----------------------------------------------------------------------------------- */

static void links_carry_the_reason_both_ways(void **state) {
  (void)state;
  for (int way = 0; way < 2; way++) {
    rig r;
    probe a, b, c;
    rig_init(&r, 1);
    ph_sys *s = &r.node[0].sys;
    assert_true(probe_start(&a, s) && probe_start(&b, s) && probe_start(&c, s));
    c.p->trap_exit = 1;
    assert_int_equal(ph_link_procs(a.p, b.pid), 0);
    assert_int_equal(ph_link_procs(b.p, a.pid), 0); /* one link, however often it is made */
    assert_int_equal(ph_link_procs(a.p, b.pid), 0);
    assert_int_equal(ph_link_procs(a.p, a.pid), 0);
    assert_int_equal(ph_link_procs(c.p, b.pid), 0);
    probe *dies = way ? &b : &a, *other = way ? &a : &b;
    dies->exit_with = reason_text(s, "boom");
    ph_ready(dies->p);
    rig_run(&r);
    assert_int_equal(other->ended, 1);
    assert_string_equal(other->reason, "boom");
    assert_int_equal(c.ended, 0);
    assert_int_equal(c.count, 1);
    CHECK_MSG(&c, 0, PH_C_EXIT, "boom");
    assert_true(c.log[0]->from == b.pid);
    assert_int_equal(ph_index_count(&s->links), 0);
    probe_clear(&c);
    rig_end(&r);
  }
}

static void a_normal_end_passes_a_link_silently_unless_trapped(void **state) {
  (void)state;
  rig r;
  probe a, b, c;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&a, s) && probe_start(&b, s) && probe_start(&c, s));
  c.p->trap_exit = 1;
  assert_int_equal(ph_link_procs(a.p, b.pid), 0);
  assert_int_equal(ph_link_procs(a.p, c.pid), 0);
  a.exit_with = reason_text(s, "normal");
  ph_ready(a.p);
  rig_run(&r);
  assert_int_equal(b.ended, 0);
  CHECK_MSG(&c, 0, PH_C_EXIT, "normal");
  assert_true(ph_list_empty(&b.p->links));
  probe_clear(&c);
  rig_end(&r);
}

static void a_kill_goes_over_links_as_killed_and_can_be_trapped(void **state) {
  (void)state;
  rig r;
  probe a, b, c;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&a, s) && probe_start(&b, s) && probe_start(&c, s));
  a.p->trap_exit = b.p->trap_exit = 1;
  assert_int_equal(ph_link_procs(a.p, b.pid), 0);
  assert_int_equal(ph_link_procs(a.p, c.pid), 0);
  assert_int_equal(ph_signal(s, 0, a.pid, ph_reason_get(s, PH_REASON_KILL), true), 0);
  rig_run(&r);
  assert_string_equal(a.reason, "killed");
  CHECK_MSG(&b, 0, PH_C_EXIT, "killed");
  assert_string_equal(c.reason, "killed");
  probe_clear(&b);
  rig_end(&r);
}

static void unlinked_processes_do_not_hear_of_each_other(void **state) {
  (void)state;
  rig r;
  probe a, b;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&a, s) && probe_start(&b, s));
  assert_int_equal(ph_link_procs(a.p, b.pid), 0);
  ph_unlink(b.p, a.pid); /* by either side */
  ph_unlink(b.p, a.pid);
  a.exit_with = reason_text(s, "boom");
  ph_ready(a.p);
  rig_run(&r);
  assert_int_equal(a.ended, 1);
  assert_int_equal(b.ended, 0);
  rig_end(&r);
}

static void a_link_to_a_dead_pid_gives_noproc(void **state) {
  (void)state;
  rig r;
  probe a, b;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&a, s) && probe_start(&b, s));
  b.p->trap_exit = 1;
  ph_pid dead = ph_pid_make(PH_SELF, 555);
  assert_int_equal(ph_link_procs(a.p, dead), 0);
  assert_int_equal(ph_link_procs(b.p, dead), 0);
  rig_run(&r);
  assert_string_equal(a.reason, "noproc");
  CHECK_MSG(&b, 0, PH_C_EXIT, "noproc");
  assert_true(b.log[0]->from == dead);
  probe_clear(&b);
  rig_end(&r);
}

/* ---- monitors -------------------------------------------------------------------------------- */

static void a_monitor_brings_one_down(void **state) {
  (void)state;
  rig r;
  probe a, b;
  ph_ref one, two, dead, self;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&a, s) && probe_start(&b, s));
  assert_int_equal(ph_monitor(a.p, b.pid, &one), 0);
  assert_int_equal(ph_monitor(a.p, b.pid, &two), 0);
  assert_int_equal(ph_monitor(a.p, a.pid, &self), 0);
  assert_int_equal(ph_monitor(a.p, ph_pid_make(PH_SELF, 99), &dead), 0);
  assert_true(ph_is_ref(one) && one != two);
  b.exit_with = reason_text(s, "bye");
  ph_ready(b.p);
  rig_run(&r);
  assert_int_equal(a.count, 3);
  CHECK_MSG(&a, 0, PH_C_DOWN, "noproc");
  assert_true(a.log[0]->ref == dead);
  CHECK_MSG(&a, 1, PH_C_DOWN, "bye");
  CHECK_MSG(&a, 2, PH_C_DOWN, "bye");
  assert_true(a.log[1]->ref == one && a.log[2]->ref == two && a.log[1]->from == b.pid);
  probe_clear(&a);
  rig_end(&r);
}

static void a_demonitor_takes_the_down_out_of_the_mailbox(void **state) {
  (void)state;
  rig r;
  probe a, b;
  ph_ref one, two;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&a, s) && probe_start(&b, s));
  a.leave = true;
  assert_int_equal(ph_monitor(a.p, b.pid, &one), 0);
  assert_int_equal(ph_monitor(a.p, b.pid, &two), 0);
  ph_demonitor(b.p, one); /* not b's: nothing happens */
  SEND_TEXT(s, a.pid, "first");
  b.exit_with = reason_text(s, "bye");
  ph_ready(b.p);
  rig_run(&r);
  assert_int_equal(a.p->mailbox.count, 3);
  ph_demonitor(a.p, two);
  assert_int_equal(a.p->mailbox.count, 2);
  ph_demonitor(a.p, two);
  a.log[a.count++] = ph_recv(a.p);
  a.log[a.count++] = ph_recv(a.p);
  CHECK_MSG(&a, 0, PH_C_INFO, "first");
  assert_true(a.log[1]->ref == one);
  SEND_TEXT(s, a.pid, "last"); /* the tail is right */
  a.log[a.count++] = ph_recv(a.p);
  CHECK_MSG(&a, 2, PH_C_INFO, "last");
  probe_clear(&a);
  rig_end(&r);
}

static void a_watcher_that_ends_leaves_nothing_behind(void **state) {
  (void)state;
  rig r;
  probe a, b;
  ph_ref ref;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&a, s) && probe_start(&b, s));
  assert_int_equal(ph_monitor(a.p, b.pid, &ref), 0);
  a.exit_with = reason_text(s, "bye");
  ph_ready(a.p);
  rig_run(&r);
  assert_int_equal(ph_index_count(&s->refs), 0);
  assert_true(ph_list_empty(&b.p->watched));
  rig_end(&r);
}

/* ---- names and owners ------------------------------------------------------------------------ */

static void names_are_unique_and_end_with_their_process(void **state) {
  (void)state;
  rig r;
  probe a, b;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&a, s) && probe_start(&b, s));
  char big[256];
  memset(big, 'x', sizeof big);
  assert_int_equal(ph_register(a.p, "", 0), PH_EINVAL);
  assert_int_equal(ph_register(a.p, big, 256), PH_EINVAL);
  assert_int_equal(ph_register(a.p, big, 255), 0);
  assert_int_equal(ph_register(a.p, "db", 2), 0);
  assert_int_equal(ph_register(b.p, "db", 2), PH_EREGISTERED);
  assert_true(ph_whereis(s, "db", 2) == a.pid);
  ph_msg *m = msg_text(s, PH_C_INFO, "hi");
  assert_int_equal(ph_send_named(s, "db", 2, NULL, m, false), 0);
  m = msg_text(s, PH_C_INFO, "hi");
  assert_int_equal(ph_send_named(s, "nobody", 6, s->nodes[0], m, false), PH_ENOPROC);
  ph_msg_free(s, m);
  assert_int_equal(ph_unregister(s, big, 255), 0);
  assert_int_equal(ph_unregister(s, big, 255), PH_ENOPROC);
  rig_run(&r);
  assert_int_equal(a.count, 1);
  a.exit_with = reason_text(s, "bye");
  ph_ready(a.p);
  rig_run(&r);
  assert_true(ph_whereis(s, "db", 2) == 0);
  assert_int_equal(ph_register(b.p, "db", 2), 0);
  probe_clear(&a);
  rig_end(&r);
}

typedef struct parent {
  ph_sys *sys;
  probe next;
  int exits;
  bool name_free;
} parent;

static void child_exit(ph_proc *p, void *owner, ph_bytes *reason) {
  parent *o = owner;
  (void)reason;
  o->exits++;
  o->name_free = ph_whereis(o->sys, "kid", 3) == 0;
  assert_true(ph_list_empty(&p->names));
  assert_true(probe_start(&o->next, o->sys)); /* a restart takes the name over */
  assert_int_equal(ph_register(o->next.p, "kid", 3), 0);
}

static void the_owner_hears_first_and_may_start_the_next(void **state) {
  (void)state;
  rig r;
  probe a;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  parent o = {.sys = s};
  assert_true(probe_start(&a, s));
  assert_int_equal(ph_register(a.p, "kid", 3), 0);
  a.p->on_exit = child_exit;
  a.p->owner = &o;
  assert_int_equal(ph_signal(s, 0, a.pid, ph_reason_get(s, PH_REASON_KILL), true), 0);
  rig_run(&r);
  assert_int_equal(o.exits, 1);
  assert_true(o.name_free);
  assert_true(ph_whereis(s, "kid", 3) == o.next.pid);
  rig_end(&r);
  assert_int_equal(o.next.ended, 1); /* by the end of the system */
  assert_string_equal(o.next.reason, "shutdown");
}

/* ---- timers ---------------------------------------------------------------------------------- */

static void timers_send_later_or_are_cancelled(void **state) {
  (void)state;
  rig r;
  probe a;
  ph_ref one, two, three;
  uint64_t left = 0;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(probe_start(&a, s));
  assert_int_equal(ph_register(a.p, "a", 1), 0);
  uint64_t now = r.t.now;
  assert_int_equal(ph_send_after(s, now + PH_MS(20), a.pid, msg_text(s, PH_C_INFO, "late"), &one),
                   0);
  assert_int_equal(
      ph_send_after_named(s, now + PH_MS(10), "a", 1, NULL, msg_text(s, PH_C_INFO, "soon"), &two),
      0);
  assert_int_equal(
      ph_send_after(s, now + PH_MS(15), a.pid, msg_text(s, PH_C_INFO, "never"), &three), 0);
  assert_true(ph_sys_next(s) == now + PH_MS(10));
  rig_run(&r);
  assert_int_equal(a.count, 0);
  r.t.now += PH_MS(12);
  rig_run(&r);
  assert_int_equal(a.count, 1);
  CHECK_MSG(&a, 0, PH_C_INFO, "soon");
  assert_false(ph_cancel_timer(s, two, &left));
  assert_true(ph_cancel_timer(s, three, &left));
  assert_int_equal(left, 3);
  assert_false(ph_cancel_timer(s, three, &left));
  r.t.now += PH_MS(100);
  rig_run(&r);
  assert_int_equal(a.count, 2);
  CHECK_MSG(&a, 1, PH_C_INFO, "late");
  /* one to a name that is not there, and one that never fires */
  assert_int_equal(ph_send_after_named(s, now, "b", 1, NULL, msg_text(s, PH_C_INFO, "x"), &one), 0);
  assert_int_equal(ph_send_after(s, PH_NEVER, a.pid, msg_text(s, PH_C_INFO, "x"), &two), 0);
  rig_run(&r);
  assert_int_equal(a.count, 2);
  probe_clear(&a);
  rig_end(&r);
}

/* ---- the run queue --------------------------------------------------------------------------- */

static rig *clock_rig;
static ph_run busy_run(ph_sys *s, ph_proc *p) {
  (void)s;
  clock_rig->t.now += PH_MS(2);
  ++*(int *)p->data;
  return PH_RUN_AGAIN;
}
static void nothing_ended(ph_sys *s, ph_proc *p, ph_bytes *reason) {
  (void)s;
  (void)p;
  (void)reason;
}
static const ph_behaviour busy = {"busy", busy_run, nothing_ended};

static void a_run_is_fair_and_keeps_to_its_budget(void **state) {
  (void)state;
  rig r;
  int runs[5] = {0};
  rig_init(&r, 1);
  clock_rig = &r;
  ph_sys *s = &r.node[0].sys;
  for (int i = 0; i < 5; i++) ph_ready(ph_spawn(s, &busy, &runs[i]));
  assert_true(ph_sys_run(s, PH_NEVER));
  for (int i = 0; i < 5; i++) assert_int_equal(runs[i], 1); /* each once */
  assert_true(ph_sys_run(s, PH_MS(5)));                     /* three fit */
  assert_true(runs[0] == 2 && runs[2] == 2 && runs[3] == 1);
  assert_true(ph_sys_run(s, 0)); /* at least one */
  assert_int_equal(runs[3], 2);
  for (int i = 0; i < 3; i++) assert_true(ph_sys_run(s, PH_MS(5)));
  for (int i = 0; i < 5; i++) assert_in_range(runs[i], 3, 4);
  rig_end(&r);
}

static void ids_pack_and_come_back(void **state) {
  (void)state;
  rig r;
  memset(&r, 0, sizeof r);
  te_init(&r.t, 3);
  r.tail = &r.head;
  r.count = 1;
  assert_int_equal(rig_node_init(&r, 0), 0);
  ph_sys *s = &r.node[0].sys;
  ph_buf b;
  ph_buf_init(&b, &r.t.env);
  ph_pid pid = ph_pid_make(PH_SELF, PH_SERIAL_MASK);
  ph_w_id(s, &b, pid);
  ph_w_id(s, &b, ph_ref_new(s));
  assert_int_equal(ph_sys_name(s, "", 0, 1), PH_EINVAL);
  assert_int_equal(ph_sys_name(s, "late@host", 9, 1234567), 0);
  assert_int_equal(ph_sys_name(s, "late@host", 9, 1234567), 0);
  ph_w_id(s, &b, pid);
  ph_nodeent *other = ph_sys_node(s, "o@h", 3, 5);
  assert_int_equal(other->index, 1);
  assert_ptr_equal(ph_sys_node(s, "o@h", 3, 5), other);
  assert_ptr_not_equal(ph_sys_node(s, "o@h", 3, 6), other);
  assert_int_equal(ph_sys_name(s, "o@h", 3, 5), PH_EINVAL);
  ph_w_id(s, &b, ph_pid_make(1, 9));
  assert_false(b.oom);
  uint64_t got[4];
  ph_reader rd;
  ph_reader_init(&rd, ph_buf_at(&b), ph_buf_size(&b));
  for (int i = 0; i < 4; i++) {
    ph_token t;
    assert_int_equal(ph_r_next(&rd, &t), 0);
    assert_int_equal(t.type, PH_T_EXT);
    assert_int_equal(ph_id_from_ext(s, t.ext, t.ptr, t.len, &got[i]), 0);
  }
  assert_true(got[0] == pid && got[2] == pid); /* packed before and after it got its name */
  assert_true(ph_is_ref(got[1]) && ph_id_node(got[1]) == PH_SELF);
  assert_true(got[3] == ph_pid_make(1, 9));
  uint64_t out;
  assert_int_equal(ph_id_from_ext(s, PH_EXT_PID, "abc", 3, &out), PH_EMALFORMED);
  assert_int_equal(ph_id_from_ext(s, 9, ph_buf_at(&b), 1, &out), PH_EMALFORMED);
  assert_ptr_equal(ph_sys_node_named(s, "late@host", 9), s->nodes[0]);
  assert_null(ph_sys_node_named(s, "o@h", 3)); /* known, but not up */
  ph_buf_deinit(&b);
  rig_end(&r);
}

static void reasons_are_strings(void **state) {
  (void)state;
  rig r;
  rig_init(&r, 1);
  ph_sys *s = &r.node[0].sys;
  assert_true(ph_reason_is(ph_reason_get(s, PH_REASON_NORMAL), "normal"));
  assert_true(ph_reason_is(ph_reason_get(s, PH_REASON_NOCONN), "noconnection"));
  assert_false(ph_reason_is(ph_reason_get(s, PH_REASON_KILL), "killed"));
  ph_bytes *b = ph_bytes_new(s->env, "\x01", 1);
  assert_false(ph_reason_is(b, "1"));
  ph_bytes_unref(s->env, b);
  assert_true(sizeof(ph_proc) <= 200);
  rig_end(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(keeps_order_and_wakes_the_receiver),
      cmocka_unit_test(takes_messages_out_of_the_middle),
      cmocka_unit_test(sends_host_words_and_frees_those_never_received),
      cmocka_unit_test(signals_do_as_in_otp),
      cmocka_unit_test(a_first_reason_stays_and_a_doomed_process_does_not_run),
      cmocka_unit_test(a_process_may_kill_itself_while_it_runs),
      cmocka_unit_test(ends_itself_while_it_is_queued_again),
      cmocka_unit_test(links_carry_the_reason_both_ways),
      cmocka_unit_test(a_normal_end_passes_a_link_silently_unless_trapped),
      cmocka_unit_test(a_kill_goes_over_links_as_killed_and_can_be_trapped),
      cmocka_unit_test(unlinked_processes_do_not_hear_of_each_other),
      cmocka_unit_test(a_link_to_a_dead_pid_gives_noproc),
      cmocka_unit_test(a_monitor_brings_one_down),
      cmocka_unit_test(a_demonitor_takes_the_down_out_of_the_mailbox),
      cmocka_unit_test(a_watcher_that_ends_leaves_nothing_behind),
      cmocka_unit_test(names_are_unique_and_end_with_their_process),
      cmocka_unit_test(the_owner_hears_first_and_may_start_the_next),
      cmocka_unit_test(timers_send_later_or_are_cancelled),
      cmocka_unit_test(a_run_is_fair_and_keeps_to_its_budget),
      cmocka_unit_test(ids_pack_and_come_back),
      cmocka_unit_test(reasons_are_strings),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
