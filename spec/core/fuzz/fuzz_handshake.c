/* A node and strangers who do not know the cookie, dialling it and dialled by it.
 *
 * Input: steps. Whatever they write, replayed from other connections too: nobody comes up; the node
 * holds at most 16 KiB for each unproven connection, has at most 64, and none for longer than 5 s.
 */
#include <assert.h>

#include "cluster/test/sim.h"
#include "message.h"
#include "peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

enum { STEPS = 400, EACH = 16 * 1024, MOST = 64, SLACK = 8 * 1024, OWN_DIAL = 2 * 1024 };

static sim s;
static fz_peer peer;
static fz_names who = {{"n1@sim", "n0@sim"}, {100, 100}, 2};

static fz_conn *some(uint8_t x) {
  return peer.count ? &peer.conns[x % peer.count] : NULL;
}

static void held(size_t base) {
  ph_cluster_stats st;
  ph_cluster_stats_get(s.n[0].c, &st);
  assert(st.unproven <= MOST);
  assert(st.links == 0 && sim_told(&s, 0, PH_EV_NODE_UP, NULL) == 0);
  assert(s.n[0].te.bytes <= base + SLACK + (size_t)EACH * st.unproven);
}

static void bytes(fz_input *in, fz_conn *c, bool framed) {
  size_t n = fz_u16(in);
  const uint8_t *p = fz_take(in, &n);
  if (framed)
    fz_frame(c, PH_FRAME_CONTROL, p, n);
  else
    fz_write(c, p, n);
}

static void payload(fz_input *in, fz_conn *c, bool hello) {
  ph_buf b;
  ph_buf_init(&b, &peer.te.env);
  if (hello)
    fz_hello(c, &b);
  else
    (void)fz_message(in, &who, &b);
  fz_frame(c, PH_FRAME_CONTROL, ph_buf_at(&b), ph_buf_size(&b));
  ph_buf_deinit(&b);
}

/* the node's own words, from this connection or another */
static void replay(fz_input *in, fz_conn *c) {
  const fz_conn *from = some(fz_u8(in));
  size_t off = fz_u8(in), n = ph_buf_size(&from->theirs);
  if (off & 1) off = 0;
  if (off < n) fz_write(c, ph_buf_at(&from->theirs) + off, n - off);
}

/* much of one byte, behind the head of a frame: more than the input holds */
static void fill(fz_input *in, fz_conn *c) {
  static uint8_t much[0x8000];
  size_t n = fz_u16(in) & 0x7fff, announced = fz_u8(in) & 1 ? n : fz_u16(in);
  memset(much, fz_u8(in), sizeof much);
  much[0] = much[1] = 0;
  much[2] = (uint8_t)(announced >> 8);
  much[3] = (uint8_t)announced;
  much[4] = 0;
  fz_write(c, much, n);
}

static void step(fz_input *in) {
  static const uint16_t ms[] = {0, 1, 10, 100, 1000, 2500};
  uint8_t what = fz_u8(in), x = fz_u8(in);
  fz_conn *c = some(x);
  if (what % 8 == 0 || !c) {
    (void)fz_dial(&peer, 0);
    if (x & 1) sim_ms(&s, 1);
    return;
  }
  switch (what % 8) {
  case 1:
    bytes(in, c, true);
    break;
  case 2:
    bytes(in, c, false);
    break;
  case 3:
    payload(in, c, true);
    break;
  case 4:
    payload(in, c, false);
    break;
  case 5:
    replay(in, c);
    break;
  case 6:
    sim_ms(&s, ms[x % (sizeof ms / sizeof *ms)]);
    break;
  default:
    if (x < 0x80)
      fill(in, c);
    else if (x < 0xa0)
      fz_close(c);
    sim_ms(&s, 1);
  }
}

static bool unproven(void) {
  ph_cluster_stats st;
  ph_cluster_stats_get(s.n[0].c, &st);
  return st.unproven > 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
  fz_input in = {p, p + n};
  ph_transport *t;
  sim_init(&s, 1);
  sim_add(&s);
  int host = ph_memnet_host(s.net, &t);
  fz_peer_init(&peer, t, "n1@sim", 100, NULL);
  fz_peer_listen(&peer);
  sim_join(&s, 0, host);
  sim_ms(&s, 1);
  size_t base = s.n[0].te.bytes + OWN_DIAL;
  for (int i = 0; i < STEPS && fz_left(&in); i++) {
    step(&in);
    held(base);
  }
  sim_ms(&s, 5100);
  held(base);
  assert(!unproven());
  assert(s.n[0].te.bytes <= base + SLACK);
  for (int i = 0; i < peer.count; i++)
    assert(!peer.conns[i].client || !peer.conns[i].open || !peer.conns[i].conn);
  for (int i = 0; i < peer.count; i++) fz_close(&peer.conns[i]);
  sim_end(&s);
  fz_peer_deinit(&peer);
  return 0;
}
