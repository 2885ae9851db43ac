/* The streams between members without a direct link, and what is no death of a node. */
#include "sim.h"

enum { KIB = 1024, MIB = 1024 * 1024 };

static void expect_no_downs(sim *s) {
  for (int i = 0; i < s->count; i++) assert_int_equal(sim_told(s, i, PH_EV_NODE_DOWN, NULL), 0);
}

static bool zero_and_one_relayed(sim *s) {
  return sim_node_at(s, 0, 1)->stream && sim_node_at(s, 1, 0)->stream;
}

/* ---- paths ---- */

static void cut_pair_goes_on_over_a_third(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 20; seed++) {
    sim s;
    sim_world(&s, seed, 3);
    sim_cut(&s, 0, 1, true);
    assert_true(sim_until(&s, zero_and_one_relayed, 10000));
    sim_ms(&s, 30000); /* what is relayed keeps no direct link alive, nor is its loss a death */
    expect_no_downs(&s);
    for (int i = 0; i < 2; i++) {
      assert_int_equal(sim_told(&s, i, PH_EV_LINK_RESET, NULL), 1);
      assert_int_equal(sim_links(&s, i), 1);
    }
    assert_int_equal(sim_told(&s, 2, PH_EV_LINK_RESET, NULL), 0);
    uint64_t relayed = sim_stats(&s, 2).relayed;
    sim_talk(&s);
    assert_true(sim_stats(&s, 2).relayed >= relayed + 2);
    sim_cut(&s, 0, 1, false);
    assert_true(sim_until(&s, sim_mesh, 20000));
    sim_ms(&s, 20000);
    for (int i = 0; i < 2; i++) {
      assert_int_equal(sim_told(&s, i, PH_EV_LINK_RESET, NULL), 2);
      assert_null(sim_node_at(&s, i, 1 - i)->stream);
    }
    sim_talk(&s);
    assert_int_equal(sim_stats(&s, 2).dropped, 0);
    sim_end(&s);
  }
}

/* One end has given the link up, and its word comes only by the third. */
static void link_that_the_other_end_gave_up(void **state) {
  (void)state;
  sim s;
  sim_world(&s, 20, 3);
  sim_ms(&s, 3000);
  ph_memnet_cut(s.net, 0, 1); /* n1 hears nothing from here on, n0 does, */
  sim_ms(&s, 6500);
  ph_memnet_cut(s.net, 1, 0); /* but not the end of it */
  assert_true(sim_until(&s, zero_and_one_relayed, 3000));
  expect_no_downs(&s);
  sim_talk(&s);
  sim_end(&s);
}

static void chain(sim *s, uint64_t seed, int nodes) {
  sim_init(s, seed);
  for (int i = 0; i < nodes; i++) sim_add(s);
  for (int a = 0; a < nodes; a++) {
    for (int b = 0; b + 1 < a; b++) sim_cut(s, a, b, true);
  }
  for (int i = 1; i < nodes; i++) sim_join(s, i, i - 1);
  assert_true(sim_until(s, sim_view, 5000));
}

static void chain_of_five(void **state) {
  (void)state;
  sim s;
  chain(&s, 1, 5);
  for (int i = 0; i < 5; i++) assert_int_equal(sim_links(&s, i), i % 4 ? 2 : 1);
  sim_talk(&s);
  sim_ms(&s, 60000);
  expect_no_downs(&s);
  size_t n = 3 * MIB; /* larger than the window of a stream */
  uint8_t *big = calloc(1, n);
  uint64_t before = s.n[4].frame_bytes;
  assert_int_equal(sim_send(&s, 0, "n4@sim", big, n), 0);
  free(big);
  sim_ms(&s, 1000);
  assert_int_equal(s.n[4].frame_bytes - before, n);
  for (int i = 0; i < 5; i++) assert_int_equal(sim_told(&s, i, PH_EV_LINK_RESET, NULL), 0);
  sim_talk(&s);
  sim_end(&s);
}

/* longer than the 8 hops that a small view allows */
static void chain_of_twelve(void **state) {
  (void)state;
  sim s;
  chain(&s, 2, 12);
  sim_talk(&s);
  sim_end(&s);
}

static bool zero_and_three_relayed(sim *s) {
  return sim_node_at(s, 0, 3)->stream && sim_node_at(s, 3, 0)->stream;
}

