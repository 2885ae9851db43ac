/* Handshakes: who gets in, what the others are told, and strangers. */
#include "raw.h"

static int connected_with(sim *s, int i, uint64_t request) {
  for (size_t k = 0; k < s->n[i].event_count; k++) {
    const sim_event *e = &s->n[i].events[k];
    if (e->type == PH_EV_CONNECTED && e->a == request) return -(int)e->b;
  }
  return 1; /* not answered */
}

/* ---- refusals ---- */

static void wrong_cookie(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 1);
  sim_add(&s);
  int other = sim_host(&s);
  assert_int_equal(sim_start(&s, other, "n1@sim", 5, "another"), 0);
  sim_join(&s, 0, other);
  sim_connect(&s, other, 9, 0, 5000);
  sim_ms(&s, 5); /* both know within a moment */
  assert_int_equal(connected_with(&s, other, 9), PH_ECOOKIE);
  uint64_t dials = s.n[other].c->stats.bytes_in;
  sim_ms(&s, 60000);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(sim_told(&s, i, PH_EV_NODE_UP, NULL), 0);
    assert_int_equal(s.n[i].warnings, 1);
    assert_non_null(strstr(s.n[i].last_warning, sim_name(1 - i)));
    assert_null(strstr(s.n[i].last_warning, "secret"));
    assert_null(strstr(s.n[i].last_warning, "another"));
  }
  /* about a HELLO and a REJECT in ten seconds */
  assert_in_range(s.n[other].c->stats.bytes_in - dials, 4 * 60, 8 * 200);
  sim_end(&s);
}

static void empty_cookies_agree(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 2);
  for (int i = 0; i < 2; i++) {
    sim_host(&s);
    assert_int_equal(sim_start(&s, i, sim_name(i), 5, ""), 0);
  }
  sim_host(&s);
  assert_int_equal(sim_start(&s, 2, sim_name(2), 5, "x"), 0);
  sim_connect(&s, 0, 1, 1, 1000);
  sim_connect(&s, 2, 2, 1, 1000);
  sim_ms(&s, 10);
  assert_int_equal(connected_with(&s, 0, 1), 0);
  assert_int_equal(connected_with(&s, 2, 2), PH_ECOOKIE);
  sim_end(&s);
}

static void name_conflict(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 3);
  for (int i = 0; i < 2; i++) sim_add(&s);
  sim_join(&s, 1, 0);
  assert_true(sim_until(&s, sim_mesh, 1000));
  uint64_t newcomers[] = {200, 50}; /* a newer and an older incarnation */
  for (int k = 0; k < 2; k++) {
    int other = sim_host(&s);
    assert_int_equal(sim_start(&s, other, "n1@sim", newcomers[k], NULL), 0);
    sim_connect(&s, other, 1, 0, 5000);
    sim_ms(&s, 100);
    assert_int_equal(connected_with(&s, other, 1), PH_ECONFLICT);
    sim_join(&s, other, 0);
    sim_connect(&s, other, 2, 1, 5000); /* its namesake itself */
    sim_ms(&s, 40000);
    assert_int_equal(connected_with(&s, other, 2), PH_ECONFLICT);
    assert_int_equal(s.n[other].event_count, 2); /* nor is it replaced: it was never in */
    assert_in_range(s.n[other].warnings, 1, 2);  /* for n0, and for its namesake */
  }
  assert_int_equal(sim_peer_of(&s, 0, "n1@sim")->incarnation, 100);
  assert_int_equal(s.n[0].event_count, 1);
  /* when the name is free, the newer one of those that wait gets it */
  sim_crash(&s, 1);
  sim_ms(&s, 30000);
  assert_int_equal(sim_peer_of(&s, 0, "n1@sim")->incarnation, 200);
  sim_end(&s);
}

