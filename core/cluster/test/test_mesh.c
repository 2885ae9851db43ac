/* Membership: joining, breaking, cutting, pausing, leaving, disconnecting. */
#include "raw.h"
#include "sim.h"

/* ---- joining ---- */

static void three_from_one_known_peer(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 1);
  for (int i = 0; i < 3; i++) sim_add(&s);
  sim_join(&s, 1, 0);
  sim_join(&s, 2, 0);
  assert_true(sim_until(&s, sim_mesh, 50));
  int late = sim_add(&s); /* the others are told of it, the lower dial at once */
  sim_join(&s, late, 2);
  assert_true(sim_until(&s, sim_mesh, 50));
  sim_ms(&s, 20000);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(sim_told(&s, i, PH_EV_NODE_UP, NULL), 3);
    assert_int_equal(sim_told(&s, i, PH_EV_NODE_DOWN, NULL), 0);
    assert_int_equal(sim_told(&s, i, PH_EV_LINK_RESET, NULL), 0);
  }
  sim_end(&s);
}

static void chain_forms_a_mesh(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 2);
  for (int i = 0; i < 7; i++) sim_add(&s);
  for (int i = 1; i < 7; i++) sim_join(&s, i, i - 1);
  assert_true(sim_until(&s, sim_mesh, 900)); /* before any heartbeat */
  sim_end(&s);
}

static void joins_by_name(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 3);
  for (int i = 0; i < 2; i++) sim_add(&s);
  assert_int_equal(sim_command(&s, 0, PH_CMD_JOIN, 0, 0, "n1@sim", 6), 0);
  assert_true(sim_until(&s, sim_mesh, 1000));
  sim_end(&s);
}

static void join_waits_for_the_peer(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 4);
  sim_add(&s);
  int late = sim_host(&s);
  sim_join(&s, 0, late);
  sim_ms(&s, 60000);
  assert_int_equal(sim_start(&s, late, "n1@sim", 5, NULL), 0);
  assert_true(sim_until(&s, sim_mesh, 13000));
  sim_end(&s);
}

static void join_of_oneself_is_forgotten(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 5);
  s.cfg.advertise = "mem:0:7"; /* so that only the handshake can tell */
  sim_add(&s);
  s.cfg.advertise = NULL;
  const char *alias = "mem:0:9";
  assert_int_equal(sim_command(&s, 0, PH_CMD_JOIN, 0, 0, alias, strlen(alias)), 0);
  assert_int_equal(sim_command(&s, 0, PH_CMD_CONNECT, 7, 1000, alias, strlen(alias)), 0);
  assert_false(ph_list_empty(&s.n[0].c->targets));
  sim_ms(&s, 100);
  assert_true(ph_list_empty(&s.n[0].c->targets));
  assert_int_equal(sim_told(&s, 0, PH_EV_NODE_UP, NULL), 0);
  assert_int_equal(sim_told(&s, 0, PH_EV_CONNECTED, "n0@sim"), 1);
  sim_end(&s);
}

/* ---- links that break, nodes that die ---- */

static void pair(sim *s, uint64_t seed) {
  sim_init(s, seed);
  sim_add(s);
  sim_add(s);
  sim_join(s, 0, 1);
  assert_true(sim_until(s, sim_mesh, 1000));
}

static bool both_reset(sim *s) {
  return sim_told(s, 0, PH_EV_LINK_RESET, NULL) == 1 && sim_told(s, 1, PH_EV_LINK_RESET, NULL) == 1;
}

static void break_resets_the_link(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 50; seed++) {
    sim s;
    pair(&s, seed);
    sim_ms(&s, 7000);
    ph_memnet_break(s.net, 0, 1);
    assert_true(sim_until(&s, both_reset, 100)); /* at once */
    sim_ms(&s, 20000);
    for (int i = 0; i < 2; i++) {
      assert_int_equal(sim_told(&s, i, PH_EV_LINK_RESET, NULL), 1);
      assert_int_equal(sim_told(&s, i, PH_EV_NODE_DOWN, NULL), 0);
    }
    assert_int_equal(sim_send(&s, 0, "n1@sim", "x", 1), 0);
    sim_ms(&s, 10);
    assert_int_equal(s.n[1].frames, 1);
    sim_end(&s);
  }
}

static bool zero_sees_nobody(sim *s) {
  return sim_ups(s, 0) == 0;
}

