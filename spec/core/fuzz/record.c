/* record DIR: the fuzzers' corpora out of real traffic. Three nodes with processes and a hub form a
 * cluster, work, are cut apart and meet again; what n1 writes to n0 becomes the input of the four
 * fuzzers. Besides, one small made-up input for every message of the protocol. */
#include <assert.h>
#include <sys/stat.h>

#include "message.h"
#include "town.h"
#include "wire/frame.h"
#include "wire/proto.h"
#include "wire/reader.h"

enum { CONNS = 64, LARGE = 1500, FILE_BYTES = 1500, PER_TYPE = 6, MESSAGES = 64 };
enum { STEP_CONTROL = 0, STEP_DATA = 1, STEP_OWN = 4, STEP_TIME = 8, STEP_MESSAGE = 11 };

typedef struct tap { /* one connection of n0's */
  ph_conn *conn;
  ph_splitter split;
  bool wanted; /* its other end is n1 */
} tap;

static hs world;
static town towns[3];
static ph_transport_events real;
static tap taps[CONNS];
static te mem;
static const char *dir;
static int seen[256];
static ph_buf stream, steps;
static uint64_t last_at;
static int files;

/* ---- files ---- */

static void save(const char *kind, const void *p, size_t n) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", dir, kind);
  (void)!mkdir(path, 0755);
  snprintf(path, sizeof path, "%s/%s/%04d", dir, kind, files++);
  FILE *f = fopen(path, "wb");
  if (!f || fwrite(p, 1, n, f) != n || fclose(f)) {
    perror(path);
    exit(1);
  }
}

static void put(ph_buf *b, const void *p, size_t n) {
  int err = ph_buf_append(b, p, n);
  assert(err == 0);
}

static void put_byte(ph_buf *b, int x) {
  uint8_t byte = (uint8_t)x;
  put(b, &byte, 1);
}

static void put_sized(ph_buf *b, const void *p, size_t n) {
  put_byte(b, (int)(n >> 8));
  put_byte(b, (int)(n & 0xff));
  put(b, p, n);
}

static void cut_files(bool all) {
  if (ph_buf_size(&steps) > 1 && (all || ph_buf_size(&steps) > FILE_BYTES)) {
    save("node", ph_buf_at(&steps), ph_buf_size(&steps));
    ph_buf_reset(&steps);
    put_byte(&steps, files);
  }
  if (ph_buf_size(&stream) > 21 && (all || ph_buf_size(&stream) > FILE_BYTES)) {
    save("frame", ph_buf_at(&stream), ph_buf_size(&stream));
    ph_buf_reset(&stream);
  }
  if (ph_buf_size(&stream) == 0) /* no limit that matters, no stop; sizes of the pieces */
    put(&stream,
        "\xff\xff\xff\xff\0\x03\x01\x07\x3f\x01\x01\x3f\x3f\x10\x11\x12\x13\x14\x15\x3f\x3f", 21);
}

/* ---- what was heard ---- */

static void pause_before(uint64_t now) {
  uint64_t ms = (now - last_at) / PH_MS(1);
  last_at = now;
  if (ms == 0) return;
  put_byte(&steps, STEP_TIME);
  put_byte(&steps, ms < 3 ? 1 : ms < 10 ? 3 : ms < 50 ? 4 : ms < 300 ? 5 : ms < 800 ? 6 : 7);
}

static int on_message(void *ctx, int kind, const uint8_t *p, size_t n, size_t wire) {
  tap *t = ctx;
  ph_reader r;
  uint32_t count;
  uint64_t type;
  (void)wire;
  ph_reader_init(&r, p, n);
  int err = ph_r_array(&r, &count);
  if (!err) err = ph_r_uint(&r, &type);
  assert(err == 0);
  if (type == PH_M_HELLO) t->wanted = memmem(p, n, "n1@sim", 6) != NULL;
  if (!t->wanted) return 0;
  int times = seen[type & 255]++;
  if (times < PER_TYPE) save("value", p, n);
  if (type <= PH_M_REJECT) {
    ph_buf b;
    ph_buf_init(&b, &mem.env);
    put(&b, "\0\1\1\0", 4); /* a connection, and this frame on it */
    put_sized(&b, p, n);
    put(&b, "\6\3", 2);
    save("handshake", ph_buf_at(&b), ph_buf_size(&b));
    ph_buf_deinit(&b);
    return 0;
  }
  if ((n > LARGE && times > 1) || (times > 200)) return 0;
  pause_before(ph_memnet_now(world.net));
  put_byte(&steps, kind == PH_FRAME_CONTROL ? STEP_CONTROL : STEP_DATA);
  put_sized(&steps, p, n);
  cut_files(false);
  return 0;
}

