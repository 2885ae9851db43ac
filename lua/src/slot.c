/* Lua values that C holds: slots in chunks of 256, each chunk one table in the registry.
 *
 * One big table would be swept by the collector in one step; a chunk is small, and setting or
 * clearing a slot of its array part neither allocates nor fails. */
#include "lsched.h"

enum { SLOTS = 256 };

static lph_chunk *chunk_record(lph_ctx *ctx, lua_State *L) {
  ph_list *l = ph_list_pop(&ctx->chunks_vacant);
  if (l) return PH_CONTAINER(l, lph_chunk, list);
  if (ctx->chunk_count == ctx->chunk_cap) {
    uint32_t cap = ctx->chunk_cap ? ctx->chunk_cap * 2 : 16;
    lph_chunk **grown = ph_realloc(ctx->env, ctx->chunks, cap * sizeof *grown);
    if (!grown) luaL_error(L, "not enough memory");
    ctx->chunks = grown;
    ctx->chunk_cap = cap;
  }
  lph_chunk *c = ph_zalloc(ctx->env, sizeof *c);
  if (!c) luaL_error(L, "not enough memory");
  ph_list_init(&c->list);
  c->index = ctx->chunk_count;
  ctx->chunks[ctx->chunk_count++] = c;
  return c;
}

static lph_chunk *chunk_new(lph_ctx *ctx, lua_State *L) {
  lua_createtable(L, SLOTS, 0);
  int ref = luaL_ref(L, LUA_REGISTRYINDEX);
  lph_chunk *c = chunk_record(ctx, L);
  c->ref = ref;
  c->nfree = SLOTS;
  for (int i = 0; i < SLOTS; i++) c->free[i] = (uint8_t)(SLOTS - 1 - i);
  ph_list_push(&ctx->chunks_free, &c->list);
  ctx->chunks_empty++;
  return c;
}

static lph_chunk *chunk_at(lph_ctx *ctx, uint32_t slot) {
  return ctx->chunks[(slot - 1) / SLOTS];
}

uint32_t lph_slot_new(lph_ctx *ctx, lua_State *L) {
  luaL_checkstack(L, 3, NULL);
  lph_chunk *c = ph_list_empty(&ctx->chunks_free)
                     ? chunk_new(ctx, L)
                     : PH_CONTAINER(ctx->chunks_free.next, lph_chunk, list);
  if (c->nfree == SLOTS) ctx->chunks_empty--;
  uint32_t i = c->free[--c->nfree];
  if (c->nfree == 0) ph_list_remove(&c->list);
  lua_rawgeti(L, LUA_REGISTRYINDEX, c->ref);
  lua_insert(L, -2);
  lua_rawseti(L, -2, i + 1);
  lua_pop(L, 1);
  return c->index * SLOTS + i + 1;
}

void lph_slot_push(lph_ctx *ctx, lua_State *L, uint32_t slot) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, chunk_at(ctx, slot)->ref);
  lua_rawgeti(L, -1, (slot - 1) % SLOTS + 1);
  lua_replace(L, -2);
}

void lph_slot_set(lph_ctx *ctx, lua_State *L, uint32_t slot) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, chunk_at(ctx, slot)->ref);
  lua_insert(L, -2);
  lua_rawseti(L, -2, (slot - 1) % SLOTS + 1);
  lua_pop(L, 1);
}

/* One empty chunk is kept, further ones go back to the collector. */
static void chunk_empty(lph_ctx *ctx, lph_chunk *c) {
  if (++ctx->chunks_empty == 1) return;
  ctx->chunks_empty--;
  ph_list_remove(&c->list);
  luaL_unref(ctx->service, LUA_REGISTRYINDEX, c->ref);
  ph_list_push(&ctx->chunks_vacant, &c->list);
}

void lph_slot_drop(lph_ctx *ctx, uint32_t slot) {
  if (!slot || ctx->closing) return;
  lua_State *L = ctx->service;
  lph_chunk *c = chunk_at(ctx, slot);
  /* the service state keeps room for this; growing its stack could only fail */
  lua_checkstack(L, 3);
  lua_rawgeti(L, LUA_REGISTRYINDEX, c->ref);
  lua_pushnil(L);
  lua_rawseti(L, -2, (slot - 1) % SLOTS + 1);
  lua_pop(L, 1);
  c->free[c->nfree++] = (uint8_t)((slot - 1) % SLOTS);
  if (c->nfree == 1) ph_list_push(&ctx->chunks_free, &c->list);
  if (c->nfree == SLOTS) chunk_empty(ctx, c);
}

void lph_slots_free(lph_ctx *ctx) {
  for (uint32_t i = 0; i < ctx->chunk_count; i++) ph_free(ctx->env, ctx->chunks[i]);
  ph_free(ctx->env, ctx->chunks);
  ctx->chunks = NULL;
  ctx->chunk_count = ctx->chunk_cap = 0;
}
