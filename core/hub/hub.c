/* A hub's life: made, turning, leaving, freed. */
#include "hub/hub.h"

#include <string.h>

#include "cluster/cluster.h"
#include "hub/internal.h"

enum { FAR_AHEAD_MS = 24 * 3600 * 1000, LEAVE_ASK_MS = 100, MEND_MS = 500 };
#define FAR (PH_NEVER - 1) /* when a timer with nothing to do is due */

/* ---- Clock: hybrid logical, wall milliseconds above 16 bits of counter (Kulkarni et al., 2014) */

uint64_t ph__clock(ph_hub *h) {
  uint64_t wall = ph_wall(h->env) << 16;
  h->hlc = h->hlc + 1 > wall ? h->hlc + 1 : wall;
  return h->hlc;
}

/* a peer's clock is followed, but not a day ahead */
void ph__clock_saw(ph_hub *h, uint64_t hlc) {
  if (hlc > h->hlc && (hlc >> 16) < ph_wall(h->env) + FAR_AHEAD_MS) h->hlc = hlc;
}

/* ---- Turns */

/* The hub's timers are armed when it is made and, first thing, when they fire: so there is always
 * room for them, and arming them never fails. */
static void arm(ph_hub *h, ph_timer *t, uint64_t due) {
  if (!h->freeing) (void)!ph_timer_start(&h->sys->timers, t, due);
}

void ph__kick(ph_hub *h) {
  if (h->kicked) return;
  h->kicked = true;
  arm(h, &h->kick, 0);
}

void ph__oom(ph_hub *h) {
  if (h->lossy) return;
  h->lossy = true;
  arm(h, &h->mend, ph_due(h->env, MEND_MS));
}

/* Something could not be stored or sent for lack of memory: the links are reset, and both sides
 * greet each other anew. */
static void mend(ph_timer *t) {
  ph_hub *h = PH_CONTAINER(t, ph_hub, mend);
  const ph_port *port = &h->sys->port;
  arm(h, t, FAR);
  if (!h->lossy) return;
  h->lossy = false;
  ph__sync_greet(h); /* nodes that there was no memory for */
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (m->node->peer && port->command(port->ctx, PH_CMD_RESET, m->node->peer, 0, NULL, 0))
      ph__oom(h);
  }
  ph__place_homeless(h); /* a start may have failed for them */
  ph__children_mend(h);
  if (h->ring_stale) ph__view_changed(h);
  ph__settle_check(h);
  ph__kick(h);
}

/* Whose word counts as a second holder's: it is in the view and has all of ours; a leaver only if
 * there is nobody else. */
static ph_member *second_holder(ph_hub *h) {
  ph_member *best = NULL;
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (m->included && m->ready && (!best || (best->leaving && !m->leaving))) best = m;
  }
  return best;
}

/* The held answers of this turn wait for one member's word that it has received all up to here,
 * moves for every member's. */
static void barrier(ph_hub *h) {
  uint64_t now = h->barrier++;
  bool all = h->fence_wanted && h->hellos > 0, one = h->barrier_wanted && h->others > 0;
  if (one && !h->barrier_at) h->barrier_at = second_holder(h);
  if (!h->barrier_at) one = false; /* READY kicks the hub */
  if (!all && !one) return;
  h->barrier_sent = now;
  if (all) h->fence_wanted = false;
  if (one) h->barrier_wanted = false;
  if (h->barrier_at) h->barrier_asked = now;
  if (ph__send_number(h, all ? NULL : h->barrier_at, PH_H_ACKREQ, now)) ph__oom(h);
}

void ph__barrier_lost(ph_hub *h, const ph_member *m) {
  if (h->barrier_at != m) return;
  h->barrier_at = NULL;
  h->barrier_asked = 0;
}

static bool children_done(ph_hub *h) {
  return h->child_count == 0;
}

/* is there anyone to take children over? Nodes that leave at once must not wait for each other. */
static bool anyone_stays(ph_hub *h) {
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (m->included && !m->leaving) return true;
  }
  return false;
}

/* has everyone in view heard of the leave, and everything this node knows? */
static bool everyone_knows(ph_hub *h) {
  bool all = true;
  for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
    ph_member *m = PH_CONTAINER(l, ph_member, all);
    if (m->included && (m->view != h->view || m->matched_at < h->leave_at)) all = false;
  }
  return all;
}

/* a member that does not hear it sees the hub go with its node, or asks and is told */
void ph__bye(ph_hub *h) {
  ph_buf b;
  ph__head(h, &b, PH_H_BYE, 0);
  (void)!ph__send_all(h, &b);
}

