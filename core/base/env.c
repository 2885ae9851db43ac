#include "base/env.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { LINE_MAX_BYTES = 1024 };

uint64_t ph_due(const ph_env *e, uint64_t ms) {
  uint64_t now = ph_now(e);
  if (ms > (PH_NEVER - now) / PH_MS(1)) return PH_NEVER;
  return now + PH_MS(ms);
}

uint64_t ph_random64(const ph_env *e) {
  uint64_t x;
  e->random(e->ctx, &x, sizeof x);
  return x;
}

void *ph_alloc(const ph_env *e, size_t n) {
  return e->realloc(e->ctx, NULL, n ? n : 1);
}

void *ph_zalloc(const ph_env *e, size_t n) {
  void *p = ph_alloc(e, n);
  if (p) memset(p, 0, n);
  return p;
}

void *ph_realloc(const ph_env *e, void *p, size_t n) {
  return e->realloc(e->ctx, p, n ? n : 1);
}

void ph_free(const ph_env *e, void *p) {
  if (p) (void)e->realloc(e->ctx, p, 0);
}

char *ph_strndup(const ph_env *e, const char *s, size_t n) {
  if (n == SIZE_MAX) return NULL;
  char *p = ph_alloc(e, n + 1);
  if (!p) return NULL;
  if (n) memcpy(p, s, n);
  p[n] = '\0';
  return p;
}

void ph_logf(const ph_env *e, int level, const char *fmt, ...) {
  if (level > e->log_level) return;
  char line[LINE_MAX_BYTES];
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(line, sizeof line, fmt, ap);
  va_end(ap);
  if (n < 0) return;
  if ((size_t)n >= sizeof line) memcpy(line + sizeof line - 4, "...", 4);
  /* texts of peers end up in lines: they must not be able to forge another line */
  for (char *c = line; *c; c++)
    if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = ' ';
  e->log(e->ctx, level, line);
}
