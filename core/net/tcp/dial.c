/* Dialling: a node's name through the discovery files, a host's name through the resolver, then one
 * address after the other, each with its share of the time that is left. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/tcp/tcp_int.h"

/* Of the failures of several addresses the one that says least about the node being down wins:
 * "refused" may only be told when nothing hints at a peer that is alive behind a broken path. */
static int worse(int a, int b) {
  static const int order[] = {PH_ENOMEM, PH_ETIMEOUT, PH_EREFUSED, PH_EUNREACHABLE, PH_ENOTFOUND};
  for (size_t i = 0; i < sizeof order / sizeof *order; i++)
    if (a == order[i] || b == order[i]) return order[i];
  return a ? a : b;
}

void ph__dial_free(ph_conn *c) {
  ph__dial *d = c->dial;
  if (!d) return;
  c->dial = NULL;
  if (d->job) ph__resolve_forget(d->job);
  if (d->list) freeaddrinfo(d->list);
  ph_free(c->tcp->env, d);
}

/* tells its user that the dial is over and frees c */
static void fail(ph_conn *c) {
  const ph_transport_events *ev = &c->tcp->t.ev;
  int err = c->dial->err;
  c->state = CONN_OVER;
  ph__conn_detach(c);
  ev->on_dialled(ev->ctx, c, c->user, err);
  ph__conn_free(c);
}

static int start_connect(ph_conn *c, const struct addrinfo *ai) {
  int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    if (errno == EMFILE || errno == ENFILE) ph__tcp_limit(c->tcp);
    return ph__addr_errno(errno);
  }
  if (connect(fd, ai->ai_addr, ai->ai_addrlen) < 0 && errno != EINPROGRESS && errno != EINTR) {
    int err = ph__addr_errno(errno);
    close(fd);
    return err;
  }
  return ph__conn_attach(c, fd, UV_WRITABLE);
}

/* starts on the next address that can be tried at all; false: there is none left */
static bool next_address(ph_conn *c) {
  ph__dial *d = c->dial;
  while (d->next) {
    const struct addrinfo *ai = d->next;
    d->next = ai->ai_next;
    int err = start_connect(c, ai);
    if (err < 0) {
      d->err = worse(d->err, err);
      continue;
    }
    uint64_t now = ph_now(c->tcp->env), left = d->deadline > now ? d->deadline - now : 0;
    uint64_t addresses = 1;
    for (const struct addrinfo *a = d->next; a; a = a->ai_next) addresses++;
    c->state = CONN_CONNECTING;
    ph__conn_park(c, now + left / addresses);
    return true;
  }
  return false;
}

static int socket_error(int fd) {
  int err = 0;
  socklen_t n = sizeof err;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &n) < 0) err = errno;
  if (err) return ph__addr_errno(err);
  /* A free port of this host that is dialled again and again is at last drawn as the dialler's own:
   * TCP then connects the socket to itself. Nobody listens there. */
  struct sockaddr_storage here, there;
  socklen_t a = sizeof here, b = sizeof there;
  memset(&here, 0, sizeof here);
  memset(&there, 0, sizeof there);
  if (getsockname(fd, (struct sockaddr *)&here, &a) < 0 ||
      getpeername(fd, (struct sockaddr *)&there, &b) < 0)
    return PH_EIO;
  return a == b && memcmp(&here, &there, a) == 0 ? PH_EREFUSED : 0;
}

void ph__dial_ready(ph_conn *c) {
  int err = socket_error(c->sock->fd);
  if (err < 0) {
    c->dial->err = worse(c->dial->err, err);
    ph__conn_detach(c);
    if (!next_address(c)) fail(c);
    return;
  }
  ph__dial_free(c);
  c->state = CONN_OPEN;
  ph__conn_park(c, PH__PARKED);
  ph__conn_poll(c, UV_READABLE);
  const ph_transport_events *ev = &c->tcp->t.ev;
  ev->on_dialled(ev->ctx, c, c->user, 0);
}

void ph__dial_timeout(ph_conn *c) {
  ph__dial *d = c->dial;
  if (c->state != CONN_FAILED) d->err = worse(d->err, PH_ETIMEOUT);
  ph__conn_detach(c);
  if (c->state == CONN_CONNECTING && ph_now(c->tcp->env) < d->deadline && next_address(c)) return;
  fail(c);
}

void ph__dial_resolved(ph_conn *c, struct addrinfo *list, int err) {
  c->dial->job = NULL;
  c->dial->list = c->dial->next = list;
  if (err < 0) c->dial->err = worse(c->dial->err, err);
  if (!next_address(c)) fail(c);
}

/* begins; an error is told by c's timer, never from inside the call */
static void begin(ph_conn *c, const char *host, const char *port) {
  ph__dial *d = c->dial;
  int err = ph__addr_find(host, port, AI_NUMERICHOST, &d->list);
  d->next = d->list;
  if (err == 0 && next_address(c)) return;
  if (err == PH_ENOTFOUND) { /* not a number */
    err = ph__resolve(c->tcp, c, host, port, &d->job);
    if (err == 0) {
      ph__conn_park(c, d->deadline);
      return;
    }
  }
  d->err = worse(d->err, err);
  c->state = CONN_FAILED;
  ph__conn_park(c, ph_now(c->tcp->env));
}

int ph__dial_start(ph_transport *tr, const char *target, uint64_t timeout_ms, void *user,
                   ph_conn **out) {
  ph__tcp *t = PH_CONTAINER(tr, ph__tcp, t);
  char address[PH__HOST_SIZE + PH__PORT_SIZE + 3], host[PH__HOST_SIZE], port[PH__PORT_SIZE];
  int err = 0;
  if (strchr(target, '@')) {
    err = ph__discovery_find(t->dir, target, address, sizeof address);
    target = address;
  }
  if (err == 0) {
    err = ph__addr_split(target, host, port);
    if (err < 0) return err;
  }
  ph_conn *c = ph__conn_new(t, CONN_RESOLVING, user);
  if (!c) return PH_ENOMEM;
  c->dial = ph_zalloc(t->env, sizeof *c->dial);
  if (!c->dial) {
    ph__conn_free(c);
    return PH_ENOMEM;
  }
  c->dial->deadline = ph_due(t->env, timeout_ms);
  if (c->dial->deadline >= PH__PARKED) c->dial->deadline = PH__PARKED - 1;
  if (err < 0) {
    c->dial->err = err;
    c->state = CONN_FAILED;
    ph__conn_park(c, ph_now(t->env));
  } else {
    begin(c, host, port);
  }
  *out = c;
  return 0;
}