static void finish(ph_hub *h) {
  void (*done)(void *) = h->stop_done;
  void *ctx = h->stop_ctx;
  ph__flush(h);
  ph_hub_free(h);
  if (done) done(ctx);
}

/* true: the hub is gone */
static bool leave_step(ph_hub *h) {
  uint64_t now = ph_now(h->env);
  if (!h->leaving) return false;
  if (now >= h->stop_deadline) {
    ph_logf(h->env, PH_LOG_WARN, "hub %s: not everything could be handed over in time", h->id);
    finish(h);
    return true;
  }
  if (!ph_list_empty(&h->ops)) return false;
  if (!anyone_stays(h)) ph__children_stop(h);
  if (!children_done(h)) return false;
  if (h->others > 0) {
    if (!h->leave_at) h->leave_at = now;
    if (!everyone_knows(h)) {
      if (now - h->leave_asked >= PH_MS(LEAVE_ASK_MS)) {
        h->leave_asked = now;
        ph__send_digest(h, NULL, true);
      }
      arm(h, &h->tick, ph_due(h->env, LEAVE_ASK_MS));
      return false;
    }
  }
  finish(h);
  return true;
}

static void respawn(ph_hub *h) {
  h->proc = ph_spawn(h->sys, &ph__hub_behaviour, h);
  if (!h->proc) {
    ph__oom(h); /* tried again then */
    return;
  }
  h->proc->trap_exit = 1;
  h->pid = h->proc->pid;
}

static void turn(ph_timer *t) {
  ph_hub *h = PH_CONTAINER(t, ph_hub, kick);
  arm(h, t, FAR);
  h->kicked = false;
  if (!h->proc) respawn(h);
  bool more = ph__ops_slice(h);
  if (ph__place_slice(h)) more = true;
  if (ph__children_slice(h)) more = true;
  if (ph__place_slice(h)) more = true; /* what has just started may be an answer */
  ph__routes_run(h);
  ph__moves_run(h);
  if (ph__sync_slice(h)) more = true;
  if (ph__tombs_slice(h)) more = true;
  ph__held_run(h);
  ph__flush(h);
  barrier(h);
  if (leave_step(h)) return;
  if (more) ph__kick(h);
}

static void tick(ph_timer *t) {
  ph_hub *h = PH_CONTAINER(t, ph_hub, tick);
  arm(h, t, ph_due(h->env, h->cfg.sync_interval));
  ph__sync_tick(h);
  ph__place_homeless(h); /* a question or an answer may have been lost */
  ph__kick(h);
}

/* ---- Made and freed */

static void lists_init(ph_hub *h) {
  for (size_t i = 0; i < PH_BUCKETS; i++) ph_list_init(&h->buckets[i]);
  ph_list *lists[] = {&h->all,        &h->tombs,     &h->homeless,    &h->dirty,   &h->members,
                      &h->gone,       &h->children,  &h->start_queue, &h->holding, &h->ops,
                      &h->held,       &h->deferred,  &h->routed,      &h->surveys, &h->dirty_facts,
                      &h->self.facts, &h->known_ops, &h->work,        &h->self.all};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) ph_list_init(lists[i]);
}

static int setup(ph_hub *h, const ph_hub_config *cfg) {
  h->id = ph_strndup(h->env, cfg->hub_id, cfg->hub_id_len);
  h->strategies_text = ph_strndup(h->env, cfg->strategies_text, strlen(cfg->strategies_text));
  if (!h->id || !h->strategies_text) return PH_ENOMEM;
  h->cfg.hub_id = h->id;
  h->cfg.strategies_text = h->strategies_text;
  respawn(h);
  if (!h->proc) return PH_ENOMEM;
  int err = ph_timer_start(&h->sys->timers, &h->kick, 0);
  if (!err) err = ph_timer_start(&h->sys->timers, &h->mend, FAR);
  if (!err) err = ph_timer_start(&h->sys->timers, &h->tick, ph_due(h->env, cfg->sync_interval));
  if (err) return err;
  h->kicked = true;
  ph__view_changed(h); /* the ring of this node alone */
  return h->ring_stale ? PH_ENOMEM : 0;
}

