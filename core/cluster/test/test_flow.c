/* Data: order, credit, xoff and xon, big messages beside heartbeats. */
#include "sim.h"

enum { KIB = 1024, MIB = 1024 * 1024 };

static void pair(sim *s, uint64_t seed) {
  sim_init(s, seed);
  sim_add(s);
  sim_add(s);
  sim_join(s, 0, 1);
  assert_true(sim_until(s, sim_mesh, 1000));
}

static ph__link *link_of(sim *s, int i) {
  return PH_CONTAINER(s->n[i].c->links.next, ph__link, in_all);
}

static void messages_arrive_whole_and_in_order(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 20; seed++) {
    sim s;
    pair(&s, seed);
    static uint8_t bytes[300 * KIB];
    for (uint32_t i = 0; i < 200; i++) {
      size_t n = te_below(&s.te, 4) ? te_below(&s.te, 200) : te_below(&s.te, sizeof bytes);
      if (n < 4) n = 4;
      memcpy(bytes, &i, 4);
      uint64_t before = s.n[1].frame_bytes;
      assert_int_equal(sim_send(&s, 0, "n1@sim", bytes, n), 0);
      sim_ms(&s, 20);
      assert_int_equal(s.n[1].frames, i + 1);
      assert_int_equal(s.n[1].frame_bytes - before, n);
      assert_memory_equal(s.n[1].last, &i, 4);
    }
    assert_int_equal(s.n[1].event_count, 1);
    sim_end(&s);
  }
}

static void sizes_at_the_edges(void **state) {
  (void)state;
  sim s;
  pair(&s, 1);
  static uint8_t bytes[3 * PH_FRAGMENT + 1];
  const size_t sizes[] = {0,
                          1,
                          PH_FRAGMENT - 1,
                          PH_FRAGMENT,
                          PH_FRAGMENT + 1,
                          2 * PH_FRAGMENT,
                          2 * PH_FRAGMENT + 1,
                          3 * PH_FRAGMENT + 1};
  uint64_t total = 0, wire = 0;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    assert_int_equal(sim_send(&s, 0, "n1@sim", bytes, sizes[i]), 0);
    total += sizes[i];
    size_t frames = (sizes[i] + PH_FRAGMENT - 1) / PH_FRAGMENT;
    wire += sizes[i] + PH_FRAME_HEADER * (frames ? frames : 1);
  }
  sim_ms(&s, 100);
  assert_int_equal(s.n[1].frame_bytes, total);
  assert_int_equal(s.n[1].wire_bytes, wire);
  assert_int_equal(link_of(&s, 0)->sent, wire);
  size_t over = s.cfg.max_message + 1;
  uint8_t *big = calloc(1, over);
  assert_int_equal(sim_send(&s, 0, "n1@sim", big, over), PH_ETOOLARGE);
  free(big);
  sim_end(&s);
}

/* A receiver that consumes nothing stops the sender at the window; the link lives on. */
static void window_stops_the_sender(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 2);
  s.cfg.window = 256 * KIB;
  sim_add(&s);
  s.cfg.window = 4 * MIB; /* the receiver's counts */
  sim_add(&s);
  sim_join(&s, 0, 1);
  assert_true(sim_until(&s, sim_mesh, 1000));
  s.n[1].hold = true;
  static uint8_t bytes[10 * KIB];
  for (int i = 0; i < 1000; i++)
    assert_int_equal(sim_send(&s, 0, "n1@sim", bytes, sizeof bytes), 0);
  sim_ms(&s, 30000);
  assert_in_range(s.n[1].wire_bytes, 4 * MIB, 4 * MIB + sizeof bytes + PH_FRAME_HEADER);
  assert_int_equal(sim_told(&s, 0, PH_EV_XOFF, "n1@sim"), 1);
  assert_int_equal(sim_told(&s, 0, PH_EV_XON, NULL), 0);
  assert_int_equal(sim_told(&s, 0, PH_EV_NODE_DOWN, NULL), 0); /* heartbeats go on */
  assert_int_equal(sim_told(&s, 1, PH_EV_NODE_DOWN, NULL), 0);
  assert_int_equal(sim_send(&s, 1, "n0@sim", "back", 4), 0); /* and the other way */
  sim_ms(&s, 10);
  assert_int_equal(s.n[0].frames, 1);
  s.n[1].hold = false;
  sim_ms(&s, 100);
  assert_int_equal(s.n[1].frames, 1000);
  assert_int_equal(sim_told(&s, 0, PH_EV_XON, "n1@sim"), 1);
  assert_true(ph_list_empty(&link_of(&s, 0)->queue));
  sim_end(&s);
}

