#include "sim.h"

static void on_log(void *ctx, int level, const char *line) {
  sim_node *n = PH_CONTAINER(ctx, sim_node, te);
  if (level <= PH_LOG_WARN) {
    n->warnings++;
    snprintf(n->last_warning, sizeof n->last_warning, "%s", line);
  }
  if (getenv("SIM_LOG"))
    fprintf(stderr, "%10.3f ms n%d %s\n", (double)ph_memnet_now(n->s->net) / 1e6, n->host, line);
}

/* ---- events ---- */

static sim_peer *peer_by_id(sim_node *n, uint64_t id) {
  for (int i = n->peer_count - 1; i >= 0; i--) {
    if (n->peers[i].id == id) return &n->peers[i];
  }
  return NULL;
}

static sim_peer *peer_up(sim_node *n, const char *name) {
  for (int i = 0; i < n->peer_count; i++) {
    if (n->peers[i].up && strcmp(n->peers[i].name, name) == 0) return &n->peers[i];
  }
  return NULL;
}

static void record(sim_node *n, uint32_t type, uint64_t a, uint64_t b, const char *text) {
  if (n->event_count == n->event_cap) {
    n->event_cap = n->event_cap ? n->event_cap * 2 : 64;
    n->events = realloc(n->events, n->event_cap * sizeof *n->events);
    assert_non_null(n->events);
  }
  sim_event *e = &n->events[n->event_count++];
  *e = (sim_event){.at = ph_memnet_now(n->s->net), .type = type, .a = a, .b = b};
  snprintf(e->text, sizeof e->text, "%s", text);
  if (getenv("SIM_LOG"))
    fprintf(stderr, "%10.3f ms n%d event %u of %s\n", (double)e->at / 1e6, n->host, type, text);
}

static void node_up(sim_node *n, uint64_t a, uint64_t b, const void *p, size_t len) {
  assert_null(peer_by_id(n, a)); /* a peer's number is never used again */
  assert_true(len < sizeof n->peers[0].name);
  assert_true(n->peer_count < SIM_PEERS);
  sim_peer fresh = {.id = a, .incarnation = b, .up = true, .fresh = true};
  memcpy(fresh.name, p, len);
  assert_null(peer_up(n, fresh.name));      /* one incarnation of a name at a time */
  for (int i = 0; i < n->peer_count; i++) { /* numbers go on where it is not another incarnation */
    const sim_peer *past = &n->peers[i];
    if (strcmp(past->name, fresh.name) != 0 || past->incarnation != b) continue;
    fresh.sent = past->sent;
    fresh.got = past->got;
  }
  n->peers[n->peer_count++] = fresh;
}

enum { SAID = 32 };

static void heard(sim_node *n, sim_peer *peer, const void *p, size_t len) {
  uint64_t said[4];
  if (len != SAID) return;
  memcpy(said, p, len);
  if (said[0] != UINT64_C(0x5a1d5a1d5a1d5a1d)) return;
  assert_int_equal(said[1], n->incarnation);
  assert_int_equal(said[2], peer->incarnation);
  if (peer->fresh) assert_true(said[3] > peer->got);
  if (!peer->fresh) assert_int_equal(said[3], peer->got + 1);
  peer->got = said[3];
  peer->fresh = false;
}

static void emit(void *ctx, uint32_t type, uint64_t a, uint64_t b, const void *p, size_t len) {
  sim_node *n = ctx;
  if (type == PH_EV_CONNECTED) {
    char name[64] = "";
    assert_true(len < sizeof name);
    if (len) memcpy(name, p, len);
    record(n, type, a, b, name);
    return;
  }
  if (type == PH_EV_REPLACED) {
    record(n, type, a, b, "");
    return;
  }
  if (type == PH_EV_NODE_UP) node_up(n, a, b, p, len);
  sim_peer *peer = peer_by_id(n, a);
  assert_non_null(peer);
  assert_true(peer->up);
  if (type == PH_EV_NODE_DOWN) peer->up = false;
  if (type == PH_EV_XOFF || type == PH_EV_XON) { /* in turns, beginning with XOFF */
    assert_int_equal(peer->xoff, type == PH_EV_XON);
    peer->xoff = type == PH_EV_XOFF;
  }
  if (type == PH_EV_LINK_RESET) {
    peer->fresh = true;
    assert_int_equal(b, peer->incarnation);
    assert_int_equal(len, strlen(peer->name));
    assert_memory_equal(p, peer->name, len);
  }
  if (type != PH_EV_FRAME) {
    record(n, type, a, b, peer->name);
    return;
  }
  heard(n, peer, p, len);
  n->frames++;
  n->frame_bytes += len;
  n->wire_bytes += b;
  n->last_n = len < sizeof n->last ? len : sizeof n->last;
  if (len) memcpy(n->last, p, n->last_n);
  n->last_frame_at = ph_memnet_now(n->s->net);
  peer->to_consume += b;
}

/* ---- making and ending ---- */

