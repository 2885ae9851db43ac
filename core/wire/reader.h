/* A bounded msgpack reader: a cursor over bytes that allocates nothing and recurses nowhere.
 *
 * An announced length or count never exceeds the bytes left (an array of n needs n bytes, a map
 * 2n), so a reader's caller may size memory by it. After the first error every call fails.
 * Payloads of extensions are not looked into: who opens one reads it with a reader of its own, and
 * counts its level. */
#ifndef PH_WIRE_READER_H
#define PH_WIRE_READER_H

#include <stdbool.h>

#include "base/env.h"

enum { PH_MAX_DEPTH = 64 }; /* levels of tables a value may have */

typedef enum ph_type {
  PH_T_NIL,
  PH_T_BOOL,
  PH_T_UINT, /* any non-negative integer, whatever its encoding */
  PH_T_INT /* negative */,
  PH_T_DOUBLE, /* float32 too */
  PH_T_STR,
  PH_T_BIN,
  PH_T_ARRAY,
  PH_T_MAP,
  PH_T_EXT
} ph_type;

typedef struct ph_token {
  ph_type type;
  int ext;            /* PH_T_EXT: extension type */
  uint32_t len;       /* bytes of STR, BIN, EXT; items of ARRAY, pairs of MAP */
  const uint8_t *ptr; /* bytes of STR, BIN, EXT, inside the reader's bytes */
  union {
    bool b;
    uint64_t u; /* PH_T_UINT */
    int64_t i;  /* PH_T_INT */
    double d;
  };
} ph_token;

typedef struct ph_reader {
  const uint8_t *p, *end;
  int err; /* 0 or PH_EMALFORMED */
} ph_reader;

void ph_reader_init(ph_reader *r, const void *p, size_t n);
static inline size_t ph_reader_left(const ph_reader *r) {
  return (size_t)(r->end - r->p);
}
/* the next token; containers give their header, their items follow */
int ph_r_next(ph_reader *r, ph_token *t) PH_MUST_CHECK;
/* skips one whole value (any nesting up to PH_MAX_DEPTH, without recursion) */
int ph_r_skip(ph_reader *r);
/* skips one whole value and gives its bytes */
int ph_r_value(ph_reader *r, const uint8_t **p, size_t *n) PH_MUST_CHECK;

/* Typed readers: the value, or an error when the next value is of another type or out of range. */
int ph_r_uint(ph_reader *r, uint64_t *out) PH_MUST_CHECK;
int ph_r_u32(ph_reader *r, uint32_t *out) PH_MUST_CHECK;
int ph_r_bool(ph_reader *r, bool *out) PH_MUST_CHECK;
int ph_r_str(ph_reader *r, const char **p, size_t *n,
             size_t max) PH_MUST_CHECK; /* at most max bytes */
int ph_r_bin(ph_reader *r, const uint8_t **p, size_t *n, size_t max) PH_MUST_CHECK;
int ph_r_array(ph_reader *r, uint32_t *n) PH_MUST_CHECK; /* header */
int ph_r_map(ph_reader *r, uint32_t *n) PH_MUST_CHECK;
int ph_r_nil(ph_reader *r) PH_MUST_CHECK; /* consumes a nil or fails */
bool ph_r_is_nil(ph_reader *r);           /* consumes a nil if one is next */
/* PID and REF extensions; an empty name is malformed */
int ph_r_id(ph_reader *r, int ext, const char **name, size_t *name_len, uint64_t *incarnation,
            uint64_t *serial) PH_MUST_CHECK;
int ph_id_parse(const void *ext_payload, size_t n, const char **name, size_t *name_len,
                uint64_t *incarnation, uint64_t *serial) PH_MUST_CHECK;
/* checks that exactly one well-formed value of at most PH_MAX_DEPTH levels fills the bytes */
int ph_value_check(const void *p, size_t n) PH_MUST_CHECK;

#endif
