/* Runtimes over loopback TCP: two in one OS process, driven in turn, and two OS processes. */
#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "phub.h"

/* ---- hosts, behaviours, waiters ---------------------------------------------------------------
 */

static void no_start(void *ctx, struct ph_hub *hub, const char *id, size_t id_len,
                     const struct ph_spec *spec, uint64_t token) {
  (void)ctx, (void)hub, (void)id, (void)id_len, (void)spec, (void)token;
}

static void no_abandon(void *ctx, struct ph_hub *hub, uint64_t token) {
  (void)ctx, (void)hub, (void)token;
}

static ph_rt *new_runtime(void) {
  ph_sys_host sys_host = {0};
  ph_hub_host hub_host = {.start = no_start, .abandon = no_abandon};
  ph_rt *rt;
  assert_int_equal(ph_rt_new(&sys_host, &hub_host, &rt), 0);
  return rt;
}

/* keeps the texts of what it gets, and answers calls */
typedef struct server {
  ph_proc *p;
  int count, downs;
  uint64_t last; /* number in the last message */
  bool ordered;
  char reason[32];
} server;

static ph_run serve(ph_sys *s, ph_proc *p) {
  server *x = p->data;
  for (ph_msg *m; (m = ph_recv(p));) {
    x->count++;
    if (m->cls == PH_C_CALL) {
      ph_msg *a = ph_msg_bytes(s, PH_C_REPLY, m->data, m->len);
      if (a && ph_reply(s, m->from, m->ref, a)) ph_msg_free(s, a);
    } else if (m->cls == PH_C_DOWN) {
      x->downs++;
      snprintf(x->reason, sizeof x->reason, "%.*s", (int)m->reason->len - 1, m->reason->data + 1);
    } else {
      ph_reader r;
      uint64_t v;
      ph_reader_init(&r, m->data, m->len);
      if (ph_r_uint(&r, &v) == 0) {
        if (v != x->last + 1) x->ordered = false;
        x->last = v;
      }
    }
    ph_msg_free(s, m);
  }
  return PH_RUN_WAIT;
}

static void served(ph_sys *s, ph_proc *p, ph_bytes *reason) {
  (void)s, (void)reason;
  ((server *)p->data)->p = NULL;
}

static const ph_behaviour serving = {"server", serve, served};

static void start_server(ph_rt *rt, server *x) {
  *x = (server){.ordered = true};
  x->p = ph_spawn(ph_rt_sys(rt), &serving, x);
  assert_non_null(x->p);
  assert_int_equal(ph_register(x->p, "srv", 3), 0);
}

typedef struct answer {
  ph_waiter w;
  ph_rt *rt;
  int calls, err;
  size_t len;
  uint64_t number;
} answer;

static void answered(ph_waiter *w, int err, ph_msg *m, ph_bytes *reason) {
  answer *a = (answer *)(void *)w;
  ph_reader r;
  (void)reason;
  a->calls++;
  a->err = err;
  a->len = m ? m->len : 0;
  if (m) {
    ph_reader_init(&r, m->data, m->len);
    if (ph_r_uint(&r, &a->number)) a->number = 0;
  }
  ph_msg_free(w->sys, m);
  ph_rt_wake(a->rt); /* whoever drives the loop wants to look */
}

static void answer_init(answer *a, ph_rt *rt) {
  memset(a, 0, sizeof *a);
  a->rt = rt;
  ph_waiter_init(ph_rt_sys(rt), &a->w, answered);
}

static ph_msg *number(ph_rt *rt, ph_class cls, uint64_t v) {
  ph_buf b;
  ph_buf_init(&b, ph_rt_env(rt));
  ph_w_uint(&b, v);
  ph_msg *m = ph_msg_bytes(ph_rt_sys(rt), cls, ph_buf_at(&b), ph_buf_size(&b));
  ph_buf_deinit(&b);
  assert_non_null(m);
  return m;
}

/* ---- nodes ------------------------------------------------------------------------------------
 */

static ph_cluster_config config(const char *name) {
  return (ph_cluster_config){.name = name,
                             .listen = "127.0.0.1:0",
                             .cookie = "secret",
                             .cookie_len = 6,
                             .heartbeat_interval = 100,
                             .heartbeat_timeout = 1000,
                             .stall_timeout = 60000,
                             .max_message = 64 * 1024 * 1024};
}