static void connect_tells_why(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 4);
  for (int i = 0; i < 2; i++) sim_add(&s);
  int closed = sim_host(&s), dark = sim_add(&s);
  sim_pause(&s, dark, true);
  sim_connect(&s, 0, 1, closed, 3000);
  sim_connect(&s, 0, 2, dark, 3000);
  assert_int_equal(sim_command(&s, 0, PH_CMD_CONNECT, 3, 3000, "no@where", 8), 0);
  assert_int_equal(sim_command(&s, 0, PH_CMD_CONNECT, 4, 3000, "n1@sim", 6), 0);
  sim_connect(&s, 0, 5, 1, 3000); /* the same node by its address */
  sim_connect(&s, 0, 6, 0, 3000); /* oneself */
  assert_int_equal(sim_command(&s, 0, PH_CMD_CONNECT, 7, 3000, "a@b@c", 5), PH_EINVAL);
  sim_ms(&s, 10);
  assert_int_equal(connected_with(&s, 0, 1), PH_EREFUSED);
  assert_int_equal(connected_with(&s, 0, 2), 1);
  assert_int_equal(connected_with(&s, 0, 3), PH_ENOTFOUND);
  for (uint64_t r = 4; r <= 6; r++) assert_int_equal(connected_with(&s, 0, r), 0);
  assert_int_equal(connected_with(&s, 0, 7), PH_EINVAL);
  sim_connect(&s, 0, 8, 1, 3000); /* linked already */
  assert_int_equal(connected_with(&s, 0, 8), 0);
  sim_ms(&s, 3000);
  assert_int_equal(connected_with(&s, 0, 2), PH_ETIMEOUT);
  assert_true(ph_list_empty(&s.n[0].c->targets)); /* a connect is tried once */
  sim_end(&s);
}

/* A server of another version says so; one that speaks another protocol just closes. */
static void another_version(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 5);
  sim_add(&s);
  raw *r = raw_new(&s, true);
  raw_conn *c = raw_dial(r, 0);
  ph_buf b, frame;
  ph_buf_init(&b, &s.te.env);
  ph_buf_init(&frame, &s.te.env);
  ph_w_array(&b, 5);
  ph_w_uint(&b, PH_M_HELLO);
  ph_w_cstr(&b, "PHUB");
  ph_w_uint(&b, 7);
  ph_w_uint(&b, 9);
  ph_w_cstr(&b, "whatever comes then");
  assert_int_equal(ph_frame_write(&frame, PH_FRAME_CONTROL, ph_buf_at(&b), ph_buf_size(&b)), 0);
  raw_write(c, ph_buf_at(&frame), ph_buf_size(&frame));
  sim_ms(&s, 10);
  const uint8_t reject[] = {0, 0, 0, 4, 0, 0x92, PH_M_REJECT, -PH_EVERSION};
  assert_int_equal(c->got_n, sizeof reject);
  assert_memory_equal(c->got, reject, sizeof reject);
  assert_false(c->open);
  sim_connect(&s, 0, 1, r->host, 1000); /* and now as its client */
  sim_ms(&s, 5);
  raw_write(&r->conns[1], reject, sizeof reject);
  sim_ms(&s, 5);
  assert_int_equal(connected_with(&s, 0, 1), PH_EVERSION);
  ph_buf_deinit(&b);
  ph_buf_deinit(&frame);
  sim_end(&s);
  free(r);
}

/* ---- strangers ---- */

static void stranger_has_five_seconds(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 6);
  sim_add(&s);
  raw *r = raw_new(&s, false);
  raw_conn *silent = raw_dial(r, 0), *slow = raw_dial(r, 0);
  ph_buf hello;
  ph_buf_init(&hello, &s.te.env);
  raw_hello(&s.te, &hello, "evil@sim", 1);
  for (int i = 0; i < 46; i++) { /* one byte at a time */
    raw_write(slow, ph_buf_at(&hello) + i, 1);
    sim_ms(&s, 100);
  }
  assert_true(silent->open);
  assert_true(slow->open);
  sim_ms(&s, 500);
  assert_int_equal(raw_open(r), 0);
  ph_buf_deinit(&hello);
  sim_end(&s);
  free(r);
}

static void oldest_stranger_goes(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 7);
  sim_add(&s);
  raw *r = raw_new(&s, false);
  for (int i = 0; i < 70; i++) (void)raw_dial(r, 0);
  assert_int_equal(raw_open(r), 64);
  for (int i = 0; i < 70; i++) assert_int_equal(r->conns[i].open, i >= 6);
  assert_int_equal(s.n[0].c->stats.unproven, 64);
  int friend = sim_add(&s);
  sim_connect(&s, friend, 1, 0, 1000);
  sim_ms(&s, 5);
  assert_int_equal(connected_with(&s, friend, 1), 0);
  sim_ms(&s, 6000);
  assert_int_equal(s.n[0].c->stats.unproven, 0);
  sim_end(&s);
  free(r);
}

