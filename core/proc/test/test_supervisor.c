/* Supervisors: what is started and stopped, in which order, and what is answered. The host here
 * starts kids: processes whose beginnings ("+a"), ends ("-a") and refused starts ("!a") are written
 * into one journal. */
#include "rig.h"

#include "proc/supervisor.h"

enum { KIDS = 8 };

typedef struct kid {
  struct world *w;
  ph_sup_spec spec;
  bool traps;     /* ends by the exit signal of its own accord, and only ... */
  bool stubborn;  /* ... if it is not this */
  bool later;     /* its start function waits */
  bool gone;      /* its process has ended when the start function returns */
  bool own_way;   /* is stopped by the host */
  int refusals;   /* that many starts fail */
  ph_pid foreign; /* what its start function gives, if not 0 */
  uint64_t token;
  ph_proc *p;
  int released, dropped, abandoned;
} kid;

typedef struct world {
  rig r;
  ph_sys *sys;
  ph_sup *sup; /* until it has ended */
  ph_pid pid;
  probe parent;
  char journal[512];
  kid kids[KIDS];
  ph_sup_child *restarting; /* seen by the last look */
  int specs, active;
} world;

static void note(world *w, char sign, const kid *k) {
  size_t n = strlen(w->journal);
  assert_true(n + 3 < sizeof w->journal);
  w->journal[n] = sign;
  w->journal[n + 1] = k->spec.id[0];
  w->journal[n + 2] = '\0';
}

#define JOURNAL(w, text)                                                                           \
  do {                                                                                             \
    assert_string_equal((w)->journal, text);                                                       \
    (w)->journal[0] = '\0';                                                                        \
  } while (0)

/* ---- kids ------------------------------------------------------------------------------------ */

static ph_run kid_run(ph_sys *s, ph_proc *p) {
  kid *k = p->data;
  for (ph_msg *m; (m = ph_recv(p));) {
    ph_bytes *reason = m->cls == PH_C_EXIT && !k->stubborn ? ph_bytes_ref(m->reason) : NULL;
    ph_msg_free(s, m);
    if (!reason) continue;
    ph_exit(p, reason);
    ph_bytes_unref(s->env, reason);
    return PH_RUN_WAIT;
  }
  return PH_RUN_WAIT;
}

static void kid_ended(ph_sys *s, ph_proc *p, ph_bytes *reason) {
  kid *k = p->data;
  (void)s, (void)reason;
  k->p = NULL;
  note(k->w, '-', k);
}

static const ph_behaviour kid_bh = {"kid", kid_run, kid_ended};

static ph_bytes *no(ph_sys *s) {
  return ph_reason_str(s, "no", 2);
}

static void kid_answer(kid *k, ph_sup *s, uint64_t token) {
  world *w = k->w;
  if (k->refusals > 0) {
    k->refusals--;
    note(w, '!', k);
    ph_sup_started(s, token, 0, no(w->sys));
    return;
  }
  if (k->foreign) {
    ph_sup_started(s, token, k->foreign, NULL);
    return;
  }
  ph_proc *p = ph_spawn(w->sys, &kid_bh, k);
  if (!p) {
    ph_sup_started(s, token, 0, NULL);
    return;
  }
  p->trap_exit = k->traps;
  k->p = p;
  note(w, '+', k);
  ph_pid pid = p->pid;
  if (k->gone) {
    k->gone = false;
    (void)!ph_link_procs(p, w->pid);
    ph_bytes *why = ph_reason_str(w->sys, "early", 5);
    ph_exit(p, why ? why : ph_reason_get(w->sys, PH_REASON_NOMEM));
    ph_bytes_unref(w->sys->env, why);
  }
  ph_sup_started(s, token, pid, NULL);
}

static void host_start(void *ctx, ph_sup *s, ph_sup_child *c, uint64_t token) {
  (void)ctx;
  kid *k = c->user;
  assert_null(k->p); /* never two at a time */
  if (k->later)
    k->token = token;
  else
    kid_answer(k, s, token);
}

static void host_abandon(void *ctx, ph_sup_child *c) {
  (void)ctx;
  kid *k = c->user;
  assert_true(k->token != 0);
  k->abandoned++;
}

static bool host_stop(void *ctx, ph_sup_child *c) {
  (void)ctx;
  kid *k = c->user;
  if (k->own_way) note(k->w, '~', k);
  return k->own_way;
}

static void host_release(void *ctx, ph_sup_child *c) {
  (void)ctx;
  ((kid *)c->user)->released++;
}

static void host_drop(void *ctx, void *user) {
  (void)ctx;
  ((kid *)user)->dropped++;
}

static void host_look(void *ctx, ph_sup *s, ph_sup_op op, ph_pid from, ph_ref ref) {
  world *w = ctx;
  (void)op;
  w->specs = w->active = 0;
  w->restarting = NULL;
  for (ph_sup_child *c = NULL; (c = ph_sup_next(s, c)); w->specs++) {
    if (c->proc) w->active++;
    if (c->restarting) w->restarting = c;
  }
  ph_msg *m = ph_msg_bytes(w->sys, PH_C_REPLY, NULL, 0);
  if (m) assert_int_equal(ph_reply(w->sys, from, ref, m), 0);
}

/* ---- asking ---------------------------------------------------------------------------------- */

typedef struct asked {
  ph_waiter w;
  int calls, err;
  ph_sup_answer a;
  ph_msg *m;
  char reason[32], id[8];
} asked;

