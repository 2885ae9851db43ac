/* A network in memory with simulated time: many nodes in one OS process, replayable by seed.
 *
 * Links are pairs of hosts. Bytes on one connection keep their order, a write may arrive in two
 * pieces; different connections are reordered freely by their delays. Faults: delay, cut (one way
 * or both, silently: nothing arrives while the connection stays open, as with a pulled cable; what
 * was sent into it arrives after the heal, as TCP sends it again, unless the connection has ended
 * meanwhile), break (reset: both ends get on_close), heal, a paused host (nothing is delivered to
 * it until resumed, its dialers wait). The clock starts at one second and moves only in
 * ph_memnet_advance; all callbacks come from there.
 *
 * A sender's kernel takes 256 KiB for a connection; what is written beyond that counts as queued
 * until the other host has received. No call below but `new`, `host`, `restart` and a transport's
 * `dial`, `write` and `announce` needs memory.
 *
 * What it leaves out: a flushing close that gives up after a second. */
#ifndef PH_NET_MEMNET_H
#define PH_NET_MEMNET_H

#include <stdbool.h>

#include "net/transport.h"

typedef struct ph_memnet ph_memnet;

/* env supplies memory only; the seed drives all chance */
ph_memnet *ph_memnet_new(const ph_env *env, uint64_t seed);
void ph_memnet_free(ph_memnet *m);

/* An env whose now, wall and random come from the simulation (per host, deterministic), memory and
 * log from `base` (copied; one base a host: all envs of a host use the one given last). */
void ph_memnet_env(ph_memnet *m, int host, const ph_env *base, ph_env *out);

/* A host: its number is its address ("mem:<host>", with or without ":<any port>"). The transport is
 * owned by the memnet. Names announced by any host are found by all of them, the last announcer of
 * a name wins.
 *
 * A crashed host is a killed process: its listener and name are gone, its dials vanish, its peers
 * get on_close(PH_EIO) after what it had sent. It gets no callback any more. Its transport and
 * connections may still be used, so that what ran there can be freed after the crash: `close`
 * works, the rest fails with PH_ECLOSED. A restart gives the host a new transport. */
int ph_memnet_host(ph_memnet *m, ph_transport **out) PH_MUST_CHECK; /* host number, or error */
void ph_memnet_crash(ph_memnet *m, int host);
int ph_memnet_restart(ph_memnet *m, int host, ph_transport **out) PH_MUST_CHECK;

void ph_memnet_delay(ph_memnet *m, int a, int b, uint64_t min_us,
                     uint64_t max_us);              /* default 50..200 */
void ph_memnet_cut(ph_memnet *m, int from, int to); /* one way, silent */
void ph_memnet_heal(ph_memnet *m, int from, int to);
void ph_memnet_break(ph_memnet *m, int a, int b); /* resets the connections between a and b now */
void ph_memnet_pause(ph_memnet *m, int host, bool paused);
void ph_memnet_skew(ph_memnet *m, int host, int64_t wall_ms); /* added to its wall clock */

uint64_t ph_memnet_now(const ph_memnet *m);  /* ns */
uint64_t ph_memnet_next(const ph_memnet *m); /* time of the next delivery, PH_NEVER when none */
/* advances the clock to `t` and delivers what is due by then, in order of time */
void ph_memnet_advance(ph_memnet *m, uint64_t t);

#endif
