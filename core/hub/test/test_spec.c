/* Child specs: what is accepted and what it means, interning, references, the forget hook. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/test/testenv.h"
#include "hub/spec.h"
#include "wire/reader.h"
#include "wire/writer.h"

typedef struct world {
  te t;
  ph_specs specs;
  ph_spec *forgotten[8];
  int count;
} world;

static void forget(void *ctx, ph_spec *s) {
  world *w = ctx;
  assert_int_equal(s->host, 7); /* it is still whole */
  assert_true(s->module_len > 0 && s->module[0] == 'm');
  w->forgotten[w->count++] = s;
}

static void begin(world *w) {
  memset(w, 0, sizeof *w);
  te_init(&w->t, 1);
  ph_specs_init(&w->specs, &w->t.env, 42);
}

static void end(world *w) {
  ph_specs_deinit(&w->specs);
  TE_END(&w->t);
}

/* "start" written as { "m", "f" } and `more` fields to come */
static void head(ph_buf *b, const ph_env *env, uint32_t more) {
  ph_buf_init(b, env);
  ph_w_map(b, 1 + more);
  ph_w_cstr(b, "start");
  ph_w_array(b, 2);
  ph_w_cstr(b, "m");
  ph_w_cstr(b, "f");
}

static int get(world *w, const ph_buf *b, ph_spec **out, const char **key) {
  *key = NULL;
  return ph_spec_get(&w->specs, ph_buf_at(b), ph_buf_size(b), out, key);
}

typedef struct field_case {
  const char *key;
  const char *value; /* packed */
  size_t n;
  bool good;
  ph_restart restart;
  bool supervisor;
  uint64_t shutdown;
} field_case;

#define V(text)  text, sizeof text - 1
#define GOOD     true, PH_RESTART_PERMANENT, false, 5000
#define BAD      false, 0, 0, 0
#define TIME(ms) true, PH_RESTART_PERMANENT, false, ms
#define DOUBLE   "\xcb"