static void asked_done(ph_waiter *w, int err, ph_msg *m, ph_bytes *reason) {
  asked *q = (asked *)(void *)w;
  q->calls++;
  q->err = err;
  if (m && m->len) {
    ph_sup_answer_read(m, &q->a);
    q->err = q->a.err;
    if (q->a.reason_len) rig_text(q->a.reason, q->a.reason_len, q->reason, sizeof q->reason);
    snprintf(q->id, sizeof q->id, "%.*s", (int)q->a.id_len, q->a.id);
  }
  if (reason) rig_text(reason->data, reason->len, q->reason, sizeof q->reason);
  ph_msg_free(w->sys, m);
}

static int try_ask(world *w, asked *q, ph_sup_op op, const char *id, ph_sup_child *c) {
  memset(q, 0, sizeof *q);
  ph_waiter_init(w->sys, &q->w, asked_done);
  return ph_sup_ask(w->sup, w->parent.pid, op, id, id ? strlen(id) : 0, c, &q->w);
}

static void ask(world *w, asked *q, ph_sup_op op, const char *id) {
  assert_int_equal(try_ask(w, q, op, id, NULL), 0);
}

/* asks and runs; the answer must have come */
static int asks(world *w, asked *q, ph_sup_op op, const char *id) {
  ask(w, q, op, id);
  rig_run(&w->r);
  assert_int_equal(q->calls, 1);
  return q->err;
}

static kid *kid_of(world *w, char name) {
  return &w->kids[name - 'a'];
}

static kid *kid_set(world *w, char name, ph_restart restart, uint64_t shutdown) {
  static const char *const ids[KIDS] = {"a", "b", "c", "d", "e", "f", "g", "h"};
  kid *k = kid_of(w, name);
  *k = (kid){.w = w};
  k->spec = (ph_sup_spec){
      .id = ids[name - 'a'], .id_len = 1, .restart = restart, .shutdown = shutdown, .user = k};
  return k;
}

static kid *kid_add(world *w, char name, ph_restart restart) {
  kid *k = kid_set(w, name, restart, 5000);
  ph_sup_child *c;
  assert_int_equal(ph_sup_child_new(w->sup, &k->spec, &c), 0);
  assert_int_equal(ph_sup_add(w->sup, c), 0);
  return k;
}

static int adds(world *w, asked *q, char name, ph_restart restart) {
  kid *k = kid_of(w, name);
  if (!k->w) k = kid_set(w, name, restart, 5000);
  ph_sup_child *c;
  assert_int_equal(ph_sup_child_new(w->sup, &k->spec, &c), 0);
  assert_int_equal(try_ask(w, q, PH_SUP_ADD, NULL, c), 0);
  rig_run(&w->r);
  assert_int_equal(q->calls, 1);
  return q->err;
}

/* ---- worlds ---------------------------------------------------------------------------------- */

static void world_init(world *w, ph_sup_strategy strategy, uint32_t max, uint64_t ms) {
  memset(w, 0, sizeof *w);
  rig_init(&w->r, 1);
  w->sys = &w->r.node[0].sys;
  assert_true(probe_start(&w->parent, w->sys));
  ph_sup_config cfg = {strategy, max, PH_MS(ms)};
  ph_sup_host host = {.ctx = w,
                      .start = host_start,
                      .abandon = host_abandon,
                      .stop = host_stop,
                      .release = host_release,
                      .drop = host_drop,
                      .look = host_look};
  assert_int_equal(ph_sup_new(w->sys, &cfg, &host, w->parent.pid, &w->sup), 0);
  w->pid = ph_sup_proc(w->sup)->pid;
  assert_int_equal(ph_link_procs(ph_sup_proc(w->sup), w->parent.pid), 0);
}

/* kids by name, with a type each: P, T(ransient), t(emporary) */
static void world_kids(world *w, const char *names, const char *types) {
  for (; *names; names++, types++)
    kid_add(w, *names,
            *types == 'P'   ? PH_RESTART_PERMANENT
            : *types == 'T' ? PH_RESTART_TRANSIENT
                            : PH_RESTART_TEMPORARY);
}

static void world_up(world *w) {
  asked q;
  assert_int_equal(asks(w, &q, PH_SUP_INIT, NULL), 0);
  assert_true(q.a.pid == w->pid);
  w->journal[0] = '\0';
}

static void signal_from(world *w, ph_pid from, ph_pid to, const char *reason) {
  ph_bytes *b = reason_text(w->sys, reason);
  assert_int_equal(ph_signal(w->sys, from, to, b, true), 0);
  ph_bytes_unref(w->sys->env, b);
}

static void crash(world *w, char name, const char *reason) {
  kid *k = kid_of(w, name);
  assert_non_null(k->p);
  if (strcmp(reason, "normal") == 0 || strcmp(reason, "shutdown") == 0)
    signal_from(w, k->p->pid, k->p->pid, reason); /* "normal" counts from itself alone */
  else
    signal_from(w, 0, k->p->pid, reason);
}

static bool alive(world *w) {
  return ph_sup_find(w->sys, w->pid) != NULL;
}

static void world_end(world *w) {
  probe_clear(&w->parent);
  rig_end(&w->r);
  for (int i = 0; i < KIDS; i++) {
    if (w->kids[i].w) assert_true(w->kids[i].dropped > 0);
    assert_null(w->kids[i].p);
  }
}

/* ---- order ----------------------------------------------------------------------------------- */