static bool three_over_two(sim *s) {
  ph__node *node = sim_node_at(s, 0, 3);
  return zero_and_three_relayed(s) && node->hop == sim_node_at(s, 0, 2)->link;
}

static void path_changes(void **state) {
  (void)state;
  sim s;
  sim_world(&s, 3, 4);
  sim_cut(&s, 0, 3, true);
  assert_true(sim_until(&s, zero_and_three_relayed, 10000));
  assert_ptr_equal(sim_node_at(&s, 0, 3)->hop, sim_node_at(&s, 0, 1)->link); /* the first by name */
  sim_cut(&s, 1, 3, true);
  for (int i = 0; i < 10000 && !three_over_two(&s); i++) {
    sim_say(&s, 0, "n3@sim"); /* none is lost unnoticed, see sim_say */
    sim_say(&s, 3, "n0@sim");
    sim_ms(&s, 1);
  }
  assert_true(three_over_two(&s));
  sim_ms(&s, 1000);
  assert_in_range(sim_told(&s, 0, PH_EV_LINK_RESET, "n3@sim"), 2, 3);
  assert_in_range(sim_told(&s, 3, PH_EV_LINK_RESET, "n0@sim"), 2, 3);
  expect_no_downs(&s);
  sim_talk(&s);
  sim_end(&s);
}

static bool crash_noticed(sim *s) {
  return sim_ups(s, 0) == 0 && sim_ups(s, 2) == 0;
}

static bool one_is_gone(sim *s) {
  for (int i = 0; i < s->count; i++) {
    if (i != 1 && (sim_peer_of(s, i, "n1@sim") || sim_ups(s, i) != s->count - 2)) return false;
  }
  return true;
}

static void relay_crashes(void **state) {
  (void)state;
  sim s;
  chain(&s, 4, 3);
  sim_crash(&s, 1);
  assert_true(sim_until(&s, crash_noticed, 20)); /* no path is left */
  sim_end(&s);
  sim_world(&s, 5, 4);
  sim_cut(&s, 0, 3, true);
  assert_true(sim_until(&s, zero_and_three_relayed, 10000));
  sim_crash(&s, 1);
  assert_true(sim_until(&s, one_is_gone, 20));
  assert_true(sim_until(&s, three_over_two, 100));
  sim_talk(&s);
  assert_int_equal(sim_told(&s, 0, PH_EV_NODE_DOWN, NULL), 1);
  sim_end(&s);
}

/* The last frames before a pause are lost, and nothing follows them: the heartbeat shows it. */
static void lost_tail_is_noticed(void **state) {
  (void)state;
  sim s;
  sim_world(&s, 6, 3);
  sim_cut(&s, 0, 1, true);
  assert_true(sim_until(&s, zero_and_one_relayed, 10000));
  sim_ms(&s, 2000);
  int resets = sim_told(&s, 1, PH_EV_LINK_RESET, NULL);
  sim_node_at(&s, 0, 1)->stream->tx++; /* as if one had got lost */
  sim_ms(&s, 1500);
  assert_int_equal(sim_told(&s, 0, PH_EV_LINK_RESET, NULL), resets + 1);
  assert_int_equal(sim_told(&s, 1, PH_EV_LINK_RESET, NULL), resets + 1);
  sim_talk(&s);
  sim_end(&s);
}

static void inject(ph__link *l, uint64_t hops, const char *to, uint64_t to_incarnation,
                   const char *from, uint64_t kind, uint64_t source, uint64_t target,
                   uint64_t number) {
  ph_buf *b = ph__control(l->c, PH_M_RELAY, 10);
  ph_w_uint(b, hops);
  ph_w_cstr(b, to);
  ph_w_uint(b, to_incarnation);
  ph_w_cstr(b, from);
  ph_w_uint(b, 100);
  ph_w_uint(b, kind);
  ph_w_uint(b, source);
  ph_w_uint(b, target);
  ph_w_uint(b, number);
  ph_w_bin(b, "\0\0\0\1\1x", 6); /* a frame of data */
  (void)ph__control_end(l);
}

