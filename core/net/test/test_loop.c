/* The loop: who runs it when, waking, waiting, signals, and that nothing is left of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "net/tcp/tcp_int.h"
#include "net/test/netenv.h"

typedef struct world {
  te t;
  ph_loop *loop;
  ph_transport *tr;
  char bound[64];
  atomic_int turns, fired;
  _Atomic uint64_t due; /* of the hooks */
  atomic_bool work;
  bool work_on_data;
  uint64_t slow_turn;                /* ns that a turn takes */
  atomic_int messages, other_thread; /* data callbacks, and those off the interpreter's thread */
  pthread_t interpreter;
} world;

/* On the heap, one a test: what a failed test leaves running does not meet the next one's. */
static world *current;
#define w (*current)

static void *on_accept(void *ctx, ph_conn *c) {
  (void)c;
  return ctx;
}

static void on_dialled(void *ctx, ph_conn *c, void *user, int err) {
  (void)ctx;
  (void)c;
  (void)user;
  (void)err;
}

static void on_data(void *ctx, ph_conn *c, void *user, const uint8_t *p, size_t n) {
  (void)ctx;
  (void)user;
  atomic_fetch_add(&w.messages, 1);
  if (!pthread_equal(pthread_self(), w.interpreter)) atomic_fetch_add(&w.other_thread, 1);
  if (w.work_on_data) atomic_store(&w.work, true);
  int err = w.tr->ops->write(w.tr, c, p, n);
  if (err < 0) abort();
}

static void on_close(void *ctx, ph_conn *c, void *user, int reason) {
  (void)ctx;
  (void)c;
  (void)user;
  (void)reason;
}

static void on_drain(void *ctx, ph_conn *c, void *user) {
  (void)ctx;
  (void)c;
  (void)user;
}

static void turn(void *ctx) {
  (void)ctx;
  atomic_fetch_add(&w.turns, 1);
  for (uint64_t end = ne_now(NULL) + w.slow_turn; ne_now(NULL) < end;) {
  }
  if (ne_now(NULL) < atomic_load(&w.due)) return;
  atomic_fetch_add(&w.fired, 1);
  atomic_store(&w.due, PH_NEVER);
}

static uint64_t next_due(void *ctx) {
  (void)ctx;
  return atomic_load(&w.due);
}

static bool work(void *ctx) {
  (void)ctx;
  return atomic_load(&w.work);
}

static void begin(bool standby) {
  current = calloc(1, sizeof *current);
  assert_non_null(current);
  ne_init(&w.t);
  atomic_store(&w.due, PH_NEVER);
  w.interpreter = pthread_self();
  w.loop = ph_loop_new(&w.t.env);
  assert_non_null(w.loop);
  w.tr = ph_loop_tcp(w.loop);
  w.tr->ev = (ph_transport_events){NULL, on_accept, on_dialled, on_data, on_close, on_drain};
  w.tr->ev.ctx = current;
  assert_int_equal(w.tr->ops->listen(w.tr, "127.0.0.1:0", w.bound, sizeof w.bound), 0);
  ph_loop_hooks h = {.ctx = NULL, .turn = turn, .next_due = next_due, .work = work};
  ph_loop_hooks_set(w.loop, &h);
  if (standby) assert_int_equal(ph_loop_standby(w.loop), 0);
}

static void end(void) {
  ph_loop_free(w.loop);
  TE_END(&w.t);
  free(current);
}

static uint64_t ms_since(uint64_t start) {
  return (ne_now(NULL) - start) / PH_MS(1);
}

static void busy(uint64_t ms) {
  uint64_t until = ne_now(NULL) + PH_MS(ms);
  while (ne_now(NULL) < until) {
  }
}

/* ---- a client on a thread of its own, blocking ---- */

typedef struct client {
  pthread_t thread;
  char address[64];
  atomic_bool stop;
  uint64_t worst; /* ns of one echo */
  int echoes;
  useconds_t pause;
  bool failed;
} client;

