/* What the files of the hub's binding share: hub (objects, start, stop), hub_spec (child specs),
 * hub_op (starts and stops), hub_result (what became of them), hub_read (one child, the hub
 * itself), hub_list (many children), hub_child (start functions), hub_msg (messages by child id).
 */
#ifndef LPH_HUB_INT_H
#define LPH_HUB_INT_H

#include "lphub.h"

/* A hub as Lua sees it: a full userdata, one per hub, anchored in `slot` while the hub lives. */
typedef struct lph_hub {
  lph_ctx *ctx;
  ph_hub *h; /* NULL: it has ended */
  ph_pid pid;
  uint32_t slot;
  ph_list starts; /* start functions under way (hub_child.c) */
  ph_list mails;  /* messages that wait for their child (hub_msg.c) */
  size_t mail_count;
  uint32_t *waiting; /* futures of those that wait for its end */
  size_t waiting_count;
  size_t id_len;
  char id[];
} lph_hub;

/* The hub at `arg`, an object or an id: NULL when there is none; raises for any other type. */
lph_hub *lph_hub_arg(lua_State *L, lph_ctx *ctx, int arg);
lph_hub *lph_hub_to(lua_State *L, lph_ctx *ctx, int idx); /* NULL for another type too */
void lph_hub_push(lua_State *L, lph_hub *hub);            /* [-0, +1] */
/* A child id at a positional argument; raises unless it is a string. */
const char *lph_id_arg(lua_State *L, int arg, size_t *len);
static inline bool lph_id_fits(size_t len) {
  return len > 0 && len <= PH_MAX_ID;
}

/* A string field of the table on the top; value NULL: nothing happens [-0, +0]. */
void lph_field(lua_State *L, const char *key, const char *value);
/* nil, and an error with `key` (NULL: none): returns 2 */
int lph_refuse(lua_State *L, int err, const char *key, const char *message);

void lph_hub_leave(lph_hub *hub); /* a graceful stop begins, unless it is under way */
void lph_hub_kill(lph_hub *hub);  /* it ends at once */

/* Calls fn (its context in upvalue 1) with the whole stack as its arguments while the collector
 * rests: no finaliser can change a hub that fn walks, and a large table is not marked again and
 * again while it grows. The caller's results. */
int lph_resting(lph_ctx *ctx, lua_State *L, lua_CFunction fn);

/* ---- hub_spec.c */
bool lph_module_forbidden(const char *name, size_t n); /* no start function may be in it */
/* What was wrong with a spec or a list of them; all of it points into static text or the Lua
 * values looked at. */
typedef struct lph_spec_error {
  int err; /* 0: nothing */
  const char *key;
  char message[LPH_PATH + 64];
  char unknown[64]; /* a key that no spec has: `key` points here */
  bool has_id;
} lph_spec_error;

/* Packs the spec at idx, its id left out, into `out` (emptied first), and leaves the id on the top
 * [-0, +1]: returns it, or NULL (nothing pushed then) with `e` filled in. */
const char *lph_spec_pack(lph_ctx *ctx, lua_State *L, int idx, ph_buf *out, size_t *id_len,
                          lph_spec_error *e);
enum { LPH_SPEC_FIELDS = 6 };
/* the names of a spec's fields [-0, +LPH_SPEC_FIELDS] */
void lph_spec_push_keys(lua_State *L);
/* Makes { id = id, ... }, the spec as it was given, of the id on the top. `keys`: the index of the
 * first of the names, in the stack or an upvalue [-1, +1]. */
void lph_spec_push(lph_ctx *ctx, lua_State *L, const ph_spec *s, int keys);
/* pushes the list `modules` of a spec, or its default [-0, +1] */
void lph_spec_push_modules(lph_ctx *ctx, lua_State *L, const ph_spec *s);
/* The number of items of the list at idx, or an error: PH_ENOCHILDREN, PH_ENOTLIST. */
int lph_list_length(lua_State *L, int idx, size_t *n);
/* Checks the static children of a hub that does not exist yet: 0, or 2 with nil, err pushed. */
int lph_specs_check(lph_ctx *ctx, lua_State *L, int idx);
/* Adds the specs of the list at idx to the op; 0, or 2 with nil, err pushed. */
int lph_specs_add(lph_ctx *ctx, lua_State *L, int idx, size_t n, ph_specs *specs, ph_op *op,
                  ph_bytes *metadata, ph_buf *scratch);
