/* Registered names. */
#include <string.h>

#include "proc/proc_int.h"

enum { MAX_REGISTERED = 255 };

typedef struct ph_name {
  ph_list proc;
  ph_proc *p;
  uint8_t len;
  char text[];
} ph_name;

typedef struct name_key {
  const char *p;
  size_t n;
} name_key;

static bool name_eq(const void *item, const void *key) {
  const ph_name *a = item;
  const name_key *k = key;
  return a->len == k->n && memcmp(a->text, k->p, k->n) == 0;
}

static uint64_t name_hash(const ph_sys *s, const char *p, size_t n) {
  return ph_hash(p, n, s->seed);
}

static ph_name *name_find(ph_sys *s, const char *name, size_t n) {
  name_key k = {name, n};
  if (n == 0 || n > MAX_REGISTERED) return NULL;
  return ph_index_find(&s->names, name_hash(s, name, n), name_eq, &k);
}

static void name_free(ph_sys *s, ph_name *a) {
  ph_index_remove(&s->names, name_hash(s, a->text, a->len), a);
  ph_list_remove(&a->proc);
  ph_free(s->env, a);
}

int ph_register(ph_proc *p, const char *name, size_t n) {
  ph_sys *s = p->sys;
  if (n == 0 || n > MAX_REGISTERED) return PH_EINVAL;
  if (name_find(s, name, n)) return PH_EREGISTERED;
  ph_name *a = ph_alloc(s->env, sizeof *a + n);
  if (!a) return PH_ENOMEM;
  a->p = p;
  a->len = (uint8_t)n;
  memcpy(a->text, name, n);
  if (ph_index_put(&s->names, name_hash(s, name, n), a)) {
    ph_free(s->env, a);
    return PH_ENOMEM;
  }
  ph_list_push(&p->names, &a->proc);
  return 0;
}

int ph_unregister(ph_sys *s, const char *name, size_t n) {
  ph_name *a = name_find(s, name, n);
  if (!a) return PH_ENOPROC;
  name_free(s, a);
  return 0;
}

ph_pid ph_whereis(ph_sys *s, const char *name, size_t n) {
  ph_name *a = name_find(s, name, n);
  return a ? a->p->pid : 0;
}

void ph__names_end(ph_proc *p) {
  for (ph_list *l; (l = ph_list_pop(&p->names));) name_free(p->sys, PH_CONTAINER(l, ph_name, proc));
}