static void garbage_before_proof(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 300; seed++) {
    sim s;
    sim_init(&s, seed);
    sim_add(&s);
    raw *r = raw_new(&s, false);
    raw_conn *c = raw_dial(r, 0);
    size_t before = s.n[0].te.bytes;
    s.n[0].te.peak = before;
    ph_buf b;
    ph_buf_init(&b, &s.te.env);
    raw_hello(&s.te, &b, "evil@sim", 1);
    if (seed % 3 == 0) b.len = b.off; /* only garbage */
    if (seed % 3 == 1) ph_buf_at(&b)[te_below(&s.te, ph_buf_size(&b))] ^= (uint8_t)(1 + seed);
    for (int i = 0; i < 40 && c->open; i++) {
      uint8_t noise[1500];
      size_t n = 1 + te_below(&s.te, sizeof noise);
      te__random(&s.te, noise, n);
      if (seed % 2) noise[0] = noise[1] = 0; /* a length that is possible */
      assert_int_equal(ph_buf_append(&b, noise, n), 0);
      raw_write(c, ph_buf_at(&b), ph_buf_size(&b));
      ph_buf_reset(&b);
      sim_ms(&s, 1);
    }
    assert_true(s.n[0].te.peak - before < 16 * 1024);
    sim_ms(&s, 5100);
    assert_false(c->open);
    assert_int_equal(s.n[0].event_count, 0);
    ph_buf_deinit(&b);
    sim_end(&s);
    free(r);
  }
}

static void giant_length(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 8);
  sim_add(&s);
  raw *r = raw_new(&s, false);
  const uint8_t starts[][5] = {{0xff, 0xff, 0xff, 0xff, 0}, {0, 0, 0x10, 0x02, 0}, {0, 0, 0, 0, 0},
                               {'G', 'E', 'T', ' ', '/'},   {0, 0, 0, 9, 1},       {0, 0, 0, 9, 7}};
  for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
    raw_conn *c = raw_dial(r, 0);
    raw_write(c, starts[i], 5);
    raw_write(c, "12345678", 8);
    sim_ms(&s, 2);
    assert_false(c->open); /* before more is read */
  }
  sim_end(&s);
  free(r);
}

/* A right HELLO and a wrong proof. */
static void forged_proof(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 9);
  sim_add(&s);
  raw *r = raw_new(&s, false);
  for (int k = 0; k < 3; k++) {
    raw_conn *c = raw_dial(r, 0);
    ph_buf b;
    ph_buf_init(&b, &s.te.env);
    raw_hello(&s.te, &b, "evil@sim", 1);
    raw_write(c, ph_buf_at(&b), ph_buf_size(&b));
    sim_ms(&s, 2);
    assert_true(c->got_n > 100);
    uint8_t proof[5 + 4 + 32] = {0, 0, 0, 37, 0, 0x92, PH_M_PROOF, 0xc4, 32};
    if (k == 1) memcpy(proof + 9, c->got + c->got_n - 33, 32); /* the server's own, back to it */
    raw_write(c, proof, sizeof proof);
    sim_ms(&s, 2);
    assert_false(c->open);
    ph_buf_deinit(&b);
  }
  assert_int_equal(s.n[0].event_count, 0);
  assert_int_equal(s.n[0].warnings, 1); /* once a peer */
  sim_end(&s);
  free(r);
}

/* ---- a proven peer that talks nonsense ---- */

static void pair(sim *s, uint64_t seed) {
  sim_init(s, seed);
  sim_add(s);
  sim_add(s);
  sim_join(s, 0, 1);
  assert_true(sim_until(s, sim_mesh, 1000));
}

static ph__link *link_of(sim *s, int i) {
  return PH_CONTAINER(s->n[i].c->links.next, ph__link, in_all);
}

static void inject(sim *s, int kind, const void *p, size_t n) {
  ph__link *l = link_of(s, 1);
  assert_int_equal(ph_frame_write(&l->out, kind, p, n), 0);
  ph__link_dirty(l);
}