static void *client_main(void *arg) {
  client *c = arg;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
  struct timeval patience = {10, 0};
  struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  sa.sin_port = htons((uint16_t)atoi(strchr(c->address, ':') + 1));
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  c->failed = connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0;
  while (!c->failed && !atomic_load(&c->stop)) {
    uint64_t start = ne_now(NULL);
    char byte = 'x';
    c->failed = send(fd, &byte, 1, MSG_NOSIGNAL) != 1 || recv(fd, &byte, 1, 0) != 1;
    uint64_t took = ne_now(NULL) - start;
    if (took > c->worst) c->worst = took;
    c->echoes++;
    usleep(c->pause);
  }
  close(fd);
  return NULL;
}

static client *client_start(useconds_t pause) {
  client *c = calloc(1, sizeof *c);
  assert_non_null(c);
  memcpy(c->address, w.bound, sizeof c->address);
  c->pause = pause;
  assert_int_equal(pthread_create(&c->thread, NULL, client_main, c), 0);
  return c;
}

/* runs the loop meanwhile: the client may wait for an answer; returns its longest wait, ns */
static uint64_t client_stop(client *c) {
  atomic_store(&c->stop, true);
  while (pthread_tryjoin_np(c->thread, NULL) != 0) {
    atomic_store(&w.work, false);
    ph_loop_poll(w.loop, ne_now(NULL) + PH_MS(5));
  }
  assert_false(c->failed);
  uint64_t worst = c->worst;
  free(c);
  return worst;
}

static void the_standby_answers_while_lua_is_busy(void **state) {
  (void)state;
  begin(true);
  client *c = client_start(10000);
  uint64_t until = ne_now(NULL) + PH_MS(100) * (uint64_t)ne_slower();
  while (ne_now(NULL) < until) ph_loop_poll(w.loop, until);
  assert_true(atomic_load(&w.messages) > 0);
  assert_int_equal(atomic_load(&w.other_thread), 0);

  int before = atomic_load(&w.messages);
  busy(1000);
  int answered = atomic_load(&w.messages) - before, others = atomic_load(&w.other_thread);
  uint64_t start = ne_now(NULL);
  ph_loop_poll(w.loop, 0);
  uint64_t back = ne_now(NULL) - start;
  before = atomic_load(&w.other_thread);
  until = ne_now(NULL) + PH_MS(200);
  while (ne_now(NULL) < until) ph_loop_poll(w.loop, until);
  int later = atomic_load(&w.other_thread) - before;
  uint64_t worst = client_stop(c);
  print_message("%d answers in 1 s without the interpreter, worst %llu ms; back in %llu us\n",
                answered, (unsigned long long)(worst / PH_MS(1)),
                (unsigned long long)(back / 1000));
  assert_true(answered >= 20 / ne_slower());
  assert_true(others >= 20 / ne_slower());
  assert_int_equal(later, 0);
  assert_true(back < PH_MS(100));
  assert_true(worst < PH_MS(PH_AWAY_MS + 500));
  end();
}

static void without_a_standby_the_loop_only_runs_in_poll(void **state) {
  (void)state;
  begin(false);
  client *c = client_start(1000);
  busy(150);
  assert_int_equal(atomic_load(&w.messages), 0);
  client_stop(c);
  assert_true(atomic_load(&w.messages) > 0);
  end();
}

static void the_standby_runs_timers_too(void **state) {
  (void)state;
  begin(true);
  ph_loop_lock(w.loop);
  atomic_store(&w.due, ne_now(NULL) + PH_MS(150));
  ph_loop_unlock(w.loop);
  uint64_t start = ne_now(NULL);
  while (!atomic_load(&w.fired) && ms_since(start) < 5000) usleep(1000);
  assert_in_range(ms_since(start), 149, 1000);
  int turns = atomic_load(&w.turns);
  usleep(100000);
  assert_true(atomic_load(&w.turns) - turns < 5); /* it waits, it does not spin */
  end();
}