static void starts_in_order_and_stops_in_reverse(void **state) {
  (void)state;
  world w;
  asked q;
  world_init(&w, PH_ONE_FOR_ONE, 3, 5000);
  world_kids(&w, "abc", "PTt");
  JOURNAL(&w, ""); /* nothing before it is asked */
  assert_int_equal(asks(&w, &q, PH_SUP_INIT, NULL), 0);
  JOURNAL(&w, "+a+b+c");
  ph_msg *m = ph_msg_bytes(w.sys, PH_C_STOP, NULL, 0);
  m->reason = reason_text(w.sys, "enough");
  ph_ref ref;
  w.parent.p->trap_exit = 1;
  assert_int_equal(ph_monitor(w.parent.p, w.pid, &ref), 0);
  assert_int_equal(ph_send(w.sys, w.pid, m, false), 0);
  rig_run(&w.r);
  JOURNAL(&w, "-c-b-a");
  assert_false(alive(&w));
  assert_int_equal(w.parent.count, 2);
  CHECK_MSG(&w.parent, 0, PH_C_EXIT, "enough");
  CHECK_MSG(&w.parent, 1, PH_C_DOWN, "enough");
  for (int i = 0; i < 3; i++) {
    assert_int_equal(w.kids[i].released, 1);
    assert_int_equal(w.kids[i].dropped, 1);
  }
  world_end(&w);
}

static void a_first_start_that_fails_takes_the_others_back(void **state) {
  (void)state;
  world w;
  asked q;
  world_init(&w, PH_ONE_FOR_ALL, 3, 5000);
  world_kids(&w, "abcd", "PttP");
  kid_of(&w, 'c')->refusals = 1;
  assert_int_equal(asks(&w, &q, PH_SUP_INIT, NULL), PH_ESTARTFAILED);
  assert_string_equal(q.id, "c");
  assert_string_equal(q.reason, "no");
  JOURNAL(&w, "+a+b!c-b-a");
  assert_false(alive(&w));
  assert_int_equal(w.parent.ended, 0); /* linked, and spared all the same */
  world_end(&w);
}

/* ---- restarts -------------------------------------------------------------------------------- */

typedef struct restart_case {
  ph_sup_strategy strategy;
  const char *types; /* of a, b, c */
  char dies;
  const char *reason, *journal;
} restart_case;

static const restart_case restart_table[] = {
    {PH_ONE_FOR_ONE, "PPP", 'b', "boom", "-b+b"},
    {PH_ONE_FOR_ONE, "PPP", 'b', "normal", "-b+b"},
    {PH_ONE_FOR_ONE, "PPP", 'b', "shutdown", "-b+b"},
    {PH_ONE_FOR_ONE, "PTP", 'b', "boom", "-b+b"},
    {PH_ONE_FOR_ONE, "PTP", 'b', "kill", "-b+b"},
    {PH_ONE_FOR_ONE, "PTP", 'b', "normal", "-b"},
    {PH_ONE_FOR_ONE, "PTP", 'b', "shutdown", "-b"},
    {PH_ONE_FOR_ONE, "PtP", 'b', "boom", "-b"},
    {PH_ONE_FOR_ALL, "PPP", 'b', "boom", "-b-c-a+a+b+c"},
    {PH_ONE_FOR_ALL, "PPP", 'a', "boom", "-a-c-b+a+b+c"},
    {PH_ONE_FOR_ALL, "PTP", 'b', "normal", "-b"},
    {PH_ONE_FOR_ALL, "tPt", 'b', "boom", "-b-c-a+b"},
    {PH_ONE_FOR_ALL, "TPT", 'b', "boom", "-b-c-a+a+b+c"},
    {PH_ONE_FOR_ALL, "PtP", 'b', "boom", "-b"},
    {PH_REST_FOR_ONE, "PPP", 'a', "boom", "-a-c-b+a+b+c"},
    {PH_REST_FOR_ONE, "PPP", 'b', "boom", "-b-c+b+c"},
    {PH_REST_FOR_ONE, "PPP", 'c', "boom", "-c+c"},
    {PH_REST_FOR_ONE, "PPt", 'b', "boom", "-b-c+b"},
    {PH_REST_FOR_ONE, "PtP", 'b', "boom", "-b"},
    {PH_REST_FOR_ONE, "PTP", 'b', "shutdown", "-b"},
};

static void restarts_by_strategy_and_type(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof restart_table / sizeof *restart_table; i++) {
    const restart_case *c = &restart_table[i];
    world w;
    asked q;
    world_init(&w, c->strategy, 3, 5000);
    world_kids(&w, "abc", c->types);
    world_up(&w);
    crash(&w, c->dies, c->reason);
    rig_run(&w.r);
    JOURNAL(&w, c->journal);
    assert_int_equal(asks(&w, &q, PH_SUP_COUNT, NULL), 0);
    int temporary = 0; /* ended ones are no children any more */
    for (int k = 0; k < 3; k++) temporary += w.kids[k].dropped;
    assert_int_equal(w.specs, 3 - temporary);
    for (int k = 0; k < 3; k++) assert_int_equal(w.kids[k].dropped && c->types[k] != 't', 0);
    world_end(&w);
  }
}

static void ends_shutdown_shaped_are_clean(void **state) {
  (void)state;
  world w;
  world_init(&w, PH_ONE_FOR_ONE, 3, 5000);
  static const struct {
    const char *bytes;
    size_t n;
    bool clean;
  } table[] = {{"\x92\xa8shutdown\x01", 11, true},
               {"\x91\xa8shutdown", 10, false},
               {"\x93\xa8shutdown\x01\x01", 12, false},
               {"\x92\xa5other\x01", 8, false},
               {"\xa6normal", 7, true},
               {"\xa6killed", 7, false}};
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    ph_bytes *b = ph_bytes_new(w.sys->env, table[i].bytes, table[i].n);
    assert_int_equal(ph_reason_clean(b), table[i].clean);
    ph_bytes_unref(w.sys->env, b);
  }
  world_end(&w);
}

