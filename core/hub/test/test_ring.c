/* The consistent-hash ring: balance, what a newcomer moves, ties, and the order of firsts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/test/testenv.h"
#include "hub/ring.h"

enum { MANY = 12, IDS = 100000 };

static char names[MANY][32];
static ph_ring_node nodes[MANY];

/* names as machines have them, in no order */
static void random_names(te *t, int n) {
  static const char *const stems[] = {"n%llu@10.0.0.%llu", "web-%llu@host%llu", "a%llu@b%llu",
                                      "worker%llu@dc%llu.example"};
  const char *stem = stems[te_below(t, 4)];
  for (int i = 0; i < n; i++) {
    bool taken;
    do {
      taken = false;
      snprintf(names[i], sizeof names[i], stem, (unsigned long long)te_below(t, 200),
               (unsigned long long)te_below(t, 250));
      for (int k = 0; k < i; k++) taken = taken || strcmp(names[i], names[k]) == 0;
    } while (taken);
    nodes[i] = (ph_ring_node){names[i], names[i]};
  }
}

static uint64_t id_hash(int i) {
  char id[32];
  return ph_ring_hash(id, (size_t)snprintf(id, sizeof id, "child-%d", i));
}

static int owner(const ph_ring *r, int i) {
  return (int)(((char *)ph_ring_first(r, id_hash(i)) - names[0]) / (int)sizeof names[0]);
}

static void no_node_has_much_more_than_its_share(void **state) {
  (void)state;
  te t;
  ph_ring r;
  te_init(&t, 1);
  ph_ring_init(&r, &t.env);
  for (int set = 0; set < 20; set++) {
    int count[10] = {0};
    random_names(&t, 10);
    assert_int_equal(ph_ring_set(&r, nodes, 10), 0);
    for (int i = 0; i < IDS; i++) count[owner(&r, i)]++;
    for (int n = 0; n < 10; n++) assert_in_range(count[n], IDS / 10 * 0.85, IDS / 10 * 1.15);
  }
  ph_ring_deinit(&r);
  TE_END(&t);
}

/* an 11th takes about its share from all, and nothing else moves; it goes, and all is as before */
static void a_newcomer_moves_only_what_goes_to_it(void **state) {
  (void)state;
  static uint8_t before[IDS];
  te t;
  ph_ring r;
  te_init(&t, 2);
  ph_ring_init(&r, &t.env);
  for (int set = 0; set < 5; set++) {
    int moved = 0;
    random_names(&t, 11);
    assert_int_equal(ph_ring_set(&r, nodes, 10), 0);
    for (int i = 0; i < IDS; i++) before[i] = (uint8_t)owner(&r, i);
    assert_int_equal(ph_ring_set(&r, nodes, 11), 0);
    for (int i = 0; i < IDS; i++) {
      int now = owner(&r, i);
      if (now != before[i]) assert_int_equal(now, 10);
      moved += now == 10;
    }
    assert_in_range(moved, IDS / 11 * 0.85, IDS / 11 * 1.15);
    assert_int_equal(ph_ring_set(&r, nodes, 10), 0);
    for (int i = 0; i < IDS; i++) assert_int_equal(owner(&r, i), before[i]);
  }
  ph_ring_deinit(&r);
  TE_END(&t);
}

/* whatever way led there, and in whatever order the nodes are given, the ring is the same */
static void the_ring_depends_on_the_names_alone(void **state) {
  (void)state;
  te t;
  ph_ring straight, winding;
  te_init(&t, 3);
  ph_ring_init(&straight, &t.env);
  ph_ring_init(&winding, &t.env);
  random_names(&t, MANY);
  for (int round = 0; round < 40; round++) {
    ph_ring_node some[MANY];
    size_t n = 0;
    for (int i = 0; i < MANY; i++)
      if (te_below(&t, 2)) some[n++] = nodes[i];
    assert_int_equal(ph_ring_set(&winding, some, n), 0);
    for (size_t i = n; i > 1; i--) {
      size_t k = te_below(&t, i);
      ph_ring_node x = some[i - 1];
      some[i - 1] = some[k];
      some[k] = x;
    }
    ph_ring_deinit(&straight);
    assert_int_equal(ph_ring_set(&straight, some, n), 0);
    assert_int_equal(winding.count, n * PH_RING_POINTS);
    assert_int_equal(winding.count, straight.count);
    for (size_t i = 0; i < straight.count; i++) {
      assert_int_equal(winding.hash[i], straight.hash[i]);
      assert_ptr_equal(winding.nodes[winding.owner[i]].user,
                       straight.nodes[straight.owner[i]].user);
      if (i) assert_true(straight.hash[i - 1] <= straight.hash[i]);
    }
  }
  ph_ring_deinit(&straight);
  ph_ring_deinit(&winding);
  TE_END(&t);
}

