/* Discovery files: each running node keeps one, named after it, in a directory that only its user
 * can use. A file holds the address and who wrote it (pid and start time of the process, so that a
 * pid used again does not revive it); it appears whole, by rename; a stale one is
 * ignored, and swept away when a node announces itself. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/index.h"
#include "net/tcp/tcp_int.h"

enum { FILE_SIZE = 1024, READABLE_NAME = 180, NAME_SIZE = READABLE_NAME + 32, SWEEP = 1000 };

void ph__discovery_dir(char *out, size_t size) {
  const char *run = getenv("XDG_RUNTIME_DIR");
  struct stat st;
  /* another user's (as after su or sudo) is not ours to write to */
  if (run && run[0] == '/' && stat(run, &st) == 0 && S_ISDIR(st.st_mode) &&
      st.st_uid == geteuid()) {
    int n = snprintf(out, size, "%s/phub", run);
    if (n > 0 && (size_t)n < size) return;
  }
  snprintf(out, size, "/tmp/phub-%lu", (unsigned long)geteuid());
}

/* the directory, or PH_EIO when it is not ours alone */
static int open_dir(const char *dir, bool make) {
  if (make && mkdir(dir, 0700) < 0 && errno != EEXIST) return PH_EIO;
  int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT ? PH_ENOTFOUND : PH_EIO;
  struct stat st;
  if (fstat(fd, &st) == 0 && st.st_uid == geteuid() && (st.st_mode & 077) == 0) return fd;
  close(fd);
  return PH_EIO;
}

/* Letters, digits and -_.@ stand for themselves, but not a leading dot (that of files being
 * written); a long name is cut, and told apart by its hash. */
static void file_name(const char *name, char out[NAME_SIZE]) {
  static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_@";
  size_t n = 0;
  for (const char *p = name; *p; p++) {
    if (n + 3 > READABLE_NAME) {
      snprintf(out + n, NAME_SIZE - n, "%%%016llx",
               (unsigned long long)ph_hash(name, strlen(name), 0));
      return;
    }
    if (strchr(plain, *p) || (*p == '.' && p != name))
      out[n++] = *p;
    else
      n += (size_t)snprintf(out + n, 4, "%%%02x", (unsigned char)*p);
  }
  out[n] = 0;
}

/* start time of a process in clock ticks since boot, 0 when there is none */
static unsigned long long start_time(long pid) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%ld/stat", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0) return 0;
  text[n] = 0;
  char *p = strrchr(text, ')'); /* the program's name may hold anything */
  unsigned long long start = 0;
  char state = 0;
  if (!p || sscanf(p + 1,
                   " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d"
                   " %llu",
                   &state, &start) != 2)
    return 0;
  return state == 'Z' || state == 'X' ? 0 : start;
}

typedef struct entry {
  long pid;
  unsigned long long start;
  char address[PH__HOST_SIZE + PH__PORT_SIZE + 3];
  char name[FILE_SIZE];
} entry;

/* PH_ENOTFOUND: no file that could be one of ours */
static int read_file(int dir, const char *file, entry *out) {
  char text[FILE_SIZE], format[64];
  struct stat st;
  int fd = openat(dir, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return PH_ENOTFOUND;
  ssize_t n = -1;
  if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid())
    n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0 || text[n - 1] != '\n') return PH_ENOTFOUND;
  text[n] = 0;
  snprintf(format, sizeof format, "phub 1\n%%ld %%llu\n%%%zus\n%%%zu[^\n]", sizeof out->address - 1,
           sizeof out->name - 1);
  int fields = sscanf(text, format, &out->pid, &out->start, out->address, out->name);
  return fields == 4 ? 0 : PH_ENOTFOUND;
}

static int read_entry(int dir, const char *name, entry *out) {
  char file[NAME_SIZE];
  file_name(name, file);
  int err = read_file(dir, file, out);
  return err == 0 && strcmp(out->name, name) != 0 ? PH_ENOTFOUND : err;
}