static void wrong_fields(ph_buf *b, te *t, uint32_t type) {
  uint32_t fields = (uint32_t)te_below(t, 4);
  ph_w_array(b, fields + 1);
  ph_w_uint(b, type);
  for (uint32_t i = 0; i < fields; i++) {
    switch (te_below(t, 8)) {
    case 0:
      ph_w_nil(b);
      break;
    case 1:
      ph_w_uint(b, te_random64(t) >> te_below(t, 64));
      break;
    case 2:
      ph_w_int(b, -1 - (int64_t)te_below(t, 1000));
      break;
    case 3:
      ph_w_cstr(b, "not@@a name");
      break;
    case 4:
      ph_w_array(b, 0xffffffff); /* claims more than there is */
      break;
    case 5:
      ph_w_array(b, 1);
      ph_w_array(b, 3);
      ph_w_cstr(b, te_below(t, 2) ? "x@y" : "");
      ph_w_uint(b, te_random64(t) >> te_below(t, 64));
      ph_w_cstr(b, te_below(t, 2) ? "mem:7" : "\n:\n");
      break;
    case 6:
      for (int k = 0; k < 200; k++) ph_w_array(b, 1);
      break;
    default:
      ph_w_double(b, 0.5);
    }
  }
}

static void every_control_type_with_wrong_fields(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 400; seed++) {
    sim s;
    pair(&s, seed);
    ph_buf b;
    ph_buf_init(&b, &s.te.env);
    uint32_t type = (uint32_t)(seed % 17);
    wrong_fields(&b, &s.te, type);
    inject(&s, PH_FRAME_CONTROL, ph_buf_at(&b), ph_buf_size(&b));
    ph_buf_deinit(&b);
    sim_ms(&s, 2000);
    if (type == PH_M_LEAVE) {
      assert_int_equal(sim_last(&s, 0, PH_EV_NODE_DOWN, "n1@sim")->b, 1);
    } else if (type == PH_M_DISCONNECT) {
      assert_int_equal(sim_ups(&s, 0), 0);
    } else {
      assert_true(sim_mesh(&s)); /* the link is closed at most, and made again */
      assert_int_equal(sim_told(&s, 0, PH_EV_NODE_DOWN, NULL), 0);
    }
    sim_end(&s);
  }
}

static void each_of_these_closes_the_link(void **state) {
  (void)state;
  static const uint8_t bad[][16] = {
      /* length, then the payload */
      {1, 0xc0},                                 /* no array */
      {1, 0x90},                                 /* empty */
      {2, 0x91, 0xff},                           /* type -1 */
      {2, 0x91, PH_M_HELLO},                     /* belongs to a handshake */
      {2, 0x91, PH_M_WELCOME},                   /* the same */
      {3, 0x92, PH_M_REJECT, 1},                 /* the same */
      {2, 0x91, PH_M_HEARTBEAT},                 /* without fields */
      {4, 0x93, PH_M_HEARTBEAT, 1, 0xff},        /* stall -1 */
      {3, 0x92, PH_M_STATE, 0xa1},               /* a name that is missing */
      {3, 0x92, PH_M_SUMMARY, 0xc2},             /* without pairs */
      {6, 0x93, PH_M_SUMMARY, 0xc2, 0xc4, 1, 7}, /* part of a pair */
      {4, 0x93, PH_M_RELAY, 8, 0xa0},            /* without most */
      {3, 0x92, PH_M_GRANT, 0xc0},               /* nil */
      {2, 0x91, PH_M_PROBE},
      {0}, /* an empty control frame */
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    sim s;
    pair(&s, i);
    sim_ms(&s, 6000);
    inject(&s, PH_FRAME_CONTROL, bad[i] + 1, bad[i][0]);
    sim_ms(&s, 500);
    assert_int_equal(sim_told(&s, 0, PH_EV_LINK_RESET, NULL), 1);
    assert_int_equal(s.n[0].warnings, 1);
    inject(&s, PH_FRAME_CONTROL, bad[i] + 1, bad[i][0]);
    sim_ms(&s, 500);
    assert_int_equal(s.n[0].warnings, 1); /* logged once */
    sim_end(&s);
  }
}