static void start_node(ph_rt *rt, const char *name) {
  ph_cluster_config c = config(name);
  assert_int_equal(ph_rt_start(rt, &c), 0);
}

static uint64_t now_ms(ph_rt *rt) {
  return ph_now(ph_rt_env(rt)) / PH_MS(1);
}

/* drives both until cond, at most 10 s */
#define EVENTUALLY(a, b, cond)                                                                     \
  do {                                                                                             \
    uint64_t end_ = now_ms(a) + 10000;                                                             \
    while (!(cond)) {                                                                              \
      assert_true(now_ms(a) < end_);                                                               \
      ph_rt_step(a, 0);                                                                            \
      if ((b) != NULL) ph_rt_step(b, 0);                                                           \
    }                                                                                              \
  } while (0)

static ph_nodeent *see(ph_rt *rt, const char *name) {
  return ph_sys_node_named(ph_rt_sys(rt), name, strlen(name));
}

static void join(ph_rt *a, ph_rt *b, const char *name_a, const char *name_b) {
  assert_int_equal(ph_rt_join(a, ph_rt_address(b)), 0);
  EVENTUALLY(a, b, see(a, name_b) && see(b, name_a));
}

static int entries(const char *dir) {
  int n = 0;
  DIR *d = opendir(dir);
  assert_non_null(d);
  while (readdir(d)) n++;
  closedir(d);
  return n;
}

static char runtime_dir[64];

/* ---- tests ------------------------------------------------------------------------------------
 */

static void a_runtime_without_a_node_waits_for_its_timers(void **state) {
  (void)state;
  ph_rt *rt = new_runtime();
  answer a;
  answer_init(&a, rt);
  uint64_t start = now_ms(rt);
  assert_int_equal(ph_wait(&a.w, ph_due(ph_rt_env(rt), 60)), 0);
  int steps = 0;
  clock_t cpu = clock();
  while (!a.calls) {
    ph_rt_step(rt, PH_NEVER);
    steps++;
  }
  assert_int_equal(a.err, PH_ETIMEOUT);
  assert_in_range(now_ms(rt) - start, 59, 5000);
  assert_in_range(steps, 1, 10); /* it slept */
  assert_true((clock() - cpu) * 1000 / CLOCKS_PER_SEC < 30);
  start = now_ms(rt);
  ph_rt_step(rt, ph_due(ph_rt_env(rt), 30)); /* nothing to do: until its own time is over */
  assert_in_range(now_ms(rt) - start, 29, 5000);
  assert_null(ph_rt_address(rt));
  uint64_t request;
  assert_int_equal(ph_rt_join(rt, "127.0.0.1:1"), PH_ENONODE);
  assert_int_equal(ph_rt_connect(rt, "127.0.0.1:1", 10, &request), PH_ENONODE);
  assert_int_equal(ph_rt_leave(rt), PH_ENONODE);
  ph_rt_node_end(rt);
  ph_rt_free(rt);
}

static void *wake_soon(void *arg) {
  usleep(20000);
  ph_rt_wake(arg);
  return NULL;
}

static void a_wake_ends_the_wait(void **state) {
  (void)state;
  ph_rt *rt = new_runtime();
  pthread_t t;
  assert_int_equal(pthread_create(&t, NULL, wake_soon, rt), 0);
  uint64_t start = now_ms(rt);
  ph_rt_step(rt, ph_due(ph_rt_env(rt), 20000));
  assert_true(now_ms(rt) - start < 10000);
  pthread_join(t, NULL);
  ph_rt_wake(rt); /* before the wait: the next one does not begin */
  start = now_ms(rt);
  ph_rt_step(rt, ph_due(ph_rt_env(rt), 20000));
  assert_true(now_ms(rt) - start < 10000);
  ph_rt_free(rt);
}

