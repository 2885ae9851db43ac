/* Hubs on a simulated network: whole nodes (cluster, processes, one hub) in one OS process,
 * children in C that the world counts for itself, so that a second copy is seen whatever the
 * registries say. */
#ifndef PH_HUB_TEST_HUBSIM_H
#define PH_HUB_TEST_HUBSIM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/handoff.h"
#include "base/test/testenv.h"
#include "cluster/cluster.h"
#include "hub/hub.h"
#include "hub/internal.h"
#include "net/memnet.h"

enum { HS_NODES = 12, HS_IDS = 20000 };

/* What a start function of module "c" does, by its name: ok; fail (a reason); slow (is ready after
 * 200 ms); never (does not answer until abandoned); deaf (traps exits and ignores shutdown). */
typedef struct hs_node {
  struct hs *s;
  te te;      /* the cluster machine's */
  te mem;     /* memory of the machine under test: processes and hubs */
  ph_env env; /* of the same */
  ph_env lower;
  ph_transport *t;
  ph_cluster *c;
  ph_node node;
  ph_hub *hub;
  ph_handoff inbox;
  ph_list slow; /* starts under way */
  uint64_t incarnation, resets;
  char name[16];
  int host;
  bool up, paused, stopped, replaced;
} hs_node;

typedef struct hs_child {
  struct hs_node *n;
  int id;
} hs_child;

typedef struct hs {
  te te;
  ph_memnet *net;
  hs_node n[HS_NODES];
  int count;
  uint64_t hb_timeout;
  bool nameless;        /* nodes to come get their name later (before they join), by ph_node_name */
  ph_hub_config config; /* of hubs to come */
  uint8_t live[HS_NODES][HS_IDS]; /* processes of child i on node n */
  uint32_t runs[HS_IDS];          /* over all nodes, now */
  uint32_t most[HS_IDS];          /* the most at one time since hs_mark */
  uint32_t starts[HS_IDS];        /* since the beginning */
  int running;                    /* processes, over all */
} hs;

void hs_init(hs *s, uint64_t seed);
void hs_end(hs *s);
int hs_add(hs *s);       /* a node with a hub that joins node 0 */
int hs_add_alone(hs *s); /* joins nobody */
int hs_add_bare(hs *s);  /* no hub, joins nobody */
int hs_add_named(hs *s, const char *name, uint64_t incarnation); /* bare, and not by its number */
void hs_hub(hs *s, int i);                                       /* starts one there */
void hs_hub_free(hs *s, int i);                                  /* at once */
void hs_join(hs *s, int i, int to);
void hs_crash(hs *s, int i);
void hs_restart(hs *s, int i); /* a crashed node, as a new incarnation, with a hub; joins nobody */
void hs_cut(hs *s, int a, int b, bool cut);
void hs_cut_way(hs *s, int from, int to, bool cut);
void hs_pause(hs *s, int i, bool paused);
void hs_leave(hs *s, int i); /* ph_hub_stop; n[i].stopped when done */
void hs_mark(hs *s);

void hs_ms(hs *s, uint64_t ms);
bool hs_until(hs *s, bool (*cond)(hs *s, void *arg), void *arg, uint64_t ms);
bool hs_formed(hs *s, void *arg); /* all views are equal and agreed */
bool hs_quiet(
    hs *s, void *arg); /* formed, registries equal, every child exactly once where the ring says */
void hs_dump(hs *s);   /* to stderr: why it is not quiet */

/* an operation over ids [from, from + n), by start function; hs_start and hs_stop may return
 * PH_ENOMEM */
typedef struct hs_op {
  hs *s;
  int node;
  ph_op *op;
  bool done;
  int started, stopped, failed; /* counted when done */
  int from, n;
  uint8_t *ok;   /* per id: 1 in started (or stopped), 2 in errors */
  int8_t *err;   /* per id: the PH_E* code of one in errors */
  uint64_t t[2]; /* ns: submitted, done */
} hs_op;
int hs_start(hs *s, int node, hs_op *o, int from, int n, const char *fn, const char *restart);
int hs_stop(hs *s, int node, hs_op *o, int from, int n);
void hs_op_wait(hs *s, hs_op *o, uint64_t ms);
void hs_op_end(hs_op *o);
extern ph_op_options hs_options;
/* a spec of module "c", for a node's hub; NULL: no memory */
ph_spec *hs_spec(hs *s, ph_hub *h, const char *fn, const char *restart);
/* static children [from, from + n) */
void hs_propose(hs *s, int node, int from, int n, const char *fn, const char *restart);
ph_row *hs_row(hs *s, int node, int id); /* the registry's row, live or not; NULL: none */

int hs_known(hs *s, int node);                         /* children in its registry */
void hs_kill_child(hs *s, int id, const char *reason); /* wherever it runs */

#endif