static void on_data(void *ctx, ph_conn *conn, void *user, const uint8_t *p, size_t n) {
  int i = 0;
  while (i < CONNS - 1 && taps[i].conn && taps[i].conn != conn) i++;
  if (!taps[i].conn) {
    taps[i].conn = conn;
    ph_splitter_init(&taps[i].split, &mem.env, 1 << 20, 64 << 20);
  }
  int err = ph_splitter_feed(&taps[i].split, p, n, on_message, &taps[i]);
  assert(err == 0);
  if (taps[i].wanted && n < LARGE) put(&stream, p, n);
  cut_files(false);
  real.on_data(ctx, conn, user, p, n);
}

static void on_close(void *ctx, ph_conn *conn, void *user, int reason) {
  for (int i = 0; i < CONNS; i++) {
    if (taps[i].conn != conn) continue;
    ph_splitter_deinit(&taps[i].split);
    taps[i] = (tap){0};
  }
  real.on_close(ctx, conn, user, reason);
}

/* ---- traffic ---- */

static void answered(ph_waiter *waiter, int err, ph_msg *m, ph_bytes *reason) {
  (void)err, (void)reason;
  ph_msg_free(waiter->sys, m);
}

static ph_msg *text(ph_sys *s, ph_class cls) {
  ph_msg *m = ph_msg_bytes(s, cls, "\x93\x01\xa2hi\xc3", 6);
  assert(m);
  return m;
}

/* from node i to node k's processes */
static void talk(int i, int k) {
  static ph_waiter all[64][2];
  static int used;
  ph_waiter *waiters = all[used++];
  ph_sys *s = &world.n[i].node.sys;
  ph_nodeent *e = ph_sys_node_named(s, world.n[k].name, strlen(world.n[k].name));
  ph_ref ref, gone;
  if (!e) return;
  ph_pid echo = ph_pid_make(e->index, ph_id_serial(towns[k].echo->pid));
  ph_pid trapper = ph_pid_make(e->index, ph_id_serial(towns[k].trapper->pid));
  ph_waiter_init(s, &waiters[0], answered);
  ph_waiter_init(s, &waiters[1], answered);
  int err =
      ph_call(s, towns[i].echo->pid, echo, text(s, PH_C_CALL), &waiters[0], ph_due(s->env, 5000));
  err |= ph_call_named(s, 0, "echo", 4, e, text(s, PH_C_CALL), &waiters[1], ph_due(s->env, 5000));
  err |= ph_send(s, echo, text(s, PH_C_CAST), false);
  err |= ph_send_named(s, "deaf", 4, e, text(s, PH_C_INFO), false);
  err |= ph_monitor(towns[i].trapper, echo, &ref);
  err |= ph_monitor(towns[i].trapper, ph_pid_make(e->index, 999), &gone);
  err |= ph_link_procs(towns[i].trapper, trapper);
  assert(err == 0);
  hs_ms(&world, 20);
  ph_demonitor(towns[i].trapper, ref);
  ph_unlink(towns[i].trapper, trapper);
  err = ph_link_procs(towns[i].trapper, trapper);
  err |= ph_signal(s, towns[i].echo->pid, trapper, ph_reason_get(s, PH_REASON_SHUTDOWN), true);
  assert(err == 0);
  hs_ms(&world, 20);
}

static void routed(ph_route *r, int err, ph_pid pid) {
  (void)r, (void)err, (void)pid;
}