static void two_nodes_call_each_other(void **state) {
  (void)state;
  ph_rt *a = new_runtime(), *b = new_runtime();
  server sa, sb;
  answer x, y, nobody;
  start_server(a, &sa);
  start_server(b, &sb); /* before the node has a name */
  start_node(a, "a@127.0.0.1");
  start_node(b, "b@127.0.0.1");
  ph_cluster_config again = config("c@127.0.0.1");
  assert_int_equal(ph_rt_start(a, &again), PH_EALREADY);
  join(a, b, "a@127.0.0.1", "b@127.0.0.1");
  for (uint64_t i = 1; i <= 200; i++) {
    answer_init(&x, a);
    answer_init(&y, b);
    assert_int_equal(ph_call_named(ph_rt_sys(a), sa.p->pid, "srv", 3, see(a, "b@127.0.0.1"),
                                   number(a, PH_C_CALL, i), &x.w, PH_NEVER),
                     0);
    assert_int_equal(ph_call_named(ph_rt_sys(b), 0, "srv", 3, see(b, "a@127.0.0.1"),
                                   number(b, PH_C_CALL, i + 1000), &y.w, PH_NEVER),
                     0);
    EVENTUALLY(a, b, x.calls && y.calls);
    assert_int_equal(x.err, 0);
    assert_int_equal(x.number, i);
    assert_int_equal(y.number, i + 1000);
  }
  answer_init(&nobody, a);
  assert_int_equal(ph_call_named(ph_rt_sys(a), 0, "nix", 3, see(a, "b@127.0.0.1"),
                                 number(a, PH_C_CALL, 1), &nobody.w, PH_NEVER),
                   0);
  EVENTUALLY(a, b, nobody.calls);
  assert_int_equal(nobody.err, PH_ENOPROC);
  ph_rt_free(a);
  ph_rt_free(b);
}

static void many_and_large_messages_keep_their_order(void **state) {
  (void)state;
  enum { MANY = 50000, LARGE = 9 * 1024 * 1024 };
  ph_rt *a = new_runtime(), *b = new_runtime();
  server sb;
  answer big;
  start_server(b, &sb);
  start_node(a, "a@127.0.0.1");
  start_node(b, "b@127.0.0.1");
  join(a, b, "a@127.0.0.1", "b@127.0.0.1");
  ph_nodeent *to = see(a, "b@127.0.0.1");
  for (uint64_t i = 1; i <= MANY; i++) {
    ph_msg *m = number(a, PH_C_INFO, i);
    int rc;
    while ((rc = ph_send_named(ph_rt_sys(a), "srv", 3, to, m, false)) == PH_EBUSY) {
      ph_rt_step(a, 0);
      ph_rt_step(b, 0);
    }
    assert_int_equal(rc, 0);
  }
  ph_buf v;
  ph_buf_init(&v, ph_rt_env(a));
  char *text = calloc(1, LARGE);
  ph_w_bin(&v, text, LARGE);
  free(text);
  ph_msg *m = ph_msg_bytes(ph_rt_sys(a), PH_C_CALL, ph_buf_at(&v), ph_buf_size(&v));
  ph_buf_deinit(&v);
  answer_init(&big, a);
  assert_int_equal(ph_call_named(ph_rt_sys(a), 0, "srv", 3, to, m, &big.w, PH_NEVER), 0);
  EVENTUALLY(a, b, big.calls);
  assert_int_equal(big.err, 0);
  assert_int_equal(big.len, LARGE + 5);
  assert_int_equal(sb.count, MANY + 1);
  assert_true(sb.ordered);
  ph_rt_free(a);
  ph_rt_free(b);
}