static const field_case fields[] = {
    {"restart", V("\xa9permanent"), GOOD},
    {"restart", V("\xa9transient"), true, PH_RESTART_TRANSIENT, false, 5000},
    {"restart", V("\xa9temporary"), true, PH_RESTART_TEMPORARY, false, 5000},
    {"restart", V("\xa5never"), BAD},
    {"restart", V("\xa8permanen"), BAD},
    {"restart", V("\xc4\x09permanent"), BAD}, /* bytes, not text */
    {"restart", V("\x01"), BAD},
    {"restart", V("\xc0"), BAD},
    {"type", V("\xa6worker"), GOOD},
    {"type", V("\xaasupervisor"), true, PH_RESTART_PERMANENT, true, PH_SHUTDOWN_INFINITY},
    {"type", V("\xa4work"), BAD},
    {"type", V("\xc3"), BAD},
    {"shutdown",
     V("\xab"
       "brutal_kill"),
     TIME(PH_SHUTDOWN_BRUTAL)},
    {"shutdown", V("\xa8infinity"), TIME(PH_SHUTDOWN_INFINITY)},
    {"shutdown", V("\x64"), TIME(100)},
    {"shutdown", V("\x00"), TIME(1)},                             /* no brutal kill */
    {"shutdown", V("\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), BAD}, /* would be "infinity" */
    {"shutdown", V("\xff"), BAD},                                 /* -1 */
    {"shutdown", V(DOUBLE "\x40\x59\x00\x00\x00\x00\x00\x00"), TIME(100)},
    {"shutdown", V(DOUBLE "\x3f\xe0\x00\x00\x00\x00\x00\x00"), TIME(1)}, /* 0.5, rounded up */
    {"shutdown", V(DOUBLE "\x00\x00\x00\x00\x00\x00\x00\x00"), TIME(1)},
    {"shutdown", V(DOUBLE "\x80\x00\x00\x00\x00\x00\x00\x00"), TIME(1)},
    {"shutdown", V(DOUBLE "\xbf\xf0\x00\x00\x00\x00\x00\x00"), BAD}, /* -1.0 */
    {"shutdown", V(DOUBLE "\x7f\xf0\x00\x00\x00\x00\x00\x00"),
     TIME(PH_SHUTDOWN_INFINITY)},                                    /* inf */
    {"shutdown", V(DOUBLE "\x7f\xf8\x00\x00\x00\x00\x00\x00"), BAD}, /* nan */
    {"shutdown", V("\xa4soon"), BAD},
    {"shutdown", V("\x90"), BAD},
    {"modules", V("\x90"), GOOD},
    {"modules", V("\x92\xa1x\xa1y"), GOOD},
    {"modules", V("\x92\xa1x\x01"), BAD},
    {"modules", V("\xa1x"), BAD},
    {"modules", V("\x80"), BAD},
    {"id", V("\xa1x"), BAD}, /* the id is no part of it */
    {"restarts", V("\xa9permanent"), BAD},
};

static void fields_are_checked_and_taken_apart(void **state) {
  (void)state;
  world w;
  begin(&w);
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    const field_case *f = &fields[i];
    ph_buf b;
    ph_spec *s = NULL;
    const char *key;
    head(&b, &w.t.env, 1);
    ph_w_cstr(&b, f->key);
    ph_w_raw(&b, f->value, f->n);
    int err = get(&w, &b, &s, &key);
    if (err != (f->good ? 0 : PH_ESPEC)) print_message("case %d: %s\n", (int)i, f->key);
    assert_int_equal(err, f->good ? 0 : PH_ESPEC);
    if (f->good) {
      assert_int_equal(s->restart, f->restart);
      assert_int_equal(s->supervisor, f->supervisor);
      assert_int_equal(s->shutdown, f->shutdown);
      assert_int_equal(s->blob_len, ph_buf_size(&b));
      assert_memory_equal(s->blob, ph_buf_at(&b), s->blob_len);
      ph_spec_unref(&w.specs, s);
    } else {
      bool known = strcmp(f->key, "id") && strcmp(f->key, "restarts");
      assert_string_equal(key, known ? f->key : "unknown key");
    }
    ph_buf_deinit(&b);
  }
  assert_int_equal(ph_index_count(&w.specs.index), 0);
  end(&w);
}

static void a_start_is_module_function_and_arguments(void **state) {
  (void)state;
  static const struct {
    const char *value;
    size_t n;
    bool good, args;
  } cases[] = {
      {V("\x92\xa1m\xa1g"), true, false},
      {V("\x93\xa1m\xa1g\x90"), true, true},
      {V("\x93\xa1m\xa1g\x92\x01\x80"), true, true},
      {V("\x93\xa1m\xa1g\x80"), true, true}, /* an empty table may be packed either way */
      {V("\x93\xa1m\xa1g\x01"), false, false},
      {V("\x93\xa1m\xa1g\xc0"), false, false},
      {V("\x91\xa1m"), false, false},
      {V("\x94\xa1m\xa1g\x90\x90"), false, false},
      {V("\x92\xa0\xa1g"), false, false},
      {V("\x92\xa1m\xa0"), false, false},
      {V("\x92\x01\xa1g"), false, false},
      {V("\xa1m"), false, false},
      {V("\x80"), false, false},
  };
  world w;
  begin(&w);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    ph_buf b;
    ph_spec *s;
    const char *key;
    ph_buf_init(&b, &w.t.env);
    ph_w_map(&b, 1);
    ph_w_cstr(&b, "start");
    ph_w_raw(&b, cases[i].value, cases[i].n);
    int err = get(&w, &b, &s, &key);
    if (err != (cases[i].good ? 0 : PH_ESPEC)) print_message("case %d\n", (int)i);
    assert_int_equal(err, cases[i].good ? 0 : PH_ESPEC);
    if (err)
      assert_string_equal(key, "start");
    else {
      assert_int_equal(s->module_len, 1);
      assert_memory_equal(s->module, "m", 1);
      assert_int_equal(s->function_len, 1);
      assert_memory_equal(s->function, "g", 1);
      assert_int_equal(s->args != NULL, cases[i].args);
      if (s->args) {
        assert_true(s->args > s->blob && s->args + s->args_len == s->blob + s->blob_len);
        assert_int_equal(ph_value_check(s->args, s->args_len), 0);
      }
      assert_null(s->modules);
      assert_int_equal(s->host, 0);
      ph_spec_unref(&w.specs, s);
    }
    ph_buf_deinit(&b);
  }
  end(&w);
}

