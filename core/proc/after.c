/* Timers with a ref: a message that is sent later. */
#include <string.h>

#include "proc/proc_int.h"

enum { AGAIN_MS = 10 }; /* when there was no memory to send it */

typedef struct after {
  ph_refobj obj; /* target_pid: the receiver, 0: named */
  ph_timer timer;
  ph_sys *sys;
  ph_msg *msg;
  ph_nodeent *node;
  size_t n;
  char name[];
} after;

void ph__after_free(ph_sys *s, ph_refobj *o) {
  after *a = PH_CONTAINER(o, after, obj);
  ph_timer_stop(&s->timers, &a->timer);
  ph_msg_free(s, a->msg);
  ph_free(s->env, a);
}

static void fire(ph_timer *t) {
  after *a = PH_CONTAINER(t, after, timer);
  ph_sys *s = a->sys;
  ph_msg *m = a->msg;
  a->msg = NULL;
  ph__ref_remove(s, &a->obj); /* first: sending may run code of the host's, which may cancel */
  int rc = a->obj.target_pid ? ph_send(s, a->obj.target_pid, m, true)
                             : ph_send_named(s, a->name, a->n, a->node, m, true);
  if (rc) a->msg = m; /* still ours */
  if (rc == PH_ENOMEM && ph__ref_put(s, &a->obj) == 0) {
    if (ph_timer_start(&s->timers, &a->timer, ph_due(s->env, AGAIN_MS)) == 0) return;
    ph__ref_remove(s, &a->obj);
  }
  if (rc == PH_ENOMEM) ph_logf(s->env, PH_LOG_WARN, "out of memory: a timer's message is lost");
  ph__after_free(s, &a->obj);
}

static int arm(ph_sys *s, uint64_t due, ph_pid to, const char *name, size_t n, ph_nodeent *node,
               ph_msg *m, ph_ref *out) {
  after *a = ph_alloc(s->env, sizeof *a + n);
  if (!a) return PH_ENOMEM;
  ph__refobj_init(&a->obj, PH_R_TIMER, ph_ref_new(s), to);
  ph_timer_init(&a->timer, fire);
  a->sys = s;
  a->msg = m;
  a->node = node;
  a->n = n;
  if (n) memcpy(a->name, name, n);
  int rc = ph__ref_put(s, &a->obj);
  if (rc == 0) {
    rc = ph_timer_start(&s->timers, &a->timer, due);
    if (rc) ph__ref_remove(s, &a->obj);
  }
  if (rc)
    ph_free(s->env, a);
  else
    *out = a->obj.ref;
  return rc;
}

int ph_send_after(ph_sys *s, uint64_t due, ph_pid to, ph_msg *m, ph_ref *out) {
  if (!ph_is_pid(to) || !ph__node_of(s, to)) return PH_EINVAL;
  return arm(s, due, to, NULL, 0, NULL, m, out);
}

int ph_send_after_named(ph_sys *s, uint64_t due, const char *name, size_t n, ph_nodeent *node,
                        ph_msg *m, ph_ref *out) {
  if (n == 0 || n > PH_MAX_NAME) return PH_EINVAL;
  return arm(s, due, 0, name, n, node, m, out);
}

bool ph_cancel_timer(ph_sys *s, ph_ref ref, uint64_t *left_ms) {
  ph_refobj *o = ph__ref_find(s, ref);
  if (!o || o->kind != PH_R_TIMER) return false;
  after *a = PH_CONTAINER(o, after, obj);
  uint64_t now = ph_now(s->env), due = ph_timer_armed(&a->timer) ? a->timer.due : PH_NEVER;
  if (left_ms)
    *left_ms = due == PH_NEVER ? UINT64_MAX : due <= now ? 0 : (due - now - 1) / PH_MS(1) + 1;
  ph__ref_remove(s, o);
  ph__after_free(s, o);
  return true;
}