/* It never comes to a step: the port itself must flush, and tell it to stop. */
static void a_process_that_sends_for_ever_is_stopped(void **state) {
  (void)state;
  ph_rt *a = new_runtime(), *b = new_runtime();
  server sb;
  start_server(b, &sb);
  start_node(a, "a@127.0.0.1");
  start_node(b, "b@127.0.0.1");
  join(a, b, "a@127.0.0.1", "b@127.0.0.1");
  ph_nodeent *to = see(a, "b@127.0.0.1");
  char kilo[1024];
  ph_buf v;
  memset(kilo, 'x', sizeof kilo);
  ph_buf_init(&v, ph_rt_env(a));
  ph_w_str(&v, kilo, sizeof kilo);
  long sent = 0;
  int rc = 0;
  while (rc == 0 && sent < 200000) {
    ph_msg *m = ph_msg_bytes(ph_rt_sys(a), PH_C_INFO, ph_buf_at(&v), ph_buf_size(&v));
    rc = ph_send_named(ph_rt_sys(a), "srv", 3, to, m, false);
    if (rc)
      ph_msg_free(ph_rt_sys(a), m);
    else
      sent++;
  }
  ph_buf_deinit(&v);
  assert_int_equal(rc, PH_EBUSY);
  assert_in_range(sent, 1000, 60000); /* windows and sockets, not memory without end */
  answer go;
  answer_init(&go, a);
  assert_int_equal(ph_wait_xon(&go.w, to, PH_NEVER), 0);
  EVENTUALLY(a, b, go.calls);
  assert_int_equal(go.err, 0);
  EVENTUALLY(a, b, sb.count == sent);
  ph_rt_free(a);
  ph_rt_free(b);
}

static void a_message_beyond_the_limit_is_refused(void **state) {
  (void)state;
  ph_rt *a = new_runtime(), *b = new_runtime();
  ph_cluster_config c = config("a@127.0.0.1");
  c.max_message = 100000;
  assert_int_equal(ph_rt_start(a, &c), 0);
  c.name = "b@127.0.0.1";
  assert_int_equal(ph_rt_start(b, &c), 0);
  join(a, b, "a@127.0.0.1", "b@127.0.0.1");
  char *big = calloc(1, 200000);
  ph_buf v;
  ph_buf_init(&v, ph_rt_env(a));
  ph_w_bin(&v, big, 200000);
  free(big);
  ph_msg *m = ph_msg_bytes(ph_rt_sys(a), PH_C_INFO, ph_buf_at(&v), ph_buf_size(&v));
  ph_buf_deinit(&v);
  assert_int_equal(ph_send_named(ph_rt_sys(a), "srv", 3, see(a, "b@127.0.0.1"), m, false),
                   PH_ETOOLARGE);
  ph_msg_free(ph_rt_sys(a), m);
  ph_rt_free(a);
  ph_rt_free(b);
}

static void a_node_leaves_and_may_start_again(void **state) {
  (void)state;
  ph_rt *a = new_runtime(), *b = new_runtime();
  server sa, sb;
  ph_ref ref;
  start_server(a, &sa);
  start_server(b, &sb);
  start_node(a, "a@127.0.0.1");
  start_node(b, "b@127.0.0.1");
  join(a, b, "a@127.0.0.1", "b@127.0.0.1");
  uint64_t incarnation = ph_rt_sys(a)->nodes[0]->incarnation;
  assert_int_equal(ph_monitor_named(sb.p, "srv", 3, see(b, "a@127.0.0.1"), &ref), 0);
  EVENTUALLY(a, b, !ph_list_empty(&sa.p->watched));
  assert_int_equal(ph_rt_leave(a), 0);
  assert_int_equal(ph_rt_leave(a), 0);
  EVENTUALLY(a, b, ph_rt_left(a));
  ph_rt_node_end(a);
  ph_rt_node_end(a);
  assert_false(ph_rt_started(a));
  assert_null(see(a, "b@127.0.0.1"));
  EVENTUALLY(b, a, sb.downs == 1);
  assert_string_equal(sb.reason, "noconnection");
  assert_null(see(b, "a@127.0.0.1"));
  start_node(a, "a@127.0.0.1");
  assert_true(ph_rt_sys(a)->nodes[0]->incarnation > incarnation);
  join(a, b, "a@127.0.0.1", "b@127.0.0.1");
  ph_rt_free(b);
  EVENTUALLY(a, (ph_rt *)NULL, !see(a, "b@127.0.0.1")); /* refused at once: it is down */
  ph_rt_free(a);
}

static int connect_err;
static uint64_t connect_request;
static char connect_name[64];
static void on_connected(void *ctx, uint64_t request, int err, const char *name, size_t n) {
  (void)ctx;
  connect_request = request;
  connect_err = err;
  snprintf(connect_name, sizeof connect_name, "%.*s", (int)n, name ? name : "");
}

