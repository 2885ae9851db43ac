#include "base/index.h"

#include <assert.h>
#include <string.h>

enum {
  MIN_SLOTS = 8,
  MOVE_SLOTS = 16,   /* moved by one step, and on to the end of their run */
  MOVE_SPARSE = 64,  /* the same when shrinking: few of the slots are full */
  CLEAR_SLOTS = 128, /* cleared by one step; tables up to CLEAR_AT_ONCE in one */
  CLEAR_AT_ONCE = 1024,
  KEEP_EMPTY = 64 /* an empty index keeps a table of at most this many slots */
};

void ph_index_init(ph_index *ix, const ph_env *env) {
  *ix = (ph_index){.env = env};
}

static void drop_table(ph_index *ix, ph_table *t) {
  if (t->slots) ph_free(ix->env, t->slots);
  *t = (ph_table){0};
}

void ph_index_deinit(ph_index *ix) {
  drop_table(ix, &ix->t[0]);
  drop_table(ix, &ix->t[1]);
  drop_table(ix, &ix->next);
  *ix = (ph_index){.env = ix->env};
}

static inline void *table_find(const ph_table *t, uint64_t hash, ph_index_eq eq, const void *key) {
  const ph_slot *slots = t->slots;
  const size_t mask = t->mask;
  for (size_t i = hash & mask; slots[i].item; i = (i + 1) & mask)
    if (slots[i].hash == hash && eq(slots[i].item, key)) return slots[i].item;
  return NULL;
}

void *ph_index_find(const ph_index *ix, uint64_t hash, ph_index_eq eq, const void *key) {
  if (!ix->t[0].slots) return NULL;
  void *item = table_find(&ix->t[0], hash, eq, key);
  if (item || !ix->t[1].slots) return item;
  return table_find(&ix->t[1], hash, eq, key);
}

static void table_add(ph_table *t, uint64_t hash, void *item) {
  size_t i = hash & t->mask;
  while (t->slots[i].item) i = (i + 1) & t->mask;
  t->slots[i] = (ph_slot){.hash = hash, .item = item};
  t->count++;
}

static bool table_remove(ph_table *t, uint64_t hash, const void *item) {
  if (!t->slots) return false;
  const size_t mask = t->mask;
  size_t hole = hash & mask;
  while (t->slots[hole].item != item || t->slots[hole].hash != hash) {
    if (!t->slots[hole].item) return false;
    hole = (hole + 1) & mask;
  }
  /* an item whose home is not in (hole, i] would no longer be found behind the hole: it fills it */
  for (size_t i = (hole + 1) & mask; t->slots[i].item; i = (i + 1) & mask) {
    size_t home = t->slots[i].hash & mask;
    if (((i - home) & mask) < ((i - hole) & mask)) continue;
    t->slots[hole] = t->slots[i];
    hole = i;
  }
  t->slots[hole].item = NULL;
  t->count--;
  return true;
}

static size_t capacity(const ph_table *t) {
  return t->slots ? t->mask + 1 : 0;
}

/* the capacity that t[0] should have now; far enough apart that it does not swing */
static size_t wanted(const ph_index *ix) {
  size_t cap = capacity(&ix->t[0]), count = ix->t[0].count;
  if (count > cap / 16 * 11 + (cap % 16) * 11 / 16) return cap * 2;
  if (cap > MIN_SLOTS && count < cap / 8) return cap / 2;
  return cap;
}

/* Makes ix->next a table of `cap` slots; `all`: cleared to its end. False while it is not ready. */
static bool prepare(ph_index *ix, size_t cap, bool all) {
  if (ix->next.slots && capacity(&ix->next) != cap) drop_table(ix, &ix->next);
  if (!ix->next.slots) {
    if (cap > SIZE_MAX / sizeof(ph_slot)) return false;
    ix->next.slots = ph_alloc(ix->env, cap * sizeof(ph_slot));
    if (!ix->next.slots) return false;
    ix->next.mask = cap - 1;
    ix->cleared = 0;
  }
  size_t n = cap - ix->cleared;
  if (!all && cap > CLEAR_AT_ONCE && n > CLEAR_SLOTS) n = CLEAR_SLOTS;
  memset(ix->next.slots + ix->cleared, 0, n * sizeof(ph_slot));
  ix->cleared += n;
  return ix->cleared == cap;
}

/* Makes the prepared table t[0]. */
static void switch_tables(ph_index *ix) {
  assert(!ix->t[1].slots);
  ix->t[1] = ix->t[0];
  ix->t[0] = ix->next;
  ix->next = (ph_table){0};
  ix->cursor = 0;
  if (ix->t[1].count == 0) drop_table(ix, &ix->t[1]);
}

/* Moves on to the end of a run (neighbouring full slots), so that what stays behind is found
 * without shifting anything: of a run that wraps around the table's end only the tail goes first,
 * and no probe for what is before it gets that far. */
static void move_some(ph_index *ix) {
  ph_table *from = &ix->t[1];
  size_t i = ix->cursor;
  int most = from->mask > ix->t[0].mask ? MOVE_SPARSE : MOVE_SLOTS;
  for (int n = 0; from->count && (n < most || from->slots[i].item); n++) {
    ph_slot *s = &from->slots[i];
    if (s->item) {
      table_add(&ix->t[0], s->hash, s->item);
      s->item = NULL;
      from->count--;
    }
    i = (i + 1) & from->mask;
  }
  ix->cursor = i;
  if (from->count == 0) drop_table(ix, from);
}

/* After each change: one bounded piece of whatever growing or shrinking there is to do. Lack of
 * memory only puts it off. */
static void step(ph_index *ix) {
  if (ix->t[1].slots) {
    move_some(ix);
    return;
  }
  size_t cap = wanted(ix);
  if (cap != capacity(&ix->t[0]) && prepare(ix, cap, false)) switch_tables(ix);
}

/* room for one more in t[0] */
static bool make_room(ph_index *ix) {
  size_t cap = capacity(&ix->t[0]);
  if (cap && ix->t[0].count < cap - cap / 16 - 1) return true;
  /* Here only with no table yet, or after steps that found no memory. A table being emptied
   * (t[1]) is gone before t[0] gets this full. */
  if (ix->t[1].slots || !prepare(ix, cap ? cap * 2 : MIN_SLOTS, true)) return false;
  switch_tables(ix);
  return true;
}

int ph_index_put(ph_index *ix, uint64_t hash, void *item) {
  assert(item);
  if (!make_room(ix)) return PH_ENOMEM;
  table_add(&ix->t[0], hash, item);
  step(ix);
  return 0;
}

bool ph_index_remove(ph_index *ix, uint64_t hash, const void *item) {
  if (!table_remove(&ix->t[0], hash, item) && !table_remove(&ix->t[1], hash, item)) return false;
  if (ph_index_count(ix) == 0 && capacity(&ix->t[0]) > KEEP_EMPTY)
    ph_index_deinit(ix);
  else
    step(ix);
  return true;
}

void *ph_index_next(const ph_index *ix, ph_index_iter *it) {
  for (; it->table < 2; it->table++, it->slot = 0) {
    const ph_table *t = &ix->t[it->table];
    size_t cap = capacity(t);
    while (it->slot < cap) {
      void *item = t->slots[it->slot++].item;
      if (item) return item;
    }
  }
  return NULL;
}