/* messages by id, for children here, there, and nowhere */
static void by_id(int i) {
  static ph_route routes[128];
  static int used;
  ph_sys *s = &world.n[i].node.sys;
  for (int k = 0; k < 8 && used < 128; k++) {
    char id[8];
    ph_pid pid;
    int n = snprintf(id, sizeof id, "c%d", k * 3);
    ph_route *r = &routes[used++];
    *r = (ph_route){.done = routed};
    int err = ph_hub_route(world.n[i].hub, id, (size_t)n, ph_due(s->env, 500), r, &pid);
    if (err) continue;
    ph_msg *m = text(s, PH_C_CAST);
    m->by_id = true;
    if (ph_send(s, pid, m, false)) ph_msg_free(s, m);
  }
}

static void survey(int i) {
  static ph_survey x;
  x.done = ph_survey_end;
  int err = ph_hub_survey(world.n[i].hub, ph_due(&world.n[i].env, 3000), &x);
  assert(err == 0);
}

static void starts(int i, int from, const char *fn) {
  hs_op o;
  int err = hs_start(&world, i, &o, from, 6, fn, "permanent");
  if (!err) hs_op_wait(&world, &o, 70000);
  hs_op_end(&o);
}

static void stops(int i, int from) {
  hs_op o;
  int err = hs_stop(&world, i, &o, from, 3);
  assert(err == 0);
  hs_op_wait(&world, &o, 70000);
  hs_op_end(&o);
}

static void work(int i, int from) {
  starts(i, from, "ok");
  talk(i, 0);
  talk(0, i);
  starts(i, from + 3, "fail");
  by_id(i);
  by_id(0);
  survey(i);
  stops(i, from);
  hs_ms(&world, 1200);
}

static void cluster(void) {
  hs_init(&world, 11);
  for (int i = 0; i < 2; i++) {
    hs_add(&world);
    town_settle(&towns[i], &world.n[i]);
    if (i) continue;
    real = world.n[0].t->ev;
    world.n[0].t->ev.on_data = on_data;
    world.n[0].t->ev.on_close = on_close;
  }
  hs_ms(&world, 500);
  work(1, 0);
  work(0, 6);
  hs_add(&world);
  town_settle(&towns[2], &world.n[2]);
  hs_ms(&world, 3000);
  work(1, 12);
  work(2, 18);
  hs_cut(&world, 0, 1, true); /* through n2 */
  hs_ms(&world, 30000);
  work(1, 24);
  hs_cut(&world, 0, 1, false);
  hs_ms(&world, 15000);
  ph_memnet_break(world.net, 0, 1);
  hs_ms(&world, 3000);
  hs_crash(&world, 2);
  hs_ms(&world, 20000);
  hs_leave(&world, 1);
  hs_ms(&world, 5000);
  int err = ph_cluster_command(world.n[1].c, PH_CMD_LEAVE, 0, 0, NULL, 0);
  assert(err == 0);
  hs_ms(&world, 3000);
}

static void every_message(void) {
  for (int type = 0; type < MESSAGES; type++)
    for (int k = 0; k < 4; k++) {
      uint8_t b[64] = {(uint8_t)k};
      size_t n = 1;
      for (int again = 0; again < 2; again++) {
        b[n++] = STEP_MESSAGE;
        b[n++] = (uint8_t)type;
        for (int i = 0; i < 22; i++) b[n++] = (uint8_t)(te_below(&mem, k < 2 ? 0xf0 : 256));
      }
      b[n++] = STEP_OWN;
      b[n++] = (uint8_t)te_below(&mem, 9);
      b[n++] = (uint8_t)te_below(&mem, 16);
      b[n++] = STEP_TIME;
      b[n++] = (uint8_t)te_below(&mem, 10);
      save("node", b, n);
    }
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: record DIR\n");
    return 2;
  }
  dir = argv[1];
  te_init(&mem, 3);
  ph_buf_init(&stream, &mem.env);
  ph_buf_init(&steps, &mem.env);
  put_byte(&steps, 0);
  cut_files(true);
  cluster();
  cut_files(true);
  every_message();
  hs_end(&world);
  for (int i = 0; i < CONNS; i++)
    if (taps[i].conn) ph_splitter_deinit(&taps[i].split);
  ph_buf_deinit(&stream);
  ph_buf_deinit(&steps);
  int types = 0;
  for (int i = 0; i < 256; i++) types += seen[i] > 0;
  printf("%d inputs out of %d kinds of message\n", files, types);
  assert(mem.live == 0);
  return 0;
}
