#include "wire/writer.h"

#include <msgpack.h>
#include <string.h>

static int sink(void *data, const char *p, size_t n) {
  return ph_buf_append(data, p, n);
}

static msgpack_packer packer(ph_buf *b) {
  msgpack_packer pk;
  msgpack_packer_init(&pk, b, sink);
  return pk;
}

/* msgpack's lengths have 32 bits; what is longer fails like memory that is not there */
static bool too_long(ph_buf *b, size_t n) {
  if (n <= UINT32_MAX) return false;
  b->oom = true;
  return true;
}

void ph_w_nil(ph_buf *b) {
  msgpack_packer pk = packer(b);
  msgpack_pack_nil(&pk);
}

void ph_w_bool(ph_buf *b, bool v) {
  msgpack_packer pk = packer(b);
  if (v)
    msgpack_pack_true(&pk);
  else
    msgpack_pack_false(&pk);
}

void ph_w_uint(ph_buf *b, uint64_t v) {
  msgpack_packer pk = packer(b);
  msgpack_pack_uint64(&pk, v);
}

void ph_w_int(ph_buf *b, int64_t v) {
  msgpack_packer pk = packer(b);
  msgpack_pack_int64(&pk, v);
}

void ph_w_double(ph_buf *b, double v) {
  msgpack_packer pk = packer(b);
  msgpack_pack_double(&pk, v);
}

void ph_w_str(ph_buf *b, const void *p, size_t n) {
  if (too_long(b, n)) return;
  msgpack_packer pk = packer(b);
  msgpack_pack_str(&pk, n);
  ph_w_raw(b, p, n);
}

void ph_w_cstr(ph_buf *b, const char *s) {
  ph_w_str(b, s, strlen(s));
}

void ph_w_bin(ph_buf *b, const void *p, size_t n) {
  if (too_long(b, n)) return;
  msgpack_packer pk = packer(b);
  msgpack_pack_bin(&pk, n);
  ph_w_raw(b, p, n);
}

void ph_w_array(ph_buf *b, uint32_t n) {
  msgpack_packer pk = packer(b);
  msgpack_pack_array(&pk, n);
}

void ph_w_map(ph_buf *b, uint32_t n) {
  msgpack_packer pk = packer(b);
  msgpack_pack_map(&pk, n);
}

void ph_w_ext(ph_buf *b, int type, const void *p, size_t n) {
  if (too_long(b, n)) return;
  msgpack_packer pk = packer(b);
  msgpack_pack_ext(&pk, n, (int8_t)type);
  ph_w_raw(b, p, n);
}

void ph_w_raw(ph_buf *b, const void *p, size_t n) {
  if (ph_buf_append(b, p, n) != 0) return; /* b->oom is set */
}