static void two_ends_at_once_are_one_restart_of_all(void **state) {
  (void)state;
  world w;
  world_init(&w, PH_ONE_FOR_ALL, 1, 5000);
  world_kids(&w, "abc", "PPP");
  world_up(&w);
  crash(&w, 'a', "boom");
  crash(&w, 'c', "boom");
  rig_run(&w.r);
  JOURNAL(&w, "-a-c-b+a+b+c");
  assert_true(alive(&w)); /* a second restart would have been one too many */
  world_end(&w);
}

static void too_many_restarts_end_it(void **state) {
  (void)state;
  world w;
  world_init(&w, PH_ONE_FOR_ONE, 2, 1000);
  world_kids(&w, "abc", "PPP");
  world_up(&w);
  w.parent.p->trap_exit = 1;
  for (int i = 0; i < 5; i++) { /* two in any second are allowed */
    crash(&w, 'b', "boom");
    rig_run(&w.r);
    w.r.t.now += PH_MS(501);
  }
  JOURNAL(&w, "-b+b-b+b-b+b-b+b-b+b");
  w.r.t.now += PH_MS(1001);
  for (int i = 0; i < 2; i++) {
    crash(&w, 'b', "boom");
    rig_run(&w.r);
  }
  JOURNAL(&w, "-b+b-b+b");
  assert_true(alive(&w));
  crash(&w, 'b', "boom");
  rig_run(&w.r);
  JOURNAL(&w, "-b-c-a");
  assert_false(alive(&w));
  CHECK_MSG(&w.parent, 0, PH_C_EXIT, "shutdown");
  world_end(&w);
}

static void no_restart_at_all_with_a_limit_of_zero(void **state) {
  (void)state;
  world w;
  world_init(&w, PH_ONE_FOR_ONE, 0, 5000);
  world_kids(&w, "ab", "TP");
  world_up(&w);
  crash(&w, 'a', "normal");
  rig_run(&w.r);
  assert_true(alive(&w));
  crash(&w, 'b', "boom");
  rig_run(&w.r);
  JOURNAL(&w, "-a-b");
  assert_false(alive(&w));
  world_end(&w);
}

static void many_restarts_are_all_counted(void **state) {
  (void)state;
  world w;
  world_init(&w, PH_ONE_FOR_ONE, 100, 1000);
  world_kids(&w, "a", "P");
  world_up(&w);
  for (int i = 0; i < 300; i++) { /* the ring goes round, and grows on the way */
    crash(&w, 'a', "boom");
    rig_run(&w.r);
    w.journal[0] = '\0';
    w.r.t.now += PH_MS(11);
    assert_true(alive(&w));
  }
  for (int i = 0; i < 100; i++) {
    w.r.t.now += PH_MS(1);
    if (kid_of(&w, 'a')->p) crash(&w, 'a', "boom");
    rig_run(&w.r);
    w.journal[0] = '\0';
  }
  assert_false(alive(&w));
  world_end(&w);
}

/* ---- restarts that fail ---------------------------------------------------------------------- */

static void a_failed_restart_is_tried_again_and_counted(void **state) {
  (void)state;
  world w;
  world_init(&w, PH_ONE_FOR_ONE, 3, 5000);
  world_kids(&w, "ab", "PP");
  world_up(&w);
  kid_of(&w, 'a')->refusals = 2;
  crash(&w, 'a', "boom");
  rig_run(&w.r);
  JOURNAL(&w, "-a!a!a+a");
  kid_of(&w, 'a')->refusals = 1;
  crash(&w, 'a', "boom");
  rig_run(&w.r);
  JOURNAL(&w, "-a-b"); /* the fourth */
  assert_false(alive(&w));
  world_end(&w);
}

static void what_waits_comes_before_the_next_try(void **state) {
  (void)state;
  world w;
  asked look, restart, delete_, add, end;
  world_init(&w, PH_ONE_FOR_ONE, 9, 5000);
  world_kids(&w, "ab", "PP");
  world_up(&w);
  kid *a = kid_of(&w, 'a');
  a->later = true;
  crash(&w, 'a', "boom");
  rig_run(&w.r); /* its start is under way */
  ask(&w, &look, PH_SUP_WHICH, NULL);
  ask(&w, &restart, PH_SUP_RESTART, "a");
  ask(&w, &delete_, PH_SUP_DELETE, "a");
  ph_sup_child *c;
  assert_int_equal(ph_sup_child_new(w.sup, &a->spec, &c), 0);
  assert_int_equal(try_ask(&w, &add, PH_SUP_ADD, NULL, c), 0);
  ask(&w, &end, PH_SUP_TERMINATE, "a");
  rig_run(&w.r);
  assert_int_equal(look.calls, 0); /* as OTP, it does one thing at a time */
  a->later = false;
  a->refusals = 1;
  kid_answer(a, w.sup, a->token);
  rig_run(&w.r);
  assert_int_equal(look.calls, 1);
  assert_non_null(w.restarting);
  assert_int_equal(restart.err, PH_ERESTARTING);
  assert_int_equal(delete_.err, PH_ERESTARTING);
  assert_int_equal(add.err, PH_EALREADY);
  assert_true(add.a.pid == 0);
  assert_int_equal(end.err, 0);
  JOURNAL(&w, "-a!a"); /* ended for good: no further try */
  assert_int_equal(asks(&w, &restart, PH_SUP_RESTART, "a"), 0);
  JOURNAL(&w, "+a");
  world_end(&w);
}