static void lock_takes_the_loop_from_the_standby(void **state) {
  (void)state;
  begin(true);
  client *c = client_start(0); /* without pause: the standby is always at it */
  uint64_t worst = 0, sum = 0;
  busy(100);
  for (int i = 0; i < 50; i++) {
    busy(10);
    uint64_t start = ne_now(NULL);
    ph_loop_lock(w.loop);
    uint64_t took = ne_now(NULL) - start;
    int messages = atomic_load(&w.messages);
    busy(1);
    assert_int_equal(atomic_load(&w.messages), messages); /* nobody runs it while it is locked */
    ph_loop_unlock(w.loop);
    sum += took;
    if (took > worst) worst = took;
  }
  print_message("lock: mean %llu us, worst %llu us\n", (unsigned long long)(sum / 50000),
                (unsigned long long)(worst / 1000));
  assert_true(worst < PH_MS(200));
  int before = atomic_load(&w.messages);
  uint64_t start = ne_now(NULL);
  while (atomic_load(&w.messages) < before + 5) busy(1);
  /* it goes on soon after each, not after another PH_AWAY_MS */
  assert_in_range(ms_since(start), 0, PH_AWAY_MS * ne_slower() - 1);
  client_stop(c);
  end();
}

static void leaving_and_entering_are_cheap(void **state) {
  (void)state;
  begin(true);
  enum { N = 20000 };
  uint64_t start = ne_now(NULL), least = UINT64_MAX;
  for (int i = 0; i < N; i++) {
    ph__loop_enter(w.loop);
    uint64_t at = ne_now(NULL);
    ph__loop_leave(w.loop);
    uint64_t took = ne_now(NULL) - at;
    if (took < least) least = took;
  }
  print_message("enter and leave: mean %llu ns, least leave %llu ns\n",
                (unsigned long long)((ne_now(NULL) - start) / N), (unsigned long long)least);
  assert_true(ne_now(NULL) - start < N * UINT64_C(20000));
  end();
}

/* ---- rest ---- */

/* sum of the numbers of this process's threads: the new thread is the difference */
static long sum_of_threads(void) {
  long sum = 0;
  DIR *d = opendir("/proc/self/task");
  for (struct dirent *e; (e = readdir(d));) sum += atol(e->d_name);
  closedir(d);
  return sum;
}

/* how often a thread has gone to sleep */
static long sleeps_of(long tid) {
  char path[64], line[256];
  long n = -1;
  snprintf(path, sizeof path, "/proc/self/task/%ld/status", tid);
  FILE *f = fopen(path, "r");
  while (f && fgets(line, sizeof line, f))
    if (sscanf(line, "voluntary_ctxt_switches: %ld", &n) == 1) break;
  if (f) fclose(f);
  return n;
}

typedef struct rest {
  long standby, sleeps;
} rest;

static void *measure_rest(void *arg) {
  rest *r = arg;
  usleep(100000);
  long before = sleeps_of(r->standby);
  usleep(500000);
  r->sleeps = before < 0 ? -1 : sleeps_of(r->standby) - before;
  ph_loop_wake(w.loop);
  return NULL;
}

static void nobody_wakes_while_the_interpreter_rests(void **state) {
  (void)state;
  begin(false);
  pthread_t thread;
  long before = sum_of_threads();
  assert_int_equal(ph_loop_standby(w.loop), 0);
  rest r = {.standby = sum_of_threads() - before};
  usleep(200000); /* the standby has the loop, and then gives it back */
  assert_int_equal(pthread_create(&thread, NULL, measure_rest, &r), 0);
  int turns = atomic_load(&w.turns);
  ph_loop_poll(w.loop, PH_NEVER);
  pthread_join(thread, NULL);
  assert_int_equal(r.sleeps, 0);
  assert_true(atomic_load(&w.turns) - turns < 20);
  /* and leaving wakes the standby up again */
  client *c = client_start(1000);
  busy(300 * (uint64_t)ne_slower());
  assert_true(atomic_load(&w.other_thread) > 10);
  client_stop(c);
  end();
}

static void a_short_absence_does_not_lose_the_standby(void **state) {
  (void)state;
  begin(true);
  for (int i = 0; i < 10; i++) {
    ph_loop_poll(w.loop, ne_now(NULL) + PH_MS(30)); /* it falls asleep */
    ph_loop_poll(w.loop, ne_now(NULL) + PH_MS(15)); /* back before the woken one has looked */
    int turns = atomic_load(&w.turns);
    uint64_t start = ne_now(NULL);
    while (atomic_load(&w.turns) == turns && ms_since(start) < 3000) usleep(1000);
    assert_true(atomic_load(&w.turns) > turns);
  }
  end();
}