static void hops_are_counted(void **state) {
  (void)state;
  sim s;
  chain(&s, 7, 5);
  sim_ms(&s, 2000);
  sim_talk(&s);
  ph__node *to = sim_node_at(&s, 0, 4);
  uint64_t at[5], frames = s.n[4].frames;
  for (int i = 0; i < 5; i++) at[i] = sim_stats(&s, i).relayed;
  inject(to->hop, 2, "n4@sim", 100, "n0@sim", 2, to->mine, to->theirs, to->stream->tx + 1);
  sim_ms(&s, 10);
  assert_true(sim_stats(&s, 1).relayed - at[1] >= 2); /* there, and the word of it back */
  assert_int_equal(sim_stats(&s, 3).dropped, 1);
  assert_int_equal(s.n[4].frames, frames);
  sim_ms(&s, 1000);
  assert_int_equal(sim_told(&s, 0, PH_EV_LINK_RESET, "n4@sim"), 1); /* n3 said so */
  assert_int_equal(sim_told(&s, 4, PH_EV_LINK_RESET, "n0@sim"), 1);
  sim_talk(&s);
  sim_end(&s);
}

/* Pieces of another epoch or incarnation, and repeated ones, reach nobody. */
static void stale_pieces_are_dropped(void **state) {
  (void)state;
  sim s;
  chain(&s, 8, 3);
  sim_ms(&s, 2000);
  ph__node *to = sim_node_at(&s, 0, 2);
  uint64_t frames = s.n[2].frames, next = to->stream->tx + 1;
  inject(to->hop, 8, "n2@sim", 100, "n0@sim", 2, to->mine - 1, to->theirs, next);
  inject(to->hop, 8, "n2@sim", 100, "n0@sim", 2, to->mine, to->theirs + 1, next);
  inject(to->hop, 8, "n2@sim", 99, "n0@sim", 2, to->mine, to->theirs, next);
  inject(to->hop, 8, "n2@sim", 101, "n0@sim", 2, to->mine, to->theirs, next);
  inject(to->hop, 8, "n2@sim", 100, "n1@sim", 2, to->mine, to->theirs, next); /* a linked one */
  inject(to->hop, 8, "n2@sim", 100, "no@sim", 2, to->mine, to->theirs, next);
  sim_ms(&s, 10);
  assert_int_equal(s.n[2].frames, frames);
  assert_int_equal(sim_told(&s, 2, PH_EV_LINK_RESET, NULL), 0);
  inject(to->hop, 8, "n2@sim", 100, "n0@sim", 2, to->mine, to->theirs, next - 1); /* repeated */
  sim_ms(&s, 1000);
  assert_int_equal(s.n[2].frames, frames);
  assert_int_equal(sim_told(&s, 2, PH_EV_LINK_RESET, NULL), 1);
  sim_talk(&s);
  sim_end(&s);
}

/* ---- going ---- */

static bool two_has_left(sim *s) {
  return ph_cluster_left(s->n[2].c);
}

static void leaver_behind_a_relay(void **state) {
  (void)state;
  sim s;
  chain(&s, 9, 3);
  size_t n = 2 * MIB;
  uint8_t *big = calloc(1, n);
  assert_int_equal(sim_send(&s, 2, "n0@sim", big, n), 0);
  free(big);
  sim_command(&s, 2, PH_CMD_LEAVE, 0, 0, NULL, 0);
  assert_true(sim_until(&s, two_has_left, 1000));
  sim_ms(&s, 10);
  assert_int_equal(s.n[0].frame_bytes, n); /* it left with everything said */
  for (int i = 0; i < 2; i++) {
    assert_int_equal(sim_told(&s, i, PH_EV_NODE_DOWN, "n2@sim"), 1);
    assert_int_equal(sim_last(&s, i, PH_EV_NODE_DOWN, "n2@sim")->b, 1);
  }
  sim_ms(&s, 60000);
  assert_int_equal(sim_ups(&s, 0), 1);
  sim_end(&s);
}

static bool four_of_five(sim *s) {
  for (int i = 0; i < 4; i++) {
    if (sim_ups(s, i) != 3) return false;
  }
  return true;
}

