/* Link states and views: after any faults they are the true components; lack of memory; size. */
#include "net/test/netenv.h"
#include "sim.h"

static bool zero_and_one_relayed(sim *s) {
  return sim_node_at(s, 0, 1)->stream && sim_node_at(s, 1, 0)->stream;
}

/* ---- chance ---- */

typedef struct chaos {
  sim s;
  int nodes;
  uint64_t incarnation;
  bool cut[SIM_NODES][SIM_NODES]; /* this way */
  bool crashes;
} chaos;

static void set_cut(chaos *x, int from, int to, bool cut) {
  (cut ? ph_memnet_cut : ph_memnet_heal)(x->s.net, from, to);
  x->cut[from][to] = cut;
}

static void fault(chaos *x) {
  sim *s = &x->s;
  int a = (int)te_below(&s->te, (uint64_t)x->nodes), b = (int)te_below(&s->te, (uint64_t)x->nodes);
  if (a == b) b = (a + 1) % x->nodes;
  switch (te_below(&s->te, x->crashes ? 11 : 9)) {
  case 0:
  case 1:
  case 2:
    set_cut(x, a, b, true);
    set_cut(x, b, a, true);
    break;
  case 3:
    set_cut(x, a, b, true);
    break;
  case 4:
  case 5:
    set_cut(x, a, b, false);
    set_cut(x, b, a, false);
    break;
  case 6:
    ph_memnet_break(s->net, a, b);
    break;
  case 7:
    if (s->n[a].c) sim_pause(s, a, !s->n[a].paused);
    break;
  case 8:
    if (s->n[a].c && !s->n[a].paused && sim_peer_of(s, a, sim_name(b)))
      assert_int_equal(
          sim_command(s, a, PH_CMD_RESET, sim_peer_of(s, a, sim_name(b))->id, 0, NULL, 0), 0);
    break;
  default:
    if (s->n[a].c) {
      sim_crash(s, a);
      break;
    }
    sim_restart(s, a, sim_name(a), ++x->incarnation);
    for (int k = 0; k < x->nodes; k++) {
      if (k != a) sim_join(s, a, k);
    }
  }
}

static void talk_for(chaos *x, uint64_t ms) {
  sim *s = &x->s;
  uint64_t end = ph_memnet_now(s->net) + PH_MS(ms);
  while (ph_memnet_now(s->net) < end) {
    for (int i = 0; i < 6; i++) {
      int a = (int)te_below(&s->te, (uint64_t)x->nodes),
          b = (int)te_below(&s->te, (uint64_t)x->nodes);
      if (a != b && s->n[a].c && !s->n[a].paused) sim_say(s, a, sim_name(b));
    }
    sim_ms(s, ms < 1000 ? 1 + te_below(&s->te, 20) : 300);
  }
}

static bool together(const chaos *x, int a, int b) {
  bool in[SIM_NODES] = {false};
  in[a] = true;
  for (int round = 0; round < x->nodes; round++) {
    for (int i = 0; i < x->nodes; i++) {
      for (int k = 0; k < x->nodes; k++) {
        if (in[i] && i != k && !x->cut[i][k] && !x->cut[k][i]) in[k] = true;
      }
    }
  }
  return in[b];
}

static chaos *now_running;

static bool views_are_true(sim *s) {
  const chaos *x = now_running;
  for (int a = 0; a < x->nodes; a++) {
    for (int b = 0; b < x->nodes; b++) {
      if (a == b) continue;
      const sim_peer *peer = sim_peer_of(s, a, sim_name(b));
      if ((peer != NULL) != together(x, a, b)) return false;
      if (peer && peer->incarnation != s->n[b].incarnation) return false;
    }
  }
  return true;
}

static bool views_agree(sim *s) {
  if (!views_are_true(s)) return false;
  for (int a = 0; a < now_running->nodes; a++) {
    for (int b = 0; b < a; b++) {
      if (!together(now_running, a, b)) continue;
      if (s->n[a].c->digest != s->n[b].c->digest) return false;
      ph__node *there = sim_node_at(s, a, b), *back = sim_node_at(s, b, a);
      if (!ph__way(there) || !ph__way(back)) return false;
      bool cut = now_running->cut[a][b] || now_running->cut[b][a];
      if (cut == (there->link != NULL)) return false;
    }
  }
  return true;
}

static void report(chaos *x, uint64_t seed) {
  fprintf(stderr, "seed %d\n", (int)seed);
  for (int i = 0; i < x->nodes; i++) {
    ph_cluster *c = x->s.n[i].c;
    for (ph_list *e = c->nodes.next; e != &c->nodes; e = e->next) {
      ph__node *n = PH_CONTAINER(e, ph__node, in_all);
      int k = n->name[1] - '0';
      fprintf(stderr,
              "n%d: %s peer %d link %d edge %d view %d hop %d stream %d mine %d theirs %d num %d "
              "edges %d cut %d%d lost %d target %d digest %x\n",
              i, n->name, (int)n->peer, n->link != NULL, n->edge, n->in_view, n->hop != NULL,
              n->stream != NULL, (int)n->mine, (int)n->theirs, (int)n->number, (int)n->edge_count,
              x->cut[i][k], x->cut[k][i], n->lost, n->target != NULL, (unsigned)c->digest);
    }
  }
}

