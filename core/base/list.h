/* Intrusive doubly linked list with a sentinel; all operations O(1). */
#ifndef PH_BASE_LIST_H
#define PH_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct ph_list {
  struct ph_list *prev, *next;
} ph_list;

#define PH_CONTAINER(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static inline void ph_list_init(ph_list *l) {
  l->prev = l->next = l;
}
static inline bool ph_list_empty(const ph_list *l) {
  return l->next == l;
}
static inline void ph_list_push(ph_list *head, ph_list *e) { /* at the tail */
  e->prev = head->prev;
  e->next = head;
  head->prev->next = e;
  head->prev = e;
}
static inline void
ph_list_remove(ph_list *e) { /* e becomes an empty list: removing twice is harmless */
  e->prev->next = e->next;
  e->next->prev = e->prev;
  e->prev = e->next = e;
}
static inline ph_list *ph_list_pop(ph_list *head) { /* from the front, NULL when empty */
  ph_list *e = head->next;
  if (e == head) return NULL;
  ph_list_remove(e);
  return e;
}
static inline void ph_list_move(ph_list *to, ph_list *from) { /* all of from, to the tail of to */
  if (ph_list_empty(from)) return;
  from->next->prev = to->prev;
  to->prev->next = from->next;
  from->prev->next = to;
  to->prev = from->prev;
  ph_list_init(from);
}

#endif