void sim_init(sim *s, uint64_t seed) {
  memset(s, 0, sizeof *s);
  te_init(&s->te, seed);
  s->net = ph_memnet_new(&s->te.env, seed);
  assert_non_null(s->net);
  s->cfg = (ph_cluster_config){.listen = "127.0.0.1:0",
                               .cookie = "secret",
                               .cookie_len = 6,
                               .heartbeat_interval = 1000,
                               .heartbeat_timeout = 8000,
                               .stall_timeout = 60000,
                               .max_message = 64 * 1024 * 1024};
}

void sim_end(sim *s) {
  for (int i = 0; i < s->count; i++) ph_cluster_free(s->n[i].c);
  ph_memnet_free(s->net);
  for (int i = 0; i < s->count; i++) {
    TE_END(&s->n[i].te);
    free(s->n[i].events);
    free(s->n[i].peers);
  }
  TE_END(&s->te);
}

int sim_host(sim *s) {
  assert_true(s->count < SIM_NODES);
  int i = s->count++;
  sim_node *n = &s->n[i];
  n->s = s;
  n->peers = calloc(SIM_PEERS, sizeof *n->peers);
  assert_non_null(n->peers);
  te_init(&n->te, (uint64_t)i + 1);
  n->te.env.log = on_log;
  n->host = ph_memnet_host(s->net, &n->t);
  assert_int_equal(n->host, i);
  ph_memnet_env(s->net, n->host, &n->te.env, &n->env);
  return i;
}

int sim_start(sim *s, int i, const char *name, uint64_t incarnation, const char *cookie) {
  sim_node *n = &s->n[i];
  ph_cluster_config cfg = s->cfg;
  cfg.name = name;
  cfg.incarnation = n->incarnation = incarnation;
  if (cookie) {
    cfg.cookie = cookie;
    cfg.cookie_len = strlen(cookie);
  }
  return ph_cluster_new(&n->env, n->t, &cfg, emit, n, &n->c);
}

const char *sim_name(int i) {
  static char names[SIM_NODES][16];
  snprintf(names[i], sizeof names[i], "n%d@sim", i);
  return names[i];
}

int sim_add(sim *s) {
  int i = sim_host(s);
  assert_int_equal(sim_start(s, i, sim_name(i), 100, NULL), 0);
  return i;
}

void sim_crash(sim *s, int i) {
  ph_memnet_crash(s->net, s->n[i].host);
  ph_cluster_free(s->n[i].c);
  s->n[i].c = NULL;
  s->n[i].paused = false;
  for (int k = 0; k < s->n[i].peer_count; k++) s->n[i].peers[k].up = false;
  s->n[i].peer_count = 0; /* the new process counts its peers afresh */
}

void sim_restart(sim *s, int i, const char *name, uint64_t incarnation) {
  assert_int_equal(ph_memnet_restart(s->net, s->n[i].host, &s->n[i].t), 0);
  assert_int_equal(sim_start(s, i, name, incarnation, NULL), 0);
}

void sim_pause(sim *s, int i, bool paused) {
  s->n[i].paused = paused;
  ph_memnet_pause(s->net, s->n[i].host, paused);
}

void sim_cut(sim *s, int a, int b, bool cut) {
  void (*f)(ph_memnet *, int, int) = cut ? ph_memnet_cut : ph_memnet_heal;
  f(s->net, a, b);
  f(s->net, b, a);
}

/* ---- commands ---- */

int sim_command(sim *s, int i, uint32_t type, uint64_t a, uint64_t b, const void *p, size_t n) {
  return ph_cluster_command(s->n[i].c, type, a, b, p, n);
}

static void address_of(int host, char out[16]) {
  snprintf(out, 16, "mem:%d", host);
}

void sim_join(sim *s, int i, int to) {
  char address[16];
  address_of(to, address);
  assert_int_equal(sim_command(s, i, PH_CMD_JOIN, 0, 0, address, strlen(address)), 0);
}

void sim_connect(sim *s, int i, uint64_t request, int to, uint64_t timeout_ms) {
  char address[16];
  address_of(to, address);
  assert_int_equal(sim_command(s, i, PH_CMD_CONNECT, request, timeout_ms, address, strlen(address)),
                   0);
}

int sim_send(sim *s, int i, const char *name, const void *p, size_t n) {
  sim_peer *peer = peer_up(&s->n[i], name);
  assert_non_null(peer);
  return sim_command(s, i, PH_CMD_SEND, peer->id, 0, p, n);
}

void sim_say(sim *s, int i, const char *name) {
  sim_peer *peer = peer_up(&s->n[i], name);
  if (!peer) return;
  uint64_t said[4] = {UINT64_C(0x5a1d5a1d5a1d5a1d), peer->incarnation, s->n[i].incarnation,
                      ++peer->sent};
  assert_int_equal(sim_command(s, i, PH_CMD_SEND, peer->id, 0, said, sizeof said), 0);
}

/* ---- running ---- */

static void greet(sim_node *n, sim_peer *peer) {
  uint8_t *bytes = calloc(1, n->greeting);
  assert_non_null(bytes);
  peer->greeted = true;
  assert_int_equal(ph_cluster_command(n->c, PH_CMD_SEND, peer->id, 0, bytes, n->greeting), 0);
  free(bytes);
}