static void crash_is_down_at_once(void **state) {
  (void)state;
  sim s;
  pair(&s, 6);
  sim_crash(&s, 1);
  assert_true(sim_until(&s, zero_sees_nobody, 50)); /* its address refuses */
  assert_int_equal(sim_last(&s, 0, PH_EV_NODE_DOWN, "n1@sim")->b, 0);
  sim_ms(&s, 30000);
  sim_restart(&s, 1, "n1@sim", 200); /* dialled again, without joining anyone */
  assert_true(sim_until(&s, sim_mesh, 13000));
  assert_int_equal(sim_peer_of(&s, 0, "n1@sim")->incarnation, 200);
  sim_end(&s);
}

static raw *dying;

static bool dying_was_dialled(sim *s) {
  (void)s;
  return raw_open(dying) > 0;
}

/* The system still accepts for a process that is being killed: the first try only finds an end. */
static void crash_that_still_accepts_is_down_soon(void **state) {
  (void)state;
  sim s;
  pair(&s, 8);
  sim_ms(&s, 20000);
  sim_crash(&s, 1);
  dying = raw_on(&s, 1, true);
  assert_true(sim_until(&s, dying_was_dialled, 10));
  ph_memnet_crash(s.net, 1);
  assert_true(sim_until(&s, zero_sees_nobody, 50));
  free(dying);
  sim_end(&s);
}

static bool zero_sees_the_heir(sim *s) {
  return sim_peer_of(s, 0, "heir@sim") != NULL;
}

/* The system gives the port of a dead node to another one, which dies too: both are to be dialled
 * at one address. */
static void crash_at_an_inherited_address_is_down_at_once(void **state) {
  (void)state;
  for (uint64_t lasted = 1; lasted < 2000; lasted *= 2) {
    sim s;
    pair(&s, lasted);
    sim_crash(&s, 1);
    assert_true(sim_until(&s, zero_sees_nobody, 50));
    sim_restart(&s, 1, "heir@sim", 200);
    sim_join(&s, 1, 0);
    assert_true(sim_until(&s, zero_sees_the_heir, 1000));
    sim_ms(&s, lasted);
    sim_crash(&s, 1);
    assert_true(sim_until(&s, zero_sees_nobody, 50));
    sim_ms(&s, 60000);
    sim_restart(&s, 1, "n1@sim", 300);
    assert_true(sim_until(&s, sim_mesh, 13000));
    sim_end(&s);
  }
}

/* A program that is restarted and dies soon, again and again: its links did not flap. */
static void crashes_in_a_row_are_down_at_once(void **state) {
  (void)state;
  sim s;
  pair(&s, 9);
  for (uint64_t incarnation = 200; incarnation < 206; incarnation++) {
    sim_ms(&s, 200);
    sim_crash(&s, 1);
    assert_true(sim_until(&s, zero_sees_nobody, 50));
    sim_restart(&s, 1, "n1@sim", incarnation);
    sim_join(&s, 1, 0);
    assert_true(sim_until(&s, sim_mesh, 13000));
  }
  sim_end(&s);
}

static void restart_before_anyone_noticed(void **state) {
  (void)state;
  sim s;
  pair(&s, 7);
  sim_crash(&s, 1);
  sim_restart(&s, 1, "n1@sim", 200);
  sim_join(&s, 1, 0);
  assert_true(sim_until(&s, sim_mesh, 2000));
  sim_ms(&s, 1000);
  assert_true(sim_mesh(&s));
  assert_int_equal(sim_told(&s, 0, PH_EV_NODE_DOWN, "n1@sim"), 1);
  assert_int_equal(sim_told(&s, 0, PH_EV_NODE_UP, "n1@sim"), 2);
  assert_int_equal(sim_told(&s, 0, PH_EV_LINK_RESET, NULL), 0);
  sim_end(&s);
}

