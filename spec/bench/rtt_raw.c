/* Round trips a second of SIZE bytes over a raw blocking TCP connection on loopback, between two
 * processes pinned to CORE_A and CORE_B.
 *
 *   rtt_raw SIZE SECONDS CORE_A CORE_B */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void check(bool ok, const char *what) {
  if (ok) return;
  perror(what);
  exit(1);
}

static void pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  check(sched_setaffinity(0, sizeof set, &set) == 0, "sched_setaffinity");
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* false: the other end has closed */
static bool whole(int fd, char *buf, size_t size) {
  for (size_t n = 0; n < size;) {
    ssize_t rc = read(fd, buf + n, size - n);
    if (rc <= 0) return false;
    n += (size_t)rc;
  }
  return true;
}

static void serve(int listener, int core, char *buf, size_t size) {
  int one = 1;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  pin(core);
  int c = accept(listener, NULL, NULL);
  check(c >= 0, "accept");
  setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  while (whole(c, buf, size)) check(write(c, buf, size) == (ssize_t)size, "write");
  exit(0);
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  size_t size = strtoul(argv[1], NULL, 10);
  double seconds = atof(argv[2]);
  int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof at;
  char *buf = calloc(1, size);
  check(buf && bind(listener, (struct sockaddr *)&at, sizeof at) == 0, "bind");
  check(listen(listener, 1) == 0, "listen");
  getsockname(listener, (struct sockaddr *)&at, &len);
  pid_t pid = fork();
  check(pid >= 0, "fork");
  if (pid == 0) serve(listener, atoi(argv[4]), buf, size);
  close(listener);
  pin(atoi(argv[3]));
  int c = socket(AF_INET, SOCK_STREAM, 0);
  check(connect(c, (struct sockaddr *)&at, sizeof at) == 0, "connect");
  setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  long trips = 0;
  double start = now(), end = start + seconds;
  while (now() < end) {
    check(write(c, buf, size) == (ssize_t)size, "write");
    check(whole(c, buf, size), "read");
    trips++;
  }
  printf("%.0f\n", (double)trips / (now() - start));
  close(c);
  waitpid(pid, NULL, 0);
  return 0;
}