static void a_failed_restart_of_several_goes_on_where_it_failed(void **state) {
  (void)state;
  world w;
  world_init(&w, PH_REST_FOR_ONE, 3, 5000);
  world_kids(&w, "abcd", "PPPP");
  world_up(&w);
  kid_of(&w, 'c')->refusals = 1;
  crash(&w, 'b', "boom");
  rig_run(&w.r);
  JOURNAL(&w, "-b-d-c+b!c+c+d");
  world_end(&w);
  world_init(&w, PH_ONE_FOR_ALL, 3, 5000);
  world_kids(&w, "abcd", "PPPP");
  world_up(&w);
  kid_of(&w, 'c')->refusals = 1;
  crash(&w, 'b', "boom");
  rig_run(&w.r);
  JOURNAL(&w, "-b-d-c-a+a+b!c-b-a+a+b+c+d");
  world_end(&w);
}

static void those_that_had_ended_run_again_with_the_others(void **state) {
  (void)state;
  world w;
  asked q;
  world_init(&w, PH_ONE_FOR_ALL, 3, 5000);
  world_kids(&w, "abc", "TPP");
  world_up(&w);
  crash(&w, 'a', "normal");
  assert_int_equal(asks(&w, &q, PH_SUP_TERMINATE, "c"), 0);
  JOURNAL(&w, "-a-c");
  crash(&w, 'b', "boom");
  rig_run(&w.r);
  JOURNAL(&w, "-b+a+b+c");
  world_end(&w);
}

/* ---- stopping -------------------------------------------------------------------------------- */

static void shutdown_times_are_kept(void **state) {
  (void)state;
  world w;
  asked q;
  world_init(&w, PH_ONE_FOR_ONE, 3, 5000);
  world_kids(&w, "abcd", "PPPP");
  world_up(&w);
  ph_sup_child *c = ph_sup_next(w.sup, NULL);
  for (int i = 0; i < 4; i++, c = ph_sup_next(w.sup, c)) {
    kid *k = c->user;
    k->traps = true;
    k->p->trap_exit = 1;
    k->stubborn = i != 1;
    c->shutdown = i == 0 ? PH_SHUTDOWN_INFINITY : i == 1 ? 5000 : i == 2 ? 100 : PH_SHUTDOWN_BRUTAL;
  }
  assert_int_equal(asks(&w, &q, PH_SUP_TERMINATE, "d"), 0);
  JOURNAL(&w, "-d");
  ask(&w, &q, PH_SUP_TERMINATE, "c");
  rig_run(&w.r);
  w.r.t.now += PH_MS(99);
  rig_run(&w.r);
  JOURNAL(&w, "");
  assert_int_equal(q.calls, 0);
  w.r.t.now += PH_MS(1);
  rig_run(&w.r);
  JOURNAL(&w, "-c");
  assert_int_equal(q.calls, 1);
  assert_int_equal(asks(&w, &q, PH_SUP_TERMINATE, "b"), 0);
  JOURNAL(&w, "-b");
  ask(&w, &q, PH_SUP_TERMINATE, "a"); /* the time that b was given is not its */
  rig_run(&w.r);
  w.r.t.now += PH_MS(1000000000);
  rig_run(&w.r);
  assert_int_equal(q.calls, 0);
  assert_true(ph_sys_next(w.sys) == PH_NEVER);
  kid_of(&w, 'a')->stubborn = false;
  signal_from(&w, 0, kid_of(&w, 'a')->p->pid, "go");
  rig_run(&w.r);
  assert_int_equal(q.calls, 1);
  JOURNAL(&w, "-a");
  world_end(&w);
}

static void the_host_may_stop_a_child_in_its_own_way(void **state) {
  (void)state;
  world w;
  asked q;
  world_init(&w, PH_ONE_FOR_ONE, 3, 5000);
  world_kids(&w, "a", "P");
  world_up(&w);
  kid *a = kid_of(&w, 'a');
  a->own_way = true;
  ask(&w, &q, PH_SUP_TERMINATE, "a");
  rig_run(&w.r);
  JOURNAL(&w, "~a");
  assert_int_equal(a->released, 0);
  crash(&w, 'a', "normal");
  rig_run(&w.r);
  JOURNAL(&w, "-a");
  assert_int_equal(a->released, 1);
  assert_int_equal(q.calls, 1);
  assert_int_equal(asks(&w, &q, PH_SUP_RESTART, "a"), 0);
  ask(&w, &q, PH_SUP_TERMINATE, "a"); /* its way takes too long */
  rig_run(&w.r);
  w.r.t.now += PH_MS(5000);
  rig_run(&w.r);
  JOURNAL(&w, "+a~a-a");
  world_end(&w);
}

static void a_held_child_stays_ended(void **state) {
  (void)state;
  world w;
  asked q;
  world_init(&w, PH_ONE_FOR_ALL, 3, 5000);
  world_kids(&w, "ab", "PP");
  world_up(&w);
  ph_sup_child *c = ph_sup_child_of(kid_of(&w, 'a')->p);
  assert_ptr_equal(c, ph_sup_next(w.sup, NULL));
  assert_null(ph_sup_child_of(w.parent.p));
  ph_sup_hold(c);
  crash(&w, 'a', "boom");
  rig_run(&w.r);
  JOURNAL(&w, "-a");
  assert_int_equal(asks(&w, &q, PH_SUP_RESTART, "a"), 0);
  crash(&w, 'a', "boom"); /* held once */
  rig_run(&w.r);
  JOURNAL(&w, "+a-a-b+a+b");
  world_end(&w);
}

