#include "cluster/cluster.h"

#include <stdio.h>
#include <string.h>

#include "cluster/internal.h"

enum {
  WINDOW = 4 * 1024 * 1024,
  WINDOW_MAX = 1024 * 1024 * 1024,
  QUEUE = 256 * 1024 * 1024,
  UNPROVEN = 64,
  HANDSHAKE = 5000
};

/* ---- making and ending ---- */

static bool config_valid(const ph_cluster_config *cfg) {
  if (!cfg->name || !ph__name_valid(cfg->name, strlen(cfg->name))) return false;
  if (!cfg->listen || cfg->incarnation == 0) return false;
  if (cfg->advertise && !ph__address_valid(cfg->advertise, strlen(cfg->advertise))) return false;
  if (cfg->cookie_len > PH_MAX_COOKIE || (cfg->cookie_len && !cfg->cookie)) return false;
  if (cfg->heartbeat_interval == 0 || cfg->heartbeat_timeout / 2 < cfg->heartbeat_interval)
    return false;
  return cfg->max_message > 0 && cfg->window <= WINDOW_MAX;
}

static void lists_init(ph_cluster *c) {
  ph_list *all[] = {&c->pending, &c->links, &c->streams, &c->dirty,
                    &c->dead,    &c->nodes, &c->targets, &c->dead_targets};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) ph_list_init(all[i]);
}

static int config_copy(ph_cluster *c, const ph_cluster_config *cfg) {
  c->name_len = strlen(cfg->name);
  c->incarnation = cfg->incarnation;
  c->cookie_len = cfg->cookie_len;
  c->interval = PH_MS(cfg->heartbeat_interval);
  c->timeout = PH_MS(cfg->heartbeat_timeout);
  c->stall_timeout = cfg->stall_timeout;
  c->handshake_timeout = PH_MS(cfg->handshake_timeout ? cfg->handshake_timeout : HANDSHAKE);
  c->max_message = cfg->max_message;
  c->window = cfg->window ? cfg->window : WINDOW;
  c->max_queue = cfg->max_queue ? cfg->max_queue : QUEUE;
  c->max_unproven = cfg->max_unproven ? cfg->max_unproven : UNPROVEN;
  c->name = ph_strndup(&c->env, cfg->name, c->name_len);
  c->cookie = ph_alloc(&c->env, c->cookie_len + 1);
  if (!c->name || !c->cookie) return PH_ENOMEM;
  if (c->cookie_len) memcpy(c->cookie, cfg->cookie, c->cookie_len);
  return 0;
}

/* What others are told: port 0 is the one listened on. */
static int set_advertised(ph_cluster *c, const char *wish) {
  char text[PH_MAX_ADDRESS + 8];
  size_t n = wish ? strlen(wish) : 0;
  if (n > 2 && n <= PH_MAX_ADDRESS && strcmp(wish + n - 2, ":0") == 0) {
    const char *port = strrchr(c->address, ':');
    snprintf(text, sizeof text, "%.*s%s", (int)n - 2, wish, port ? port : ":0");
    wish = text;
  }
  if (!wish) wish = c->address;
  n = strlen(wish);
  if (!ph__address_valid(wish, n)) return PH_EINVAL;
  c->advertise = ph_strndup(&c->env, wish, n);
  return c->advertise ? 0 : PH_ENOMEM;
}

static int open_ears(ph_cluster *c, const ph_cluster_config *cfg) {
  ph__link_events(c);
  int err = c->t->ops->listen(c->t, cfg->listen, c->address, sizeof c->address);
  if (err < 0) return err;
  c->listening = true;
  if ((err = set_advertised(c, cfg->advertise)) < 0) return err;
  err = c->t->ops->announce(c->t, c->name, c->advertise);
  c->announced = err >= 0;
  return err < 0 ? err : 0;
}

int ph_cluster_new(const ph_env *env, ph_transport *t, const ph_cluster_config *cfg, ph_emit emit,
                   void *ctx, ph_cluster **out) {
  if (!config_valid(cfg)) return PH_EINVAL;
  ph_cluster *c = ph_zalloc(env, sizeof *c);
  if (!c) return PH_ENOMEM;
  c->env = *env;
  c->t = t;
  c->emit = emit;
  c->emit_ctx = ctx;
  lists_init(c);
  ph_index_init(&c->by_name, &c->env);
  ph_index_init(&c->by_peer, &c->env);
  ph_buf_init(&c->scratch, &c->env);
  ph_buf_init(&c->keys, &c->env);
  c->seed = ph_random64(&c->env);
  c->next_peer = 1;
  c->seen = c->alive = ph_now(&c->env);
  c->beat_due = c->due = c->seen + c->interval;
  int err = config_copy(c, cfg);
  if (err >= 0) err = open_ears(c, cfg);
  if (err < 0) {
    ph_cluster_free(c);
    return err;
  }
  c->key = ph__key(c->name, c->name_len, c->incarnation);
  c->number = c->members = 1;
  c->view_dirty = true;
  *out = c;
  return 0;
}

static void reap(ph_cluster *c) {
  for (ph_list *e; (e = ph_list_pop(&c->dead));) ph__link_free(PH_CONTAINER(e, ph__link, in_all));
  for (ph_list *e; (e = ph_list_pop(&c->dead_targets));)
    ph__target_free(PH_CONTAINER(e, ph__target, in_all));
}

static void quiet(void *ctx, uint32_t type, uint64_t a, uint64_t b, const void *p, size_t n) {
  (void)ctx, (void)type, (void)a, (void)b, (void)p, (void)n;
}