/* Consuming a little at a time neither starves the sender nor grants more than was consumed. */
static void credit_is_exact(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 3);
  s.cfg.window = 100 * KIB;
  for (int i = 0; i < 2; i++) sim_add(&s);
  sim_join(&s, 0, 1);
  assert_true(sim_until(&s, sim_mesh, 1000));
  s.n[1].hold = true;
  static uint8_t bytes[200 * KIB];
  uint64_t sent = 0, consumed = 0;
  for (int i = 0; i < 3000; i++) {
    size_t n = te_below(&s.te, 20) ? te_below(&s.te, 3000) : te_below(&s.te, sizeof bytes);
    assert_int_equal(sim_send(&s, 0, "n1@sim", bytes, n), 0);
    sent += n;
    sim_ms(&s, 1);
    sim_peer *peer = sim_peer_of(&s, 1, "n0@sim");
    uint64_t part = te_below(&s.te, peer->to_consume + 1);
    if (te_below(&s.te, 3) == 0) part = peer->to_consume;
    sim_command(&s, 1, PH_CMD_CONSUMED, peer->id, part, NULL, 0);
    peer->to_consume -= part;
    consumed += part;
    ph__link *l = link_of(&s, 1);
    assert_int_equal(l->unconsumed, peer->to_consume);
    /* beyond what was consumed: the window, and one message's size ahead */
    assert_true(l->granted <= s.cfg.window + consumed + sizeof bytes + 20);
    assert_true(link_of(&s, 0)->sent <= link_of(&s, 0)->allowed + PH_FRAGMENT + PH_FRAME_HEADER);
  }
  s.n[1].hold = false;
  sim_ms(&s, 1000);
  assert_int_equal(s.n[1].frame_bytes, sent);
  ph__link *l = link_of(&s, 1);
  assert_int_equal(l->unconsumed, 0);
  assert_int_equal(l->owed, 0);
  assert_int_equal(l->granted + l->pending, s.cfg.window + l->received); /* no credit leaks */
  assert_int_equal(s.n[1].event_count, 1);
  sim_end(&s);
}

/* Larger than the window, with heartbeats on time on a slow line. */
static void big_message_does_not_delay_heartbeats(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 4);
  for (int i = 0; i < 2; i++) sim_add(&s);
  ph_memnet_delay(s.net, 0, 1, 20000, 30000); /* 256 KiB a round trip: 5 MB/s */
  sim_join(&s, 0, 1);
  assert_true(sim_until(&s, sim_mesh, 1000));
  size_t n = 50 * MIB;
  uint8_t *big = calloc(1, n);
  assert_int_equal(sim_send(&s, 0, "n1@sim", big, n), 0);
  free(big);
  sim_ms(&s, 500);
  assert_int_equal(s.n[1].frames, 0);
  uint64_t worst = 0;
  ph__link *l = link_of(&s, 0); /* a probe takes the way a heartbeat takes */
  for (int i = 0; i < 20 && s.n[1].frames == 0; i++) {
    uint64_t before = ph_memnet_now(s.net), acks = s.n[1].c->stats.frames_out;
    ph__control_number(l, PH_M_PROBE, 1);
    while (s.n[1].c->stats.frames_out == acks) sim_ms(&s, 1);
    if (ph_memnet_now(s.net) - before > worst) worst = ph_memnet_now(s.net) - before;
    sim_ms(&s, 100);
  }
  assert_true(worst < PH_MS(1000));
  sim_ms(&s, 60000);
  assert_int_equal(s.n[1].frame_bytes, n);
  for (int i = 0; i < 2; i++) assert_int_equal(sim_told(&s, i, PH_EV_NODE_DOWN, NULL), 0);
  assert_int_equal(sim_told(&s, 0, PH_EV_XOFF, NULL), 1);
  assert_int_equal(sim_told(&s, 0, PH_EV_XON, NULL), 1);
  sim_end(&s);
}

