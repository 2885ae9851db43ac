/* What cannot be tested from Lua: forks, and Lua's memory running out at any point. */
#include <lauxlib.h>
#include <lualib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

int luaopen_phub_core(lua_State *L);

/* Fails the n-th allocation or growth from now, and the one that Lua makes again after an emergency
 * collection. */
typedef struct memory {
  long fail_in; /* 0: never */
  bool tripped;
  long live;
} memory;

static void *allocate(void *ud, void *p, size_t old, size_t n) {
  memory *m = ud;
  if (n == 0) {
    if (p) m->live--;
    free(p);
    return NULL;
  }
  bool grows = !p || n > old;
  if (grows && m->fail_in > 0 && --m->fail_in < 2) {
    m->tripped = true;
    if (m->fail_in == 0) m->fail_in = -1;
    return NULL;
  }
  void *q = realloc(p, n);
  if (q && !p) m->live++;
  return q;
}

static lua_State *open_state(memory *m) {
  lua_State *L = lua_newstate(allocate, m);
  assert_non_null(L);
  luaL_openlibs(L);
  luaL_requiref(L, "phub.core", luaopen_phub_core, 0);
  lua_settop(L, 0);
  if (luaL_dostring(L, "package.path = 'lua/?.lua;lua/?/init.lua;' .. package.path\n"
                       "phub = require 'phub'"))
    fail_msg("%s", lua_tostring(L, -1));
  return L;
}

/* LeakSanitizer asks this first. In a forked child it must not look: what another thread held at
 * the fork, its own locks among it, is held for good. */
static bool forked;
int __lsan_is_turned_off(void);
__attribute__((visibility("default"))) int __lsan_is_turned_off(void) {
  return forked;
}

static void calls_raise_in_a_forked_child(void **state) {
  (void)state;
  memory m = {0};
  lua_State *L = open_state(&m);
  if (luaL_dostring(L, "assert(phub.node.start { name = 'fork-test@127.0.0.1' })"))
    fail_msg("%s", lua_tostring(L, -1));
  pid_t child = fork();
  if (child == 0) {
    forked = true;
    int failed = luaL_dostring(L, "for _, f in ipairs { phub.process.self, phub.node.self,\n"
                                  "    function() phub.run() end,\n"
                                  "    function() phub.process.spawn(print) end } do\n"
                                  "  local ok, err = pcall(f)\n"
                                  "  assert(not ok and err:find 'after a fork', err)\n"
                                  "end");
    if (failed) fprintf(stderr, "%s\n", lua_tostring(L, -1));
    exit(failed ? 1 : 7); /* with the handlers of atexit */
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), 7);
  if (luaL_dostring(L, "phub.process.sleep(1) assert(phub.node.address())"))
    fail_msg("%s", lua_tostring(L, -1));
  lua_close(L);
  assert_int_equal(m.live, 0);
}

static int open_core(lua_State *L) {
  luaL_requiref(L, "phub.core", luaopen_phub_core, 0);
  return 0;
}

static void opening_may_run_out_of_memory(void **state) {
  (void)state;
  memory m = {0};
  for (long n = 2;; n++) {
    lua_State *L = lua_newstate(allocate, &m);
    assert_non_null(L);
    luaL_openlibs(L);
    lua_pushcfunction(L, open_core);
    m.tripped = false;
    m.fail_in = n;
    int rc = lua_pcall(L, 0, 0, 0);
    m.fail_in = 0;
    lua_close(L);
    assert_int_equal(m.live, 0);
    if (!m.tripped) {
      assert_int_equal(rc, LUA_OK);
      break;
    }
  }
}

/* Each part ends with a state that the next part can use, memory or not. */
static const char *const work[] = {
    "local me = phub.process.self()\n"
    "phub.process.send(me, { 1, { x = 'y' .. tostring({}) } })\n"
    "phub.process.receive(0)",

    "local me = phub.process.self()\n"
    "phub.process.spawn(function(t) phub.process.send(me, { t }) end, { 'copied' })\n"
    "phub.process.receive(20)",

    "local M = { init = function(a) return { a } end,\n"
    "  handle_call = function(s, m) s[#s + 1] = m return s end,\n"
    "  terminate = function() local t = {} t.x = {} end }\n"
    "local pid = phub.gen_server.start(M, { 'args' })\n"
    "phub.gen_server.call(pid, { 'msg' }, 20)\n"
    "phub.gen_server.cast(pid, { 'msg' })\n"
    "phub.gen_server.stop(pid)",

    "local f = phub.future.new()\n"
    "phub.process.spawn(function() phub.process.sleep(1) f:resolve({ 1 }) end)\n"
    "coroutine.wrap(function() f:await() end)()\n"
    "f:await(10)",

    "pcall(phub.run, function() phub.process.spawn_link(function() error('x') end)\n"
    "  phub.process.sleep(2) end)",

    "local process, supervisor = phub.process, phub.supervisor\n"
    "while phub.is_alive 'h' do phub.stop 'h' process.sleep(1) end\n" /* of a part that failed */
    "local function start() return process.spawn_link(process.receive) end\n"
    "local sup <close> = setmetatable({}, { __close = function(s)\n"
    "  if s[1] then process.kill(s[1], 'kill') end\n"
    "  if phub.is_alive 'h' then phub.stop 'h' end end })\n"
    "sup[1] = assert(supervisor.start_link { children = { { id = 'a', start = start },\n"
    "  phub.child_spec { hub_id = 'h' } } })\n"
    "process.kill(supervisor.which_children(sup[1])[1].pid, 'boom')\n"
    "supervisor.start_child(sup[1], { id = 'b', start = { start, {} } })\n"
    "supervisor.terminate_child(sup[1], 'h')\n"
    "phub.gen_server.stop(sup[1])",
};