int lph_specs_add_one(lph_ctx *ctx, lua_State *L, int idx, ph_specs *specs, ph_op *op,
                      ph_bytes *metadata, ph_buf *scratch);
/* Adds the spec on the top (popped), number `index` of a list (0: of none); 0, or 2 as above. */
int lph_specs_add_at(lph_ctx *ctx, lua_State *L, ph_specs *specs, ph_op *op, ph_bytes *metadata,
                     ph_buf *scratch, size_t index);

/* ---- hub_options.c */
typedef struct lph_options {
  ph_op_options op;
  bool awaitable, formatted, quiet;
  int metadata; /* stack index, 0: none */
  int err; /* the first thing that is wrong, reported once the children are known to be right */
  char key[64];
  char message[96];
} lph_options;
/* Reads the table at idx (or nil); `slot` is a stack slot for what it holds on to. */
void lph_options_read(lua_State *L, int idx, int slot, ph_op_kind kind, lph_options *o);
/* What is wrong with the metadata at idx (and `key`), apart from what cannot travel; or NULL. */
const char *lph_metadata_wrong(lua_State *L, int idx, const char **key);

/* ---- hub_op.c */
/* proposes the list at idx to a new hub; 0 or an error */
int lph_propose(lph_ctx *ctx, lua_State *L, int idx, ph_hub *h);
extern const luaL_Reg lph_op_functions[];
void lph_op_open(lua_State *L);

/* ---- hub_result.c */
typedef struct lph_result lph_result;
/* Copies what became of a finished op; `lost`: ids that no hub can know, as errors at the end.
 * NULL: out of memory. */
lph_result *lph_result_new(lph_ctx *ctx, ph_op_kind kind, const ph_op *op, const ph_buf *lost,
                           size_t lost_count);
void lph_result_free(lph_ctx *ctx, lph_result *r);
enum { LPH_AS_RESULT, LPH_AS_LIST, LPH_AS_ENTRY }; /* as it is, formatted, its first entry alone */
/* Resolves the future with it and takes it over. */
void lph_result_resolve(lph_ctx *ctx, uint32_t future, lph_result *r, int form);
/* Children that ran already count as started, unless what started was rolled back. */
void lph_result_allow_running(lph_ctx *ctx, lph_result *r);
size_t lph_result_errors(const lph_result *r);
/* one line for the log about the first error */
void lph_result_log(lph_ctx *ctx, const lph_result *r, const char *hub_id);
void lph_result_open(lua_State *L);

/* ---- hub_read.c */
enum { LPH_MAX_INSTANCES = 1024 };
typedef struct lph_instances {
  size_t count;
  struct {
    ph_pid pid;
    const ph_nodeent *node;
  } at[LPH_MAX_INSTANCES];
} lph_instances;
void lph_instances_get(ph_hub *h, const ph_row *r, lph_instances *out);
void lph_instances_push(lua_State *L, const lph_instances *in); /* { [node] = pid } [-0, +1] */
/* the metadata of a row: a table of its own, {} for none [-0, +1] */
void lph_metadata_push(lph_ctx *ctx, lua_State *L, const ph_bytes *b);
void lph_read_open(lph_ctx *ctx, lua_State *L);

/* ---- hub_list.c */
extern const luaL_Reg lph_list_functions[];

/* ---- hub_child.c */
void lph_child_start(void *ctx, ph_hub *h, const char *id, size_t id_len, const ph_spec *spec,
                     uint64_t token);
void lph_child_abandon(void *ctx, ph_hub *h, uint64_t token);
void lph_children_forget(lph_hub *hub); /* the hub has ended: nobody waits for their answers */

/* ---- hub_msg.c */
extern const luaL_Reg lph_msg_functions[];
void lph_mails_drop(lph_hub *hub);
void lph_msg_open(lua_State *L);

#endif