static void what_is_no_map_is_refused(void **state) {
  (void)state;
  static const struct {
    const char *value;
    size_t n;
    const char *key;
  } cases[] = {
      {V(""), "spec"},
      {V("\x80"), "start"},
      {V("\x90"), "spec"},
      {V("\xc0"), "spec"},
      {V("\x81\xa5start"), "spec"},
      {V("\x81\xa5start\x92\xa1m\xa1"), "spec"},
      {V("\x81\xa5start\x92\xa1m\xa1g\xc0"), "spec"}, /* bytes after it */
      {V("\xdf\xff\xff\xff\xff"), "spec"},
      {V("\x81\x01\x02"), "unknown key"},
      {V("\x81\x90\x02"), "unknown key"},
      {V("\x81\xa7restart\xa9permanent"), "start"},
  };
  world w;
  begin(&w);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    ph_spec *s;
    const char *key = NULL;
    assert_int_equal(ph_spec_get(&w.specs, cases[i].value, cases[i].n, &s, &key), PH_ESPEC);
    assert_string_equal(key, cases[i].key);
  }
  end(&w);
}

static void equal_specs_are_one(void **state) {
  (void)state;
  world w;
  ph_buf a, b;
  ph_spec *s, *again, *other;
  const char *key;
  begin(&w);
  w.specs.forget = forget;
  w.specs.forget_ctx = &w;
  head(&a, &w.t.env, 0);
  head(&b, &w.t.env, 1);
  ph_w_cstr(&b, "restart");
  ph_w_cstr(&b, "permanent"); /* means the same, but is not what the user gave */
  assert_int_equal(get(&w, &a, &s, &key), 0);
  assert_int_equal(get(&w, &a, &again, &key), 0);
  assert_int_equal(get(&w, &b, &other, &key), 0);
  assert_ptr_equal(again, s);
  assert_ptr_not_equal(other, s);
  assert_int_equal(s->refs, 2);
  assert_int_equal(other->refs, 1);
  s->host = other->host = 7;
  assert_ptr_equal(ph_spec_ref(s), s);
  assert_null(ph_spec_ref(NULL));
  ph_spec_unref(&w.specs, NULL);
  ph_spec_unref(&w.specs, s);
  ph_spec_unref(&w.specs, s);
  assert_int_equal(s->refs, 1);
  assert_int_equal(w.count, 0);
  ph_spec_unref(&w.specs, s);
  assert_int_equal(w.count, 1);
  assert_ptr_equal(w.forgotten[0], s);
  assert_int_equal(get(&w, &a, &s, &key), 0); /* made anew: the host knows nothing of it */
  assert_int_equal(s->host, 0);
  s->host = 7;
  ph_specs_deinit(&w.specs); /* the host hears of those that are left, too */
  assert_int_equal(w.count, 3);
  ph_buf_deinit(&a);
  ph_buf_deinit(&b);
  TE_END(&w.t);
}

static void many_specs_are_told_apart(void **state) {
  (void)state;
  enum { N = 2000 };
  static ph_spec *all[N];
  world w;
  begin(&w);
  for (int round = 0; round < 2; round++)
    for (int i = 0; i < N; i++) {
      ph_buf b;
      ph_spec *s;
      const char *key;
      head(&b, &w.t.env, 1);
      ph_w_cstr(&b, "shutdown");
      ph_w_uint(&b, (uint64_t)i + 1);
      assert_int_equal(get(&w, &b, &s, &key), 0);
      assert_int_equal(s->shutdown, i + 1);
      if (round) assert_ptr_equal(s, all[i]);
      all[i] = s;
      ph_buf_deinit(&b);
    }
  assert_int_equal(ph_index_count(&w.specs.index), N);
  for (int i = 0; i < N; i++) {
    ph_spec_unref(&w.specs, all[i]);
    ph_spec_unref(&w.specs, all[i]);
  }
  assert_int_equal(ph_index_count(&w.specs.index), 0);
  end(&w);
}

static void without_memory_nothing_is_kept(void **state) {
  (void)state;
  world w;
  ph_buf b;
  ph_spec *s;
  const char *key;
  begin(&w);
  head(&b, &w.t.env, 0);
  for (long n = 1;; n++) {
    te_fail_in(&w.t, n);
    int err = get(&w, &b, &s, &key);
    bool tripped = te_tripped(&w.t);
    te_fail_in(&w.t, 0);
    if (!tripped) {
      assert_int_equal(err, 0);
      break;
    }
    assert_int_equal(err, PH_ENOMEM);
    assert_int_equal(ph_index_count(&w.specs.index), 0);
  }
  ph_spec_unref(&w.specs, s);
  ph_buf_deinit(&b);
  end(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(fields_are_checked_and_taken_apart),
      cmocka_unit_test(a_start_is_module_function_and_arguments),
      cmocka_unit_test(what_is_no_map_is_refused),
      cmocka_unit_test(equal_specs_are_one),
      cmocka_unit_test(many_specs_are_told_apart),
      cmocka_unit_test(without_memory_nothing_is_kept),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
