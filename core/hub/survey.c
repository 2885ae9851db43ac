/* Surveys: every member is asked for its word. A member's messages come in order, and it sends what
 * it has to tell before it answers; so with the answer, what runs there is in this node's registry.
 * Nothing but a number travels, however many children there are.
 *
 * `done` is called from the survey's timer alone, which is armed as long as the survey is open. */
#include <stdlib.h>
#include <string.h>

#include "hub/internal.h"

static void over(ph_timer *t) {
  ph_survey *s = PH_CONTAINER(t, ph_survey, timer);
  ph_list_remove(&s->list);
  for (size_t i = 0; i < s->count; i++)
    if (s->rows[i].err == PH_EAGAIN) s->rows[i].err = PH_ETIMEOUT;
  s->done(s);
}

static void settle(ph_survey *s, ph_survey_row *row, int err) {
  row->err = err;
  if (--s->open == 0) (void)!ph_timer_start(&s->sys->timers, &s->timer, 0); /* it is armed */
}

static ph_survey_row *row_of(ph_survey *s, const ph_nodeent *node) {
  for (size_t i = 0; i < s->count; i++)
    if (s->rows[i].node == node && s->rows[i].err == PH_EAGAIN) return &s->rows[i];
  return NULL;
}

static void ask(ph_hub *h, ph_survey *s) {
  for (size_t i = 0; i < s->count; i++) {
    ph_member *m = s->rows[i].err == PH_EAGAIN ? ph__member(h, s->rows[i].node) : NULL;
    if (m && ph__send_number(h, m, PH_H_SURVEY, s->token)) ph__oom(h);
  }
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const ph_survey_row *)a)->node->name, ((const ph_survey_row *)b)->node->name);
}

int ph_hub_survey(ph_hub *h, uint64_t due, ph_survey *s) {
  s->sys = h->sys;
  s->token = ++h->next_survey;
  s->count = 1;
  ph_list_init(&s->list);
  for (ph_list *l = h->members.next; l != &h->members; l = l->next)
    s->count += PH_CONTAINER(l, ph_member, all)->included;
  s->rows = ph_alloc(h->env, s->count * sizeof *s->rows);
  if (!s->rows) return PH_ENOMEM;
  size_t n = 0;
  s->rows[n++] = (ph_survey_row){h->self.node, 0};
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (m->included) s->rows[n++] = (ph_survey_row){m->node, PH_EAGAIN};
  }
  s->open = n - 1;
  qsort(s->rows, n, sizeof *s->rows, by_name);
  ph_timer_init(&s->timer, over);
  if (due == PH_NEVER) due = PH_NEVER - 1;
  if (ph_timer_start(&h->sys->timers, &s->timer, s->open ? due : 0)) {
    ph_free(h->env, s->rows);
    s->rows = NULL;
    return PH_ENOMEM;
  }
  ph_list_push(&h->surveys, &s->list);
  ask(h, s);
  return 0;
}

void ph_survey_end(ph_survey *s) {
  if (!s->rows) return;
  ph_timer_stop(&s->sys->timers, &s->timer);
  ph_list_remove(&s->list);
  ph_free(s->sys->env, s->rows);
  s->rows = NULL;
}

/* ---- What members say, or fail to */

int ph__on_survey(ph_hub *h, ph_member *m, ph_reader *r) {
  uint64_t token;
  if (ph_r_uint(r, &token)) return PH_EMALFORMED;
  ph__flush(h);
  return ph__send_number(h, m, PH_H_SURVEYED, token);
}

int ph__on_surveyed(ph_hub *h, ph_member *m, ph_reader *r) {
  uint64_t token;
  if (ph_r_uint(r, &token)) return PH_EMALFORMED;
  for (ph_list *l = h->surveys.next; l != &h->surveys; l = l->next) {
    ph_survey *s = PH_CONTAINER(l, ph_survey, list);
    ph_survey_row *row = s->token == token ? row_of(s, m->node) : NULL;
    if (row) settle(s, row, 0);
  }
  return 0;
}

void ph__surveys_gone(ph_hub *h, const ph_nodeent *node) {
  for (ph_list *l = h->surveys.next; l != &h->surveys; l = l->next) {
    ph_survey *s = PH_CONTAINER(l, ph_survey, list);
    ph_survey_row *row = row_of(s, node);
    if (row) settle(s, row, PH_ENOCONN);
  }
}

/* a question or an answer may be lost */
void ph__surveys_again(ph_hub *h) {
  for (ph_list *l = h->surveys.next; l != &h->surveys; l = l->next)
    ask(h, PH_CONTAINER(l, ph_survey, list));
}

void ph__surveys_end(ph_hub *h) {
  ph_list *l;
  while ((l = ph_list_pop(&h->surveys))) {
    ph_survey *s = PH_CONTAINER(l, ph_survey, list);
    ph_timer_stop(&h->sys->timers, &s->timer);
    for (size_t i = 0; i < s->count; i++) s->rows[i].err = PH_ENOTALIVE;
    s->done(s);
  }
}