static void run_chaos(uint64_t seed) {
  static chaos x;
  memset(&x, 0, sizeof x);
  x.nodes = 5 + (int)(seed % 3);
  x.incarnation = 1000;
  x.crashes = seed % 4 == 3;
  now_running = &x;
  sim *s = &x.s;
  sim_world(s, 5000 + seed, x.nodes);
  for (int i = 0; i < 25; i++) {
    fault(&x);
    talk_for(&x, te_below(&s->te, 3) ? te_below(&s->te, 300) : te_below(&s->te, 12000));
  }
  for (int i = 0; i < x.nodes; i++) {
    if (s->n[i].paused) sim_pause(s, i, false);
    if (s->n[i].c) continue;
    sim_restart(s, i, sim_name(i), ++x.incarnation);
    for (int k = 0; k < x.nodes; k++) {
      if (k != i) sim_join(s, i, k);
    }
  }
  for (int a = 0; a < x.nodes; a++) { /* what is cut one way only is cut */
    for (int b = 0; b < a; b++) {
      if (x.cut[a][b] == x.cut[b][a]) continue;
      set_cut(&x, a, b, seed % 2);
      set_cut(&x, b, a, seed % 2);
    }
  }
  bool good = sim_until(s, views_agree, 90000);
  if (!good) report(&x, seed);
  assert_true(good);
  sim_ms(s, 15000); /* links of which one side does not know are found silent */
  int resets[SIM_NODES];
  for (int i = 0; i < x.nodes; i++) resets[i] = (int)s->n[i].event_count;
  sim_ms(s, 20000);
  good = views_agree(s);
  if (!good) report(&x, seed);
  assert_true(good);
  for (int i = 0; i < x.nodes; i++) assert_int_equal(s->n[i].event_count, resets[i]); /* rest */
  sim_talk(s);
  sim_end(s);
}

static void views_become_the_components(void **state) {
  (void)state;
  const char *from = getenv("ROUTES_SEED"), *seeds = getenv("ROUTES_SEEDS");
  uint64_t first = from ? strtoull(from, NULL, 10) : 0;
  uint64_t count = seeds ? strtoull(seeds, NULL, 10) : 500;
  for (uint64_t seed = first; seed < first + count; seed++) {
    if (seeds) fprintf(stderr, "seed %d\n", (int)seed);
    run_chaos(seed);
  }
}

/* ---- without memory ---- */

static void allocations_fail_on_the_way(void **state) {
  (void)state;
  long step = ne_slower() > 3 ? 7 : 1; /* valgrind sees a part of them */
  for (int who = 0; who < 3; who++) {
    bool tripped = true;
    for (long n = 1; tripped; n += step) {
      sim s;
      sim_world(&s, 16, 3);
      sim_ms(&s, 3000);
      te_fail_in(&s.n[who].te, n);
      sim_cut(&s, 0, 1, true);
      for (int i = 0; i < 30; i++) {
        for (int a = 0; a < 3; a++) {
          sim_peer *peer = sim_peer_of(&s, a, sim_name((a + 1) % 3));
          char text[3000] = "";
          if (!peer) continue;
          int err = sim_command(&s, a, PH_CMD_SEND, peer->id, 0, text, sizeof text);
          assert_true(err == 0 || err == PH_ENOMEM);
        }
        sim_ms(&s, 500);
      }
      tripped = te_tripped(&s.n[who].te);
      assert_true(sim_until(&s, zero_and_one_relayed, 20000));
      assert_true(sim_view(&s));
      te_fail_in(&s.n[who].te, 0);
      sim_talk(&s);
      sim_end(&s);
    }
  }
}

/* ---- size ---- */

static uint64_t bytes_out(sim *s) {
  uint64_t sum = 0;
  for (int i = 0; i < s->count; i++) {
    if (s->n[i].c) sum += s->n[i].c->stats.bytes_out;
  }
  return sum;
}