static void a_request_to_connect_is_answered(void **state) {
  (void)state;
  ph_rt *a = new_runtime(), *b = new_runtime();
  uint64_t request;
  char old[64];
  ph_rt_node(a)->on_connected = on_connected;
  start_node(a, "a@127.0.0.1");
  start_node(b, "b@127.0.0.1");
  snprintf(old, sizeof old, "%s", ph_rt_address(b));
  assert_int_equal(ph_rt_connect(a, "b@127.0.0.1", 5000, &request), 0); /* by its name */
  connect_request = 0;
  EVENTUALLY(a, b, connect_request == request);
  assert_int_equal(connect_err, 0);
  assert_string_equal(connect_name, "b@127.0.0.1");
  assert_int_equal(ph_rt_disconnect(a, "b@127.0.0.1"), 0);
  EVENTUALLY(a, b, !see(a, "b@127.0.0.1") && !see(b, "a@127.0.0.1"));
  ph_rt_free(b);
  assert_int_equal(ph_rt_connect(a, old, 5000, &request), 0);
  EVENTUALLY(a, (ph_rt *)NULL, connect_request == request);
  assert_int_equal(connect_err, PH_EREFUSED);
  ph_cluster_config c = config("a@127.0.0.1"); /* a name that is taken, a port that is too */
  ph_rt *d = new_runtime();
  c.listen = ph_rt_address(a);
  assert_true(ph_rt_start(d, &c) < 0);
  assert_false(ph_rt_started(d));
  start_node(d, "d@127.0.0.1");
  ph_rt_free(d);
  ph_rt_free(a);
}

static void nothing_remains(void **state) {
  (void)state;
  int fds = entries("/proc/self/fd"), threads = entries("/proc/self/task");
  for (int i = 0; i < 3; i++) {
    ph_rt *a = new_runtime(), *b = new_runtime();
    start_node(a, "a@127.0.0.1");
    start_node(b, "b@127.0.0.1");
    join(a, b, "a@127.0.0.1", "b@127.0.0.1");
    assert_int_equal(entries("/proc/self/task"), threads + 2);
    ph_rt_free(a);
    ph_rt_node_end(b);
    assert_int_equal(entries("/proc/self/task"), threads);
    ph_rt_free(b);
  }
  assert_int_equal(entries("/proc/self/fd"), fds);
  assert_int_equal(entries("/proc/self/task"), threads);
  char inner[96];
  snprintf(inner, sizeof inner, "%s/phub", runtime_dir);
  assert_int_equal(entries(inner), 2); /* "." and "..": no discovery file */
}

/* ---- without memory ---------------------------------------------------------------------------
 */

/* allocations of the interpreter's side (and of both queues) of at least this size fail */
static size_t refuse = SIZE_MAX;

static void *refusing(void *ctx, void *p, size_t n) {
  (void)ctx;
  if (n >= refuse) return NULL;
  if (n) return realloc(p, n);
  free(p);
  return NULL;
}

static ph_rt *refusing_runtime(void) {
  ph_rt *rt = new_runtime();
  ph_env *env = (ph_env *)(uintptr_t)ph_rt_env(rt);
  env->realloc = refusing;
  return rt;
}

static void news_that_finds_no_memory_is_kept(void **state) {
  (void)state;
  ph_rt *a = refusing_runtime(), *b = new_runtime();
  start_node(a, "a@127.0.0.1");
  start_node(b, "b@127.0.0.1");
  assert_int_equal(ph_rt_join(a, ph_rt_address(b)), 0);
  refuse = 1;
  EVENTUALLY(a, b, see(b, "a@127.0.0.1"));
  for (int i = 0; i < 20; i++) {
    ph_rt_step(a, 0);
    ph_rt_step(b, 0);
  }
  assert_null(see(a, "b@127.0.0.1"));
  refuse = SIZE_MAX;
  EVENTUALLY(a, b, see(a, "b@127.0.0.1"));
  ph_rt_free(a);
  ph_rt_free(b);
}

static ph_msg *large(ph_rt *rt, ph_class cls, size_t n) {
  ph_buf v;
  char *text = calloc(1, n);
  ph_buf_init(&v, ph_rt_env(rt));
  ph_w_bin(&v, text, n);
  free(text);
  ph_msg *m = ph_msg_bytes(ph_rt_sys(rt), cls, ph_buf_at(&v), ph_buf_size(&v));
  ph_buf_deinit(&v);
  assert_non_null(m);
  return m;
}