/* the users of nodes that stay are those given last */
static void users_are_those_given_last(void **state) {
  (void)state;
  te t;
  ph_ring r;
  int a, b, c;
  te_init(&t, 4);
  ph_ring_init(&r, &t.env);
  char one[] = "x@a", two[] = "y@a", again[] = "x@a";
  ph_ring_node first[] = {{one, &a}, {two, &b}}, second[] = {{again, &c}, {two, &b}};
  assert_int_equal(ph_ring_set(&r, first, 2), 0);
  assert_int_equal(ph_ring_set(&r, second, 2), 0);
  memset(one, 'z', sizeof one - 1); /* the old name's memory is not looked at any more */
  assert_int_equal(ph_ring_set(&r, second, 2), 0);
  bool seen = false;
  for (int i = 0; i < 100; i++) {
    void *u = ph_ring_first(&r, id_hash(i));
    assert_ptr_not_equal(u, &a);
    seen = seen || u == &c;
  }
  assert_true(seen);
  ph_ring_deinit(&r);
  TE_END(&t);
}

/* The points of a name, as every version of the protocol must compute them: XXH3-64 of "n1@a", NUL
 * and the index in four bytes, little-endian. The numbers were computed apart from this code. */
static void the_points_are_those_of_the_protocol(void **state) {
  (void)state;
  te t;
  ph_ring r;
  te_init(&t, 5);
  ph_ring_init(&r, &t.env);
  ph_ring_node one = {"n1@a", &t};
  assert_int_equal(ph_ring_set(&r, &one, 1), 0);
  static const uint64_t points[] = {/* of the indices 0, 1, 258, 1023 */
                                    UINT64_C(0x34c05b7b6657757c), UINT64_C(0x8581ef06aed9e3b8),
                                    UINT64_C(0x3178b100d157e66b), UINT64_C(0x0ddb3d1b5199c59d)};
  for (size_t k = 0; k < sizeof points / sizeof *points; k++) {
    size_t i = 0;
    while (i < r.count && r.hash[i] != points[k]) i++;
    assert_true(i < r.count);
  }
  ph_ring_deinit(&r);
  TE_END(&t);
}

/* two names may meet in one point: the lower name has it */
static void ties_go_to_the_lower_name(void **state) {
  (void)state;
  te t;
  ph_ring r;
  int a, b;
  te_init(&t, 6);
  ph_ring_init(&r, &t.env);
  /* the same name twice is the only way to make all points meet */
  ph_ring_node twice[] = {{"m@a", &a}, {"m@a", &b}, {"l@a", &t}};
  assert_int_equal(ph_ring_set(&r, twice, 3), 0);
  for (size_t i = 1; i < r.count; i++) {
    assert_true(r.hash[i - 1] <= r.hash[i]);
    if (r.hash[i - 1] == r.hash[i]) assert_true(r.owner[i - 1] <= r.owner[i]);
  }
  for (size_t i = 1; i < 3; i++) assert_true(strcmp(r.nodes[i - 1].name, r.nodes[i].name) <= 0);
  for (int i = 0; i < 1000; i++) { /* so the second of two equals owns nothing */
    void *u = ph_ring_first(&r, id_hash(i));
    assert_true(u == &t || u == r.nodes[1].user);
  }
  ph_ring_deinit(&r);
  TE_END(&t);
}

static void firsts_are_distinct_and_in_order(void **state) {
  (void)state;
  te t;
  ph_ring r, less;
  te_init(&t, 7);
  ph_ring_init(&r, &t.env);
  ph_ring_init(&less, &t.env);
  random_names(&t, 6);
  assert_int_equal(ph_ring_set(&r, nodes, 6), 0);
  for (int i = 0; i < 200; i++) {
    void *all[8], *some[8];
    assert_int_equal(ph_ring_firsts(&r, id_hash(i), 8, all), 6);
    assert_ptr_equal(all[0], ph_ring_first(&r, id_hash(i)));
    for (int k = 0; k < 6; k++)
      for (int j = 0; j < k; j++) assert_ptr_not_equal(all[j], all[k]);
    for (size_t n = 0; n <= 6; n++) {
      assert_int_equal(ph_ring_firsts(&r, id_hash(i), n, some), n);
      assert_memory_equal(some, all, n * sizeof *all);
    }
    /* without the first, the second is first */
    ph_ring_node rest[6];
    size_t n = 0;
    for (int k = 0; k < 6; k++)
      if (nodes[k].user != all[0]) rest[n++] = nodes[k];
    assert_int_equal(ph_ring_set(&less, rest, n), 0);
    assert_ptr_equal(ph_ring_first(&less, id_hash(i)), all[1]);
  }
  ph_ring_deinit(&less);
  ph_ring_deinit(&r);
  TE_END(&t);
}

