/* The public C face of phub: one runtime per OS process ties the event loop, the cluster machine
 * and the node (processes and hubs) together.
 *
 * The runtime's calls come from the interpreter's thread. Between the two machines stand two
 * ordered queues (base/handoff); the cluster runs under the loop's mutex on whichever thread holds
 * it. */
#ifndef PH_PHUB_H
#define PH_PHUB_H

#include "cluster/cluster.h"
#include "hub/hub.h"

#define PH_VERSION "0.1.0"

typedef struct ph_rt ph_rt;

/* A runtime without a node: processes, timers and hubs work on "nonode@nohost". */
int ph_rt_new(const ph_sys_host *sys_host, const ph_hub_host *hub_host, ph_rt **out) PH_MUST_CHECK;
void ph_rt_free(ph_rt *rt); /* stops the node at once; no thread, file or socket remains */
/* The program exits and ph_rt_free will not be called (for atexit): no thread goes on, the node is
 * not found by its name any more. Nothing is emitted, no process ends. */
void ph_rt_exit(ph_rt *rt);
ph_node *ph_rt_node(ph_rt *rt);
ph_sys *ph_rt_sys(ph_rt *rt);
const ph_env *ph_rt_env(ph_rt *rt);

/* node.start: listens, announces, starts the standby thread. cfg->incarnation is chosen here. */
int ph_rt_start(ph_rt *rt, const ph_cluster_config *cfg) PH_MUST_CHECK;
bool ph_rt_started(const ph_rt *rt);
const char *ph_rt_address(const ph_rt *rt);    /* NULL before start */
int ph_rt_join(ph_rt *rt, const char *target); /* keeps dialling */
/* answers through ph_node.on_connected with this request number */
int ph_rt_connect(ph_rt *rt, const char *target, uint64_t timeout_ms,
                  uint64_t *request) PH_MUST_CHECK;
int ph_rt_disconnect(ph_rt *rt, const char *name);
/* node.stop, after the hubs were stopped: LEAVE is sent; call ph_rt_step until ph_rt_left, then
 * ph_rt_node_end, which ends cluster and standby; the runtime goes on without a node. */
int ph_rt_leave(ph_rt *rt);
bool ph_rt_left(ph_rt *rt);
void ph_rt_node_end(ph_rt *rt);

/* One step: events of the cluster, timers and woken waits, runnable processes for a slice (5 ms),
 * then what they sent goes out. When there was nothing of that to do it waits in the loop until
 * something happens, at most until `until` (ns; 0: without waiting, PH_NEVER), and handles what
 * came. So it returns after each piece of work, for its caller to look at what it waits for. */
void ph_rt_step(ph_rt *rt, uint64_t until);
void ph_rt_wake(ph_rt *rt); /* any thread, signal handlers too: ends a wait in ph_rt_step, or the
                               next one */
/* Preemption, as in net/tcp/loop.h. The standby thread that it needs starts with the first slice;
 * after ph_rt_node_end, as soon as somebody else wants the interpreter. */
struct ph_loop *ph_rt_loop(ph_rt *rt);
void ph_rt_slice_begin(ph_rt *rt, uint64_t who);
/* Events of the cluster wait to be handled, by ph_rt_step: a mark that ph_rt_handled tells to be
 * passed once all that wait now are handled; 0: none waits. */
uint64_t ph_rt_events(ph_rt *rt);
bool ph_rt_handled(const ph_rt *rt, uint64_t mark);
bool ph_rt_wanted(ph_rt *rt);  /* does anybody else want the interpreter? */
void ph_rt_standby(ph_rt *rt); /* starts it unless it is there; a failure is logged */
void ph_rt_rest(ph_rt *rt);    /* without a node: no thread until the next slice */

int ph_rt_signals(ph_rt *rt, void (*fn)(void *ctx, int signum), void *ctx) PH_MUST_CHECK;

#endif