/* One large message after the other, none consumed: two are held, not all. */
static void many_big_messages_are_bounded(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 5);
  s.cfg.window = 256 * KIB;
  for (int i = 0; i < 2; i++) sim_add(&s);
  sim_join(&s, 0, 1);
  assert_true(sim_until(&s, sim_mesh, 1000));
  s.n[1].hold = true;
  size_t n = 4 * MIB + 100 * KIB; /* ends within a window */
  uint8_t *big = calloc(1, n);
  for (int i = 0; i < 10; i++) assert_int_equal(sim_send(&s, 0, "n1@sim", big, n), 0);
  free(big);
  sim_ms(&s, 5000);
  assert_int_equal(s.n[1].frames, 1);
  assert_true(link_of(&s, 1)->received + link_of(&s, 1)->split.fragments < 2 * n);
  s.n[1].hold = false;
  sim_ms(&s, 5000);
  assert_int_equal(s.n[1].frames, 10);
  sim_end(&s);
}

/* A sender that ignores its credit. */
static void overrun_closes_the_link(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 6);
  s.cfg.window = 256 * KIB;
  for (int i = 0; i < 2; i++) sim_add(&s);
  sim_join(&s, 0, 1);
  assert_true(sim_until(&s, sim_mesh, 1000));
  s.n[1].hold = true;
  link_of(&s, 0)->allowed = 100 * MIB;
  static uint8_t bytes[50 * KIB];
  for (int i = 0; i < 20; i++) assert_int_equal(sim_send(&s, 0, "n1@sim", bytes, sizeof bytes), 0);
  sim_ms(&s, 100);
  assert_true(s.n[1].wire_bytes < 256 * KIB + 4 * PH_FRAGMENT);
  assert_int_equal(s.n[1].warnings, 1);
  assert_int_equal(sim_told(&s, 0, PH_EV_LINK_RESET, NULL), 1);
  assert_int_equal(sim_told(&s, 1, PH_EV_LINK_RESET, NULL), 1);
  sim_end(&s);
}

/* The first message is there with the WELCOME, in one piece. */
static void data_right_behind_the_welcome(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 30; seed++) {
    sim s;
    sim_init(&s, seed);
    for (int i = 0; i < 2; i++) sim_add(&s);
    s.n[0].greeting = s.n[1].greeting = 200 * KIB;
    sim_join(&s, 0, 1);
    assert_true(sim_until(&s, sim_mesh, 1000));
    sim_ms(&s, 10);
    for (int i = 0; i < 2; i++) {
      assert_int_equal(s.n[i].frame_bytes, 200 * KIB);
      assert_int_equal(s.n[i].event_count, 1);
    }
    sim_end(&s);
  }
}