static void none_and_one(void **state) {
  (void)state;
  te t;
  ph_ring r;
  void *out[2];
  te_init(&t, 8);
  ph_ring_init(&r, &t.env);
  assert_null(ph_ring_first(&r, 1));
  assert_int_equal(ph_ring_firsts(&r, 1, 2, out), 0);
  assert_int_equal(ph_ring_set(&r, NULL, 0), 0);
  assert_null(ph_ring_first(&r, 1));
  ph_ring_node one = {"only@a", &t};
  assert_int_equal(ph_ring_set(&r, &one, 1), 0);
  uint64_t hashes[] = {0, 1, UINT64_MAX, r.hash[0], r.hash[r.count - 1], r.hash[r.count - 1] + 1};
  for (size_t i = 0; i < sizeof hashes / sizeof *hashes; i++) {
    assert_ptr_equal(ph_ring_first(&r, hashes[i]), &t);
    assert_int_equal(ph_ring_firsts(&r, hashes[i], 2, out), 1);
    assert_ptr_equal(out[0], &t);
  }
  assert_int_equal(ph_ring_set(&r, NULL, 0), 0);
  assert_null(ph_ring_first(&r, 1));
  ph_ring_deinit(&r);
  TE_END(&t);
}

static void a_hash_belongs_to_the_point_at_or_after_it(void **state) {
  (void)state;
  te t;
  ph_ring r;
  te_init(&t, 9);
  ph_ring_init(&r, &t.env);
  random_names(&t, 4);
  assert_int_equal(ph_ring_set(&r, nodes, 4), 0);
  for (size_t i = 0; i < r.count; i++) {
    void *user = r.nodes[r.owner[i]].user;
    assert_ptr_equal(ph_ring_first(&r, r.hash[i]), user);
    if (i) assert_ptr_equal(ph_ring_first(&r, r.hash[i - 1] + 1), user);
  }
  assert_ptr_equal(ph_ring_first(&r, r.hash[r.count - 1] + 1), r.nodes[r.owner[0]].user);
  ph_ring_deinit(&r);
  TE_END(&t);
}

static void without_memory_the_old_ring_stays(void **state) {
  (void)state;
  te t;
  ph_ring r;
  te_init(&t, 10);
  ph_ring_init(&r, &t.env);
  random_names(&t, 4);
  assert_int_equal(ph_ring_set(&r, nodes, 3), 0);
  for (long n = 1;; n++) {
    te_fail_in(&t, n);
    int err = ph_ring_set(&r, nodes, 4);
    bool tripped = te_tripped(&t);
    te_fail_in(&t, 0);
    if (!tripped) {
      assert_int_equal(err, 0);
      assert_int_equal(r.node_count, 4);
      break;
    }
    assert_int_equal(err, PH_ENOMEM);
    assert_int_equal(r.node_count, 3);
    assert_int_equal(r.count, 3 * PH_RING_POINTS);
    for (int i = 0; i < 100; i++) assert_in_range(owner(&r, i), 0, 2);
  }
  ph_ring_deinit(&r);
  TE_END(&t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(no_node_has_much_more_than_its_share),
      cmocka_unit_test(a_newcomer_moves_only_what_goes_to_it),
      cmocka_unit_test(the_ring_depends_on_the_names_alone),
      cmocka_unit_test(users_are_those_given_last),
      cmocka_unit_test(the_points_are_those_of_the_protocol),
      cmocka_unit_test(ties_go_to_the_lower_name),
      cmocka_unit_test(firsts_are_distinct_and_in_order),
      cmocka_unit_test(none_and_one),
      cmocka_unit_test(a_hash_belongs_to_the_point_at_or_after_it),
      cmocka_unit_test(without_memory_the_old_ring_stays),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