/* ---- requests -------------------------------------------------------------------------------- */

static void answers_requests_as_otp(void **state) {
  (void)state;
  world w;
  asked q;
  world_init(&w, PH_ONE_FOR_ONE, 3, 5000);
  world_up(&w);
  assert_int_equal(adds(&w, &q, 'a', PH_RESTART_PERMANENT), 0);
  assert_true(q.a.pid == kid_of(&w, 'a')->p->pid);
  assert_int_equal(adds(&w, &q, 'a', PH_RESTART_PERMANENT), PH_EALREADY);
  assert_true(q.a.pid == kid_of(&w, 'a')->p->pid);
  assert_int_equal(asks(&w, &q, PH_SUP_RESTART, "a"), PH_ERUNNING);
  assert_int_equal(asks(&w, &q, PH_SUP_DELETE, "a"), PH_ERUNNING);
  assert_int_equal(asks(&w, &q, PH_SUP_TERMINATE, "a"), 0);
  assert_int_equal(asks(&w, &q, PH_SUP_TERMINATE, "a"), 0); /* again: nothing to do */
  assert_int_equal(adds(&w, &q, 'a', PH_RESTART_PERMANENT), PH_EPRESENT);
  kid_of(&w, 'a')->refusals = 1;
  assert_int_equal(asks(&w, &q, PH_SUP_RESTART, "a"), PH_ESTARTFAILED);
  assert_string_equal(q.reason, "no");
  assert_int_equal(asks(&w, &q, PH_SUP_RESTART, "a"), 0);
  assert_true(q.a.pid == kid_of(&w, 'a')->p->pid);
  assert_int_equal(asks(&w, &q, PH_SUP_TERMINATE, "a"), 0);
  assert_int_equal(asks(&w, &q, PH_SUP_DELETE, "a"), 0);
  static const ph_sup_op ops[] = {PH_SUP_TERMINATE, PH_SUP_RESTART, PH_SUP_DELETE};
  for (int i = 0; i < 3; i++) assert_int_equal(asks(&w, &q, ops[i], "a"), PH_ENOTFOUND);
  JOURNAL(&w, "+a-a!a+a-a");
  world_end(&w);
}

static void a_temporary_child_leaves_with_its_end(void **state) {
  (void)state;
  world w;
  asked q;
  world_init(&w, PH_ONE_FOR_ONE, 3, 5000);
  world_up(&w);
  assert_int_equal(adds(&w, &q, 'a', PH_RESTART_TEMPORARY), 0);
  assert_int_equal(asks(&w, &q, PH_SUP_TERMINATE, "a"), 0);
  assert_int_equal(asks(&w, &q, PH_SUP_RESTART, "a"), PH_ENOTFOUND);
  assert_int_equal(kid_of(&w, 'a')->dropped, 1);
  world_end(&w);
}

static void an_added_child_whose_start_fails_is_not_kept(void **state) {
  (void)state;
  world w;
  asked q;
  world_init(&w, PH_ONE_FOR_ONE, 0, 5000);
  world_up(&w);
  kid_set(&w, 'a', PH_RESTART_PERMANENT, 5000)->refusals = 1;
  assert_int_equal(adds(&w, &q, 'a', PH_RESTART_PERMANENT), PH_ESTARTFAILED);
  assert_string_equal(q.reason, "no");
  assert_int_equal(kid_of(&w, 'a')->dropped, 1);
  assert_int_equal(adds(&w, &q, 'a', PH_RESTART_PERMANENT), 0); /* no restart was counted */
  kid_set(&w, 'b', PH_RESTART_PERMANENT, 5000)->foreign = kid_of(&w, 'a')->p->pid;
  assert_int_equal(adds(&w, &q, 'b', PH_RESTART_PERMANENT), PH_ESTARTFAILED);
  assert_string_equal(q.reason, "already_started"); /* another's child */
  kid_of(&w, 'b')->foreign = w.pid;
  assert_int_equal(adds(&w, &q, 'b', PH_RESTART_PERMANENT), PH_ESTARTFAILED);
  assert_string_equal(q.reason, "bad_start_result"); /* itself */
  world_end(&w);
}

static void one_that_has_ended_before_it_is_known_is_treated_as_ended(void **state) {
  (void)state;
  world w;
  asked q;
  world_init(&w, PH_ONE_FOR_ONE, 3, 5000);
  world_up(&w);
  kid_set(&w, 'a', PH_RESTART_TRANSIENT, 5000)->gone = true;
  assert_int_equal(adds(&w, &q, 'a', PH_RESTART_TRANSIENT), 0);
  JOURNAL(&w, "+a-a+a");
  assert_int_equal(kid_of(&w, 'a')->released, 1);
  kid_set(&w, 'b', PH_RESTART_TEMPORARY, 5000)->gone = true;
  assert_int_equal(adds(&w, &q, 'b', PH_RESTART_TEMPORARY), 0);
  JOURNAL(&w, "+b-b");
  assert_int_equal(kid_of(&w, 'b')->dropped, 1);
  world_end(&w);
}

