/* Messages made from a fuzzer's input, by the table in messages.def: mostly of the right shape and
 * about what there is (names, ids, processes, refs), with a wrong field now and then. */
#ifndef PH_FUZZ_MESSAGE_H
#define PH_FUZZ_MESSAGE_H

#include <stdbool.h>

#include "base/buf.h"
#include "input.h"

typedef struct fz_names { /* who takes part: the sender is the first */
  const char *name[4];
  uint64_t incarnation[4];
  int count;
} fz_names;

/* Appends one message; true when it goes between process systems or hubs (a data frame). */
bool fz_message(fz_input *in, const fz_names *who, ph_buf *out);

#endif
