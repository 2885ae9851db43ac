/* What a hub costs on one node with children in C: starts and stops of many ids, in one operation
 * and in many, and reads of hot ids. `bench_hub 100000` measures that size alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hub/hub.h"

static ph_env env;
static ph_node node;
static ph_hub *hub;
static long finished;

static ph_run idle(ph_sys *s, ph_proc *p) {
  for (ph_msg *m; (m = ph_recv(p));) ph_msg_free(s, m);
  return PH_RUN_WAIT;
}

static void ended(ph_sys *s, ph_proc *p, ph_bytes *reason) {
  (void)s, (void)p, (void)reason;
}

static const ph_behaviour child = {"child", idle, ended};

static void start(void *ctx, ph_hub *h, const char *id, size_t n, const ph_spec *spec,
                  uint64_t token) {
  (void)ctx, (void)id, (void)n, (void)spec;
  ph_proc *p = ph_spawn(&node.sys, &child, NULL);
  if (!p) abort();
  ph_hub_started(h, token, p->pid, NULL);
}

static void abandon(void *ctx, ph_hub *h, uint64_t token) {
  (void)ctx, (void)h, (void)token;
}

static void drop(void *ctx, uint64_t host) {
  (void)ctx, (void)host;
}

static int pack(void *ctx, uint64_t host, ph_buf *out) {
  (void)ctx, (void)host, (void)out;
  return PH_ENOTSERIAL;
}

static int command(void *ctx, uint32_t type, uint64_t a, uint64_t b, const void *p, size_t n) {
  (void)ctx, (void)type, (void)a, (void)b, (void)p, (void)n;
  return 0;
}

static void setup(void) {
  ph_sys_host sh = {NULL, drop, pack};
  ph_hub_host hh = {.start = start, .abandon = abandon};
  ph_port port = {NULL, command};
  ph_env_real(&env);
  if (ph_node_init(&node, &env, &sh, &hh, &port)) abort();
  ph_hub_config c = {.hub_id = "bench",
                     .hub_id_len = 5,
                     .strategies_text = "",
                     .discover_interval = 10000,
                     .sync_interval = 15000,
                     .max_restarts = 100,
                     .max_seconds = 4,
                     .shutdown_timeout = 60000,
                     .max_concurrent_starts = 1000};
  if (ph_hub_new(&node, &c, &hub)) abort();
}

static ph_spec *spec(void) {
  static const char blob[] = "\x81\xa5start\x92\xa1m\xa1"
                             "f";
  const char *key;
  ph_spec *s;
  if (ph_spec_get(ph_hub_specs(hub), blob, sizeof blob - 1, &s, &key)) abort();
  return s;
}

static void done(void *ctx, ph_op *op) {
  long *failed = ctx;
  for (size_t i = 0; i < ph_op_count(op); i++) {
    ph_op_row r;
    ph_op_row_get(op, i, &r);
    if (r.status != PH_ROW_DONE) ++*failed;
  }
  finished++;
  ph_op_free(op);
}

/* n ids in `ops` operations under way together */
static void operate(ph_op_kind kind, long n, long ops) {
  ph_op_options o = {.timeout = 600000, .await_timeout = 600000, .check_existing = true};
  char id[32];
  long failed = 0, per = n / ops;
  ph_spec *s = kind == PH_OP_START ? spec() : NULL;
  uint64_t t0 = ph_now(&env);
  finished = 0;
  for (long k = 0; k < ops; k++) {
    ph_op *op = ph_op_new(hub, kind, (size_t)per);
    if (!op) abort();
    for (long i = k * per; i < (k + 1) * per; i++) {
      int len = snprintf(id, sizeof id, "child-%ld", i);
      if (ph_op_add(op, id, (size_t)len, ph_spec_ref(s), NULL)) abort();
    }
    if (ph_op_submit(op, &o, done, &failed)) abort();
  }
  uint64_t t1 = ph_now(&env), longest = 0;
  while (finished < ops) {
    uint64_t a = ph_now(&env);
    (void)ph_sys_run(&node.sys, PH_MS(5));
    uint64_t b = ph_now(&env);
    if (b - a > longest) longest = b - a;
  }
  uint64_t t2 = ph_now(&env);
  ph_spec_unref(ph_hub_specs(hub), s);
  if (failed) abort();
  printf("%-6s %8ld ids in %7ld ops: %9.0f a second (making ops %4.0f ns an id, longest step %5.2f "
         "ms)\n",
         kind == PH_OP_START ? "start" : "stop", n, ops, (double)n * 1e9 / (double)(t2 - t0),
         (double)(t1 - t0) / (double)n, (double)longest / 1e6);
}

static void finds(long n) {
  enum { HOT = 1000, CALLS = 5000000 };
  static char ids[HOT][32];
  static size_t lens[HOT];
  uint64_t sum = 0;
  for (int i = 0; i < HOT; i++)
    lens[i] = (size_t)snprintf(ids[i], sizeof ids[i], "child-%ld", (long)i * (n / HOT));
  uint64_t t = ph_now(&env);
  for (int i = 0; i < CALLS; i++) {
    ph_row *r = ph_hub_find(hub, ids[i % HOT], lens[i % HOT]);
    if (!r) abort();
    sum += ph_row_pid(hub, r);
  }
  if (!sum) abort();
  printf("find and pid of %d hot ids of %ld: %.0f a second\n", HOT, n,
         (double)CALLS * 1e9 / (double)(ph_now(&env) - t));
}

static void size(long n) {
  operate(PH_OP_START, n, 1);
  if (n >= 1000) finds(n);
  operate(PH_OP_STOP, n, 1);
}

int main(int argc, char **argv) {
  setup();
  if (argc > 1) {
    size(atol(argv[1]));
  } else {
    size(10000);
    size(100000);
    size(1000000);
    operate(PH_OP_START, 10000, 10000);
    operate(PH_OP_STOP, 10000, 10000);
    operate(PH_OP_START, 100000, 100000);
    operate(PH_OP_STOP, 100000, 100000);
  }
  ph_node_deinit(&node);
  return 0;
}
