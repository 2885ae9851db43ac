#include "town.h"

static ph_run answer(ph_sys *s, ph_proc *p) {
  ph_msg *m;
  while ((m = ph_recv(p))) {
    ph_msg *r = m->cls == PH_C_CALL ? ph_msg_bytes(s, PH_C_REPLY, "\xc3", 1) : NULL;
    if (r && ph_reply(s, m->from, m->ref, r)) ph_msg_free(s, r);
    bool stop = m->cls == PH_C_STOP;
    ph_bytes *why = stop ? ph_bytes_ref(m->reason) : NULL;
    ph_msg_free(s, m);
    if (!stop) continue;
    ph_exit(p, why);
    ph_bytes_unref(s->env, why);
    break;
  }
  return PH_RUN_WAIT;
}

static ph_run sleep_on(ph_sys *s, ph_proc *p) {
  (void)s, (void)p;
  return PH_RUN_WAIT;
}

static void ended(ph_sys *s, ph_proc *p, ph_bytes *reason) {
  (void)s, (void)reason;
  town *t = p->data;
  if (!t) return;
  if (t->echo == p) t->echo = NULL;
  if (t->deaf == p) t->deaf = NULL;
  if (t->trapper == p) t->trapper = NULL;
}

static const ph_behaviour answers = {"answers", answer, ended};
static const ph_behaviour sleeps = {"sleeps", sleep_on, ended};

/* of module "c": "fail" fails, all others start */
static void start(void *ctx, ph_hub *hub, const char *id, size_t len, const ph_spec *spec,
                  uint64_t token) {
  hs_node *n = ctx;
  (void)id, (void)len;
  bool fails = spec->function[0] == 'f';
  ph_proc *p = fails ? NULL : ph_spawn(&n->node.sys, &answers, NULL);
  ph_hub_started(hub, token, p ? p->pid : 0, p ? NULL : ph_reason_str(&n->node.sys, "will not", 8));
}

void town_settle(town *t, hs_node *n) {
  ph_sys *s = &n->node.sys;
  n->node.hub_host.start = start;
  t->echo = ph_spawn(s, &answers, t);
  t->deaf = ph_spawn(s, &sleeps, t);
  t->trapper = ph_spawn(s, &answers, t);
  assert_true(t->echo && t->deaf && t->trapper);
  t->trapper->trap_exit = 1;
  assert_int_equal(ph_register(t->echo, "echo", 4), 0);
  assert_int_equal(ph_register(t->deaf, "deaf", 4), 0);
}
