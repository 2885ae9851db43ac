/* XXH3 is compiled in here, inlined: short keys are most of what is hashed. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/index.h"

uint64_t ph_hash(const void *p, size_t n, uint64_t seed) {
  return XXH3_64bits_withSeed(p, n, seed);
}