static void a_frame_that_finds_no_memory_resets_its_link(void **state) {
  (void)state;
  enum { LARGE = 800 * 1024 };
  ph_rt *a = refusing_runtime(), *b = new_runtime();
  server sb;
  answer call;
  start_server(b, &sb);
  start_node(a, "a@127.0.0.1");
  start_node(b, "b@127.0.0.1");
  join(a, b, "a@127.0.0.1", "b@127.0.0.1");
  ph_nodeent *to = see(a, "b@127.0.0.1");
  for (int i = 0; i < 10; i++) { /* credit that is not given back would stop the link */
    answer_init(&call, a);
    ph_msg *m = large(a, PH_C_CALL, LARGE);
    assert_int_equal(ph_call_named(ph_rt_sys(a), 0, "srv", 3, to, m, &call.w, PH_NEVER), 0);
    refuse = LARGE / 2;
    EVENTUALLY(a, b, call.calls);
    assert_int_equal(call.err, PH_ENOCONN);
    refuse = SIZE_MAX;
    uint64_t peer = to->peer;
    do { /* until the link is there again, what is sent is lost, and that is told */
      answer_init(&call, a);
      m = number(a, PH_C_CALL, 5);
      assert_int_equal(
          ph_call_named(ph_rt_sys(a), 0, "srv", 3, to, m, &call.w, ph_due(ph_rt_env(a), 200)), 0);
      EVENTUALLY(a, b, call.calls);
    } while (call.err);
    assert_int_equal(call.number, 5);
    assert_true(to->peer == peer); /* it never went down */
  }
  ph_rt_free(a);
  ph_rt_free(b);
}

static void a_sender_hears_that_there_is_no_memory(void **state) {
  (void)state;
  ph_rt *a = refusing_runtime(), *b = new_runtime();
  answer call;
  start_node(a, "a@127.0.0.1");
  start_node(b, "b@127.0.0.1");
  join(a, b, "a@127.0.0.1", "b@127.0.0.1");
  ph_nodeent *to = see(a, "b@127.0.0.1");
  answer_init(&call, a);
  ph_msg *m = large(a, PH_C_CALL, 700000);
  refuse = 600000;
  assert_int_equal(ph_call_named(ph_rt_sys(a), 0, "srv", 3, to, m, &call.w, PH_NEVER), PH_ENOMEM);
  m->cls = PH_C_INFO;
  assert_int_equal(ph_send_named(ph_rt_sys(a), "srv", 3, to, m, true), PH_ENOMEM);
  refuse = SIZE_MAX;
  assert_int_equal(ph_send_named(ph_rt_sys(a), "srv", 3, to, m, true), 0);
  ph_rt_free(a);
  ph_rt_free(b);
}

/* ---- two OS processes -------------------------------------------------------------------------
 */

static pid_t other;
static int to_other = -1;

/* The child: one server, until its stdin ends. Must start before this process has any thread. */
static void child_main(int in, int out) {
  ph_rt *rt = new_runtime();
  server s;
  start_server(rt, &s);
  start_node(rt, "child@127.0.0.1");
  if (write(out, ph_rt_address(rt), strlen(ph_rt_address(rt)) + 1) < 0) _exit(2);
  uint64_t check = now_ms(rt);
  for (;;) {
    ph_rt_step(rt, ph_due(ph_rt_env(rt), 50));
    if (now_ms(rt) - check < 50) continue;
    check = now_ms(rt);
    fd_set set;
    struct timeval zero = {0, 0};
    FD_ZERO(&set);
    FD_SET(in, &set);
    if (select(in + 1, &set, NULL, NULL, &zero) > 0) break;
  }
  ph_rt_free(rt);
  _exit(0);
}

static void fork_child(char *address, size_t size) {
  int in[2], out[2];
  assert_int_equal(pipe(in) | pipe(out), 0);
  other = fork();
  assert_true(other >= 0);
  if (other == 0) {
    close(in[1]);
    close(out[0]);
    child_main(in[0], out[1]);
  }
  close(in[0]);
  close(out[1]);
  assert_true(read(out[0], address, size) > 0);
  close(out[0]);
  to_other = in[1];
}