static bool alive(const entry *e) {
  return e->pid > 0 && e->start != 0 && start_time(e->pid) == e->start;
}

/* Removes the file of a process that is gone. It is moved aside first and looked at again: between
 * the look and the removal a new process may have put its own in its place, which then goes back
 * (unless there is yet another). */
static void remove_stale(int d, const char *file) {
  char aside[64];
  entry e;
  if (read_file(d, file, &e) < 0 || alive(&e)) return;
  snprintf(aside, sizeof aside, ".%ld.stale", (long)getpid());
  if (renameat(d, file, d, aside) < 0) return;
  if (read_file(d, aside, &e) == 0 && alive(&e)) {
    int rc = linkat(d, aside, d, file, 0);
    (void)rc; /* EEXIST: a newer one is there */
  }
  unlinkat(d, aside, 0);
}

/* so that what killed processes leave does not gather */
static void sweep(int d) {
  int copy = openat(d, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = copy < 0 ? NULL : fdopendir(copy);
  if (!dir) {
    if (copy >= 0) close(copy);
    return;
  }
  struct dirent *f;
  for (int i = 0; i < SWEEP && (f = readdir(dir)); i++)
    if (f->d_name[0] != '.') remove_stale(d, f->d_name);
  closedir(dir);
}

int ph__discovery_find(const char *dir, const char *name, char *address, size_t size) {
  int fd = open_dir(dir, false);
  if (fd < 0) return PH_ENOTFOUND;
  entry e;
  int err = read_entry(fd, name, &e);
  close(fd);
  if (err < 0) return err;
  if (!alive(&e)) return PH_ENOTFOUND;
  int n = snprintf(address, size, "%s", e.address);
  return n > 0 && (size_t)n < size ? 0 : PH_ENOTFOUND;
}

static int write_all(int fd, const char *p, size_t n) {
  while (n) {
    ssize_t rc = write(fd, p, n);
    if (rc < 0 && errno == EINTR) continue;
    if (rc <= 0) return PH_EIO;
    p += rc;
    n -= (size_t)rc;
  }
  return 0;
}

int ph__discovery_put(const char *dir, const char *name, const char *address) {
  char file[NAME_SIZE], tmp[NAME_SIZE + 32], text[FILE_SIZE];
  unsigned long long start = start_time((long)getpid());
  if (start == 0) return PH_EIO;
  if (!*name || strchr(name, '\n') || strpbrk(address, " \t\r\n")) return PH_EINVAL;
  int n = snprintf(text, sizeof text, "phub 1\n%ld %llu\n%s\n%s\n", (long)getpid(), start, address,
                   name);
  if (n < 0 || (size_t)n >= sizeof text - 1) return PH_EINVAL;
  int d = open_dir(dir, true);
  if (d < 0) return PH_EIO;
  sweep(d);
  file_name(name, file);
  snprintf(tmp, sizeof tmp, ".%ld.%s", (long)getpid(), file);
  int err = PH_EIO;
  unlinkat(d, tmp, 0); /* left by a process that died half-way, with a pid used again */
  int fd = openat(d, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd >= 0) {
    err = write_all(fd, text, (size_t)n);
    if (close(fd) < 0) err = PH_EIO;
    if (err == 0 && renameat(d, tmp, d, file) < 0) err = PH_EIO;
    if (err < 0) unlinkat(d, tmp, 0);
  }
  close(d);
  return err;
}

void ph__discovery_remove(const char *dir, const char *name) {
  int d = open_dir(dir, false);
  if (d < 0) return;
  entry e;
  char file[NAME_SIZE];
  if (read_entry(d, name, &e) == 0 && e.pid == (long)getpid() && e.start == start_time(e.pid)) {
    file_name(name, file);
    unlinkat(d, file, 0);
  }
  close(d);
}
