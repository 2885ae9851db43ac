/* libuv's memory for tests: what it allocates is counted, and fails, as a te says. Include it in
 * one file of a program, and call uvm_init before anything of libuv's. */
#ifndef PH_NET_TEST_UVMEM_H
#define PH_NET_TEST_UVMEM_H

#include "net/tcp/tcp_int.h"
#include "net/test/netenv.h"

static te *uvm;
static size_t uvm_too_much; /* no table of descriptors of this size is to be had; 0: any */

static void *uvm_malloc(size_t n) {
  return te__realloc(uvm, NULL, n);
}

static void *uvm_calloc(size_t count, size_t n) {
  void *p = te__realloc(uvm, NULL, count * n);
  if (p) memset(p, 0, count * n);
  return p;
}

/* libuv ends the process when its table of descriptors cannot grow, and only that table is
 * reallocated: it fails by size alone, for which the transport must have looked before. */
static void *uvm_realloc(void *p, size_t n) {
  if (uvm_too_much && n >= uvm_too_much) return NULL;
  long armed = atomic_exchange(&uvm->fail_in, 0), none = 0;
  void *q = te__realloc(uvm, p, n);
  atomic_compare_exchange_strong(&uvm->fail_in, &none, armed);
  return q;
}

static void uvm_free(void *p) {
  te__free(uvm, p);
}

static int uvm_init(te *t) {
  te_init(t, 1);
  uvm = t;
  return uv_replace_allocator(uvm_malloc, uvm_realloc, uvm_calloc, uvm_free);
}

#endif
