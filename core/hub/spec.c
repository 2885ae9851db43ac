#include "hub/spec.h"

#include <string.h>

#include "wire/reader.h"

void ph_specs_init(ph_specs *s, const ph_env *env, uint64_t seed) {
  s->env = env;
  s->seed = seed;
  ph_index_init(&s->index, env);
  s->forget = NULL;
}

void ph_specs_deinit(ph_specs *s) {
  ph_index_iter it = {0};
  ph_spec *spec;
  while ((spec = ph_index_next(&s->index, &it))) {
    if (s->forget) s->forget(s->forget_ctx, spec);
    ph_free(s->env, spec);
  }
  ph_index_deinit(&s->index);
}

typedef struct blob_key {
  const void *p;
  size_t n;
} blob_key;

static bool same_blob(const void *item, const void *key) {
  const ph_spec *s = item;
  const blob_key *k = key;
  return s->blob_len == k->n && memcmp(s->blob, k->p, k->n) == 0;
}

static bool is(const ph_token *t, const char *text) {
  return t->type == PH_T_STR && t->len == strlen(text) && memcmp(t->ptr, text, t->len) == 0;
}

static int field_start(ph_spec *s, ph_reader *r) {
  uint32_t n;
  if (ph_r_array(r, &n) || n < 2 || n > 3) return PH_ESPEC;
  if (ph_r_str(r, &s->module, &s->module_len, 1024) || s->module_len == 0) return PH_ESPEC;
  if (ph_r_str(r, &s->function, &s->function_len, 1024) || s->function_len == 0) return PH_ESPEC;
  if (n == 3) {
    ph_reader look = *r;
    ph_token t;
    if (ph_r_next(&look, &t) || (t.type != PH_T_ARRAY && !(t.type == PH_T_MAP))) return PH_ESPEC;
    return ph_r_value(r, &s->args, &s->args_len) ? PH_ESPEC : 0;
  }
  return 0;
}

static int field_restart(ph_spec *s, const ph_token *t) {
  if (is(t, "permanent"))
    s->restart = PH_RESTART_PERMANENT;
  else if (is(t, "transient"))
    s->restart = PH_RESTART_TRANSIENT;
  else if (is(t, "temporary"))
    s->restart = PH_RESTART_TEMPORARY;
  else
    return PH_ESPEC;
  return 0;
}

static int field_shutdown(ph_spec *s, const ph_token *t) {
  if (is(t, "brutal_kill"))
    s->shutdown = PH_SHUTDOWN_BRUTAL;
  else if (is(t, "infinity"))
    s->shutdown = PH_SHUTDOWN_INFINITY;
  else if (t->type == PH_T_UINT && t->u > 0 && t->u < UINT64_MAX)
    s->shutdown = t->u;
  else if (t->type == PH_T_DOUBLE && t->d > 0) /* rounded up; past the range it waits for ever */
    s->shutdown =
        t->d >= 9e15 ? PH_SHUTDOWN_INFINITY : (uint64_t)t->d + (t->d > (double)(uint64_t)t->d);
  else if ((t->type == PH_T_UINT && t->u == 0) || (t->type == PH_T_DOUBLE && t->d == 0))
    s->shutdown = 1; /* a time that is over at once, but not a brutal kill */
  else
    return PH_ESPEC;
  return 0;
}

static int field_modules(ph_spec *s, ph_reader *r) {
  ph_reader look = *r;
  uint32_t n;
  if (ph_r_array(&look, &n)) return PH_ESPEC;
  for (uint32_t i = 0; i < n; i++) {
    const char *p;
    size_t len;
    if (ph_r_str(&look, &p, &len, 1024)) return PH_ESPEC;
  }
  return ph_r_value(r, &s->modules, &s->modules_len) ? PH_ESPEC : 0;
}

static int field(ph_spec *s, const ph_token *key, ph_reader *r, bool *has_shutdown,
                 const char **bad) {
  ph_token t;
  if (is(key, "start")) {
    *bad = "start";
    return field_start(s, r);
  }
  if (is(key, "modules")) {
    *bad = "modules";
    return field_modules(s, r);
  }
  if (is(key, "restart")) {
    *bad = "restart";
    return ph_r_next(r, &t) ? PH_ESPEC : field_restart(s, &t);
  }
  if (is(key, "shutdown")) {
    *bad = "shutdown";
    *has_shutdown = true;
    return ph_r_next(r, &t) ? PH_ESPEC : field_shutdown(s, &t);
  }
  if (is(key, "type")) {
    *bad = "type";
    if (ph_r_next(r, &t)) return PH_ESPEC;
    s->supervisor = is(&t, "supervisor");
    return s->supervisor || is(&t, "worker") ? 0 : PH_ESPEC;
  }
  *bad = "unknown key";
  return PH_ESPEC;
}

static int parse(ph_spec *s, const char **bad) {
  ph_reader r;
  uint32_t n;
  bool has_shutdown = false;
  *bad = "spec";
  if (ph_value_check(s->blob, s->blob_len)) return PH_ESPEC;
  ph_reader_init(&r, s->blob, s->blob_len);
  if (ph_r_map(&r, &n)) return PH_ESPEC;
  s->restart = PH_RESTART_PERMANENT;
  for (uint32_t i = 0; i < n; i++) {
    ph_token key;
    if (ph_r_next(&r, &key)) return PH_ESPEC;
    int err = field(s, &key, &r, &has_shutdown, bad);
    if (err) return err;
  }
  *bad = "start";
  if (!s->module) return PH_ESPEC;
  if (!has_shutdown) s->shutdown = s->supervisor ? PH_SHUTDOWN_INFINITY : 5000;
  return 0;
}

int ph_spec_get(ph_specs *ss, const void *blob, size_t n, ph_spec **out, const char **key) {
  blob_key k = {blob, n};
  if (n > UINT32_MAX) return PH_ETOOLARGE;
  uint64_t hash = ph_hash(blob, n, ss->seed);
  ph_spec *s = ph_index_find(&ss->index, hash, same_blob, &k);
  if (s) {
    s->refs++;
    *out = s;
    return 0;
  }
  s = ph_zalloc(ss->env, sizeof *s + n);
  if (!s) return PH_ENOMEM;
  memcpy(s->blob, blob, n);
  s->blob_len = (uint32_t)n;
  s->hash = hash;
  s->refs = 1;
  int err = parse(s, key);
  if (!err) err = ph_index_put(&ss->index, hash, s);
  if (err) {
    ph_free(ss->env, s);
    return err;
  }
  *out = s;
  return 0;
}

ph_spec *ph_spec_ref(ph_spec *s) {
  if (s) s->refs++;
  return s;
}

void ph_spec_unref(ph_specs *ss, ph_spec *s) {
  if (!s || --s->refs > 0) return;
  if (ss->forget) ss->forget(ss->forget_ctx, s);
  ph_index_remove(&ss->index, s->hash, s);
  ph_free(ss->env, s);
}
