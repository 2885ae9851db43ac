/* Moves of children (cold swap): what a child has not read goes with it.
 *
 * The old holder says that the child is about to stop (the fact STOPPING): from then on everyone
 * keeps its messages by id for later. Once every member has acknowledged that (the fence), no such
 * message can be on its way here any more. The unread ones are sent to the node that the ring
 * names, before the news that the child has ended; so the new instance has them before anyone knows
 * of it, and each sender's order is kept. Calls that nobody has seen go back to their callers,
 * which ask again. A child that ends meanwhile is started there like any other. */
#include <string.h>

#include "hub/internal.h"

void ph__move(ph_hub *h, ph_child *c) {
  switch ((ph_child_state)c->state) {
  case PH_CH_HOLDING: /* goes on */
  case PH_CH_STARTING:
  case PH_CH_FAILED:
  case PH_CH_STOPPING:
    return;
  case PH_CH_QUEUED:
  case PH_CH_BACKOFF:
    ph__child_stop(h, c);
    return;
  case PH_CH_RUNNING:
    break;
  }
  c->moving = true;
  h->moving++;
  c->state = PH_CH_HOLDING;
  c->fence = h->barrier;
  h->fence_wanted = true;
  ph_list_remove(&c->list);
  ph_list_push(&h->holding, &c->list);
  ph__child_tell(c, PH_FACT_STOPPING);
}

void ph__move_cancel(ph_hub *h, ph_child *c) {
  c->moving = false;
  h->moving--;
  c->state = PH_CH_RUNNING;
  ph_list_remove(&c->list);
  ph_list_push(&h->children, &c->list);
  ph__child_tell(c, PH_FACT_RUNNING);
}

static bool fenced(const ph_hub *h, const ph_child *c) {
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    const ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (m->hello && (!m->ready || m->acked < c->fence)) return false;
  }
  return true;
}

static void send_mail(ph_hub *h, ph_child *c, ph_member *to) {
  ph_msg *at = NULL, *m;
  while ((m = ph_take_by_id(c->proc, &at))) {
    ph_batch *b = ph__out(h, to, PH_OUT_MAIL);
    ph_buf value;
    ph_buf_init(&value, h->env);
    int err = ph_msg_pack(h->sys, &value, m);
    if (b && !err && !value.oom) {
      ph_w_str(&b->body, c->row->id, c->row->id_len);
      ph_w_uint(&b->body, m->cls);
      ph_w_bin(&b->body, ph_buf_at(&value), ph_buf_size(&value));
    } else {
      ph_logf(h->env, PH_LOG_ERROR, "hub %s: a message to %.*s was lost as it moved: %s", h->id,
              (int)c->row->id_len, c->row->id, ph_err_text(err ? err : PH_ENOMEM));
    }
    ph_buf_deinit(&value);
    ph_msg_free(h->sys, m);
  }
}

void ph__moves_run(ph_hub *h) {
  while (!ph_list_empty(&h->holding)) {
    ph_child *c = PH_CONTAINER(h->holding.next, ph_child, list);
    if (!fenced(h, c)) return; /* an acknowledgement, or the end of a member, kicks the hub */
    ph_member *to = ph__first(h, c->row->hash);
    if (!h->agreed) return;
    if (to == &h->self) {
      ph__move_cancel(h, c);
      continue;
    }
    if (to && c->proc) send_mail(h, c, to);
    ph__child_stop(h, c);
  }
}

int ph__mail_row(ph_hub *h, ph_reader *r) {
  const char *id;
  const uint8_t *p;
  size_t n, len;
  uint64_t cls;
  if (ph_r_str(r, &id, &n, PH_MAX_ID) || n == 0 || ph_r_uint(r, &cls) ||
      (cls != PH_C_INFO && cls != PH_C_CAST) || ph_r_bin(r, &p, &len, UINT32_MAX) ||
      ph_value_check(p, len))
    return PH_EMALFORMED;
  ph_msg *m = ph_msg_bytes(h->sys, (ph_class)cls, p, len);
  if (!m) return PH_ENOMEM;
  m->by_id = true;
  int err = ph__route_mail(h, id, n, m);
  if (err) ph_msg_free(h->sys, m);
  return err;
}
