/* The transport: connections, the listener. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/tcp/tcp_int.h"

enum {
  READS = 4,    /* of one connection, one after the other */
  ACCEPTS = 16, /* in one callback */
  BACKLOG = 512,
  FLUSH_MS = 1000,  /* patience with a peer that does not take the rest */
  RELISTEN_MS = 100 /* pause of a listener that can neither accept nor refuse */
};

/* ---- sockets ---- */

static void on_sock_closed(uv_handle_t *h) {
  ph__sock *s = h->data;
  ph_free(s->tcp->env, s);
}

static void sock_close(ph__sock *s) {
  s->c = NULL;
  uv_close((uv_handle_t *)&s->poll, on_sock_closed); /* takes fd out of the poll set at once */
  close(s->fd);
}

/* libuv ends the process when its table of descriptors, twice as large each time, cannot grow:
 * where memory of that size is not to be had it is not asked to. */
static bool can_watch(ph__tcp *t, int fd) {
  if ((unsigned)fd < t->loop->uv.nwatchers) return true;
  void *room = ph_alloc(t->env, 2 * ((size_t)fd + 3) * sizeof(void *));
  ph_free(t->env, room);
  return room != NULL;
}

/* closes fd on failure */
static ph__sock *sock_new(ph__tcp *t, int fd) {
  ph__sock *s = ph_zalloc(t->env, sizeof *s);
  if (!s || !can_watch(t, fd) || uv_poll_init(&t->loop->uv, &s->poll, fd) != 0) {
    ph_free(t->env, s);
    close(fd);
    return NULL;
  }
  s->poll.data = s;
  s->tcp = t;
  s->fd = fd;
  return s;
}

void ph__tcp_limit(ph__tcp *t) {
  if (t->limit_logged) return;
  t->limit_logged = true;
  ph_logf(t->env, PH_LOG_ERROR, "the limit of open files is reached: connections are refused");
}

/* ---- connections ---- */

static void on_poll(uv_poll_t *h, int status, int events);

void ph__conn_park(ph_conn *c, uint64_t due) {
  int err = ph_timer_start(&c->tcp->timers, &c->timer, due);
  (void)err; /* it has its place in the heap */
}

static void on_conn_timer(ph_timer *timer) {
  ph_conn *c = PH_CONTAINER(timer, ph_conn, timer);
  ph__conn_park(c, PH__PARKED); /* takes its place in the heap back before anyone else can */
  if (c->state == CONN_FLUSHING)
    ph__conn_free(c);
  else if (c->dial)
    ph__dial_timeout(c);
}

ph_conn *ph__conn_new(ph__tcp *t, ph__conn_state state, void *user) {
  ph_conn *c = ph_zalloc(t->env, sizeof *c);
  if (!c) return NULL;
  c->tcp = t;
  c->state = state;
  c->user = user;
  ph_timer_init(&c->timer, on_conn_timer);
  if (ph_timer_start(&t->timers, &c->timer, PH__PARKED) < 0) {
    ph_free(t->env, c);
    return NULL;
  }
  ph_buf_init(&c->out, t->env);
  ph_list_push(&t->conns, &c->link);
  return c;
}

void ph__conn_free(ph_conn *c) {
  ph__conn_detach(c);
  ph__dial_free(c);
  ph_timer_stop(&c->tcp->timers, &c->timer);
  ph_buf_deinit(&c->out);
  ph_list_remove(&c->link);
  ph_free(c->tcp->env, c);
}

void ph__conn_poll(ph_conn *c, int events) {
  uv_poll_start(&c->sock->poll, events, on_poll);
}

int ph__conn_attach(ph_conn *c, int fd, int events) {
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  c->sock = sock_new(c->tcp, fd);
  if (!c->sock) return PH_ENOMEM;
  c->sock->c = c;
  ph__conn_poll(c, events);
  return 0;
}

void ph__conn_detach(ph_conn *c) {
  if (!c->sock) return;
  sock_close(c->sock);
  c->sock = NULL;
}

