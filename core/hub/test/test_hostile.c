/* A proven peer that lies: every message between hubs, with random fields, with fields of the right
 * shape and wrong content, and cut short. The hub must neither crash nor spin, and must answer its
 * own users afterwards. */
#include "hubsim.h"

#include "wire/proto.h"

enum { FIRST = PH_M_HUB_FIRST, TYPES = 32 };

static void refuse(void *ctx, ph_hub *hub, const char *id, size_t n, const ph_spec *spec,
                   uint64_t token) {
  hs_node *node = ctx;
  (void)id;
  (void)n;
  (void)spec;
  ph_hub_started(hub, token, 0, ph_reason_str(&node->node.sys, "no", 2));
}

static void w_string(te *t, ph_buf *b) {
  char text[40];
  size_t n = te_below(t, sizeof text);
  if (te_below(t, 4) == 0) {
    snprintf(text, sizeof text, "c%d", (int)te_below(t, 100));
    n = strlen(text);
  } else {
    for (size_t i = 0; i < n; i++) text[i] = (char)te_random64(t);
  }
  ph_w_str(b, text, n);
}

static uint64_t number(te *t) {
  static const uint64_t odd[] = {0, 1, 2, 3, 5, 127, 65535, UINT32_MAX, PH_SERIAL_MASK, UINT64_MAX};
  return te_below(t, 3) ? odd[te_below(t, sizeof odd / sizeof *odd)] : te_random64(t);
}

static void w_value(te *t, ph_buf *b, int depth) {
  switch (te_below(t, depth ? 9 : 7)) {
  case 0:
    ph_w_nil(b);
    break;
  case 1:
    ph_w_bool(b, te_below(t, 2));
    break;
  case 2:
    ph_w_uint(b, number(t));
    break;
  case 3:
    ph_w_int(b, -(int64_t)te_below(t, 1000));
    break;
  case 4:
    ph_w_double(b, (double)te_below(t, 1000) / 3);
    break;
  case 5:
    w_string(t, b);
    break;
  case 6: {
    uint8_t raw[64];
    size_t n = te_below(t, sizeof raw);
    for (size_t i = 0; i < n; i++) raw[i] = (uint8_t)te_random64(t);
    if (te_below(t, 2))
      ph_w_bin(b, raw, n);
    else
      ph_w_ext(b, (int)te_below(t, 4), raw, n);
    break;
  }
  default: {
    uint32_t n = (uint32_t)te_below(t, 5);
    ph_w_array(b, n);
    while (n-- > 0) w_value(t, b, depth - 1);
  }
  }
}

static void w_spec(ph_buf *b) {
  ph_buf s;
  ph_buf_init(&s, b->env);
  ph_w_map(&s, 1);
  ph_w_cstr(&s, "start");
  ph_w_array(&s, 2);
  ph_w_cstr(&s, "c");
  ph_w_cstr(&s, "ok");
  ph_w_bin(b, ph_buf_at(&s), ph_buf_size(&s));
  ph_buf_deinit(&s);
}

/* the shape of a message with tables, the rows being values of the kinds that rows have */
static void w_batch(te *t, ph_buf *b) {
  ph_buf rows;
  ph_buf_init(&rows, b->env);
  for (int i = (int)te_below(t, 12); i > 0; i--) switch (te_below(t, 5)) {
    case 0:
      w_string(t, &rows);
      break;
    case 1:
      ph_w_uint(&rows, te_below(t, 4));
      break;
    case 2:
      ph_w_uint(&rows, number(t));
      break;
    case 3:
      ph_w_bool(&rows, te_below(t, 2));
      break;
    default:
      w_value(t, &rows, 1);
    }
  ph_w_array(b, 4);
  ph_w_cstr(b, "n0@sim");
  ph_w_uint(b, 100);
  ph_w_cstr(b, te_below(t, 2) ? "n1@sim" : "ghost@nowhere");
  ph_w_uint(b, te_below(t, 2) ? 100 : number(t));
  ph_w_array(b, 1);
  w_spec(b);
  ph_w_uint(b, number(t));
  ph_w_bin(b, ph_buf_at(&rows), ph_buf_size(&rows));
  ph_buf_deinit(&rows);
}

/* a row that parses: an intent or a tombstone, made of numbers of this node and of others */
static void w_change(te *t, ph_buf *b) {
  ph_buf rows;
  char id[16];
  ph_buf_init(&rows, b->env);
  for (int i = (int)te_below(t, 4); i >= 0; i--) {
    bool live = te_below(t, 2);
    snprintf(id, sizeof id, "c%d", (int)te_below(t, 100));
    ph_w_cstr(&rows, id);
    ph_w_uint(&rows, live);
    if (live) {
      ph_w_uint(&rows, te_below(t, 2)); /* number */
      ph_w_uint(&rows, number(t));
      ph_w_uint(&rows, number(t)); /* clock */
      ph_w_uint(&rows, te_below(t, 2));
      ph_w_bool(&rows, te_below(t, 2));
      ph_w_uint(&rows, 0);
      ph_w_nil(&rows);
    }
    ph_w_uint(&rows, 1);
    ph_w_uint(&rows, te_below(t, 2));
    ph_w_uint(&rows, number(t));
    ph_w_bool(&rows, te_below(t, 2));
  }
  ph_w_array(b, 4);
  ph_w_cstr(b, "n0@sim");
  ph_w_uint(b, 100);
  ph_w_cstr(b, "n1@sim");
  ph_w_uint(b, 100);
  ph_w_array(b, 1);
  w_spec(b);
  ph_w_uint(b, number(t));
  ph_w_bin(b, ph_buf_at(&rows), ph_buf_size(&rows));
  ph_buf_deinit(&rows);
}

