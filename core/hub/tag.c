/* Children by tag, the string `metadata.tag`: each tag in use has a list of what bears it, so a
 * query costs what it finds.
 *
 * A tag is read out of a metadata blob once, when an intent with that blob is made, and its record
 * lies behind the intent, in the same allocation: showing another intent of a row, or none, can
 * then not fail. The metadata last seen is kept, for a bulk start repeats one blob over and over:
 * it is read once, and on receiving nodes kept once. */
#include <string.h>

#include "hub/internal.h"

typedef struct text_key {
  const char *p;
  size_t n;
} text_key;

static bool same_text(const void *item, const void *key) {
  const ph_tag *t = item;
  const text_key *k = key;
  return t->len == k->n && memcmp(t->text, k->p, k->n) == 0;
}

static ph_tag *find(const ph_hub *h, const char *p, size_t n) {
  text_key k = {p, n};
  return ph_index_find(&h->tags, ph_hash(p, n, h->seed), same_text, &k);
}

/* the string under the key "tag" of a packed map; false: there is none */
static bool tag_text(const ph_bytes *meta, const char **p, size_t *n) {
  ph_reader r;
  ph_token key;
  uint32_t pairs;
  ph_reader_init(&r, meta->data, meta->len);
  if (ph_r_map(&r, &pairs)) return false;
  for (; pairs > 0; pairs--) {
    if (ph_r_next(&r, &key) || key.type == PH_T_ARRAY || key.type == PH_T_MAP) return false;
    if (key.type == PH_T_STR && key.len == 3 && memcmp(key.ptr, "tag", 3) == 0)
      return !ph_r_str(&r, p, n, UINT32_MAX);
    if (ph_r_skip(&r)) return false;
  }
  return false;
}

static int tag_get(ph_hub *h, const char *p, size_t n, ph_tag **out) {
  ph_tag *t = find(h, p, n);
  if (!t) {
    t = ph_zalloc(h->env, sizeof *t + n);
    if (!t) return PH_ENOMEM;
    ph_list_init(&t->bearers);
    t->len = (uint32_t)n;
    memcpy(t->text, p, n);
    if (ph_index_put(&h->tags, ph_hash(p, n, h->seed), t)) {
      ph_free(h->env, t);
      return PH_ENOMEM;
    }
  }
  t->refs++;
  *out = t;
  return 0;
}

void ph__tag_unref(ph_hub *h, ph_tag *t) {
  if (!t || --t->refs > 0) return;
  ph_index_remove(&h->tags, ph_hash(t->text, t->len, h->seed), t);
  ph_free(h->env, t);
}

/* ---- The metadata last seen */

void ph__meta_forget(ph_hub *h) {
  ph_bytes_unref(h->env, h->last_meta);
  ph__tag_unref(h, h->last_tag);
  h->last_meta = NULL;
  h->last_tag = NULL;
}

ph_bytes *ph__meta_get(ph_hub *h, const void *p, size_t n) {
  ph_bytes *last = h->last_meta;
  if (last && last->len == n && memcmp(last->data, p, n) == 0) return ph_bytes_ref(last);
  return ph_bytes_new(h->env, p, n);
}

void ph__meta_unref(ph_hub *h, ph_bytes *meta) {
  if (meta && meta == h->last_meta && meta->refs == 2) ph__meta_forget(h);
  ph_bytes_unref(h->env, meta);
}

int ph__tag_of(ph_hub *h, ph_bytes *meta, ph_tag **out) {
  const char *p;
  size_t n;
  *out = NULL;
  if (!meta) return 0;
  if (meta != h->last_meta) {
    ph_tag *t = NULL;
    if (tag_text(meta, &p, &n)) {
      int err = tag_get(h, p, n, &t);
      if (err) return err;
    }
    ph__meta_forget(h);
    h->last_meta = ph_bytes_ref(meta);
    h->last_tag = t;
  }
  if (h->last_tag) h->last_tag->refs++;
  *out = h->last_tag;
  return 0;
}

/* ---- Bearers */

static ph_tagged *record(ph_intent *in) {
  return (ph_tagged *)(void *)(in + 1);
}

void ph__tag_put(ph_intent *in, ph_row *r, ph_tag *t) {
  in->tagged = t != NULL;
  if (!t) return;
  *record(in) = (ph_tagged){.row = r, .tag = t};
  ph_list_init(&record(in)->list);
}

void ph__tag_drop(ph_hub *h, ph_intent *in) {
  if (!in->tagged) return;
  ph__tag_show(in, false);
  ph__tag_unref(h, record(in)->tag);
}

void ph__tag_show(ph_intent *in, bool shown) {
  if (!in || !in->tagged) return;
  ph_tagged *x = record(in);
  if (shown == !ph_list_empty(&x->list)) return;
  if (shown) {
    ph_list_push(&x->tag->bearers, &x->list);
    x->tag->count++;
  } else {
    ph_list_remove(&x->list);
    x->tag->count--;
  }
}

size_t ph_hub_tagged(ph_hub *h, const char *tag, size_t len) {
  ph_tag *t = find(h, tag, len);
  return t ? t->count : 0;
}

ph_row *ph_hub_next_tagged(ph_hub *h, const char *tag, size_t len, ph_row *prev) {
  ph_tag *t = prev ? record(prev->live)->tag : find(h, tag, len);
  if (!t) return NULL;
  ph_list *l = prev ? record(prev->live)->list.next : t->bearers.next;
  return l == &t->bearers ? NULL : PH_CONTAINER(l, ph_tagged, list)->row;
}