/* The host is gone without a word, its successor has another address. */
static void newer_incarnation_wins_over_a_dead_link(void **state) {
  (void)state;
  sim s;
  pair(&s, 8);
  sim_ms(&s, 2000);
  sim_pause(&s, 1, true);
  int other = sim_host(&s);
  assert_int_equal(sim_start(&s, other, "n1@sim", 200, NULL), 0);
  uint64_t before = ph_memnet_now(s.net);
  sim_connect(&s, other, 1, 0, 5000);
  sim_ms(&s, 2000);
  assert_int_equal(sim_told(&s, other, PH_EV_CONNECTED, "n0@sim"), 1);
  assert_int_equal(sim_peer_of(&s, 0, "n1@sim")->incarnation, 200);
  assert_int_equal(sim_told(&s, 0, PH_EV_NODE_DOWN, "n1@sim"), 1);
  uint64_t took = sim_last(&s, 0, PH_EV_NODE_UP, "n1@sim")->at - before;
  assert_in_range(took, PH_MS(1000), PH_MS(1100)); /* the probe's wait */
  sim_end(&s);
}

static bool nobody_sees_anyone(sim *s) {
  return sim_ups(s, 0) == 0 && sim_ups(s, 1) == 0;
}

static void cut_both_ways(void **state) {
  (void)state;
  sim s;
  pair(&s, 9);
  sim_ms(&s, 3000);
  uint64_t at = ph_memnet_now(s.net);
  sim_cut(&s, 0, 1, true);
  assert_true(sim_until(&s, nobody_sees_anyone, 9000));
  for (int i = 0; i < 2; i++) {
    uint64_t took = sim_last(&s, i, PH_EV_NODE_DOWN, NULL)->at - at;
    assert_in_range(took, PH_MS(7000), PH_MS(8001));
  }
  sim_ms(&s, 60000);
  assert_true(nobody_sees_anyone(&s));
  sim_cut(&s, 0, 1, false);
  assert_true(sim_until(&s, sim_mesh, 20000));
  assert_int_equal(sim_told(&s, 0, PH_EV_NODE_UP, NULL), 2);
  sim_end(&s);
}

static void cut_one_way(void **state) {
  (void)state;
  sim s;
  pair(&s, 10);
  ph_memnet_cut(s.net, 0, 1);
  assert_true(sim_until(&s, nobody_sees_anyone, 20000));
  ph_memnet_heal(s.net, 0, 1);
  assert_true(sim_until(&s, sim_mesh, 20000));
  sim_ms(&s, 20000);
  assert_true(sim_mesh(&s));
  sim_end(&s);
}

static void short_cut_is_not_noticed(void **state) {
  (void)state;
  sim s;
  pair(&s, 11);
  sim_ms(&s, 3000);
  sim_cut(&s, 0, 1, true);
  sim_ms(&s, 5000);
  sim_cut(&s, 0, 1, false);
  sim_ms(&s, 20000);
  for (int i = 0; i < 2; i++) assert_int_equal(s.n[i].event_count, 1);
  sim_end(&s);
}

/* ---- a process that is stopped, or does not come to its turns ---- */

static bool zero_sees_one(sim *s) {
  return sim_ups(s, 0) == 1;
}

static void paused_host(void **state) {
  (void)state;
  sim s;
  pair(&s, 12);
  sim_ms(&s, 3000);
  sim_pause(&s, 1, true);
  assert_true(sim_until(&s, zero_sees_nobody, 9000));
  sim_ms(&s, 10000);
  sim_pause(&s, 1, false);
  assert_true(sim_until(&s, zero_sees_one, 20000));
  sim_ms(&s, 1000);
  /* the stopped one took nobody for dead: it only learns that its link was lost */
  assert_int_equal(sim_told(&s, 1, PH_EV_NODE_DOWN, NULL), 0);
  assert_true(sim_told(&s, 1, PH_EV_LINK_RESET, NULL) >= 1);
  assert_true(sim_mesh(&s));
  sim_end(&s);
}

static void pause_below_the_timeout(void **state) {
  (void)state;
  sim s;
  pair(&s, 13);
  sim_ms(&s, 3000);
  sim_pause(&s, 1, true);
  sim_ms(&s, 6500);
  sim_pause(&s, 1, false);
  sim_ms(&s, 20000);
  for (int i = 0; i < 2; i++) assert_int_equal(s.n[i].event_count, 1);
  sim_end(&s);
}

/* Both were stopped, for longer than the timeout: neither may judge the other by the clock. */
static void both_paused(void **state) {
  (void)state;
  sim s;
  pair(&s, 14);
  sim_ms(&s, 3000);
  sim_pause(&s, 0, true);
  sim_pause(&s, 1, true);
  sim_ms(&s, 60000);
  sim_pause(&s, 0, false);
  sim_ms(&s, 1000);
  sim_pause(&s, 1, false);
  sim_ms(&s, 20000);
  for (int i = 0; i < 2; i++) assert_int_equal(s.n[i].event_count, 1);
  sim_end(&s);
}