static void unknown_types_and_more_fields_are_skipped(void **state) {
  (void)state;
  sim s;
  pair(&s, 10);
  const uint8_t unknown[] = {0x93, 31, 0xc0, 0x81, 1, 2};
  const uint8_t heartbeat[] = {0x96, PH_M_HEARTBEAT, 1, 0, 5, 0xc0, 0x90};
  const uint8_t summary[] = {0x94, PH_M_SUMMARY, 0xc2, 0xc4, 0, 0xc0};
  inject(&s, PH_FRAME_CONTROL, unknown, sizeof unknown);
  inject(&s, PH_FRAME_CONTROL, heartbeat, sizeof heartbeat);
  inject(&s, PH_FRAME_CONTROL, summary, sizeof summary);
  sim_ms(&s, 100);
  assert_int_equal(s.n[0].c->stats.unknown, 1);
  assert_int_equal(s.n[0].event_count, 1);
  sim_end(&s);
}

static void too_large_a_frame(void **state) {
  (void)state;
  sim s;
  pair(&s, 15);
  static uint8_t bytes[PH_FRAGMENT + 1];
  inject(&s, PH_FRAME_DATA, bytes, sizeof bytes);
  sim_ms(&s, 500);
  assert_int_equal(sim_told(&s, 0, PH_EV_LINK_RESET, NULL), 1);
  assert_int_equal(s.n[0].frames, 0);
  sim_end(&s);
}

/* Whoever is not proven cannot end redialling by saying that nobody is wanted here. */
static void stranger_cannot_stop_redialling(void **state) {
  (void)state;
  sim s;
  pair(&s, 16);
  sim_crash(&s, 1);
  raw *r = raw_on(&s, 1, true);
  const uint8_t reject[] = {0, 0, 0, 4, 0, 0x92, PH_M_REJECT, -PH_ECLOSED};
  ph_buf b;
  ph_buf_init(&b, &s.te.env);
  raw_hello(&s.te, &b, "n1@sim", 100);
  assert_int_equal(ph_buf_append(&b, reject, sizeof reject), 0);
  int answered = 0;
  for (int i = 0; i < 3000; i++) {
    for (; answered < r->count; answered++)
      raw_write(&r->conns[answered], ph_buf_at(&b), ph_buf_size(&b));
    sim_ms(&s, 10);
  }
  ph_buf_deinit(&b);
  assert_true(answered > 3);
  ph_memnet_crash(s.net, 1);
  sim_restart(&s, 1, "n1@sim", 200);
  assert_true(sim_until(&s, sim_mesh, 13000));
  sim_end(&s);
  free(r);
}

/* A link that breaks each time it is made is not made again without a pause. */
static void flapping_is_slowed(void **state) {
  (void)state;
  sim s;
  pair(&s, 11);
  for (int i = 0; i < 10000; i++) {
    if (sim_links(&s, 0) == 1 && sim_links(&s, 1) == 1) ph_memnet_break(s.net, 0, 1);
    sim_ms(&s, 2);
  }
  assert_in_range(sim_told(&s, 0, PH_EV_LINK_RESET, NULL), 3, 20); /* in 20 s */
  assert_int_equal(sim_told(&s, 0, PH_EV_NODE_DOWN, NULL), 0);
  sim_end(&s);
}

/* ---- without memory ---- */

/* The n-th allocation of one node fails, for every n, from its birth to its first frames. */
static void every_allocation_fails_once(void **state) {
  (void)state;
  for (int who = 0; who < 2; who++) {
    bool tripped = true;
    for (long n = 1; tripped; n++) {
      sim s;
      sim_init(&s, 12);
      sim_add(&s);
      sim_host(&s);
      te_fail_in(&s.n[who].te, n);
      int err = sim_start(&s, 1, "n1@sim", 5, NULL);
      if (err < 0) {
        assert_int_equal(err, PH_ENOMEM);
        assert_int_equal(s.n[1].te.live, 0);
        assert_int_equal(sim_start(&s, 1, "n1@sim", 5, NULL), 0);
      }
      err = sim_command(&s, 0, PH_CMD_JOIN, 0, 0, "mem:1", 5);
      if (err < 0) {
        assert_int_equal(err, PH_ENOMEM);
        sim_join(&s, 0, 1);
      }
      assert_true(sim_until(&s, sim_mesh, 20000));
      static char big[200000];
      for (int i = 0; i < 4; i++) {
        int from = i % 2;
        if (!sim_peer_of(&s, from, sim_name(1 - from))) continue;
        int sent = sim_send(&s, from, sim_name(1 - from), big, i < 2 ? 10 : sizeof big);
        assert_true(sent == 0 || sent == PH_ENOMEM);
        sim_ms(&s, 20);
      }
      sim_ms(&s, 3000);
      assert_true(sim_mesh(&s));
      tripped = te_tripped(&s.n[who].te);
      int resets = sim_told(&s, 0, PH_EV_LINK_RESET, NULL);
      int downs = sim_told(&s, 0, PH_EV_NODE_DOWN, NULL);
      /* all arrived, or both were told that frames may be lost */
      if (resets + downs == 0 && sim_told(&s, 1, PH_EV_LINK_RESET, NULL) == 0)
        assert_int_equal(s.n[0].frames + s.n[1].frames, 4);
      sim_end(&s);
    }
  }
}

