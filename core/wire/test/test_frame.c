#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/test/testenv.h"
#include "wire/frame.h"

enum { MAX_FRAME = 70000, MAX_MESSAGE = 300000, MESSAGES = 60 };

typedef struct message {
  int kind;
  size_t n, wire;
  uint8_t fill;
} message;

typedef struct world {
  te t;
  ph_buf stream;
  message sent[MESSAGES];
  int count, received;
  int stop_at; /* on_message fails at this one; -1: never */
} world;

static world w;

static int setup(void **state) {
  (void)state;
  memset(&w, 0, sizeof w);
  te_init(&w.t, 1);
  ph_buf_init(&w.stream, &w.t.env);
  w.stop_at = -1;
  return 0;
}

static int teardown(void **state) {
  (void)state;
  ph_buf_deinit(&w.stream);
  return atomic_load(&w.t.live) == 0 ? 0 : -1;
}

static void put_frame(int kind, uint8_t fill, size_t n) {
  uint8_t *p = malloc(n + 1);
  assert_non_null(p);
  memset(p, fill, n);
  assert_int_equal(ph_frame_write(&w.stream, kind, p, n), 0);
  free(p);
}

static message *expect_message(int kind, size_t n) {
  message *m = &w.sent[w.count];
  *m = (message){.kind = kind, .n = n, .wire = n + PH_FRAME_HEADER, .fill = (uint8_t)w.count};
  w.count++;
  return m;
}

/* a data message in fragments; `between`: a control frame before the last of them */
static void put_fragmented(size_t n, size_t fragment, bool between) {
  size_t fragments = n ? (n + fragment - 1) / fragment : 1;
  uint8_t fill = (uint8_t)(w.count + between);
  for (size_t i = 0; i < fragments; i++) {
    size_t size = i + 1 < fragments ? fragment : n - i * fragment;
    bool last = i + 1 == fragments;
    if (last && between) put_frame(PH_FRAME_CONTROL, expect_message(PH_FRAME_CONTROL, 9)->fill, 9);
    put_frame(last ? PH_FRAME_DATA : PH_FRAME_DATA | PH_FRAME_MORE, fill, size);
  }
  expect_message(PH_FRAME_DATA, n)->wire = n + fragments * PH_FRAME_HEADER;
}

static int on_message(void *ctx, int kind, const uint8_t *p, size_t n, size_t wire) {
  assert_ptr_equal(ctx, &w);
  assert_true(w.received < w.count);
  const message *m = &w.sent[w.received++];
  assert_int_equal(kind, m->kind);
  assert_int_equal(n, m->n);
  assert_int_equal(wire, m->wire);
  for (size_t i = 0; i < n; i += i < 64 || i + 64 > n ? 1 : 61) assert_int_equal(p[i], m->fill);
  return w.received - 1 == w.stop_at ? PH_ECLOSED : 0;
}

static void fill_stream(void) {
  for (int i = 0; w.count + 2 < MESSAGES; i++) {
    size_t n = te_below(&w.t, 3) ? te_below(&w.t, 100) : te_below(&w.t, 60000);
    switch (te_below(&w.t, 3)) {
    case 0:
      put_frame(PH_FRAME_CONTROL, expect_message(PH_FRAME_CONTROL, n)->fill, n);
      break;
    case 1:
      put_frame(PH_FRAME_DATA, expect_message(PH_FRAME_DATA, n)->fill, n);
      break;
    default:
      put_fragmented(n * 2 + 2, n / 3 + 1, te_below(&w.t, 2));
      break;
    }
  }
}

/* feeds the stream in pieces of exact size, so that a read past one shows under ASan */
static int feed_all(ph_splitter *s, size_t max_chunk) {
  const uint8_t *p = ph_buf_at(&w.stream);
  size_t left = ph_buf_size(&w.stream);
  int rc = 0;
  while (left && rc == 0) {
    size_t n = 1 + te_below(&w.t, max_chunk);
    if (n > left) n = left;
    uint8_t *chunk = malloc(n);
    assert_non_null(chunk);
    memcpy(chunk, p, n);
    rc = ph_splitter_feed(s, chunk, n, on_message, &w);
    free(chunk);
    p += n;
    left -= n;
  }
  return rc;
}