static void calls_of_others_are_ignored(void **state) {
  (void)state;
  world w;
  asked q;
  noted n;
  world_init(&w, PH_ONE_FOR_ONE, 3, 5000);
  world_up(&w);
  CALL_TEXT(w.sys, w.parent.pid, w.pid, "hello", &n, w.r.t.now + PH_MS(10));
  SEND_TEXT(w.sys, w.pid, "hello");
  assert_int_equal(asks(&w, &q, PH_SUP_COUNT, NULL), 0);
  w.r.t.now += PH_MS(10);
  rig_run(&w.r);
  assert_int_equal(n.err, PH_ETIMEOUT);
  assert_null(ph_sup_find(w.sys, w.parent.pid));
  world_end(&w);
}

/* ---- waiting, and ends from outside ---------------------------------------------------------- */

static void while_a_start_is_under_way_all_else_waits(void **state) {
  (void)state;
  world w;
  asked init, q;
  world_init(&w, PH_ONE_FOR_ONE, 3, 5000);
  world_kids(&w, "abc", "PPP");
  kid *b = kid_of(&w, 'b');
  b->later = true;
  ask(&w, &init, PH_SUP_INIT, NULL);
  ask(&w, &q, PH_SUP_COUNT, NULL);
  rig_run(&w.r);
  crash(&w, 'a', "boom");
  rig_run(&w.r);
  JOURNAL(&w, "+a-a");
  b->later = false;
  ph_sup_started(w.sup, b->token + 1, 0, no(w.sys)); /* some other start's answer */
  rig_run(&w.r);
  JOURNAL(&w, "");
  kid_answer(b, w.sup, b->token);
  ph_sup_started(w.sup, b->token, 0, no(w.sys)); /* a second answer */
  rig_run(&w.r);
  JOURNAL(&w, "+b+c+a");
  assert_int_equal(init.calls, 1);
  assert_int_equal(w.active, 3);
  world_end(&w);
}

static void its_parent_ends_it_and_nobody_else(void **state) {
  (void)state;
  world w;
  world_init(&w, PH_ONE_FOR_ONE, 3, 5000);
  world_kids(&w, "ab", "PP");
  world_up(&w);
  signal_from(&w, ph_pid_make(PH_SELF, 999), w.pid, "shutdown");
  signal_from(&w, kid_of(&w, 'a')->p->pid, w.pid, "boom");
  rig_run(&w.r);
  assert_true(alive(&w));
  ph_ref ref;
  probe other;
  assert_true(probe_start(&other, w.sys));
  assert_int_equal(ph_monitor(other.p, w.pid, &ref), 0);
  signal_from(&w, 0, w.parent.pid, "tired"); /* it dies: the link tells */
  rig_run(&w.r);
  JOURNAL(&w, "-b-a");
  assert_false(alive(&w));
  CHECK_MSG(&other, 0, PH_C_DOWN, "tired");
  probe_clear(&other);
  world_end(&w);
}

static void killed_it_lets_go_of_everything(void **state) {
  (void)state;
  world w;
  asked init, q;
  world_init(&w, PH_ONE_FOR_ONE, 3, 5000);
  world_kids(&w, "ab", "PP");
  kid_of(&w, 'b')->later = true;
  ask(&w, &init, PH_SUP_INIT, NULL);
  rig_run(&w.r);
  kid *c = kid_set(&w, 'c', PH_RESTART_PERMANENT, 5000);
  ph_sup_child *child;
  assert_int_equal(ph_sup_child_new(w.sup, &c->spec, &child), 0);
  assert_int_equal(try_ask(&w, &q, PH_SUP_ADD, NULL, child), 0);
  kid *a = kid_of(&w, 'a');
  assert_int_equal(ph_link_procs(a->p, w.pid), 0);
  signal_from(&w, 0, w.pid, "kill");
  rig_run(&w.r);
  JOURNAL(&w, "+a-a"); /* by its link */
  assert_int_equal(init.err, PH_EEXIT);
  assert_string_equal(init.reason, "killed");
  assert_int_equal(q.err, PH_EEXIT);
  assert_int_equal(a->released, 1);
  assert_int_equal(kid_of(&w, 'b')->abandoned, 1);
  for (int i = 0; i < 3; i++) assert_int_equal(w.kids[i].dropped, 1);
  world_end(&w);
}

static void a_system_that_ends_takes_it_along(void **state) {
  (void)state;
  for (int what = 0; what < 3; what++) {
    world w;
    asked q;
    world_init(&w, PH_ONE_FOR_ALL, 3, 5000);
    world_kids(&w, "abc", "PPP");
    if (what > 0) world_up(&w);
    if (what == 2) {
      kid_of(&w, 'b')->p->trap_exit = 1;
      kid_of(&w, 'b')->stubborn = true;
      ask(&w, &q, PH_SUP_TERMINATE, "b");
      rig_run(&w.r);
    }
    world_end(&w);
  }
}

/* ---- out of memory --------------------------------------------------------------------------- */

/* a waiter that has been armed is answered, once */
typedef struct scene {
  world w;
  bool made, has_init, has_add, has_end;
  asked init, add, end;
} scene;

static ph_sup_child *may_child(world *w, char name, ph_restart restart) {
  kid *k = kid_set(w, name, restart, 100);
  ph_sup_child *c = NULL;
  int rc = ph_sup_child_new(w->sup, &k->spec, &c);
  if (rc) assert_int_equal(rc, PH_ENOMEM);
  if (rc) k->w = NULL;
  return rc ? NULL : c;
}