int ph_hub_new(ph_node *n, const ph_hub_config *cfg, ph_hub **out) {
  if (cfg->hub_id_len == 0 || cfg->hub_id_len > PH_MAX_ID) return PH_EINVAL;
  if (ph_node_hub(n, cfg->hub_id, cfg->hub_id_len)) return PH_EALREADY;
  ph_hub *h = ph_zalloc(n->env, sizeof *h);
  if (!h) return PH_ENOMEM;
  h->node = n;
  h->sys = &n->sys;
  h->env = n->env;
  h->cfg = *cfg;
  h->id_len = cfg->hub_id_len;
  h->seed = ph_random64(h->env);
  uint64_t wall = ph_wall(h->env);
  h->started = n->last_hub = wall > n->last_hub ? wall : n->last_hub + 1;
  /* numbers of an earlier hub on this node are never used again */
  h->next_counter = h->started << 20;
  h->barrier = 1;
  h->self.hub = h;
  h->self.node = h->sys->nodes[PH_SELF];
  lists_init(h);
  ph_specs_init(&h->specs, h->env, h->seed);
  ph_index_init(&h->rows, h->env);
  ph_index_init(&h->tags, h->env);
  ph_index_init(&h->tokens, h->env);
  ph_index_init(&h->pendings, h->env);
  ph_ring_init(&h->ring, h->env);
  ph_timer_init(&h->kick, turn);
  ph_timer_init(&h->tick, tick);
  ph_timer_init(&h->mend, mend);
  ph_list_push(&n->hubs, &h->all);
  int err = setup(h, cfg);
  if (err) {
    ph_hub_free(h);
    return err;
  }
  ph__sync_start(h);
  *out = h;
  return 0;
}

void ph_hub_stop(ph_hub *h, void (*done)(void *ctx), void *ctx) {
  if (h->stopping) return;
  h->stopping = h->leaving = true;
  h->stop_done = done;
  h->stop_ctx = ctx;
  h->stop_deadline = ph_due(h->env, h->cfg.shutdown_timeout);
  ph__ops_over(h, PH_ENOTALIVE);
  ph__routes_end(h);
  ph__view_changed(h);
  arm(h, &h->tick, ph_due(h->env, LEAVE_ASK_MS));
  ph__kick(h);
}

void ph_hub_free(ph_hub *h) {
  h->freeing = true;
  if (h->id) ph__bye(h); /* else there was no memory for it, and nobody knows it */
  ph_timer_stop(&h->sys->timers, &h->kick);
  ph_timer_stop(&h->sys->timers, &h->tick);
  ph_timer_stop(&h->sys->timers, &h->mend);
  ph__routes_end(h);
  ph__ops_end(h, PH_ENOTALIVE);
  ph__ops_detach(h);
  ph__surveys_end(h);
  ph__children_kill(h);
  ph__hub_members_free(h);
  ph__registry_free(h);
  ph__batch_free(h, h->changes);
  ph__batch_free(h, h->facts);
  ph_index_deinit(&h->tokens);
  ph_index_deinit(&h->pendings);
  ph_ring_deinit(&h->ring);
  ph_specs_deinit(&h->specs);
  if (h->proc) {
    /* its own signal, not trapped: it ends, and whoever supervises the hub hears how */
    ph_reason why = h->stopping ? PH_REASON_NORMAL : PH_REASON_KILL;
    h->proc->data = NULL;
    h->proc->trap_exit = 0;
    (void)!ph_signal(h->sys, h->pid, h->pid, ph_reason_get(h->sys, why), true);
  }
  ph_list_remove(&h->all);
  ph_free(h->env, h->id);
  ph_free(h->env, h->strategies_text);
  ph_free(h->env, h->why);
  ph_free(h->env, h);
}

/* ---- Small reads */

ph_node *ph_hub_node(ph_hub *h) {
  return h->node;
}
ph_pid ph_hub_pid(const ph_hub *h) {
  return h->pid;
}
ph_specs *ph_hub_specs(ph_hub *h) {
  return &h->specs;
}
void *ph_hub_user(const ph_hub *h) {
  return h->user;
}
void ph_hub_user_set(ph_hub *h, void *user) {
  h->user = user;
}
bool ph_hub_stopping(const ph_hub *h) {
  return h->stopping;
}
bool ph_hub_locked(const ph_hub *h) {
  return h->moving > 0 || h->scan_at != NULL;
}

const char *ph_hub_id(const ph_hub *h, size_t *len) {
  *len = h->id_len;
  return h->id;
}

int ph_hub_state(const ph_hub *h, const char **why) {
  if (why) *why = h->why;
  return h->state;
}

const ph_nodeent *ph_hub_member(ph_hub *h, size_t i) {
  const ph_nodeent *best = NULL, *above = NULL;
  do {
    best = NULL;
    if (!above || strcmp(h->self.node->name, above->name) > 0) best = h->self.node;
    for (ph_list *l = h->members.next; l != &h->members; l = l->next) {
      const ph_member *m = PH_CONTAINER(l, ph_member, all);
      if (!m->included || m->leaving || (above && strcmp(m->node->name, above->name) <= 0))
        continue;
      if (!best || strcmp(m->node->name, best->name) < 0) best = m->node;
    }
    above = best;
  } while (best && i-- > 0);
  return best;
}
