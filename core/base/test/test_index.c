#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/index.h"
#include "base/test/testenv.h"

enum { ITEMS = 3000 };

typedef struct item {
  uint64_t key, hash;
  bool in;
  int seen;
} item;

static bool same_key(const void *it, const void *key) {
  return ((const item *)it)->key == *(const uint64_t *)key;
}

typedef struct world {
  te t;
  ph_index ix;
  size_t count;
  item items[ITEMS];
} world;

typedef uint64_t (*hash_fn)(uint64_t key);

static uint64_t good_hash(uint64_t key) {
  return ph_hash64(key ^ 77);
}
/* few homes, all at the end of the table: long runs that wrap around */
static uint64_t crowded_hash(uint64_t key) {
  return UINT64_MAX - key % 5;
}
static uint64_t grouped_hash(uint64_t key) {
  return key / 7 * 16;
}

static world *world_new(uint64_t seed, hash_fn hash) {
  world *w = calloc(1, sizeof *w);
  assert_non_null(w);
  te_init(&w->t, seed);
  ph_index_init(&w->ix, &w->t.env);
  for (uint64_t i = 0; i < ITEMS; i++) w->items[i] = (item){.key = i, .hash = hash(i)};
  return w;
}

static void world_free(world *w) {
  ph_index_deinit(&w->ix);
  TE_END(&w->t);
  free(w);
}

static void check_one(world *w, item *it) {
  void *found = ph_index_find(&w->ix, it->hash, same_key, &it->key);
  assert_ptr_equal(found, it->in ? it : NULL);
}

static void check_all(world *w, size_t items) {
  assert_int_equal(ph_index_count(&w->ix), w->count);
  for (size_t i = 0; i < items; i++) {
    check_one(w, &w->items[i]);
    w->items[i].seen = 0;
  }
  size_t n = 0;
  ph_index_iter iter = {0};
  for (item *it; (it = ph_index_next(&w->ix, &iter)); n++) {
    assert_true(it->in);
    assert_int_equal(it->seen++, 0);
  }
  assert_int_equal(n, w->count);
}

/* a put or remove of a random item; `puts` of 100 are puts */
static void random_step(world *w, size_t items, unsigned puts) {
  item *it = &w->items[te_below(&w->t, items)];
  if (te_below(&w->t, 100) < puts) {
    if (it->in) return;
    size_t cap = w->ix.t[0].slots ? w->ix.t[0].mask + 1 : 0;
    int rc = ph_index_put(&w->ix, it->hash, it);
    if (rc) {
      /* only for lack of memory, and only when there is really no room */
      assert_int_equal(rc, PH_ENOMEM);
      assert_true(atomic_load(&w->t.failed) > 0);
      assert_true(w->count >= cap / 16 * 14);
    } else {
      it->in = true;
      w->count++;
    }
  } else {
    assert_int_equal(ph_index_remove(&w->ix, it->hash, it), it->in);
    w->count -= it->in;
    it->in = false;
  }
  check_one(w, it);
  check_one(w, &w->items[te_below(&w->t, items)]);
}

/* waves of growing and shrinking; `failing`: every now and then memory is lacking for a while */
static void run_waves(uint64_t seed, hash_fn hash, size_t items, int steps, bool failing) {
  world *w = world_new(seed, hash);
  unsigned puts = 50;
  for (int i = 0; i < steps; i++) {
    if (i % 2500 == 0) puts = (unsigned)te_below(&w->t, 4) * 30 + 5;
    if (failing && i % 500 == 0) {
      w->t.fail_rest = te_below(&w->t, 2);
      te_fail_in(&w->t, te_below(&w->t, 3) ? (long)te_below(&w->t, 4) + 1 : 0);
    }
    random_step(w, items, puts);
    if (i % 499 == 0) check_all(w, items);
  }
  check_all(w, items);
  world_free(w);
}

static void agrees_with_a_model(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 4; seed++) run_waves(seed, good_hash, ITEMS, 40000, false);
  for (uint64_t seed = 1; seed <= 10; seed++) run_waves(seed, good_hash, 40, 5000, false);
}

static void agrees_with_a_model_under_collisions(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 4; seed++) run_waves(seed, crowded_hash, 200, 15000, false);
  for (uint64_t seed = 1; seed <= 4; seed++) run_waves(seed, grouped_hash, ITEMS, 20000, false);
}

/* an item that changes its key is put with the new hash before it is removed with the old one */
static void an_item_may_be_there_under_two_hashes(void **state) {
  (void)state;
  for (uint64_t a = 0; a < 16; a++)
    for (uint64_t b = 0; b < 16; b++) {
      te t;
      ph_index ix;
      item it = {.key = 1};
      if (a == b) continue;
      te_init(&t, 1);
      ph_index_init(&ix, &t.env);
      assert_int_equal(ph_index_put(&ix, a, &it), 0);
      assert_int_equal(ph_index_put(&ix, b, &it), 0);
      assert_true(ph_index_remove(&ix, a, &it));
      assert_null(ph_index_find(&ix, a, same_key, &it.key));
      assert_ptr_equal(ph_index_find(&ix, b, same_key, &it.key), &it);
      assert_false(ph_index_remove(&ix, a, &it));
      assert_true(ph_index_remove(&ix, b, &it));
      ph_index_deinit(&ix);
      TE_END(&t);
    }
}