static void hundred_nodes(void **state) {
  (void)state;
  enum { NODES = 100 };
  static sim s;
  sim_init(&s, 17);
  for (int i = 0; i < NODES; i++) sim_add(&s);
  for (int i = 1; i < NODES; i++) sim_join(&s, i, (i - 1) / 2);
  assert_true(sim_until(&s, sim_mesh, 30000));
  sim_ms(&s, 5000);
  print_message("%d nodes: %.0f KB a node sent until meshed, %.1f KB of memory a node\n", NODES,
                (double)bytes_out(&s) / NODES / 1000, (double)s.n[50].te.bytes / 1000);
  uint64_t before = bytes_out(&s);
  sim_ms(&s, 10000);
  uint64_t rest = (bytes_out(&s) - before) / NODES / 10;
  print_message("at rest: %d bytes/s a node, %.1f a link\n", (int)rest, (double)rest / (NODES - 1));
  assert_true(rest < 30 * NODES);
  before = bytes_out(&s);
  int late = sim_add(&s);
  sim_join(&s, late, 7);
  assert_true(sim_until(&s, sim_mesh, 10000));
  sim_ms(&s, 500);
  double joined = (double)(bytes_out(&s) - before);
  print_message("one joins: %.1f KB a node, of these the new one %.1f KB\n",
                joined / (NODES + 1) / 1000, (double)s.n[late].c->stats.bytes_out / 1000);
  assert_true(joined / (NODES + 1) < 40 * 1000);
  sim_ms(&s, 3000);
  uint64_t at = ph_memnet_now(s.net);
  sim_crash(&s, 3);
  before = bytes_out(&s);
  for (int i = 0; i < 1000 && sim_ups(&s, 0) == NODES; i++)
    ph_memnet_advance(s.net, ph_memnet_now(s.net)), sim_ms(&s, 1);
  sim_ms(&s, 20);
  for (int i = 0; i <= NODES; i++) {
    if (s.n[i].c) assert_int_equal(sim_ups(&s, i), NODES - 1);
  }
  uint64_t last = 0;
  for (int i = 0; i <= NODES; i++) {
    const sim_event *e = s.n[i].c ? sim_last(&s, i, PH_EV_NODE_DOWN, "n3@sim") : NULL;
    if (e && e->at > last) last = e->at;
  }
  print_message("one dies: %.1f KB a node, down everywhere after %.2f ms\n",
                (double)(bytes_out(&s) - before) / NODES / 1000, (double)(last - at) / 1e6);
  sim_end(&s);
}

/* ---- what a node says of its links ---- */

enum { KEYS = 40 };

/* some of the keys, in any order, some twice; none of `not_in` */
static size_t some_keys(te *t, uint8_t *out, bool in[KEYS], const bool *not_in) {
  size_t n = 0;
  for (uint64_t i = te_below(t, KEYS); i > 0; i--) {
    size_t k = te_below(t, KEYS);
    if (not_in && not_in[k]) continue;
    in[k] = true;
    for (int b = 0; b < 8; b++) out[n++] = (uint8_t)((k * UINT64_C(0x9e3779b97f4a7c15)) >> (8 * b));
  }
  return n;
}

static void say_links(sim *s, uint64_t from, uint64_t number, const uint8_t *added, size_t added_n,
                      const uint8_t *removed, size_t removed_n) {
  ph_cluster *c = s->n[0].c;
  ph_buf b;
  ph_reader r;
  uint32_t count, type;
  ph_buf_init(&b, &s->te.env);
  ph_w_array(&b, 9);
  ph_w_uint(&b, PH_M_STATE);
  ph_w_cstr(&b, "far@sim");
  ph_w_uint(&b, 7);
  ph_w_uint(&b, from);
  ph_w_uint(&b, number);
  ph_w_uint(&b, 0);
  ph_w_cstr(&b, "mem:77");
  ph_w_bin(&b, added, added_n);
  ph_w_bin(&b, removed, removed_n);
  ph_reader_init(&r, ph_buf_at(&b), ph_buf_size(&b));
  assert_int_equal(ph_r_array(&r, &count), 0);
  assert_int_equal(ph_r_u32(&r, &type), 0);
  ph__enter(c);
  ph__link *l = PH_CONTAINER(c->links.next, ph__link, in_all);
  assert_int_equal(ph__state_receive(l, &r, count - 1, ph_buf_at(&b), ph_buf_size(&b)), 0);
  ph__exit(c);
  ph_buf_deinit(&b);
}

/* After any changes, given in any order and more than once, its links are in order and each once.
 */
static void a_nodes_links_are_a_set(void **state) {
  (void)state;
  sim s;
  sim_world(&s, 5, 2);
  bool model[KEYS] = {false};
  for (uint64_t number = 1; number < 500; number++) {
    uint8_t added[KEYS * 8], removed[KEYS * 8];
    bool in[KEYS] = {false}, out[KEYS] = {false};
    bool whole = number == 1 || te_below(&s.te, 10) == 0;
    size_t a = some_keys(&s.te, added, in, NULL), r = some_keys(&s.te, removed, out, in);
    say_links(&s, whole ? 0 : number - 1, number, added, a, removed, r);
    const ph__node *far = ph__node_find(s.n[0].c, "far@sim", 7);
    assert_non_null(far);
    uint32_t n = 0;
    for (int k = 0; k < KEYS; k++) {
      model[k] = in[k] || (model[k] && !whole && !out[k]);
      n += model[k];
    }
    assert_int_equal(far->edge_count, n);
    for (uint32_t i = 0; i < n; i++) {
      size_t k = 0;
      while (k < KEYS && k * UINT64_C(0x9e3779b97f4a7c15) != far->edges[i]) k++;
      assert_true(k < KEYS && model[k]);
      assert_true(i == 0 || far->edges[i] > far->edges[i - 1]);
    }
  }
  sim_end(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(views_become_the_components),
      cmocka_unit_test(allocations_fail_on_the_way),
      cmocka_unit_test(hundred_nodes),
      cmocka_unit_test(a_nodes_links_are_a_set),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
