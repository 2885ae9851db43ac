#include "net/memnet.h"

#include <assert.h>

#include "net/memnet_int.h"

#define WALL_0   UINT64_C(1700000000000) /* wall clock at time 0, ms */
#define FIRST_NS PH_MS(1000)             /* the clock's start: never 0 */

/* ---- chance and routes ---- */

uint64_t ph__mem_random(uint64_t *state) { /* splitmix64 */
  uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

static bool valid(const ph_memnet *m, int h) {
  return h >= 0 && h < m->count;
}

uint64_t ph__mem_delay(ph_memnet *m, int from, int to) {
  const route *r = route_of(m, from, to);
  uint64_t span = (uint64_t)r->max_us - r->min_us + 1;
  return (r->min_us + ph__mem_random(&m->random) % span) * 1000;
}

/* ---- hosts ---- */

static int life_new(ph_memnet *m, host *h) {
  life *lf = ph_zalloc(m->env, sizeof *lf);
  if (!lf) return PH_ENOMEM;
  lf->t.ops = &ph__mem_ops;
  lf->m = m;
  lf->host = h->number;
  ph_list_push(&h->lives, &lf->link);
  h->life = lf;
  return 0;
}

static int grow(ph_memnet *m) {
  if (m->count < m->cap) return 0;
  if (m->cap > 16 * 1024) return PH_ETOOLARGE;
  int cap = m->cap ? m->cap * 2 : 8;
  route *routes = ph_alloc(m->env, (size_t)cap * (size_t)cap * sizeof *routes);
  if (!routes) return PH_ENOMEM;
  host **hosts = ph_realloc(m->env, m->hosts, (size_t)cap * sizeof *hosts);
  if (!hosts) {
    ph_free(m->env, routes);
    return PH_ENOMEM;
  }
  for (int i = 0; i < cap; i++) {
    for (int j = 0; j < cap; j++) {
      route fresh = {.min_us = 50, .max_us = 200};
      bool old = i < m->cap && j < m->cap;
      routes[i * cap + j] = old ? *route_of(m, i, j) : fresh;
    }
  }
  ph_free(m->env, m->routes);
  m->routes = routes;
  m->hosts = hosts;
  m->cap = cap;
  return 0;
}

int ph_memnet_host(ph_memnet *m, ph_transport **out) {
  int err = grow(m);
  if (err < 0) return err;
  host *h = ph_zalloc(m->env, sizeof *h);
  if (!h) return PH_ENOMEM;
  h->m = m;
  h->number = m->count;
  h->base = *m->env;
  ph_list_init(&h->lives);
  ph_list_init(&h->ends);
  err = life_new(m, h);
  if (err < 0) {
    ph_free(m->env, h);
    return err;
  }
  h->random = ph__mem_random(&m->random);
  m->hosts[m->count++] = h;
  *out = &h->life->t;
  return h->number;
}

void ph_memnet_crash(ph_memnet *m, int host_no) {
  if (!valid(m, host_no) || !m->hosts[host_no]->life) return;
  host *h = m->hosts[host_no];
  life *lf = h->life;
  h->life = NULL;
  h->paused = false;
  lf->dead = true;
  lf->listening = false;
  ph__mem_forget_name(lf);
  ph__mem_crash(h, lf);
}

int ph_memnet_restart(ph_memnet *m, int host_no, ph_transport **out) {
  if (!valid(m, host_no) || m->hosts[host_no]->life) return PH_EINVAL;
  int err = life_new(m, m->hosts[host_no]);
  if (err < 0) return err;
  *out = &m->hosts[host_no]->life->t;
  return 0;
}

void ph_memnet_delay(ph_memnet *m, int a, int b, uint64_t min_us, uint64_t max_us) {
  if (!valid(m, a) || !valid(m, b)) return;
  if (max_us > UINT32_MAX) max_us = UINT32_MAX;
  if (min_us > max_us) min_us = max_us;
  for (int i = 0; i < 2; i++) {
    route *r = i ? route_of(m, a, b) : route_of(m, b, a);
    r->min_us = (uint32_t)min_us;
    r->max_us = (uint32_t)max_us;
  }
}

void ph_memnet_cut(ph_memnet *m, int from, int to) {
  if (valid(m, from) && valid(m, to)) route_of(m, from, to)->cut = true;
}

void ph_memnet_heal(ph_memnet *m, int from, int to) {
  if (!valid(m, from) || !valid(m, to) || !route_of(m, from, to)->cut) return;
  route_of(m, from, to)->cut = false;
  ph__mem_release(m, to, from);
}

void ph_memnet_break(ph_memnet *m, int a, int b) {
  if (!valid(m, a) || !valid(m, b)) return;
  ph__mem_break(m->hosts[a], b);
}

void ph_memnet_pause(ph_memnet *m, int host_no, bool paused) {
  if (!valid(m, host_no) || m->hosts[host_no]->paused == paused) return;
  m->hosts[host_no]->paused = paused;
  if (!paused) ph__mem_release(m, host_no, -1);
}

void ph_memnet_skew(ph_memnet *m, int host_no, int64_t wall_ms) {
  if (valid(m, host_no)) m->hosts[host_no]->skew = wall_ms;
}

/* ---- a host's environment ---- */

static uint64_t host_now(void *ctx) {
  return ((host *)ctx)->m->now;
}

static uint64_t host_wall(void *ctx) {
  const host *h = ctx;
  return WALL_0 + h->m->now / PH_MS(1) + (uint64_t)h->skew;
}

static void host_random(void *ctx, void *out, size_t n) {
  host *h = ctx;
  for (size_t i = 0; i < n;) {
    uint64_t r = ph__mem_random(&h->random);
    for (int k = 0; k < 8 && i < n; k++, i++, r >>= 8) ((uint8_t *)out)[i] = (uint8_t)r;
  }
}

static void *host_realloc(void *ctx, void *p, size_t n) {
  host *h = ctx;
  return h->base.realloc(h->base.ctx, p, n);
}

static void host_log(void *ctx, int level, const char *line) {
  host *h = ctx;
  h->base.log(h->base.ctx, level, line);
}

void ph_memnet_env(ph_memnet *m, int host_no, const ph_env *base, ph_env *out) {
  assert(valid(m, host_no));
  host *h = m->hosts[host_no];
  h->base = *base;
  *out = (ph_env){.ctx = h,
                  .now = host_now,
                  .wall = host_wall,
                  .random = host_random,
                  .realloc = host_realloc,
                  .log = host_log,
                  .log_level = base->log_level};
}

/* ---- the whole ---- */

ph_memnet *ph_memnet_new(const ph_env *env, uint64_t seed) {
  ph_memnet *m = ph_zalloc(env, sizeof *m);
  if (!m) return NULL;
  m->env = env;
  m->now = FIRST_NS;
  m->random = seed;
  ph_timers_init(&m->timers, env);
  return m;
}

void ph_memnet_free(ph_memnet *m) {
  if (!m) return;
  for (int i = 0; i < m->count; i++) {
    host *h = m->hosts[i];
    while (!ph_list_empty(&h->ends)) ph__mem_end_free(PH_CONTAINER(h->ends.next, ph_conn, link));
  }
  for (int i = 0; i < m->count; i++) {
    host *h = m->hosts[i];
    for (ph_list *l; (l = ph_list_pop(&h->lives));) {
      life *lf = PH_CONTAINER(l, life, link);
      ph__mem_forget_name(lf);
      ph_free(m->env, lf);
    }
    ph_free(m->env, h);
  }
  ph_timers_deinit(&m->timers);
  ph_free(m->env, m->hosts);
  ph_free(m->env, m->routes);
  ph_free(m->env, m);
}

uint64_t ph_memnet_now(const ph_memnet *m) {
  return m->now;
}

uint64_t ph_memnet_next(const ph_memnet *m) {
  uint64_t due = ph_timers_next(&m->timers);
  return due >= PARKED ? PH_NEVER : due;
}

void ph_memnet_advance(ph_memnet *m, uint64_t t) {
  for (uint64_t due; (due = ph_memnet_next(m)) <= t && due != PH_NEVER;) {
    if (due > m->now) m->now = due;
    ph_timers_run(&m->timers, m->now, 1);
  }
  if (t > m->now) m->now = t;
}