static void stays_usable_without_memory(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 8; seed++) run_waves(seed, good_hash, ITEMS, 20000, true);
  for (uint64_t seed = 1; seed <= 8; seed++) run_waves(seed, crowded_hash, 100, 10000, true);
}

static void fills_up_when_it_cannot_grow(void **state) {
  (void)state;
  world *w = world_new(9, good_hash);
  size_t n = 0;
  te_fail_in(&w->t, 1);
  assert_int_equal(ph_index_put(&w->ix, w->items[0].hash, &w->items[0]), PH_ENOMEM);
  assert_null(ph_index_find(&w->ix, w->items[0].hash, same_key, &w->items[0].key));
  te_fail_in(&w->t, 0);
  for (; w->ix.t[0].mask + 1 < 1024 || w->ix.t[1].slots; n++) {
    assert_int_equal(ph_index_put(&w->ix, w->items[n].hash, &w->items[n]), 0);
    w->items[n].in = true;
  }
  w->t.fail_rest = true;
  te_fail_in(&w->t, 1);
  while (ph_index_put(&w->ix, w->items[n].hash, &w->items[n]) == 0) w->items[n++].in = true;
  w->count = n;
  assert_int_equal(n, 1024 / 16 * 15 - 1);
  check_all(w, ITEMS);
  for (size_t i = 0; i < n; i++) { /* removing needs no memory */
    assert_true(ph_index_remove(&w->ix, w->items[i].hash, &w->items[i]));
    w->items[i].in = false;
    w->count--;
    if (i % 100 == 0) check_all(w, ITEMS);
  }
  assert_int_equal(atomic_load(&w->t.bytes), 0); /* empty: the table is given back */
  te_fail_in(&w->t, 0);
  world_free(w);
}

/* what one operation did to the tables must not depend on how many items there are */
static void bounded(const ph_index *before, const ph_index *after) {
  if (before->t[1].slots == after->t[1].slots)
    assert_true(before->t[1].count - after->t[1].count <= 600);
  if (before->t[0].slots != after->t[0].slots && after->t[0].mask >= 1024)
    assert_ptr_equal(before->next.slots, after->t[0].slots); /* was prepared by earlier steps */
  if (!after->next.slots) return;
  size_t cleared = before->next.slots == after->next.slots ? before->cleared : 0;
  assert_true(after->cleared - cleared <= 1024);
}

static void no_operation_is_linear(void **state) {
  (void)state;
  enum { N = 200000 };
  te t;
  te_init(&t, 10);
  ph_index ix, before;
  ph_index_init(&ix, &t.env);
  uint64_t *items = malloc(N * sizeof *items);
  assert_non_null(items);
  int moves = 0;
  for (size_t i = 0; i < N; i++) {
    before = ix;
    items[i] = ph_hash64(i + 1);
    assert_int_equal(ph_index_put(&ix, items[i], &items[i]), 0);
    bounded(&before, &ix);
    moves += ix.t[1].slots != NULL;
    assert_true(ix.t[0].count <= (ix.t[0].mask + 1) / 4 * 3);
  }
  size_t peak = atomic_load(&t.bytes);
  for (size_t i = 0; i < N; i++) {
    before = ix;
    assert_true(ph_index_remove(&ix, items[i], &items[i]));
    bounded(&before, &ix);
    if (i == N - 1000) assert_true(atomic_load(&t.bytes) < peak / 16); /* it shrank */
  }
  assert_true(moves > 1000);
  assert_int_equal(ph_index_count(&ix), 0);
  ph_index_deinit(&ix);
  free(items);
  TE_END(&t);
}

static void hash_is_seeded(void **state) {
  (void)state;
  assert_true(ph_hash("abc", 3, 0) != ph_hash("abc", 3, 1));
  assert_true(ph_hash("abc", 3, 5) == ph_hash("abcd", 3, 5));
  assert_true(ph_hash("abc", 3, 5) != ph_hash("abd", 3, 5));
  /* XXH3-64's published value of the empty input: other programs compute the same ring */
  assert_true(ph_hash("", 0, 0) == UINT64_C(0x2d06800538d394c2));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(agrees_with_a_model),
      cmocka_unit_test(agrees_with_a_model_under_collisions),
      cmocka_unit_test(an_item_may_be_there_under_two_hashes),
      cmocka_unit_test(stays_usable_without_memory),
      cmocka_unit_test(fills_up_when_it_cannot_grow),
      cmocka_unit_test(no_operation_is_linear),
      cmocka_unit_test(hash_is_seeded),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