static void killed_node_is_down_everywhere_at_once(void **state) {
  (void)state;
  uint64_t worst = 0;
  for (uint64_t seed = 0; seed < 100; seed++) {
    sim s;
    sim_world(&s, 100 + seed, 5);
    sim_ms(&s, 1000 + seed * 7);
    uint64_t at = ph_memnet_now(s.net);
    sim_crash(&s, 4);
    assert_true(sim_until(&s, four_of_five, 100));
    uint64_t took = ph_memnet_now(s.net) - at;
    if (took > worst) worst = took;
    sim_end(&s);
  }
  print_message("killed: down everywhere after at most %.2f ms\n", (double)worst / 1e6);
  assert_true(worst < PH_MS(5));
}

static void reset_is_seen_at_both_ends(void **state) {
  (void)state;
  for (int relayed = 0; relayed < 2; relayed++) {
    sim s;
    if (relayed) chain(&s, 10, 3);
    if (!relayed) sim_world(&s, 10, 3);
    uint64_t id = sim_peer_of(&s, 0, "n2@sim")->id;
    sim_say(&s, 0, "n2@sim");
    assert_int_equal(sim_command(&s, 0, PH_CMD_RESET, id, 0, NULL, 0), 0);
    sim_say(&s, 0, "n2@sim"); /* dropped */
    sim_ms(&s, 100);
    for (int i = 0; i <= 2; i += 2)
      assert_int_equal(sim_told(&s, i, PH_EV_LINK_RESET, sim_name(2 - i)), 1);
    expect_no_downs(&s);
    sim_talk(&s);
    sim_end(&s);
  }
}

/* ---- floods ---- */

static void relay_keeps_little(void **state) {
  (void)state;
  sim s;
  enum { NODES = 14 };
  sim_world(&s, 11, NODES);
  for (int i = 2; i < NODES; i++) sim_cut(&s, i, 0, true); /* all but n1, over which they go */
  sim_ms(&s, 12000);
  assert_true(sim_view(&s));
  sim_talk(&s);
  size_t rest = s.n[1].te.bytes;
  sim_pause(&s, 0, true);
  static uint8_t bytes[60 * KIB];
  for (int k = 0; k < 200; k++) {
    for (int i = 1; i < NODES; i++) {
      if (sim_peer_of(&s, i, "n0@sim"))
        assert_int_equal(sim_send(&s, i, "n0@sim", bytes, sizeof bytes), 0);
    }
    sim_ms(&s, 5);
  }
  ph__link *l = sim_node_at(&s, 1, 0)->link;
  size_t queued = l->queued; /* n1's own, which it may keep: its users are told by XOFF */
  assert_in_range(queued, 4 * MIB, 12 * MIB);
  assert_in_range(l->filled + ph_buf_size(&l->out), MIB, PH__RELAY_MAX + 100 * KIB);
  assert_true(s.n[1].te.bytes < rest + queued + 2 * PH__RELAY_MAX);
  assert_true(sim_stats(&s, 1).dropped > 0); /* more than n1 may keep: these streams began anew */
  sim_pause(&s, 0, false);
  sim_ms(&s, 20000);
  assert_true(sim_view(&s));
  for (int i = 2; i < NODES; i++)
    assert_int_equal(sim_told(&s, i, PH_EV_XON, "n0@sim"), sim_told(&s, i, PH_EV_XOFF, "n0@sim"));
  sim_talk(&s);
  sim_end(&s);
}

/* A reader that keeps up gets everything, without a reset, as fast as its relay. */
static void flood_over_a_relay_arrives(void **state) {
  (void)state;
  sim s;
  chain(&s, 12, 3);
  static uint8_t bytes[10 * KIB];
  for (int i = 0; i < 2000; i++) {
    assert_int_equal(sim_send(&s, 0, "n2@sim", bytes, sizeof bytes), 0);
    sim_say(&s, 0, "n2@sim");
  }
  sim_ms(&s, 3000);
  assert_int_equal(s.n[2].frames, 4000);
  assert_int_equal(sim_told(&s, 2, PH_EV_LINK_RESET, NULL), 0);
  assert_int_equal(sim_told(&s, 0, PH_EV_XOFF, NULL), 1);
  assert_int_equal(sim_told(&s, 0, PH_EV_XON, NULL), 1);
  ph__link *l = sim_node_at(&s, 2, 0)->stream;
  assert_int_equal(l->granted + l->pending, l->window + l->received); /* no credit leaks */
  sim_end(&s);
}