static const char check[] =
    "local process, gen_server = phub.process, phub.gen_server\n"
    "while process.receive(0) do end\n"
    "while phub.is_alive 'h' do phub.stop 'h' end\n" /* until its supervisor gives up */
    "local r = phub.run(function()\n"
    "  local pid = assert(gen_server.start { init = function() return 1 end,\n"
    "    handle_call = function(s, m) process.sleep(0) return s + m end })\n"
    "  local r = gen_server.call(pid, 41)\n"
    "  gen_server.stop(pid)\n"
    "  return r\n"
    "end)\n"
    "assert(r == 42, r)";

/* A hub that could not be handed to who wanted it has ended: alone, and under a supervisor. */
static const char *const hub_work[][2] = {
    {"started = nil\n"
     "started = phub.start_link { hub_id = 'h', child_specs = {\n"
     "  { id = 'c', start = { 'm', 'f', { 1, { x = 'y' } } } } } }",
     "assert(started or not phub.is_alive 'h', 'nobody has the hub')\n"
     "if started then phub.stop 'h' end"},

    {"phub.process.spawn(function() phub.supervisor.start_link { children = {\n"
     "  phub.child_spec { hub_id = 'h' } } } end)\n"
     "phub.process.sleep(1)",
     "local process = phub.process\n"
     "local till = process.now() + 20000\n" /* the supervisor ends with its parent */
     "while phub.is_alive 'h' and process.now() < till do process.sleep(1) end\n"
     "assert(not phub.is_alive 'h', 'nobody supervises the hub')"},
};

static void no_hub_is_left_alone(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof hub_work / sizeof *hub_work; i++) {
    memory m = {0};
    lua_State *L = open_state(&m);
    for (long n = 2;; n++) {
      if (luaL_loadstring(L, hub_work[i][0])) fail_msg("%s", lua_tostring(L, -1));
      lua_gc(L, LUA_GCCOLLECT); /* each time from the same state */
      m.tripped = false;
      m.fail_in = n;
      (void)lua_pcall(L, 0, 0, 0);
      bool tripped = m.tripped;
      m.fail_in = 0;
      lua_settop(L, 0);
      if (luaL_dostring(L, hub_work[i][1]))
        fail_msg("part %zu, n %ld: %s", i, n, lua_tostring(L, -1));
      if (luaL_dostring(L, check)) fail_msg("part %zu, n %ld: %s", i, n, lua_tostring(L, -1));
      if (!tripped) break;
    }
    lua_close(L);
    assert_int_equal(m.live, 0);
  }
}

static void memory_may_run_out_at_any_point(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof work / sizeof *work; i++) {
    memory m = {0};
    lua_State *L = open_state(&m);
    lua_gc(L, LUA_GCGEN, 0, 0);
    for (long n = 2;; n++) {
      if (luaL_loadstring(L, work[i])) fail_msg("%s", lua_tostring(L, -1));
      lua_gc(L, LUA_GCCOLLECT);
      m.tripped = false;
      m.fail_in = n;
      int rc = lua_pcall(L, 0, 0, 0);
      bool tripped = m.tripped;
      m.fail_in = 0;
      char why[256] = "";
      if (rc && lua_isstring(L, -1)) snprintf(why, sizeof why, "%s", lua_tostring(L, -1));
      if (rc && !lua_isstring(L, -1) && !tripped && luaL_callmeta(L, -1, "__tostring"))
        snprintf(why, sizeof why, "%s", lua_tostring(L, -1));
      lua_settop(L, 0);
      if (rc && !tripped) fail_msg("part %zu: %s", i, why);
      if (luaL_dostring(L, check)) fail_msg("part %zu, n %ld: %s", i, n, lua_tostring(L, -1));
      lua_settop(L, 0);
      if (!tripped) break;
    }
    lua_close(L);
    assert_int_equal(m.live, 0);
  }
}

int main(void) {
  setenv("PHUB_LOG", "error", 0);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(calls_raise_in_a_forked_child),
      cmocka_unit_test(opening_may_run_out_of_memory),
      cmocka_unit_test(memory_may_run_out_at_any_point),
      cmocka_unit_test(no_hub_is_left_alone),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
