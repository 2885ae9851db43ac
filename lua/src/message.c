/* Messages between Lua and the mailboxes of the core.
 *
 * A message for a local process holds a host word: 64 bits that are a pid or ref as they are (top
 * bit set), else by the top three bits
 *   000  a slot in the low 32 bits, or with slot 0 a constant in bits 32..33
 *   001  an integer of 61 bits
 *   010  a float whose low 3 bits are zero
 * Integers and floats that do not fit go into a slot. One for a remote process is packed; it is
 * unpacked when it is received. */
#include <stdio.h>
#include <string.h>

#include "lsched.h"

#define WORD_INT   (UINT64_C(1) << 61)
#define WORD_FLOAT (UINT64_C(2) << 61)
#define WORD_KIND  (UINT64_C(7) << 61)
#define WORD_NIL   (UINT64_C(1) << 32)
#define WORD_FALSE (UINT64_C(2) << 32)
#define WORD_TRUE  (UINT64_C(3) << 32)

/* A slot's word is never 0, and 0 is no word: lph_word's failure. */
static uint64_t slot_word(lph_ctx *ctx, lua_State *L, int idx) {
  lua_pushvalue(L, idx);
  return lph_slot_new(ctx, L);
}

static uint64_t number_word(lph_ctx *ctx, lua_State *L, int idx) {
  if (lua_isinteger(L, idx)) {
    lua_Integer i = lua_tointeger(L, idx);
    uint64_t bits = (uint64_t)i;
    if (i >= -(INT64_C(1) << 60) && i < INT64_C(1) << 60) return WORD_INT | (bits & ~WORD_KIND);
    return slot_word(ctx, L, idx);
  }
  double d = lua_tonumber(L, idx);
  uint64_t bits;
  memcpy(&bits, &d, sizeof bits);
  return bits & 7 ? slot_word(ctx, L, idx) : WORD_FLOAT | bits >> 3;
}

/* the value at idx as a word; 0 and *err when it cannot travel; ctx->trail says where */
uint64_t lph_word(lph_ctx *ctx, lua_State *L, int idx, int *err) {
  *err = 0;
  switch (lua_type(L, idx)) {
  case LUA_TNIL:
    return WORD_NIL;
  case LUA_TBOOLEAN:
    return lua_toboolean(L, idx) ? WORD_TRUE : WORD_FALSE;
  case LUA_TNUMBER:
    return number_word(ctx, L, idx);
  case LUA_TLIGHTUSERDATA: {
    uint64_t id = (uint64_t)(uintptr_t)lua_touserdata(L, idx);
    if (id >> 63) return id;
    break;
  }
  default:
    break;
  }
  *err = lph_copy(ctx, L, idx, NULL, 0);
  return *err < 0 ? 0 : lph_slot_new(ctx, L);
}

void lph_word_push(lph_ctx *ctx, lua_State *L, uint64_t word, bool take) {
  if (word >> 63) {
    lph_push_pid(L, word);
  } else if ((word & WORD_KIND) == WORD_INT) {
    lua_pushinteger(L, (lua_Integer)(word << 3) >> 3);
  } else if ((word & WORD_KIND) == WORD_FLOAT) {
    uint64_t bits = word << 3;
    double d;
    memcpy(&d, &bits, sizeof d);
    lua_pushnumber(L, d);
  } else if ((uint32_t)word) {
    lph_slot_push(ctx, L, (uint32_t)word);
    if (take) lph_slot_drop(ctx, (uint32_t)word);
  } else if (word == WORD_NIL) {
    lua_pushnil(L);
  } else {
    lua_pushboolean(L, word == WORD_TRUE);
  }
}

static bool has_slot(uint64_t word) {
  return !(word >> 61) && (uint32_t)word;
}

/* ---- The host of the process system ---------------------------------------------------------- */

static void host_drop(void *p, uint64_t word) {
  if (has_slot(word)) lph_slot_drop(p, (uint32_t)word);
}

static int host_pack(void *p, uint64_t word, ph_buf *out) {
  lph_ctx *ctx = p;
  lua_State *L = ctx->service;
  if (ctx->closing || !lua_checkstack(L, 4)) return PH_ENOMEM;
  lph_word_push(ctx, L, word, false);
  int rc = lph_pack(ctx, L, -1, out, NULL, 0);
  lua_pop(L, 1);
  return rc;
}