/* the other machine's part of a turn */
static void consume(sim_node *n) {
  for (int i = 0; i < n->peer_count && n->greeting; i++) {
    if (!n->peers[i].greeted) greet(n, &n->peers[i]);
  }
  if (n->hold) return;
  for (int i = 0; i < n->peer_count; i++) {
    sim_peer *peer = &n->peers[i];
    if (!peer->to_consume) continue;
    uint64_t bytes = peer->to_consume;
    peer->to_consume = 0;
    assert_int_equal(ph_cluster_command(n->c, PH_CMD_CONSUMED, peer->id, bytes, NULL, 0), 0);
  }
}

/* Everyone has turns until nobody wants one now; returns when one is wanted next. */
static uint64_t settle(sim *s) {
  for (int round = 0;; round++) {
    assert_true(round < 10000); /* a machine that wants turns without end */
    uint64_t now = ph_memnet_now(s->net), next = ph_memnet_next(s->net);
    bool again = false;
    for (int i = 0; i < s->count; i++) {
      sim_node *n = &s->n[i];
      if (!n->c || n->paused) continue;
      consume(n);
      if (!n->frozen) ph_cluster_alive(n->c, now);
      if (ph_cluster_next(n->c) <= now) {
        ph_cluster_turn(n->c);
        again = true;
      }
      uint64_t due = ph_cluster_next(n->c);
      if (due < next) next = due;
    }
    if (!again) return next;
  }
}

bool sim_until(sim *s, bool (*cond)(sim *s), uint64_t ms) {
  uint64_t end = ph_memnet_now(s->net) + PH_MS(ms);
  for (;;) {
    uint64_t next = settle(s);
    if (cond && cond(s)) return true;
    if (ph_memnet_now(s->net) >= end) return false;
    ph_memnet_advance(s->net, next < end ? next : end);
  }
}

void sim_ms(sim *s, uint64_t ms) {
  (void)sim_until(s, NULL, ms);
}

/* ---- looking ---- */

sim_peer *sim_peer_of(sim *s, int i, const char *name) {
  return peer_up(&s->n[i], name);
}

int sim_ups(sim *s, int i) {
  int count = 0;
  for (int k = 0; k < s->n[i].peer_count; k++) count += s->n[i].peers[k].up;
  return count;
}

int sim_told(sim *s, int i, uint32_t type, const char *name) {
  int count = 0;
  for (size_t k = 0; k < s->n[i].event_count; k++) {
    const sim_event *e = &s->n[i].events[k];
    count += e->type == type && (!name || strcmp(e->text, name) == 0);
  }
  return count;
}

const sim_event *sim_last(sim *s, int i, uint32_t type, const char *name) {
  for (size_t k = s->n[i].event_count; k-- > 0;) {
    const sim_event *e = &s->n[i].events[k];
    if (e->type == type && (!name || strcmp(e->text, name) == 0)) return e;
  }
  return NULL;
}

uint32_t sim_links(sim *s, int i) {
  ph_cluster_stats stats;
  ph_cluster_stats_get(s->n[i].c, &stats);
  return stats.links;
}

bool sim_mesh(sim *s) {
  int alive = 0;
  for (int i = 0; i < s->count; i++) alive += s->n[i].c != NULL;
  for (int i = 0; i < s->count; i++) {
    if (!s->n[i].c) continue;
    if (sim_ups(s, i) != alive - 1 || sim_links(s, i) != (uint32_t)alive - 1) return false;
  }
  return true;
}

bool sim_view(sim *s) {
  int alive = 0;
  for (int i = 0; i < s->count; i++) alive += s->n[i].c != NULL;
  for (int i = 0; i < s->count; i++) {
    if (s->n[i].c && sim_ups(s, i) != alive - 1) return false;
  }
  return true;
}

ph__node *sim_node_at(sim *s, int i, int of) {
  return ph__node_find(s->n[i].c, sim_name(of), strlen(sim_name(of)));
}

ph_cluster_stats sim_stats(sim *s, int i) {
  ph_cluster_stats stats;
  ph_cluster_stats_get(s->n[i].c, &stats);
  return stats;
}

void sim_world(sim *s, uint64_t seed, int nodes) {
  sim_init(s, seed);
  for (int i = 0; i < nodes; i++) sim_add(s);
  for (int i = 1; i < nodes; i++) sim_join(s, i, 0);
  assert_true(sim_until(s, sim_mesh, 2000));
}

/* everyone says something to all others, and all of it arrives */
void sim_talk(sim *s) {
  uint64_t before[SIM_NODES];
  int others[SIM_NODES];
  for (int i = 0; i < s->count; i++) {
    before[i] = s->n[i].frames;
    others[i] = s->n[i].c ? sim_ups(s, i) : 0;
  }
  for (int i = 0; i < s->count; i++) {
    for (int k = 0; k < s->count && s->n[i].c; k++) {
      if (k != i) sim_say(s, i, sim_name(k));
    }
  }
  sim_ms(s, 200);
  for (int i = 0; i < s->count; i++) {
    if (s->n[i].c) assert_int_equal(s->n[i].frames - before[i], others[i]);
  }
}
