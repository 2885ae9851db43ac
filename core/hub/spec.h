/* Child specs: kept once per distinct content, without the child's id, and refcounted.
 *
 * A spec is one packed map as the user gave it (its id left out), checked and taken apart once.
 * What the user did not give is not in the map; the parsed fields have the defaults. */
#ifndef PH_HUB_SPEC_H
#define PH_HUB_SPEC_H

#include "base/buf.h"
#include "base/index.h"
#include "proc/supervisor.h"

typedef struct ph_spec {
  uint32_t refs;
  uint32_t host; /* the host's own (a cached start function); 0 at first */
  uint64_t hash;
  ph_restart restart;
  bool supervisor;               /* type */
  uint64_t shutdown;             /* ms, or one of PH_SHUTDOWN_* */
  const char *module, *function; /* inside blob */
  size_t module_len, function_len;
  const uint8_t *args; /* a packed array; NULL, 0 when the spec has none */
  size_t args_len;
  const uint8_t *modules; /* a packed array of strings; NULL when not given: { module } */
  size_t modules_len;
  uint32_t blob_len;
  uint8_t blob[]; /* the packed map */
} ph_spec;

typedef struct ph_specs { /* one per hub */
  const ph_env *env;
  ph_index index;
  uint64_t seed;
  void (*forget)(void *ctx, ph_spec *s); /* the host's: a spec is about to be freed; may be NULL */
  void *forget_ctx;
} ph_specs;

void ph_specs_init(ph_specs *s, const ph_env *env, uint64_t seed);
void ph_specs_deinit(ph_specs *s); /* frees those that are left, too */
/* Checks the packed map and gives the one ph_spec of that content, a reference more. Errors:
 * PH_ESPEC (`key` names the field, a static string), PH_ENOMEM. */
int ph_spec_get(ph_specs *s, const void *blob, size_t n, ph_spec **out,
                const char **key) PH_MUST_CHECK;
ph_spec *ph_spec_ref(ph_spec *s);
void ph_spec_unref(ph_specs *ss, ph_spec *s);

#endif
