/* Level-triggered placement: compares what should run with what runs, row by row, and acts on the
 * difference. Whatever event made a row dirty, the answer depends on the state alone, so a lost or
 * reordered event costs time, never a child.
 *
 *  - no intent, or another number than ours: what runs here is stopped;
 *  - two holders of one number, after a heal: the lowest name among those not leaving stays;
 *  - a holder that is not the one the ring names stops (a cold swap), and the named node, which
 * sees no holder any more, starts: never before, so a child is nowhere twice in one view;
 *  - nobody holds it: the node that the ring names starts it, once the view is agreed. */
#include <string.h>

#include "hub/internal.h"

enum { SLICE = 2048, MOVES = 1000 };

/* Two live starts of one id, after a cut: the larger one holds once it is confirmed. Its requester
 * alone can say so, or withdraw it; while that is out of view, or gone for good, both stay:
 * somebody not in view may know that it was withdrawn. */
static void resolve(ph_hub *h, ph_row *r) {
  const ph_intent *in = r->live;
  if (!in->confirmed) {
    ph_member *requester = ph__member(h, h->sys->nodes[in->num.node]);
    if (requester) ph__unsure_send(h, requester, r, in->num);
    return;
  }
  while (r->live->next) {
    ph_number num = r->live->next->num;
    if (ph__ended_add(h, r, num, false) < 0) {
      ph__oom(h);
      return;
    }
    ph__change_ended(h, r, num);
  }
}

/* A static child that was stopped stays so, whoever comes and has it among its child_specs. */
static void yield(ph_hub *h, ph_row *r) {
  const ph_ended *e = r->ended;
  while (e && !e->keep) e = e->next;
  for (ph_intent *in = e ? r->live : NULL, *next; in; in = next) {
    ph_number num = in->num;
    next = in->next;
    if (in->hlc != 0) continue;
    if (ph__ended_add(h, r, num, false) < 0) {
      ph__oom(h);
      return;
    }
    ph__change_ended(h, r, num);
  }
}

/* does another node hold the same start, and keep it? */
static bool other_stays(const ph_hub *h, const ph_row *r) {
  const ph_child *c = r->child;
  for (const ph_fact *f = r->facts; f; f = f->next) {
    if (f->owner == &h->self || f->state == PH_FACT_STOPPING || !ph_number_eq(f->num, c->num))
      continue;
    if (f->owner->leaving != h->leaving) {
      if (h->leaving) return true;
      continue;
    }
    if (strcmp(f->owner->node->name, h->self.node->name) < 0) return true;
  }
  return false;
}

static void held_here(ph_hub *h, ph_row *r) {
  ph_child *c = r->child;
  if (!h->agreed) return;
  if (other_stays(h, r)) {
    ph__child_stop(h, c);
    return;
  }
  ph_member *first = ph__first(h, r->hash);
  if (first && first != &h->self)
    ph__move(h, c);
  else if (c->state == PH_CH_HOLDING)
    ph__move_cancel(h, c);
}

/* While others that run the hub are not yet in the view, only what was asked for in this view is
 * started: they may be about to say that they hold the rest. */
static bool may_start(ph_hub *h, const ph_row *r) {
  return r->live && !r->facts && h->agreed && !h->stopping && !h->state &&
         (!h->meeting || r->live->fresh) && ph__first(h, r->hash) == &h->self;
}

static void look(ph_hub *h, ph_row *r) {
  if (r->ended && r->live) yield(h, r);
  ph__req_row_changed(h, r);
  ph__route_row(h, r);
  if (r->live && r->live->next && h->agreed && ph__first(h, r->hash) == &h->self) resolve(h, r);
  ph_child *c = r->child;
  if (c && (!r->live || !ph_number_eq(c->num, r->live->num))) {
    ph__child_stop(h, c);
  } else if (c) {
    held_here(h, r);
  } else if (may_start(h, r)) {
    if (ph__child_start(h, r)) ph__oom(h);
  }
  ph__row_release(h, r);
}

/* children that run here, looked at again after a change of ring; slower while many are on the move
 */
static bool scan(ph_hub *h) {
  for (int i = 0; i < SLICE && h->scan_at; i++) {
    if (h->moving >= MOVES) return false; /* the end of a move kicks the hub */
    ph_row *r = h->scan_at->row;
    h->scan_at = ph__own_fact_after(h, h->scan_at);
    if (r->child && h->agreed) held_here(h, r);
  }
  return h->scan_at != NULL;
}

bool ph__place_slice(ph_hub *h) {
  for (int i = 0; i < SLICE; i++) {
    ph_list *l = ph_list_pop(&h->dirty);
    if (!l) break;
    look(h, PH_CONTAINER(l, ph_row, dirty));
  }
  bool more = scan(h);
  return more || !ph_list_empty(&h->dirty);
}

void ph__place_homeless(ph_hub *h) {
  for (ph_list *l = h->homeless.next; l != &h->homeless; l = l->next)
    ph__row_dirty(h, PH_CONTAINER(l, ph_row, homeless));
}

void ph__place_agreed(ph_hub *h) {
  ph__place_homeless(h);
  h->scan_at = ph__own_fact_after(h, NULL);
}