/* What was handed on before a reset gives no credit on the link after it. */
static void late_consumption_after_a_reset(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 7);
  s.cfg.window = 256 * KIB;
  for (int i = 0; i < 2; i++) sim_add(&s);
  sim_join(&s, 0, 1);
  assert_true(sim_until(&s, sim_mesh, 1000));
  s.n[1].hold = true;
  static uint8_t bytes[50 * KIB];
  for (int i = 0; i < 20; i++) assert_int_equal(sim_send(&s, 0, "n1@sim", bytes, sizeof bytes), 0);
  sim_ms(&s, 100);
  assert_int_equal(sim_told(&s, 0, PH_EV_XOFF, NULL), 1);
  uint64_t held = s.n[1].wire_bytes;
  ph_memnet_break(s.net, 0, 1);
  sim_ms(&s, 100);
  assert_int_equal(sim_told(&s, 0, PH_EV_XON, NULL), 1); /* what was queued is lost */
  assert_true(held > 0);
  assert_int_equal(sim_send(&s, 0, "n1@sim", bytes, sizeof bytes), 0); /* on the new link */
  sim_ms(&s, 10);
  ph__link *l = link_of(&s, 1);
  sim_peer *peer = sim_peer_of(&s, 1, "n0@sim");
  assert_int_equal(l->node->stale, held);
  sim_command(&s, 1, PH_CMD_CONSUMED, peer->id, held, NULL, 0);
  peer->to_consume -= held;
  assert_int_equal(l->node->stale, 0);
  assert_int_equal(l->unconsumed, sizeof bytes + PH_FRAME_HEADER);
  assert_int_equal(l->granted + l->pending, s.cfg.window);
  s.n[1].hold = false;
  for (int i = 0; i < 40; i++) {
    assert_int_equal(sim_send(&s, 0, "n1@sim", bytes, sizeof bytes), 0);
    sim_ms(&s, 10);
  }
  assert_int_equal(l->granted + l->pending, s.cfg.window + l->received);
  sim_end(&s);
}

static bool nobody_sees_anyone(sim *s) {
  return sim_ups(s, 0) == 0 && sim_ups(s, 1) == 0;
}

static void xoff_ends_with_the_peer(void **state) {
  (void)state;
  sim s;
  pair(&s, 11);
  s.n[1].hold = true;
  static uint8_t bytes[60 * KIB];
  for (int k = 1; k <= 2; k++) {
    for (int i = 0; i < 150; i++)
      assert_int_equal(sim_send(&s, 0, "n1@sim", bytes, sizeof bytes), 0);
    sim_ms(&s, 100);
    assert_int_equal(sim_told(&s, 0, PH_EV_XOFF, NULL), k);
    sim_cut(&s, 0, 1, true);
    assert_true(sim_until(&s, nobody_sees_anyone, 10000));
    sim_cut(&s, 0, 1, false);
    assert_true(sim_until(&s, sim_mesh, 20000));
    sim_ms(&s, 100);
    assert_int_equal(sim_told(&s, 0, PH_EV_XON, NULL), 0);
  }
  sim_end(&s);
}

/* All frames of a turn leave in one write, and a full socket is not filled further. */
static void socket_is_not_overfilled(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 8);
  s.cfg.window = 64 * MIB;
  for (int i = 0; i < 2; i++) sim_add(&s);
  sim_join(&s, 0, 1);
  assert_true(sim_until(&s, sim_mesh, 1000));
  sim_pause(&s, 1, true);
  static uint8_t bytes[100 * KIB];
  for (int i = 0; i < 200; i++) assert_int_equal(sim_send(&s, 0, "n1@sim", bytes, sizeof bytes), 0);
  sim_ms(&s, 100);
  ph__link *l = link_of(&s, 0);
  assert_true(l->queued > 15 * MIB);
  assert_in_range(s.n[0].t->ops->queued(s.n[0].t, l->conn), 1, 2 * MIB);
  sim_pause(&s, 1, false);
  sim_ms(&s, 500);
  assert_int_equal(s.n[1].frames, 200);
  sim_end(&s);
}