/* ---- a stopped process that wakes ---- */

static bool zero_lost_two(sim *s) {
  return !sim_peer_of(s, 0, "n2@sim");
}

static void woken_node_waits_for_the_others(void **state) {
  (void)state;
  for (int dark = 0; dark < 2; dark++) {
    sim s;
    sim_world(&s, 13, 3);
    sim_ms(&s, 3000);
    sim_pause(&s, 0, true);
    sim_ms(&s, 20000);
    sim_crash(&s, 2);
    if (dark) sim_cut(&s, 0, 1, true);
    sim_pause(&s, 0, false);
    uint64_t woken = ph_memnet_now(s.net);
    assert_true(sim_until(&s, zero_lost_two, 10000));
    uint64_t took = sim_last(&s, 0, PH_EV_NODE_DOWN, "n2@sim")->at - woken;
    if (dark) {
      assert_in_range(took, PH_MS(1900), PH_MS(2100)); /* n1 did not answer in time */
    } else {
      assert_true(took < PH_MS(20));
      assert_true(sim_last(&s, 0, PH_EV_LINK_RESET, "n1@sim")->at <=
                  sim_last(&s, 0, PH_EV_NODE_DOWN, "n2@sim")->at);
      assert_int_equal(sim_told(&s, 0, PH_EV_NODE_DOWN, NULL), 1);
    }
    sim_end(&s);
  }
}

/* ---- replaced ---- */

static void sleeper_is_told_that_it_was_replaced(void **state) {
  (void)state;
  sim s;
  sim_world(&s, 14, 3);
  sim_pause(&s, 2, true);
  int other = sim_host(&s);
  assert_int_equal(sim_start(&s, other, "n2@sim", 200, NULL), 0);
  sim_join(&s, other, 0);
  sim_ms(&s, 12000);
  sim_pause(&s, 2, false);
  sim_ms(&s, 15000);
  assert_int_equal(sim_told(&s, 2, PH_EV_REPLACED, NULL), 1);
  assert_int_equal(sim_last(&s, 2, PH_EV_REPLACED, NULL)->a, 200);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(sim_peer_of(&s, i, "n2@sim")->incarnation, 200);
    assert_int_equal(sim_ups(&s, i), 2);
    assert_int_equal(sim_told(&s, i, PH_EV_REPLACED, NULL), 0);
  }
  assert_int_equal(sim_told(&s, other, PH_EV_REPLACED, NULL), 0);
  sim_end(&s);
}

/* Two of one name, each with friends who have not met. */
static void the_newer_of_two_groups_stays(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 15);
  for (int i = 0; i < 3; i++) sim_add(&s);
  int other = sim_host(&s);
  assert_int_equal(sim_start(&s, other, "n2@sim", 200, NULL), 0);
  sim_join(&s, 2, 0);
  sim_join(&s, other, 1);
  sim_ms(&s, 1000);
  sim_join(&s, 0, 1);
  sim_ms(&s, 1000);
  assert_int_equal(sim_told(&s, 2, PH_EV_REPLACED, NULL), 1);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(sim_ups(&s, i), 2);
    assert_int_equal(sim_peer_of(&s, i, "n2@sim")->incarnation, 200);
  }
  sim_end(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(cut_pair_goes_on_over_a_third),
      cmocka_unit_test(link_that_the_other_end_gave_up),
      cmocka_unit_test(chain_of_five),
      cmocka_unit_test(chain_of_twelve),
      cmocka_unit_test(path_changes),
      cmocka_unit_test(relay_crashes),
      cmocka_unit_test(lost_tail_is_noticed),
      cmocka_unit_test(hops_are_counted),
      cmocka_unit_test(stale_pieces_are_dropped),
      cmocka_unit_test(leaver_behind_a_relay),
      cmocka_unit_test(killed_node_is_down_everywhere_at_once),
      cmocka_unit_test(reset_is_seen_at_both_ends),
      cmocka_unit_test(relay_keeps_little),
      cmocka_unit_test(flood_over_a_relay_arrives),
      cmocka_unit_test(woken_node_waits_for_the_others),
      cmocka_unit_test(sleeper_is_told_that_it_was_replaced),
      cmocka_unit_test(the_newer_of_two_groups_stays),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