static void lie(hs *s, ph_buf *b) {
  te *t = &s->te;
  uint32_t fields = (uint32_t)te_below(t, 6);
  uint64_t type = FIRST + te_below(t, TYPES), shape = te_below(t, 4);
  ph_buf_reset(b);
  ph_w_array(b, shape < 2 ? 6 : fields + 2);
  ph_w_uint(b, shape == 0 ? (uint64_t)PH_H_CHANGES : type);
  ph_w_cstr(b, "h");
  if (shape == 0)
    w_change(t, b);
  else if (shape == 1)
    w_batch(t, b);
  else
    while (fields-- > 0) w_value(t, b, 3);
  size_t n = ph_buf_size(b);
  if (te_below(t, 8) == 0) n = te_below(t, n + 1);
  ph_nodeent *e = ph_sys_node_named(&s->n[0].node.sys, "n1@sim", 6);
  if (e && e->peer) ph_node_event(&s->n[0].node, PH_EV_FRAME, e->peer, 0, ph_buf_at(b), n);
}

static void flood(uint64_t seed, bool has_hub) {
  hs *s = malloc(sizeof *s);
  hs_op o;
  ph_buf b;
  hs_init(s, seed);
  hs_add(s);
  if (has_hub) {
    hs_add(s);
  } else {
    hs_add_bare(s);
    hs_join(s, 1, 0);
  }
  hs_ms(s, 3000);
  assert_int_equal(hs_start(s, 0, &o, 0, 20, "ok", "permanent"), 0);
  hs_op_wait(s, &o, 10000);
  hs_op_end(&o);
  void (*honest)(void *, ph_hub *, const char *, size_t, const ph_spec *, uint64_t) =
      s->n[0].node.hub_host.start;
  s->n[0].node.hub_host.start = refuse;
  if (has_hub) s->n[1].node.hub_host.start = refuse;
  ph_buf_init(&b, &s->te.env);
  for (int i = 0; i < 3000; i++) {
    lie(s, &b);
    if (i % 20 == 0) hs_ms(s, 1);
  }
  ph_buf_deinit(&b);
  hs_ms(s, 2000);
  hs_crash(s, 1);
  hs_ms(s, 10000);
  if (s->n[0].hub &&
      !s->n[0].hub->state) { /* a HELLO with other strategies may have set it aside */
    s->n[0].node.hub_host.start = honest;
    assert_int_equal(hs_start(s, 0, &o, 200, 10, "ok", "permanent"), 0);
    hs_op_wait(s, &o, 20000);
    assert_int_equal(o.started + o.failed, 10);
    hs_op_end(&o);
  }
  hs_end(s);
  free(s);
}

static void a_member_that_lies(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 20; seed++) flood(seed, true);
}

static void a_node_without_the_hub_that_lies(void **state) {
  (void)state;
  for (uint64_t seed = 101; seed <= 110; seed++) flood(seed, false);
}

/* Of a digest, or a greeting: a few bytes, which this node answers with those of all buckets, 8
 * KiB; but once, until it is answered itself. */
static void small_questions(bool greetings) {
  hs *s = malloc(sizeof *s);
  ph_buf b;
  ph_cluster_stats before, after;
  hs_init(s, 31);
  hs_add(s);
  hs_add(s);
  hs_ms(s, 3000);
  ph_cluster_stats_get(s->n[0].c, &before);
  ph_buf_init(&b, &s->te.env);
  const ph_nodeent *e = ph_sys_node_named(&s->n[0].node.sys, "n1@sim", 6);
  for (uint64_t i = 0; i < 1000; i++) {
    ph_buf_reset(&b);
    ph_w_array(&b, greetings ? 6 : 4);
    ph_w_uint(&b, greetings ? PH_H_HELLO : PH_H_DIGEST);
    ph_w_cstr(&b, "h");
    ph_w_uint(&b, greetings ? s->config.strategies : i + 1);
    if (greetings) {
      ph_w_cstr(&b, "defaults");
      ph_w_uint(&b, s->n[1].hub->started);
    }
    ph_w_bool(&b, false);
    ph_node_event(&s->n[0].node, PH_EV_FRAME, e->peer, 0, ph_buf_at(&b), ph_buf_size(&b));
  }
  ph_buf_deinit(&b);
  hs_ms(s, 1000);
  ph_cluster_stats_get(s->n[0].c, &after);
  assert_in_range(after.bytes_out - before.bytes_out, PH_BUCKETS * 8, 4 * PH_BUCKETS * 8);
  assert_true(hs_until(s, hs_quiet, NULL, 1000));
  hs_end(s);
  free(s);
}

static void a_flood_of_digests(void **state) {
  (void)state;
  small_questions(false);
}

static void a_flood_of_greetings(void **state) {
  (void)state;
  small_questions(true);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_member_that_lies),
      cmocka_unit_test(a_node_without_the_hub_that_lies),
      cmocka_unit_test(a_flood_of_digests),
      cmocka_unit_test(a_flood_of_greetings),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