static void stalled_machine_is_down(void **state) {
  (void)state;
  sim s;
  pair(&s, 15);
  s.n[1].frozen = true;
  sim_ms(&s, 59000);
  assert_int_equal(sim_ups(&s, 0), 1);
  assert_true(sim_until(&s, zero_sees_nobody, 3000));
  sim_ms(&s, 30000);
  assert_int_equal(sim_told(&s, 0, PH_EV_NODE_UP, NULL), 1); /* no flapping meanwhile */
  assert_int_equal(sim_links(&s, 0), 1);
  ph_memnet_break(s.net, 0, 1);
  sim_ms(&s, 5000); /* nor when its link is made anew */
  assert_int_equal(sim_links(&s, 0), 1);
  assert_int_equal(sim_told(&s, 0, PH_EV_NODE_UP, NULL), 1);
  s.n[1].frozen = false;
  assert_true(sim_until(&s, sim_mesh, 3000));
  assert_int_equal(sim_told(&s, 0, PH_EV_NODE_UP, NULL), 2);
  assert_true(sim_told(&s, 1, PH_EV_LINK_RESET, NULL) >= 1);
  assert_int_equal(sim_told(&s, 1, PH_EV_NODE_DOWN, NULL), 0);
  sim_end(&s);
}

/* ---- going on purpose ---- */

static void three(sim *s, uint64_t seed) {
  sim_init(s, seed);
  for (int i = 0; i < 3; i++) sim_add(s);
  sim_join(s, 1, 0);
  sim_join(s, 2, 0);
  assert_true(sim_until(s, sim_mesh, 1000));
}

static bool two_has_left(sim *s) {
  return ph_cluster_left(s->n[2].c);
}

static void leave_is_not_redialled(void **state) {
  (void)state;
  sim s;
  three(&s, 16);
  assert_int_equal(sim_send(&s, 2, "n0@sim", "last", 4), 0);
  sim_command(&s, 2, PH_CMD_LEAVE, 0, 0, NULL, 0);
  assert_false(ph_cluster_left(s.n[2].c));
  assert_true(sim_until(&s, two_has_left, 100));
  assert_int_equal(s.n[0].frames, 1);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(sim_last(&s, i, PH_EV_NODE_DOWN, "n2@sim")->b, 1);
    assert_true(ph_list_empty(&s.n[i].c->targets));
  }
  /* late hearsay of it changes nothing */
  ph__link *l = PH_CONTAINER(s.n[1].c->links.next, ph__link, in_all);
  const uint8_t late[] = {0x99, PH_M_STATE, 0xa6, 'n', '2', '@', 's', 'i',  'm', 100,  0, 99,
                          0,    0xa5,       'm',  'e', 'm', ':', '2', 0xc4, 0,   0xc4, 0};
  assert_int_equal(ph_frame_write(&l->out, PH_FRAME_CONTROL, late, sizeof late), 0);
  ph__link_dirty(l);
  for (int i = 0; i < 100; i++) {
    sim_ms(&s, 10);
    assert_true(ph_list_empty(&s.n[0].c->targets));
  }
  sim_crash(&s, 2);
  sim_restart(&s, 2, "n2@sim", 300);
  sim_ms(&s, 60000);
  assert_int_equal(sim_told(&s, 2, PH_EV_NODE_UP, NULL), 2); /* of its first life only */
  sim_join(&s, 2, 1);
  assert_true(sim_until(&s, sim_mesh, 1000));
  sim_end(&s);
}

/* What is queued beyond the credit is sent before the node is gone. */
static void leave_flushes(void **state) {
  (void)state;
  sim s;
  three(&s, 17);
  size_t n = 20 * 1024 * 1024;
  char *big = calloc(1, n);
  assert_int_equal(sim_send(&s, 2, "n1@sim", big, n), 0);
  sim_command(&s, 2, PH_CMD_LEAVE, 0, 0, NULL, 0);
  assert_true(sim_until(&s, two_has_left, 1000));
  assert_int_equal(s.n[1].frame_bytes, n);
  free(big);
  sim_end(&s);
}