static void conn_over(ph_conn *c, int reason) {
  const ph_transport_events *ev = &c->tcp->t.ev;
  bool tell = c->state == CONN_OPEN;
  c->state = CONN_OVER;
  ph__conn_detach(c);
  if (tell) ev->on_close(ev->ctx, c, c->user, reason);
  ph__conn_free(c);
}

/* bytes the kernel took, or PH_EIO */
static ssize_t send_some(ph_conn *c, const uint8_t *p, size_t n) {
  ssize_t rc;
  do rc = send(c->sock->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (rc < 0 && errno == EINTR);
  if (rc >= 0) return rc;
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS || errno == ENOMEM ? 0
                                                                                        : PH_EIO;
}

/* The stream is cut in the middle: nothing may follow. Reading finds the end and tells. */
static int conn_broken(ph_conn *c) {
  c->broken = true;
  ph_buf_reset(&c->out);
  shutdown(c->sock->fd, SHUT_RDWR);
  ph__conn_poll(c, UV_READABLE);
  return PH_ECLOSED;
}

static int op_write(ph_transport *tr, ph_conn *c, const void *p, size_t n) {
  (void)tr;
  if (c->dial) return PH_ENOCONN;
  if (c->state != CONN_OPEN || c->broken) return PH_ECLOSED;
  if (n == 0) return 0;
  c->tcp->loop->traffic++;
  size_t sent = 0;
  bool idle = ph_buf_size(&c->out) == 0;
  if (idle) {
    ssize_t rc = send_some(c, p, n);
    if (rc < 0) return conn_broken(c);
    sent = (size_t)rc;
    if (sent == n) return 0;
  }
  if (ph_buf_append(&c->out, (const uint8_t *)p + sent, n - sent) < 0)
    return sent ? conn_broken(c) : PH_ENOMEM;
  if (idle) ph__conn_poll(c, UV_READABLE | UV_WRITABLE);
  return 0;
}

static size_t op_queued(ph_transport *tr, ph_conn *c) {
  (void)tr;
  return ph_buf_size(&c->out);
}

static void writable(ph_conn *c) {
  ssize_t rc = send_some(c, ph_buf_at(&c->out), ph_buf_size(&c->out));
  if (rc < 0) {
    (void)conn_broken(c);
    return;
  }
  ph_buf_consume(&c->out, (size_t)rc);
  if (ph_buf_size(&c->out)) return;
  ph_buf_reset(&c->out);
  if (c->ended) {
    ph__conn_free(c);
    return;
  }
  ph__conn_poll(c, UV_READABLE);
  if (c->state == CONN_FLUSHING) {
    shutdown(c->sock->fd, SHUT_WR);
  } else {
    const ph_transport_events *ev = &c->tcp->t.ev;
    ev->on_drain(ev->ctx, c, c->user);
  }
}

/* to_the_end: the socket is broken and out of the poll set, what it still holds is read now */
static void readable(ph__sock *s, bool to_the_end) {
  ph__tcp *t = s->tcp;
  const ph_transport_events *ev = &t->t.ev;
  for (int i = 0; i < READS || to_the_end;) {
    ssize_t n = recv(s->fd, t->read_buf, sizeof t->read_buf, MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && !to_the_end && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (n == 0 && s->c->state == CONN_FLUSHING && ph_buf_size(&s->c->out) && !to_the_end) {
      s->c->ended = true; /* the other side closes too, and still reads */
      ph__conn_poll(s->c, UV_WRITABLE);
      return;
    }
    if (n <= 0) {
      conn_over(s->c, n == 0 && !s->c->broken ? PH_ECLOSED : PH_EIO);
      return;
    }
    t->loop->traffic++;
    i++;
    if (s->c->state == CONN_OPEN) ev->on_data(ev->ctx, s->c, s->c->user, t->read_buf, (size_t)n);
    if (!s->c) return; /* closed by its user */
    if ((size_t)n < sizeof t->read_buf && !to_the_end) return;
  }
}

static void on_poll(uv_poll_t *h, int status, int events) {
  ph__sock *s = h->data;
  if (!s->c) return;
  if (s->c->state == CONN_CONNECTING) {
    ph__dial_ready(s->c);
    return;
  }
  if (status == 0 && (events & UV_WRITABLE) && ph_buf_size(&s->c->out)) writable(s->c);
  if (s->c && (status < 0 || (events & UV_READABLE))) readable(s, status < 0);
}

/* A socket closed with unread bytes in it sends a reset, which can overtake what was written: so a
 * flushing close sends an end, reads until the other side's, and only then closes. */
static void op_close(ph_transport *tr, ph_conn *c, int flush) {
  (void)tr;
  if (c->state == CONN_OVER || c->state == CONN_FLUSHING) return;
  if (!flush || c->dial || c->broken) {
    ph__conn_free(c);
    return;
  }
  c->state = CONN_FLUSHING;
  c->user = NULL;
  ph__conn_park(c, ph_due(c->tcp->env, FLUSH_MS));
  if (ph_buf_size(&c->out) == 0) shutdown(c->sock->fd, SHUT_WR);
}

bool ph__tcp_flushing(const ph__tcp *t) {
  for (const ph_list *l = t->conns.next; l != &t->conns; l = l->next) {
    const ph_conn *c = PH_CONTAINER(l, ph_conn, link);
    if (c->state == CONN_FLUSHING && ph_buf_size(&c->out)) return true;
  }
  return false;
}

/* ---- the listener ---- */

static int open_spare(void) {
  return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void accepted(ph__tcp *t, int fd) {
  const ph_transport_events *ev = &t->t.ev;
  ph_conn *c = ph__conn_new(t, CONN_OPEN, NULL);
  if (!c) {
    close(fd);
    return;
  }
  if (ph__conn_attach(c, fd, UV_READABLE) < 0) {
    ph__conn_free(c);
    return;
  }
  ph__sock *s = c->sock;
  t->loop->traffic++;
  void *user = ev->on_accept(ev->ctx, c);
  if (s->c != c) return; /* closed by its user, or flushing */
  c->user = user;
  if (!user) op_close(&t->t, c, 0);
}

static void on_listener(uv_poll_t *h, int status, int events);

static void on_relisten(ph_timer *timer) {
  ph__tcp *t = PH_CONTAINER(timer, ph__tcp, relisten);
  int err = ph_timer_start(&t->timers, timer, PH__PARKED);
  (void)err; /* takes its place in the heap back */
  if (t->spare < 0) t->spare = open_spare();
  if (t->listener) uv_poll_start(&t->listener->poll, UV_READABLE, on_listener);
}

/* No file is left to accept with. A connection left waiting would keep the listener readable and
 * the loop spinning: it is taken with the spare file and closed, so that its dialler knows. */
static void refuse(ph__tcp *t) {
  ph__tcp_limit(t);
  if (t->spare >= 0) {
    close(t->spare);
    int fd = accept4(t->listener->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0) close(fd);
    t->spare = open_spare();
    if (fd >= 0 || t->spare >= 0) return;
  }
  uv_poll_stop(&t->listener->poll);
  int err = ph_timer_start(&t->timers, &t->relisten, ph_due(t->env, RELISTEN_MS));
  (void)err; /* it has its place in the heap */
}

static void on_listener(uv_poll_t *h, int status, int events) {
  ph__sock *s = h->data;
  ph__tcp *t = s->tcp;
  (void)status;
  (void)events;
  for (int i = 0; i < ACCEPTS && t->listener == s; i++) {
    int fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      accepted(t, fd);
    } else if (errno == EMFILE || errno == ENFILE) {
      refuse(t);
      return;
    } else if (errno != EINTR && errno != ECONNABORTED) {
      return;
    }
  }
}

static int bind_one(ph__tcp *t, const struct addrinfo *ai, int *out) {
  int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
  if (fd < 0) {
    if (errno == EMFILE || errno == ENFILE) ph__tcp_limit(t);
    return errno;
  }
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
    int err = errno;
    close(fd);
    return err;
  }
  *out = fd;
  return 0;
}

static int op_listen(ph_transport *tr, const char *address, char *bound, size_t bound_size) {
  ph__tcp *t = PH_CONTAINER(tr, ph__tcp, t);
  char host[PH__HOST_SIZE], port[PH__PORT_SIZE];
  struct addrinfo *list;
  if (t->listener) return PH_EINVAL;
  int err = ph__addr_split(address, host, port);
  if (err == 0) err = ph__addr_find(host, port, AI_PASSIVE, &list);
  if (err < 0) return err;
  int fd = -1, failure = 0;
  for (const struct addrinfo *ai = list; ai && fd < 0; ai = ai->ai_next)
    failure = bind_one(t, ai, &fd);
  freeaddrinfo(list);
  if (fd < 0) {
    ph_logf(t->env, PH_LOG_WARN, "cannot listen on %s: %s", address, strerror(failure));
    return ph__addr_errno(failure);
  }
  struct sockaddr_storage ss;
  socklen_t n = sizeof ss;
  err = getsockname(fd, (struct sockaddr *)&ss, &n) < 0
            ? PH_EIO
            : ph__addr_format((struct sockaddr *)&ss, bound, bound_size);
  if (err < 0) {
    close(fd);
    return err;
  }
  t->listener = sock_new(t, fd);
  if (!t->listener) return PH_ENOMEM;
  if (t->spare < 0) t->spare = open_spare();
  uv_poll_start(&t->listener->poll, UV_READABLE, on_listener);
  return 0;
}

static void op_unlisten(ph_transport *tr) {
  ph__tcp *t = PH_CONTAINER(tr, ph__tcp, t);
  if (t->listener) sock_close(t->listener);
  t->listener = NULL;
  if (t->spare >= 0) close(t->spare);
  t->spare = -1;
}

/* ---- names ---- */

static int op_announce(ph_transport *tr, const char *name, const char *address) {
  ph__tcp *t = PH_CONTAINER(tr, ph__tcp, t);
  char *copy = NULL;
  if (name) {
    copy = ph_strndup(t->env, name, strlen(name));
    if (!copy) return PH_ENOMEM;
    int err = ph__discovery_put(t->dir, name, address);
    if (err < 0) {
      ph_free(t->env, copy);
      return err;
    }
  }
  if (t->announced) {
    if (!name || strcmp(t->announced, name) != 0) ph__discovery_remove(t->dir, t->announced);
    ph_free(t->env, t->announced);
  }
  t->announced = copy;
  return 0;
}

/* ---- life ---- */

static const ph_transport_ops ops = {
    .listen = op_listen,
    .announce = op_announce,
    .dial = ph__dial_start,
    .write = op_write,
    .queued = op_queued,
    .close = op_close,
    .unlisten = op_unlisten,
};

int ph__tcp_new(ph_loop *l, ph__tcp **out) {
  ph__tcp *t = ph_zalloc(l->env, sizeof *t);
  if (!t) return PH_ENOMEM;
  t->t.ops = &ops;
  t->loop = l;
  t->env = l->env;
  t->spare = -1;
  ph_list_init(&t->conns);
  ph_list_init(&t->jobs);
  ph_timers_init(&t->timers, l->env);
  ph_timer_init(&t->relisten, on_relisten);
  if (ph_timer_start(&t->timers, &t->relisten, PH__PARKED) < 0) {
    ph_free(l->env, t);
    return PH_ENOMEM;
  }
  ph__discovery_dir(t->dir, sizeof t->dir);
  *out = t;
  return 0;
}

void ph__tcp_shut(ph__tcp *t) {
  int err = op_announce(&t->t, NULL, NULL);
  (void)err; /* forgetting a name does not fail */
  op_unlisten(&t->t);
  while (!ph_list_empty(&t->conns)) ph__conn_free(PH_CONTAINER(t->conns.next, ph_conn, link));
  ph__resolve_shut(t);
}

void ph__tcp_free(ph__tcp *t) {
  ph_timers_deinit(&t->timers);
  ph_free(t->env, t);
}