static void no_memory_for_a_while(void **state) {
  (void)state;
  for (long n = 1; n < 40; n++) {
    sim s;
    pair(&s, 13);
    s.n[0].te.fail_rest = true;
    te_fail_in(&s.n[0].te, n);
    ph_memnet_break(s.net, 0, 1);
    sim_ms(&s, 30000);
    te_fail_in(&s.n[0].te, 0);
    assert_true(sim_until(&s, sim_mesh, 20000));
    sim_end(&s);
  }
}

static void bad_configurations(void **state) {
  (void)state;
  sim s;
  sim_init(&s, 14);
  int i = sim_host(&s);
  static const char *names[] = {"", "a", "@", "a@", "@b", "a@b@c", "a b@c", "a@b\n"};
  for (size_t k = 0; k < sizeof names / sizeof *names; k++)
    assert_int_equal(sim_start(&s, i, names[k], 1, NULL), PH_EINVAL);
  char name[300];
  memset(name, 'x', sizeof name);
  name[100] = '@';
  name[256] = 0;
  assert_int_equal(sim_start(&s, i, name, 1, NULL), PH_EINVAL);
  assert_int_equal(sim_start(&s, i, "a@b", 0, NULL), PH_EINVAL);
  s.cfg.heartbeat_timeout = 1500;
  assert_int_equal(sim_start(&s, i, "a@b", 1, NULL), PH_EINVAL);
  s.cfg.heartbeat_timeout = 8000;
  name[255] = 0;
  assert_int_equal(sim_start(&s, i, name, 1, NULL), 0);
  assert_int_equal(sim_command(&s, i, 99, 0, 0, NULL, 0), PH_EINVAL);
  assert_int_equal(sim_command(&s, i, PH_CMD_JOIN, 0, 0, NULL, 0), PH_EINVAL);
  assert_int_equal(sim_command(&s, i, PH_CMD_JOIN, 0, 0, "no port", 7), PH_EINVAL);
  assert_int_equal(sim_command(&s, i, PH_CMD_DISCONNECT, 0, 0, "x", 1), PH_EINVAL);
  assert_int_equal(sim_command(&s, i, PH_CMD_SEND, 12345, 0, "x", 1), 0);
  sim_end(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(wrong_cookie),
      cmocka_unit_test(empty_cookies_agree),
      cmocka_unit_test(name_conflict),
      cmocka_unit_test(connect_tells_why),
      cmocka_unit_test(another_version),
      cmocka_unit_test(stranger_has_five_seconds),
      cmocka_unit_test(oldest_stranger_goes),
      cmocka_unit_test(garbage_before_proof),
      cmocka_unit_test(giant_length),
      cmocka_unit_test(forged_proof),
      cmocka_unit_test(every_control_type_with_wrong_fields),
      cmocka_unit_test(each_of_these_closes_the_link),
      cmocka_unit_test(unknown_types_and_more_fields_are_skipped),
      cmocka_unit_test(too_large_a_frame),
      cmocka_unit_test(stranger_cannot_stop_redialling),
      cmocka_unit_test(flapping_is_slowed),
      cmocka_unit_test(every_allocation_fails_once),
      cmocka_unit_test(no_memory_for_a_while),
      cmocka_unit_test(bad_configurations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