static void leave_does_not_wait_for_ever(void **state) {
  (void)state;
  sim s;
  three(&s, 18);
  sim_cut(&s, 1, 2, true);
  sim_command(&s, 2, PH_CMD_LEAVE, 0, 0, NULL, 0);
  assert_true(sim_until(&s, two_has_left, 2000));
  sim_end(&s);
}

static void disconnect_holds_until_someone_connects(void **state) {
  (void)state;
  sim s;
  three(&s, 19);
  assert_int_equal(sim_command(&s, 1, PH_CMD_DISCONNECT, 0, 0, "n2@sim", 6), 0);
  sim_ms(&s, 100);
  sim_ms(&s, 120000); /* n0 tells both of each other all the time */
  for (int i = 1; i < 3; i++) {
    assert_int_equal(sim_told(&s, i, PH_EV_NODE_DOWN, NULL), 0);
    assert_int_equal(sim_told(&s, i, PH_EV_LINK_RESET, sim_name(3 - i)), 1);
    assert_int_equal(sim_links(&s, i), 1);
  }
  assert_int_equal(sim_send(&s, 1, "n2@sim", "x", 1), 0);
  sim_ms(&s, 10);
  assert_int_equal(s.n[2].frames, 1);
  sim_connect(&s, 2, 77, 1, 5000); /* the other side may end it too */
  assert_true(sim_until(&s, sim_mesh, 1000));
  assert_int_equal(sim_last(&s, 2, PH_EV_CONNECTED, "n1@sim")->a, 77);
  sim_end(&s);
}

/* The word of it was lost with the link: the dial that follows is told. */
static void disconnect_while_the_link_is_down(void **state) {
  (void)state;
  sim s;
  pair(&s, 20);
  sim_cut(&s, 0, 1, true);
  assert_true(sim_until(&s, nobody_sees_anyone, 9000));
  assert_int_equal(sim_command(&s, 0, PH_CMD_DISCONNECT, 0, 0, "n1@sim", 6), 0);
  sim_cut(&s, 0, 1, false);
  sim_ms(&s, 30000);
  assert_true(nobody_sees_anyone(&s));
  assert_true(ph_list_empty(&s.n[1].c->targets));
  sim_connect(&s, 1, 1, 0, 5000);
  assert_true(sim_until(&s, sim_mesh, 1000));
  sim_end(&s);
}

/* A mesh with one pair missing completes when that pair can meet. */
static void hearsay_completes_the_mesh(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 21);
  for (int i = 0; i < 3; i++) sim_add(&s);
  sim_cut(&s, 1, 2, true);
  sim_join(&s, 1, 0);
  sim_join(&s, 2, 0);
  sim_ms(&s, 120000);
  for (int i = 0; i < 3; i++) assert_int_equal(sim_ups(&s, i), 2);
  assert_int_equal(sim_links(&s, 1), 1);
  sim_cut(&s, 1, 2, false);
  assert_true(sim_until(&s, sim_mesh, 80000));
  sim_end(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(three_from_one_known_peer),
      cmocka_unit_test(chain_forms_a_mesh),
      cmocka_unit_test(joins_by_name),
      cmocka_unit_test(join_waits_for_the_peer),
      cmocka_unit_test(join_of_oneself_is_forgotten),
      cmocka_unit_test(break_resets_the_link),
      cmocka_unit_test(crash_is_down_at_once),
      cmocka_unit_test(crash_that_still_accepts_is_down_soon),
      cmocka_unit_test(crash_at_an_inherited_address_is_down_at_once),
      cmocka_unit_test(crashes_in_a_row_are_down_at_once),
      cmocka_unit_test(restart_before_anyone_noticed),
      cmocka_unit_test(newer_incarnation_wins_over_a_dead_link),
      cmocka_unit_test(cut_both_ways),
      cmocka_unit_test(cut_one_way),
      cmocka_unit_test(short_cut_is_not_noticed),
      cmocka_unit_test(paused_host),
      cmocka_unit_test(pause_below_the_timeout),
      cmocka_unit_test(both_paused),
      cmocka_unit_test(stalled_machine_is_down),
      cmocka_unit_test(leave_is_not_redialled),
      cmocka_unit_test(leave_flushes),
      cmocka_unit_test(leave_does_not_wait_for_ever),
      cmocka_unit_test(disconnect_holds_until_someone_connects),
      cmocka_unit_test(disconnect_while_the_link_is_down),
      cmocka_unit_test(hearsay_completes_the_mesh),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