void ph_cluster_free(ph_cluster *c) {
  if (!c) return;
  c->emit = quiet;
  c->leaving = true; /* nothing is dialled or admitted any more */
  ph_list *lists[] = {&c->pending, &c->links};
  for (int i = 0; i < 2; i++) {
    while (!ph_list_empty(lists[i]))
      ph__link_end(PH_CONTAINER(lists[i]->next, ph__link, in_all), 0, false);
  }
  while (!ph_list_empty(&c->streams))
    ph__stream_end(PH_CONTAINER(c->streams.next, ph__link, in_all)->node);
  while (!ph_list_empty(&c->targets))
    ph__target_drop(PH_CONTAINER(c->targets.next, ph__target, in_all), PH_ECLOSED);
  if (c->announced) (void)c->t->ops->announce(c->t, NULL, NULL);
  if (c->listening) c->t->ops->unlisten(c->t);
  reap(c);
  ph__members_free(c);
  ph_index_deinit(&c->by_name);
  ph_index_deinit(&c->by_peer);
  ph_buf_deinit(&c->scratch);
  ph_buf_deinit(&c->keys);
  ph_free(&c->env, c->name);
  ph_free(&c->env, c->advertise);
  ph_free(&c->env, c->cookie);
  ph_env env = c->env;
  ph_free(&env, c);
}

/* ---- entries ---- */

void ph__enter(ph_cluster *c) {
  uint64_t now = ph_now(&c->env);
  uint64_t jump = c->timeout / 2 > 2 * c->interval ? c->timeout / 2 : 2 * c->interval;
  c->depth++;
  if (now > c->seen && now - c->seen > jump) ph__resumed(c, now);
  c->seen = now;
}

void ph__exit(ph_cluster *c) {
  if (c->depth == 1) {
    ph__view_update(c);
    ph__state_flush(c);
  }
  if (--c->depth == 0) reap(c);
}

void ph_cluster_turn(ph_cluster *c) {
  ph__enter(c);
  uint64_t now = c->seen;
  if (now >= c->due) {
    c->due = PH_NEVER; /* the scans ask for the next one */
    ph__heartbeat_scan(c, now);
    ph__member_scan(c, now);
    ph__leave_scan(c, now);
    ph__view_update(c);
    ph__peers_scan(c);
    ph__target_scan(c, now);
    ph__stream_scan(c, now);
  }
  ph__state_flush(c);
  ph__links_flush(c);
  ph__exit(c);
}

uint64_t ph_cluster_next(const ph_cluster *c) {
  return ph_list_empty(&c->dirty) ? c->due : 0;
}

void ph_cluster_alive(ph_cluster *c, uint64_t now) {
  if (now > c->alive) c->alive = now;
}

static int send_to(ph_cluster *c, uint64_t peer, const void *p, size_t n) {
  if (n > c->max_message) return PH_ETOOLARGE;
  ph__node *node = ph__node_of(c, peer);
  ph__link *l = node ? ph__way(node) : NULL;
  if (!l) return 0;
  int err = ph__flow_send(l, p, n);
  /* a message missing in the middle would go unnoticed; a lost link is told to both sides */
  if (err < 0) ph__link_failed(l, err);
  return err;
}

int ph_cluster_command(ph_cluster *c, uint32_t type, uint64_t a, uint64_t b, const void *p,
                       size_t n) {
  int err = 0;
  ph__enter(c);
  switch (type) {
  case PH_CMD_SEND:
    err = send_to(c, a, p, n);
    break;
  case PH_CMD_CONSUMED: {
    ph__node *node = ph__node_of(c, a);
    if (node) ph__flow_consumed(node, b);
    break;
  }
  case PH_CMD_CONNECT:
    err = ph__connect(c, a, b, p, n);
    break;
  case PH_CMD_JOIN:
    err = ph__join(c, p, n);
    break;
  case PH_CMD_DISCONNECT:
    err = ph__disconnect(c, p, n);
    break;
  case PH_CMD_LEAVE:
    ph__leave_start(c);
    break;
  case PH_CMD_RESET: {
    ph__node *node = ph__node_of(c, a);
    if (node && ph__way(node)) ph__link_failed(ph__way(node), PH_ECLOSED);
    break;
  }
  default:
    err = PH_EINVAL;
  }
  ph__exit(c);
  return err;
}

/* ---- looking in ---- */

const char *ph_cluster_address(const ph_cluster *c) {
  return c->address;
}

bool ph_cluster_left(const ph_cluster *c) {
  return c->leaving && ph_list_empty(&c->links) && ph_list_empty(&c->pending);
}

void ph_cluster_stats_get(const ph_cluster *c, ph_cluster_stats *out) {
  *out = c->stats;
  out->members = c->members;
}

/* Bounded, for the bytes come from peers: a full table takes one new entry in ten seconds. */
bool ph__once(ph_cluster *c, const char *kind, const void *p, size_t n) {
  uint64_t h = ph_hash(p, n, ph_hash(kind, strlen(kind), c->seed));
  uint32_t used = c->once_count < PH__ONCE ? c->once_count : PH__ONCE;
  for (uint32_t i = 0; i < used; i++) {
    if (c->once[i] == h) return false;
  }
  if (used == PH__ONCE && c->seen - c->once_at < PH_MS(10000)) return false;
  c->once[c->once_count++ % PH__ONCE] = h;
  c->once_at = c->seen;
  return true;
}