void lph_sys_host(lph_ctx *ctx, ph_sys_host *out) {
  *out = (ph_sys_host){.ctx = ctx, .drop = host_drop, .pack = host_pack};
}

/* ---- Messages -------------------------------------------------------------------------------- */

static ph_msg *msg_packed(lph_ctx *ctx, lua_State *L, int idx, ph_class cls, char *path,
                          size_t path_size, int *err) {
  ph_buf b;
  ph_buf_init(&b, ctx->env);
  *err = lph_pack(ctx, L, idx, &b, path, path_size);
  ph_msg *m = NULL;
  if (*err == 0) {
    m = ph_msg_bytes(ctx->sys, cls, ph_buf_at(&b), ph_buf_size(&b));
    if (!m) *err = PH_ENOMEM;
  }
  ph_buf_deinit(&b);
  if (*err == PH_ENOMEM && path) snprintf(path, path_size, "%s", ph_err_text(*err));
  return m;
}

ph_msg *lph_msg(lph_ctx *ctx, lua_State *L, int idx, ph_class cls, bool remote, char *path,
                size_t path_size, int *err) {
  if (remote) return msg_packed(ctx, L, idx, cls, path, path_size, err);
  uint64_t word = lph_word(ctx, L, idx, err);
  if (*err < 0) {
    lph_path_error(ctx, *err, path, path_size);
    return NULL;
  }
  ph_msg *m = ph_msg_host(ctx->sys, cls, word);
  if (m) return m;
  host_drop(ctx, word);
  *err = PH_ENOMEM;
  if (path) snprintf(path, path_size, "%s", ph_err_text(*err));
  return NULL;
}

/* Pushes the value that the message carries. With `take` its slot is given back and the message
 * left without a value; the caller frees the message either way. */
int lph_msg_push(lph_ctx *ctx, lua_State *L, ph_msg *m, bool take) {
  if (m->form == PH_F_HOST) {
    lph_word_push(ctx, L, m->host, take);
    if (take) {
      m->form = PH_F_NONE;
      m->reason = NULL;
    }
    return 0;
  }
  if (m->form != PH_F_BYTES) {
    lua_pushnil(L);
    return 0;
  }
  ph_reader r;
  ph_reader_init(&r, m->data, m->len);
  return lph_unpack(ctx, L, &r);
}

static void push_list(lua_State *L, const char *name) {
  luaL_checkstack(L, 6, NULL);
  lua_createtable(L, 4, 0);
  lua_pushstring(L, name);
  lua_rawseti(L, -2, 1);
}

/* What receive hands out for a message: an ordinary one's value; { "DOWN", ref, pid, reason },
 * { "EXIT", pid, reason }; a call or cast to a process that is no gen_server:
 * { "$gen_call", from, msg } (to be answered by gen_server.reply), { "$gen_cast", msg }.
 * false: its bytes are no value [-0, +0], else [-0, +1]. */
bool lph_push_event(lph_ctx *ctx, lua_State *L, ph_msg *m, bool take) {
  int n = 1;
  switch ((ph_class)m->cls) {
  case PH_C_DOWN:
    push_list(L, "DOWN");
    lph_push_pid(L, m->ref);
    lua_rawseti(L, -2, 2);
    lph_push_pid(L, m->from);
    lua_rawseti(L, -2, 3);
    lph_unpack_bytes(ctx, L, m->reason);
    lua_rawseti(L, -2, 4);
    return true;
  case PH_C_EXIT:
  case PH_C_STOP:
    push_list(L, "EXIT");
    lph_push_pid(L, m->from);
    lua_rawseti(L, -2, 2);
    lph_unpack_bytes(ctx, L, m->reason);
    lua_rawseti(L, -2, 3);
    return true;
  case PH_C_CALL:
    push_list(L, "$gen_call");
    lph_push_pid(L, m->ref);
    lua_rawseti(L, -2, ++n);
    break;
  case PH_C_CAST:
    push_list(L, "$gen_cast");
    break;
  default:
    return lph_msg_push(ctx, L, m, take) == 0;
  }
  if (lph_msg_push(ctx, L, m, take) < 0) {
    lua_pop(L, 1);
    return false;
  }
  lua_rawseti(L, -2, n + 1);
  return true;
}
