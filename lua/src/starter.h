/* Start functions of children, as hubs and supervisors have them in common: from the names in a
 * spec to the function, from its results to a process or a reason. */
#ifndef LPH_STARTER_H
#define LPH_STARTER_H

#include "hub_int.h"

/* Pushes the function of that name from the module, which is loaded if need be: 0 [-0, +1], or
 * PH_ENOMODULE, PH_ENOFUNCTION [-0, +0]. What the module's code raises while it loads, it raises.
 */
int lph_start_push(lua_State *L, const char *module, size_t module_len, const char *function,
                   size_t function_len);
/* nil and the code, as the results of a `prepare` of lph_start: returns 2 */
int lph_start_refuse(lua_State *L, int err);
/* What came of an lph_start, in its `done`: the pid, which may have ended already, and the hub if
 * that is what the function gave (else NULL, as `hub` may be); or 0 and *reason, owned. */
ph_pid lph_start_result(lph_ctx *ctx, lua_State *L, int status, int n, lph_hub **hub,
                        ph_bytes **reason);
ph_bytes *lph_start_reason(lph_ctx *ctx, int err); /* its code as a reason, owned */

#endif