/* A peer that asks and asks without ever reading is cut off. */
static void answers_do_not_pile_up(void **state) {
  (void)state;
  sim s;
  pair(&s, 9);
  ph_memnet_cut(s.net, 0, 1); /* what n0 answers gets stuck */
  size_t peak = 0;
  for (int i = 0; i < 400 && sim_links(&s, 0) == 1; i++) {
    peak = s.n[0].t->ops->queued(s.n[0].t, link_of(&s, 0)->conn);
    for (int k = 0; k < 5000; k++) ph__control_number(link_of(&s, 1), PH_M_PROBE, 1);
    sim_ms(&s, 2);
  }
  assert_in_range(peak, 6 * MIB, 9 * MIB);
  sim_ms(&s, 10);
  assert_int_equal(sim_links(&s, 0), 0);
  sim_end(&s);
}

/* A link at rest keeps no large buffers. */
static void idle_links_are_small(void **state) {
  (void)state;
  sim s;
  pair(&s, 10);
  sim_ms(&s, 3000);
  size_t before[2] = {s.n[0].te.bytes, s.n[1].te.bytes};
  static uint8_t bytes[60 * KIB];
  for (int i = 0; i < 100; i++) {
    assert_int_equal(sim_send(&s, i % 2, sim_name(1 - i % 2), bytes, sizeof bytes), 0);
    sim_ms(&s, 1);
  }
  sim_ms(&s, 5000);
  for (int i = 0; i < 2; i++) assert_true(s.n[i].te.bytes < before[i] + 1000);
  sim_end(&s);
}

/* A peer that neither reads nor grants while this side answers it: what waits is bounded, and both
 * sides hear that it was lost. */
static void a_queue_is_bounded(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 21);
  s.cfg.max_queue = 3 * MIB;
  s.cfg.window = MIB;
  sim_add(&s);
  sim_add(&s);
  sim_join(&s, 0, 1);
  assert_true(sim_until(&s, sim_mesh, 1000));
  s.n[1].hold = true;
  static uint8_t bytes[100];
  size_t base = s.n[0].te.bytes;
  int refused = 0;
  for (int i = 0; i < 100000; i++) {
    int err = sim_send(&s, 0, "n1@sim", bytes, sizeof bytes);
    assert_true(err == 0 || err == PH_EBUSY);
    refused += err == PH_EBUSY;
    assert_true(s.n[0].te.bytes < base + 5 * MIB); /* the queue, and what is written */
    if (i % 1000 == 0) sim_ms(&s, 1);
  }
  assert_true(refused > 0);
  assert_int_equal(sim_told(&s, 0, PH_EV_NODE_DOWN, NULL), 0);
  s.n[1].hold = false;
  sim_ms(&s, 3000);
  assert_true(sim_told(&s, 0, PH_EV_LINK_RESET, "n1@sim") > 0);
  assert_true(sim_told(&s, 1, PH_EV_LINK_RESET, "n0@sim") > 0);
  assert_int_equal(s.n[0].warnings, 1);
  uint64_t before = s.n[1].frames;
  assert_int_equal(sim_send(&s, 0, "n1@sim", bytes, sizeof bytes), 0);
  sim_ms(&s, 100);
  assert_int_equal(s.n[1].frames, before + 1);
  sim_end(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(messages_arrive_whole_and_in_order),
      cmocka_unit_test(sizes_at_the_edges),
      cmocka_unit_test(window_stops_the_sender),
      cmocka_unit_test(credit_is_exact),
      cmocka_unit_test(big_message_does_not_delay_heartbeats),
      cmocka_unit_test(many_big_messages_are_bounded),
      cmocka_unit_test(overrun_closes_the_link),
      cmocka_unit_test(data_right_behind_the_welcome),
      cmocka_unit_test(late_consumption_after_a_reset),
      cmocka_unit_test(xoff_ends_with_the_peer),
      cmocka_unit_test(socket_is_not_overfilled),
      cmocka_unit_test(answers_do_not_pile_up),
      cmocka_unit_test(idle_links_are_small),
      cmocka_unit_test(a_queue_is_bounded),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