static void end_child(void) {
  int status;
  close(to_other);
  assert_int_equal(waitpid(other, &status, 0), other);
  other = 0;
}

static void call_child(ph_rt *rt, uint64_t v) {
  answer a;
  answer_init(&a, rt);
  assert_int_equal(ph_call_named(ph_rt_sys(rt), 0, "srv", 3, see(rt, "child@127.0.0.1"),
                                 number(rt, PH_C_CALL, v), &a.w, ph_due(ph_rt_env(rt), 5000)),
                   0);
  while (!a.calls) ph_rt_step(rt, PH_NEVER);
  assert_int_equal(a.err, 0);
  assert_int_equal(a.number, v);
}

static void another_process_answers_fast_and_its_death_is_seen(void **state) {
  (void)state;
  enum { CALLS = 20000 };
  char address[128];
  fork_child(address, sizeof address);
  ph_rt *rt = new_runtime();
  server s;
  ph_ref ref;
  start_server(rt, &s);
  start_node(rt, "parent@127.0.0.1");
  assert_int_equal(ph_rt_join(rt, address), 0);
  while (!see(rt, "child@127.0.0.1")) ph_rt_step(rt, PH_NEVER);
  for (uint64_t i = 1; i <= 1000; i++) call_child(rt, i);
  uint64_t start = ph_now(ph_rt_env(rt));
  for (uint64_t i = 1; i <= CALLS; i++) call_child(rt, i);
  double us = (double)(ph_now(ph_rt_env(rt)) - start) / 1000 / CALLS;
  print_message("a call to another process: %.1f us\n", us);
  /* away from the loop for longer than the heartbeat timeout: the standby holds the link */
  ph_nodeent *to = see(rt, "child@127.0.0.1");
  uint64_t peer = to->peer;
  usleep(1500000);
  call_child(rt, 7);
  assert_true(to->peer == peer);
  assert_int_equal(ph_monitor_named(s.p, "srv", 3, to, &ref), 0);
  call_child(rt, 8);
  kill(other, SIGKILL);
  while (!s.downs) ph_rt_step(rt, PH_NEVER);
  assert_string_equal(s.reason, "noconnection");
  assert_null(see(rt, "child@127.0.0.1"));
  end_child();
  ph_rt_free(rt);
}

static int in_own_dir(void **state) {
  (void)state;
  snprintf(runtime_dir, sizeof runtime_dir, "/tmp/phub-test-XXXXXX");
  if (!mkdtemp(runtime_dir)) return -1;
  return setenv("XDG_RUNTIME_DIR", runtime_dir, 1);
}

static int remove_dir(void **state) {
  (void)state;
  char inner[96];
  snprintf(inner, sizeof inner, "%s/phub", runtime_dir);
  DIR *d = opendir(inner);
  for (struct dirent *e; d && (e = readdir(d));) {
    char file[400];
    snprintf(file, sizeof file, "%s/%s", inner, e->d_name);
    unlink(file);
  }
  if (d) closedir(d);
  rmdir(inner);
  return rmdir(runtime_dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_runtime_without_a_node_waits_for_its_timers),
      cmocka_unit_test(a_wake_ends_the_wait),
      cmocka_unit_test(two_nodes_call_each_other),
      cmocka_unit_test(many_and_large_messages_keep_their_order),
      cmocka_unit_test(a_process_that_sends_for_ever_is_stopped),
      cmocka_unit_test(a_message_beyond_the_limit_is_refused),
      cmocka_unit_test(a_node_leaves_and_may_start_again),
      cmocka_unit_test(a_request_to_connect_is_answered),
      cmocka_unit_test(nothing_remains),
      cmocka_unit_test(news_that_finds_no_memory_is_kept),
      cmocka_unit_test(a_frame_that_finds_no_memory_resets_its_link),
      cmocka_unit_test(a_sender_hears_that_there_is_no_memory),
      cmocka_unit_test(another_process_answers_fast_and_its_death_is_seen),
  };
  return cmocka_run_group_tests(tests, in_own_dir, remove_dir);
}
