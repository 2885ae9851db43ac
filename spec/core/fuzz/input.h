/* A cursor over a fuzzer's input: past the end all is 0, so every input means something. */
#ifndef PH_FUZZ_INPUT_H
#define PH_FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>

typedef struct fz_input {
  const uint8_t *p, *end;
} fz_input;

static inline size_t fz_left(const fz_input *in) {
  return (size_t)(in->end - in->p);
}

static inline uint8_t fz_u8(fz_input *in) {
  return in->p < in->end ? *in->p++ : 0;
}

static inline uint32_t fz_u16(fz_input *in) {
  uint32_t high = fz_u8(in);
  return high << 8 | fz_u8(in);
}

static inline uint64_t fz_u64(fz_input *in) {
  uint64_t x = 0;
  for (int i = 0; i < 8; i++) x = x << 8 | fz_u8(in);
  return x;
}

/* at most n bytes of it, and how many there were */
static inline const uint8_t *fz_take(fz_input *in, size_t *n) {
  const uint8_t *p = in->p;
  if (*n > fz_left(in)) *n = fz_left(in);
  in->p += *n;
  return p;
}

#endif
