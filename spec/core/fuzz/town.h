/* What lives on a node that fuzzers write to, and on those whose traffic is recorded for them:
 * three processes and a hub whose children are of any id. */
#ifndef PH_FUZZ_TOWN_H
#define PH_FUZZ_TOWN_H

#include "hub/test/hubsim.h"

/* "echo" answers calls, "deaf" never looks into its mailbox, the third traps exits. */
typedef struct town {
  ph_proc *echo, *deaf, *trapper;
} town;

void town_settle(town *t, hs_node *n);

#endif