static void any_chunking_gives_the_same_messages(void **state) {
  (void)state;
  static const size_t chunks[] = {1, 2, 7, 100, 5000, 64 * 1024, 10 << 20};
  for (size_t round = 0; round < 7; round++) {
    w.count = w.received = 0;
    ph_buf_reset(&w.stream);
    fill_stream();
    ph_splitter s;
    ph_splitter_init(&s, &w.t.env, MAX_FRAME, MAX_MESSAGE);
    assert_int_equal(feed_all(&s, chunks[round]), 0);
    assert_int_equal(w.received, w.count);
    ph_splitter_deinit(&s);
  }
}

static void whole_frames_are_not_copied(void **state) {
  (void)state;
  for (int i = 0; i < 10; i++)
    put_frame(PH_FRAME_DATA, expect_message(PH_FRAME_DATA, 1000)->fill, 1000);
  ph_splitter s;
  ph_splitter_init(&s, &w.t.env, MAX_FRAME, MAX_MESSAGE);
  long before = atomic_load(&w.t.allocs);
  assert_int_equal(
      ph_splitter_feed(&s, ph_buf_at(&w.stream), ph_buf_size(&w.stream), on_message, &w), 0);
  assert_int_equal(w.received, 10);
  assert_int_equal(atomic_load(&w.t.allocs), before);
  ph_splitter_deinit(&s);
}

static void memory_follows_what_was_received(void **state) {
  (void)state;
  ph_splitter s;
  ph_splitter_init(&s, &w.t.env, MAX_FRAME, MAX_MESSAGE);
  size_t before = atomic_load(&w.t.bytes);
  static const uint8_t claims[] = {0, 1, 0, 0, PH_FRAME_DATA, 'x'};
  assert_int_equal(ph_splitter_feed(&s, claims, sizeof claims, on_message, &w), 0);
  assert_true(atomic_load(&w.t.bytes) - before < 256);
  ph_splitter_deinit(&s);

  ph_splitter_init(&s, &w.t.env, MAX_FRAME, MAX_MESSAGE);
  put_fragmented(MAX_MESSAGE, PH_FRAGMENT, true);
  before = atomic_load(&w.t.bytes);
  assert_int_equal(feed_all(&s, 30000), 0);
  assert_int_equal(w.received, w.count);
  assert_true(atomic_load(&w.t.bytes) - before <= 64 * 1024); /* given back */
  ph_splitter_deinit(&s);
}

/* feeds a header in two pieces, and whole */
static int feed_header(uint32_t length, int kind, bool whole) {
  uint8_t h[] = {(uint8_t)(length >> 24), (uint8_t)(length >> 16), (uint8_t)(length >> 8),
                 (uint8_t)length, (uint8_t)kind};
  ph_splitter s;
  ph_splitter_init(&s, &w.t.env, 1000, 2500);
  int rc = whole ? 0 : ph_splitter_feed(&s, h, 3, on_message, &w);
  assert_int_equal(rc, 0);
  size_t from = whole ? 0 : 3;
  rc = ph_splitter_feed(&s, h + from, sizeof h - from, on_message, &w);
  ph_splitter_deinit(&s);
  return rc;
}

static void bad_headers_are_refused_at_once(void **state) {
  (void)state;
  for (int whole = 0; whole < 2; whole++) {
    assert_int_equal(feed_header(0, PH_FRAME_DATA, whole), PH_EMALFORMED);
    assert_int_equal(feed_header(5, 2, whole), PH_EMALFORMED);
    assert_int_equal(feed_header(5, 0xff, whole), PH_EMALFORMED);
    assert_int_equal(feed_header(5, PH_FRAME_CONTROL | PH_FRAME_MORE, whole), PH_EMALFORMED);
    assert_int_equal(feed_header(1, PH_FRAME_DATA | PH_FRAME_MORE, whole), PH_EMALFORMED);
    assert_int_equal(feed_header(1002, PH_FRAME_DATA, whole), PH_ETOOLARGE);
    assert_int_equal(feed_header(UINT32_MAX, PH_FRAME_CONTROL, whole), PH_ETOOLARGE);
    assert_int_equal(feed_header(1001, PH_FRAME_DATA, whole), 0);
  }
}

