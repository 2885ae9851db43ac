/* Writing msgpack into a ph_buf, over msgpack-c's packer.
 *
 * Nothing here returns an error: a failed append sets buf->oom, which the caller checks once. */
#ifndef PH_WIRE_WRITER_H
#define PH_WIRE_WRITER_H

#include "base/buf.h"

/* Extension types of phub's values. */
enum {
  PH_EXT_PID = 1,   /* msgpack: node name (str), incarnation (uint), serial (uint) */
  PH_EXT_REF = 2,   /* the same shape */
  PH_EXT_OBJECT = 3 /* msgpack: kind (uint), then one value: tables that keep their methods */
};

void ph_w_nil(ph_buf *b);
void ph_w_bool(ph_buf *b, bool v);
void ph_w_uint(ph_buf *b, uint64_t v);
void ph_w_int(ph_buf *b, int64_t v);
void ph_w_double(ph_buf *b, double v); /* always a float64: 1.0 stays a float */
void ph_w_str(ph_buf *b, const void *p, size_t n);
void ph_w_cstr(ph_buf *b, const char *s);
void ph_w_bin(ph_buf *b, const void *p, size_t n);
void ph_w_array(ph_buf *b, uint32_t n); /* header only; n values follow */
void ph_w_map(ph_buf *b, uint32_t n);   /* header only; n pairs follow */
void ph_w_ext(ph_buf *b, int type, const void *p, size_t n);
void ph_w_raw(ph_buf *b, const void *p, size_t n); /* an already packed value (or several) */

#endif
