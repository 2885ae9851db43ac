/* Children by tag: what the index answers after starts, stops, merges and lack of memory. */
#include "hubsim.h"

static hs *world(uint64_t seed, int nodes) {
  hs *s = malloc(sizeof *s);
  assert_non_null(s);
  hs_init(s, seed);
  for (int i = 0; i < nodes; i++) hs_add(s);
  assert_true(hs_until(s, hs_formed, NULL, 30000));
  return s;
}

static void end(hs *s) {
  hs_end(s);
  free(s);
}

/* { before = { 1, "x" }, tag = tag } or, tag NULL, with a number under that key */
static ph_bytes *metadata(hs_node *n, const char *tag, size_t len) {
  ph_buf b;
  ph_buf_init(&b, n->hub->env);
  ph_w_map(&b, 2);
  ph_w_cstr(&b, "before");
  ph_w_array(&b, 2);
  ph_w_uint(&b, 1);
  ph_w_cstr(&b, "x");
  ph_w_cstr(&b, "tag");
  if (tag)
    ph_w_str(&b, tag, len);
  else
    ph_w_uint(&b, 7);
  ph_bytes *meta = b.oom ? NULL : ph_bytes_new(n->hub->env, ph_buf_at(&b), ph_buf_size(&b));
  ph_buf_deinit(&b);
  return meta;
}

static ph_spec *spec_of(hs_node *n) {
  ph_buf b;
  ph_spec *spec = NULL;
  const char *key;
  ph_buf_init(&b, n->hub->env);
  ph_w_map(&b, 1);
  ph_w_cstr(&b, "start");
  ph_w_array(&b, 2);
  ph_w_cstr(&b, "c");
  ph_w_cstr(&b, "ok");
  if (!b.oom && ph_spec_get(ph_hub_specs(n->hub), ph_buf_at(&b), ph_buf_size(&b), &spec, &key))
    spec = NULL;
  ph_buf_deinit(&b);
  return spec;
}

typedef struct answer {
  bool done;
  int ok;
} answer;

static void on_done(void *ctx, ph_op *op) {
  answer *a = ctx;
  a->done = true;
  for (size_t i = 0; i < ph_op_count(op); i++) {
    ph_op_row r;
    ph_op_row_get(op, i, &r);
    a->ok += r.status == PH_ROW_DONE;
  }
  ph_op_free(op);
}

static bool answered(hs *s, void *arg) {
  (void)s;
  return ((answer *)arg)->done;
}

/* an error: nothing was begun */
static int begin(hs *s, int node, answer *a, int from, int n, const char *tag, size_t len) {
  hs_node *at = &s->n[node];
  ph_op *op = ph_op_new(at->hub, PH_OP_START, (size_t)n);
  ph_spec *spec = op ? spec_of(at) : NULL;
  ph_bytes *meta = spec ? metadata(at, tag, len) : NULL;
  int err = meta ? 0 : PH_ENOMEM;
  for (int i = 0; !err && i < n; i++) {
    char id[16];
    snprintf(id, sizeof id, "c%d", from + i);
    err = ph_op_add(op, id, strlen(id), ph_spec_ref(spec), meta);
    if (err) ph_spec_unref(ph_hub_specs(at->hub), spec);
  }
  ph_spec_unref(ph_hub_specs(at->hub), spec);
  ph_bytes_unref(at->hub->env, meta);
  *a = (answer){0};
  if (!err) err = ph_op_submit(op, &hs_options, on_done, a);
  if (err && op) ph_op_free(op);
  return err;
}

static void start(hs *s, int node, int from, int n, const char *tag) {
  answer a;
  assert_int_equal(begin(s, node, &a, from, n, tag, tag ? strlen(tag) : 0), 0);
  assert_true(hs_until(s, answered, &a, 10000));
  assert_int_equal(a.ok, n);
}

static void stop(hs *s, int node, int from, int n) {
  hs_op o;
  assert_int_equal(hs_stop(s, node, &o, from, n), 0);
  hs_op_wait(s, &o, 10000);
  assert_int_equal(o.stopped, n);
  hs_op_end(&o);
}

/* how many bear it; each is a live child, once */
static int tagged(hs *s, int node, const char *tag, size_t len) {
  ph_hub *h = s->n[node].hub;
  ph_row *r = NULL;
  int n = 0;
  while ((r = ph_hub_next_tagged(h, tag, len, r))) {
    size_t id_len;
    const char *id = ph_row_id(r, &id_len);
    assert_ptr_equal(ph_hub_find(h, id, id_len), r);
    assert_true(++n <= HS_IDS);
  }
  assert_int_equal(ph_hub_tagged(h, tag, len), n);
  return n;
}

static void expect(hs *s, const char *tag, int n) {
  assert_true(hs_until(s, hs_quiet, NULL, 60000));
  for (int i = 0; i < s->count; i++)
    if (s->n[i].up && s->n[i].hub) assert_int_equal(tagged(s, i, tag, strlen(tag)), n);
}

static void every_node_finds_the_children_of_a_tag(void **state) {
  (void)state;
  hs *s = world(1, 3);
  start(s, 0, 0, 100, "a");
  start(s, 1, 100, 50, "b");
  start(s, 2, 200, 20, "a");
  start(s, 0, 300, 10, NULL); /* the tag of a careless peer is a number: no tag */
  expect(s, "a", 120);
  expect(s, "b", 50);
  expect(s, "", 0);
  expect(s, "tag", 0);
  end(s);
}