static void may_add(world *w, char name, ph_restart restart) {
  ph_sup_child *c = may_child(w, name, restart);
  if (c && ph_sup_add(w->sup, c)) ph_sup_child_free(c);
}

static void may_run(world *w) {
  for (int i = 0; i < 60; i++) ph_sys_run(w->sys, PH_NEVER);
}

static void may_crash(world *w, char name, const char *reason) {
  kid *k = kid_of(w, name);
  ph_bytes *b = k->p ? ph_reason_str(w->sys, reason, strlen(reason)) : NULL;
  if (b) (void)!ph_signal(w->sys, 0, k->p->pid, b, true);
  ph_bytes_unref(w->sys->env, b);
}

static void play(scene *x) {
  world *w = &x->w;
  ph_sup_config cfg = {PH_REST_FOR_ONE, 40, PH_MS(1000)};
  ph_sup_host host = {w, host_start, host_abandon, host_stop, host_release, host_drop, host_look};
  if (!probe_start(&w->parent, w->sys)) return;
  if (ph_sup_new(w->sys, &cfg, &host, w->parent.pid, &w->sup)) return;
  x->made = true;
  w->pid = ph_sup_proc(w->sup)->pid;
  (void)!ph_link_procs(ph_sup_proc(w->sup), w->parent.pid);
  may_add(w, 'a', PH_RESTART_PERMANENT);
  may_add(w, 'b', PH_RESTART_TRANSIENT);
  x->has_init = try_ask(w, &x->init, PH_SUP_INIT, NULL, NULL) == 0;
  may_run(w);
  if (!alive(w)) return;
  ph_sup_child *c = may_child(w, 'c', PH_RESTART_PERMANENT);
  if (c) {
    x->has_add = try_ask(w, &x->add, PH_SUP_ADD, NULL, c) == 0;
    if (!x->has_add) ph_sup_child_free(c);
  }
  may_run(w);
  for (int i = 0; i < 12 && alive(w); i++) { /* past the first ring of times */
    may_crash(w, 'b', "boom");
    may_run(w);
  }
  kid *b = kid_of(w, 'b');
  if (b->p) b->p->trap_exit = 1;
  if (alive(w)) x->has_end = try_ask(w, &x->end, PH_SUP_TERMINATE, "b", NULL) == 0;
  may_run(w);
  w->r.t.now += PH_MS(100);
  may_run(w);
}

static void scene_check(scene *x) {
  world *w = &x->w;
  if (x->made && alive(w)) signal_from(w, 0, w->pid, "kill");
  rig_run(&w->r);
  if (x->has_init) assert_int_equal(x->init.calls, 1);
  if (x->has_add) assert_int_equal(x->add.calls, 1);
  if (x->has_end) assert_int_equal(x->end.calls, 1);
  for (int i = 0; i < 3; i++) {
    if (w->kids[i].w) assert_int_equal(w->kids[i].dropped, 1);
    if (w->kids[i].p) signal_from(w, 0, w->kids[i].p->pid, "kill");
  }
  rig_run(&w->r);
}

static void any_allocation_may_fail(void **state) {
  (void)state;
  for (int rest = 0; rest < 2; rest++) {
    for (long n = 1;; n++) {
      static scene x;
      memset(&x, 0, sizeof x);
      rig_init(&x.w.r, 1);
      x.w.sys = &x.w.r.node[0].sys;
      x.w.r.t.fail_rest = rest;
      te_fail_in(&x.w.r.t, n);
      play(&x);
      bool tripped = te_tripped(&x.w.r.t);
      te_fail_in(&x.w.r.t, 0);
      x.w.r.t.fail_rest = false;
      scene_check(&x);
      probe_clear(&x.w.parent);
      rig_end(&x.w.r);
      if (!tripped) break;
      assert_true(n < 1000);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(starts_in_order_and_stops_in_reverse),
      cmocka_unit_test(a_first_start_that_fails_takes_the_others_back),
      cmocka_unit_test(restarts_by_strategy_and_type),
      cmocka_unit_test(ends_shutdown_shaped_are_clean),
      cmocka_unit_test(two_ends_at_once_are_one_restart_of_all),
      cmocka_unit_test(too_many_restarts_end_it),
      cmocka_unit_test(no_restart_at_all_with_a_limit_of_zero),
      cmocka_unit_test(many_restarts_are_all_counted),
      cmocka_unit_test(a_failed_restart_is_tried_again_and_counted),
      cmocka_unit_test(what_waits_comes_before_the_next_try),
      cmocka_unit_test(a_failed_restart_of_several_goes_on_where_it_failed),
      cmocka_unit_test(those_that_had_ended_run_again_with_the_others),
      cmocka_unit_test(shutdown_times_are_kept),
      cmocka_unit_test(the_host_may_stop_a_child_in_its_own_way),
      cmocka_unit_test(a_held_child_stays_ended),
      cmocka_unit_test(answers_requests_as_otp),
      cmocka_unit_test(a_temporary_child_leaves_with_its_end),
      cmocka_unit_test(an_added_child_whose_start_fails_is_not_kept),
      cmocka_unit_test(one_that_has_ended_before_it_is_known_is_treated_as_ended),
      cmocka_unit_test(calls_of_others_are_ignored),
      cmocka_unit_test(while_a_start_is_under_way_all_else_waits),
      cmocka_unit_test(its_parent_ends_it_and_nobody_else),
      cmocka_unit_test(killed_it_lets_go_of_everything),
      cmocka_unit_test(a_system_that_ends_takes_it_along),
      cmocka_unit_test(any_allocation_may_fail),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