static void a_long_message_is_refused_while_it_grows(void **state) {
  (void)state;
  ph_splitter s;
  ph_splitter_init(&s, &w.t.env, 1000, 2500);
  put_frame(PH_FRAME_DATA | PH_FRAME_MORE, 0, 1000);
  put_frame(PH_FRAME_DATA | PH_FRAME_MORE, 0, 1000);
  assert_int_equal(feed_all(&s, 100), 0);
  ph_buf_reset(&w.stream);
  put_frame(PH_FRAME_DATA, 0, 501);
  assert_int_equal(feed_all(&s, 3000), PH_ETOOLARGE);
  ph_splitter_deinit(&s);
}

static void a_message_handler_can_stop(void **state) {
  (void)state;
  for (w.stop_at = 0; w.stop_at < 20; w.stop_at++) {
    w.count = w.received = 0;
    ph_buf_reset(&w.stream);
    fill_stream();
    ph_splitter s;
    ph_splitter_init(&s, &w.t.env, MAX_FRAME, MAX_MESSAGE);
    assert_int_equal(feed_all(&s, w.stop_at % 2 ? 50 : 100000), PH_ECLOSED);
    assert_int_equal(w.received, w.stop_at + 1);
    ph_splitter_deinit(&s);
  }
}

static void lack_of_memory_is_an_error(void **state) {
  (void)state;
  fill_stream();
  int failures = 0;
  for (long n = 1;; n++) {
    ph_splitter s;
    ph_splitter_init(&s, &w.t.env, MAX_FRAME, MAX_MESSAGE);
    w.received = 0;
    te_fail_in(&w.t, n);
    int rc = feed_all(&s, 5000);
    bool tripped = te_tripped(&w.t);
    te_fail_in(&w.t, 0);
    assert_int_equal(rc, tripped ? PH_ENOMEM : 0);
    ph_splitter_deinit(&s);
    if (!tripped) break;
    failures++;
  }
  assert_true(failures > 3);
  assert_int_equal(w.received, w.count);
  ph_buf out;
  ph_buf_init(&out, &w.t.env);
  te_fail_in(&w.t, 1);
  assert_int_equal(ph_frame_write(&out, PH_FRAME_DATA, "abc", 3), PH_ENOMEM);
  assert_int_equal(ph_buf_size(&out), 0);
  assert_int_equal(ph_frame_write(&out, PH_FRAME_DATA, "abc", UINT32_MAX), PH_ETOOLARGE);
  ph_buf_deinit(&out);
}

static void frames_look_as_documented(void **state) {
  (void)state;
  assert_int_equal(ph_frame_write(&w.stream, PH_FRAME_DATA | PH_FRAME_MORE, "abc", 3), 0);
  assert_int_equal(ph_frame_write(&w.stream, PH_FRAME_CONTROL, NULL, 0), 0);
  assert_int_equal(ph_buf_size(&w.stream), 13);
  assert_memory_equal(ph_buf_at(&w.stream),
                      "\0\0\0\x04\x81"
                      "abc\0\0\0\x01\0",
                      13);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {
      T(any_chunking_gives_the_same_messages),
      T(whole_frames_are_not_copied),
      T(memory_follows_what_was_received),
      T(bad_headers_are_refused_at_once),
      T(a_long_message_is_refused_while_it_grows),
      T(a_message_handler_can_stop),
      T(lack_of_memory_is_an_error),
      T(frames_look_as_documented),
  };
#undef T
  return cmocka_run_group_tests(tests, NULL, NULL);
}