static void stops_and_moves_keep_the_index_right(void **state) {
  (void)state;
  hs *s = world(2, 3);
  start(s, 0, 0, 100, "a");
  start(s, 1, 100, 100, "b");
  hs_ms(s, 10); /* n2 hears of them */
  stop(s, 2, 50, 100);
  expect(s, "a", 50);
  expect(s, "b", 50);
  start(s, 2, 50, 50, "b"); /* the same ids under another tag */
  expect(s, "a", 50);
  expect(s, "b", 100);
  hs_crash(s, 1);
  expect(s, "a", 50);
  expect(s, "b", 100);
  hs_join(s, hs_add_alone(s), 0);
  expect(s, "a", 50);
  expect(s, "b", 100);
  stop(s, 0, 0, 50);
  expect(s, "a", 0);
  for (int i = 0; i < s->count; i++)
    if (s->n[i].up) assert_int_equal(ph_index_count(&s->n[i].hub->tags), 1);
  end(s);
}

/* both sides of a cut start the same ids: the tag is that of the start that shows in the end */
static void a_merge_shows_one_tag_a_child(void **state) {
  (void)state;
  hs *s = world(3, 3);
  hs_cut(s, 0, 1, true);
  hs_cut(s, 0, 2, true);
  hs_ms(s, 15000);
  start(s, 0, 0, 50, "left");
  hs_ms(s, 5);
  start(s, 1, 0, 50, "right");
  start(s, 2, 50, 50, "right");
  hs_cut(s, 0, 1, false);
  hs_cut(s, 0, 2, false);
  assert_true(hs_until(s, hs_quiet, NULL, 120000));
  int left = tagged(s, 0, "left", 4);
  expect(s, "left", left);
  expect(s, "right", 100 - left);
  assert_int_equal(left, 0); /* the later start is the larger version */
  end(s);
}

/* two live starts of one id: the larger version shows, and when it ends the other one again */
static void only_what_shows_is_found(void **state) {
  (void)state;
  hs *s = world(6, 1);
  hs_node *n = &s->n[0];
  ph_hub *h = n->hub;
  ph_spec *spec = spec_of(n);
  ph_bytes *red = metadata(n, "red", 3), *blue = metadata(n, "blue", 4);
  ph_row *r = ph__row_get(h, "c0", 2, ph_ring_hash("c0", 2));
  assert_non_null(r);
  ph_intent in = {.spec = spec, .confirmed = true};
  for (uint64_t i = 1; i <= 3; i++) { /* 2 is the smallest, 3 the largest */
    in.num.counter = i;
    in.hlc = i == 2 ? 10 : 10 + i;
    in.meta = i == 3 ? blue : red;
    assert_int_equal(ph__intent_add(h, r, &in), 1);
    assert_int_equal(tagged(s, 0, "red", 3), i < 3);
    assert_int_equal(tagged(s, 0, "blue", 4), i == 3);
  }
  for (uint64_t i = 3; i >= 1; i--) {
    ph_number num = {.counter = i == 2 ? 1 : i == 1 ? 2 : 3};
    assert_int_equal(ph__ended_add(h, r, num, false), 1);
    assert_int_equal(tagged(s, 0, "red", 3), i > 1);
    assert_int_equal(tagged(s, 0, "blue", 4), 0);
  }
  ph_bytes_unref(h->env, red);
  ph_bytes_unref(h->env, blue);
  ph_spec_unref(&h->specs, spec);
  end(s);
}

static void a_tag_is_any_string(void **state) {
  (void)state;
  hs *s = world(4, 2);
  answer a;
  char *big = calloc(1, 70000);
  assert_int_equal(begin(s, 0, &a, 0, 3, "a\0b", 3), 0);
  assert_true(hs_until(s, answered, &a, 10000));
  assert_int_equal(begin(s, 0, &a, 10, 3, "", 0), 0);
  assert_true(hs_until(s, answered, &a, 10000));
  assert_int_equal(begin(s, 1, &a, 20, 3, big, 70000), 0);
  assert_true(hs_until(s, answered, &a, 10000));
  assert_true(hs_until(s, hs_quiet, NULL, 60000));
  for (int i = 0; i < 2; i++) {
    assert_int_equal(tagged(s, i, "a\0b", 3), 3);
    assert_int_equal(tagged(s, i, "a", 1), 0);
    assert_int_equal(tagged(s, i, "", 0), 3);
    assert_int_equal(tagged(s, i, big, 70000), 3);
    assert_int_equal(tagged(s, i, big, 69999), 0);
  }
  free(big);
  end(s);
}

/* whichever allocation fails: a child is in the index exactly when it is in the registry */
static void lack_of_memory_leaves_index_and_registry_alike(void **state) {
  (void)state;
  for (long n = 1;; n++) {
    hs *s = world(5, 1);
    answer a;
    start(s, 0, 0, 5, "a");
    te_fail_in(&s->n[0].mem, n);
    int err = begin(s, 0, &a, 10, 5, "b", 1);
    if (!err) assert_true(hs_until(s, answered, &a, 20000));
    bool tripped = te_tripped(&s->n[0].mem);
    te_fail_in(&s->n[0].mem, 0);
    assert_int_equal(tagged(s, 0, "a", 1), 5);
    assert_int_equal(tagged(s, 0, "b", 1), hs_known(s, 0) - 5);
    if (err) assert_int_equal(hs_known(s, 0), 5);
    end(s);
    if (!tripped) {
      break;
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_node_finds_the_children_of_a_tag),
      cmocka_unit_test(stops_and_moves_keep_the_index_right),
      cmocka_unit_test(a_merge_shows_one_tag_a_child),
      cmocka_unit_test(only_what_shows_is_found),
      cmocka_unit_test(a_tag_is_any_string),
      cmocka_unit_test(lack_of_memory_leaves_index_and_registry_alike),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
