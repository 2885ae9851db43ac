/* Addresses as text: "host:port", "[v6]:port". */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "net/tcp/tcp_int.h"

static int copy_port(const char *s, char port[PH__PORT_SIZE]) {
  size_t n = strspn(s, "0123456789");
  if (n == 0 || n >= PH__PORT_SIZE || s[n]) return PH_EINVAL;
  unsigned value = 0;
  for (size_t i = 0; i < n; i++) value = value * 10 + (unsigned)(s[i] - '0');
  if (value > 65535) return PH_EINVAL;
  memcpy(port, s, n + 1);
  return 0;
}

int ph__addr_split(const char *address, char host[PH__HOST_SIZE], char port[PH__PORT_SIZE]) {
  const char *start = address, *end, *colon;
  if (*address == '[') {
    start++;
    end = strchr(start, ']');
    if (!end || end[1] != ':') return PH_EINVAL;
    colon = end + 1;
  } else {
    colon = end = strchr(start, ':');
    if (!colon || strchr(colon + 1, ':')) return PH_EINVAL; /* an IPv6 address needs brackets */
  }
  size_t n = (size_t)(end - start);
  if (n == 0 || n >= PH__HOST_SIZE) return PH_EINVAL;
  memcpy(host, start, n);
  host[n] = 0;
  return copy_port(colon + 1, port);
}

int ph__addr_find(const char *host, const char *port, int flags, struct addrinfo **out) {
  struct addrinfo hints = {.ai_family = AF_UNSPEC,
                           .ai_socktype = SOCK_STREAM,
                           .ai_protocol = IPPROTO_TCP,
                           .ai_flags = flags | AI_NUMERICSERV};
  switch (getaddrinfo(host, port, &hints, out)) {
  case 0:
    return 0;
  case EAI_MEMORY:
    return PH_ENOMEM;
  case EAI_AGAIN:
    return PH_EUNREACHABLE; /* no name server answers */
  case EAI_SYSTEM:
    return PH_EIO;
  default:
    return PH_ENOTFOUND;
  }
}

int ph__addr_format(const struct sockaddr *sa, char *out, size_t size) {
  char host[INET6_ADDRSTRLEN];
  int n;
  if (sa->sa_family == AF_INET) {
    const struct sockaddr_in *in = (const void *)sa;
    if (!inet_ntop(AF_INET, &in->sin_addr, host, sizeof host)) return PH_EIO;
    n = snprintf(out, size, "%s:%u", host, (unsigned)ntohs(in->sin_port));
  } else if (sa->sa_family == AF_INET6) {
    const struct sockaddr_in6 *in = (const void *)sa;
    if (!inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof host)) return PH_EIO;
    n = snprintf(out, size, "[%s]:%u", host, (unsigned)ntohs(in->sin6_port));
  } else {
    return PH_EINVAL;
  }
  return n > 0 && (size_t)n < size ? 0 : PH_EINVAL;
}

int ph__addr_errno(int err) {
  switch (err) {
  case ENOMEM:
  case ENOBUFS:
    return PH_ENOMEM;
  case ECONNREFUSED:
  case ECONNRESET:
    return PH_EREFUSED;
  case ETIMEDOUT:
    return PH_ETIMEOUT;
  case EADDRNOTAVAIL:
  case EAFNOSUPPORT:
  case EHOSTUNREACH:
  case EHOSTDOWN:
  case ENETUNREACH:
  case ENETDOWN:
    return PH_EUNREACHABLE;
  default:
    return PH_EIO;
  }
}