static void *wake_later(void *arg) {
  (void)arg;
  usleep(50000);
  ph_loop_wake(w.loop);
  return NULL;
}

static void waking_ends_this_poll_or_the_next(void **state) {
  (void)state;
  begin(true);
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, wake_later, NULL), 0);
  uint64_t start = ne_now(NULL);
  ph_loop_poll(w.loop, PH_NEVER);
  assert_in_range(ms_since(start), 45, 5000);
  pthread_join(thread, NULL);
  for (int i = 0; i < 2; i++) {
    ph_loop_wake(w.loop);
    if (i) usleep(150000); /* the standby sees it first; it is still the interpreter's */
    start = ne_now(NULL);
    ph_loop_poll(w.loop, start + PH_MS(2000));
    assert_true(ms_since(start) < 1000);
    start = ne_now(NULL);
    ph_loop_poll(w.loop, start + PH_MS(60)); /* one wake, one poll */
    assert_in_range(ms_since(start), 60, 1000);
  }
  end();
}

static void waits_until_the_time_given(void **state) {
  (void)state;
  begin(true);
  for (int i = 1; i <= 30; i += 7) {
    uint64_t start = ne_now(NULL), until = start + PH_MS((uint64_t)i) + 300000;
    int turns = atomic_load(&w.turns);
    ph_loop_poll(w.loop, until);
    assert_true(ne_now(NULL) >= until);
    assert_true(ms_since(start) < (uint64_t)i + 200);
    assert_true(atomic_load(&w.turns) - turns < 10);
  }
  uint64_t start = ne_now(NULL);
  for (int i = 0; i < 100; i++) ph_loop_poll(w.loop, 0);
  assert_true(ms_since(start) < 200);
  /* a turn that is due comes by itself, and does not end the poll */
  atomic_store(&w.due, ne_now(NULL) + PH_MS(20));
  start = ne_now(NULL);
  ph_loop_poll(w.loop, start + PH_MS(100));
  assert_int_equal(atomic_load(&w.fired), 1);
  assert_in_range(ms_since(start), 100, 1000);
  end();
}

/* ends libuv's sleep shortly before `until`, so that during the turn that follows the timer comes
 * to be due, and comes to the rescue of a poll that then sleeps for ever */
typedef struct nudge {
  uint64_t at;
  atomic_bool done;
} nudge;

static void *nudge_main(void *arg) {
  nudge *n = arg;
  while (ne_now(NULL) < n->at) usleep(50);
  uv_async_send(&w.loop->async);
  uint64_t start = ne_now(NULL);
  while (!atomic_load(&n->done) && ms_since(start) < 1000) usleep(500);
  if (!atomic_load(&n->done)) ph_loop_wake(w.loop);
  return NULL;
}

static void a_timer_on_the_verge_does_not_lose_the_poll(void **state) {
  (void)state;
  begin(false);
  w.slow_turn = 200000;
  for (uint64_t i = 0; i < 40; i++) {
    nudge n = {.done = false};
    uint64_t start = ne_now(NULL), until = start + PH_MS(4);
    n.at = until - (i % 10) * 50000 - 300000;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, nudge_main, &n), 0);
    ph_loop_poll(w.loop, until);
    uint64_t took = ms_since(start);
    atomic_store(&n.done, true);
    pthread_join(thread, NULL);
    assert_true(took < 900);
  }
  end();
}

static void work_ends_the_poll(void **state) {
  (void)state;
  begin(true);
  atomic_store(&w.work, true);
  uint64_t start = ne_now(NULL);
  ph_loop_poll(w.loop, start + PH_MS(3000));
  assert_true(ms_since(start) < 1000);
  atomic_store(&w.work, false);
  w.work_on_data = true;
  client *c = client_start(0);
  int polls = 0;
  for (start = ne_now(NULL); ms_since(start) < 300; polls++) {
    atomic_store(&w.work, false);
    ph_loop_poll(w.loop, ne_now(NULL) + PH_MS(3000));
    assert_true(atomic_load(&w.work));
  }
  assert_true(polls > 5);
  client_stop(c);
  end();
}

/* ---- signals ---- */

static int got_signal;

static void on_signal(void *ctx, int signum) {
  *(int *)ctx = signum;
  ph_loop_lock(w.loop); /* no mutex is held */
  ph_loop_unlock(w.loop);
}

static void signals_are_told_by_the_poll(void **state) {
  (void)state;
  begin(true);
  assert_int_equal(ph_loop_signals(w.loop, on_signal, &got_signal), 0);
  const int signals[] = {SIGTERM, SIGINT, SIGTERM};
  for (int i = 0; i < 3; i++) {
    got_signal = 0;
    kill(getpid(), signals[i]);
    if (i == 2) busy(150); /* the standby takes it, and does not tell it */
    assert_int_equal(got_signal, 0);
    uint64_t start = ne_now(NULL);
    while (!got_signal && ms_since(start) < 3000) ph_loop_poll(w.loop, start + PH_MS(3000));
    assert_int_equal(got_signal, signals[i]);
    assert_true(ms_since(start) < 1000);
  }
  struct sigaction sa;
  assert_int_equal(ph_loop_signals(w.loop, NULL, NULL), 0);
  assert_int_equal(sigaction(SIGTERM, NULL, &sa), 0);
  assert_true(sa.sa_handler == SIG_DFL);
  assert_int_equal(ph_loop_signals(w.loop, on_signal, &got_signal), 0);
  end();
  assert_int_equal(sigaction(SIGINT, NULL, &sa), 0);
  assert_true(sa.sa_handler == SIG_DFL);
}

/* ---- ends ---- */

static void the_process_may_exit_at_any_moment(void **state) {
  (void)state;
  for (int i = 0; i < 20; i++) {
    fflush(NULL); /* exit below would write it again */
    pid_t pid = fork();
    if (pid == 0) {
      begin(true);
      client_start(0);
      usleep((useconds_t)(i * 6000)); /* before and after the standby has taken the loop */
      exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
  }
}

static void free_at_any_moment(void **state) {
  (void)state;
  int fds = ne_count("/proc/self/fd"), tasks = ne_count("/proc/self/task");
  for (int i = 0; i < 20; i++) {
    begin(true);
    if (i % 3 == 0) ph_loop_poll(w.loop, 0);
    if (i % 3 == 1) ph_loop_poll(w.loop, ne_now(NULL) + PH_MS(20));
    usleep((useconds_t)(i * 5000));
    uint64_t start = ne_now(NULL);
    end();
    assert_true(ms_since(start) < 1000);
    assert_int_equal(ne_count("/proc/self/fd"), fds);
    assert_int_equal(ne_count("/proc/self/task"), tasks);
  }
}

static int setup(void **state) {
  (void)state;
  te t; /* libuv keeps two files of its own once it has made a loop */
  ne_init(&t);
  ph_loop_free(ph_loop_new(&t.env));
  return ne_warm_up();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_process_may_exit_at_any_moment),
      cmocka_unit_test(the_standby_answers_while_lua_is_busy),
      cmocka_unit_test(without_a_standby_the_loop_only_runs_in_poll),
      cmocka_unit_test(the_standby_runs_timers_too),
      cmocka_unit_test(lock_takes_the_loop_from_the_standby),
      cmocka_unit_test(leaving_and_entering_are_cheap),
      cmocka_unit_test(nobody_wakes_while_the_interpreter_rests),
      cmocka_unit_test(a_short_absence_does_not_lose_the_standby),
      cmocka_unit_test(waking_ends_this_poll_or_the_next),
      cmocka_unit_test(waits_until_the_time_given),
      cmocka_unit_test(a_timer_on_the_verge_does_not_lose_the_poll),
      cmocka_unit_test(work_ends_the_poll),
      cmocka_unit_test(signals_are_told_by_the_poll),
      cmocka_unit_test(free_at_any_moment),
  };
  return cmocka_run_group_tests(tests, setup, NULL);
}
