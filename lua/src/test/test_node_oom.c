/* Nodes from Lua while memory fails, the core's or libuv's: an error or success, and everything
 * works once there is memory. The peer is another OS process. */
#include <lauxlib.h>
#include <lualib.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "test/oomenv.h"

int luaopen_phub_core(lua_State *L);

static pid_t peer;
static char address[64];

static lua_State *open_state(void) {
  lua_State *L = luaL_newstate();
  assert_non_null(L);
  luaL_openlibs(L);
  luaL_requiref(L, "phub.core", luaopen_phub_core, 0);
  lua_settop(L, 0);
  lua_pushstring(L, address);
  lua_setglobal(L, "peer");
  if (luaL_dostring(
          L, "package.path = 'lua/?.lua;lua/?/init.lua;' .. package.path\n"
             "phub = require 'phub'\n"
             "config = { name = 'oom-' .. peer:gsub('%W', '-') .. '@127.0.0.1', cookie = 'c' }"))
    fail_msg("%s", lua_tostring(L, -1));
  return L;
}

/* never returns */
static void be_peer(int out) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  luaL_requiref(L, "phub.core", luaopen_phub_core, 0);
  lua_pushinteger(L, getpid());
  lua_setglobal(L, "pid");
  if (luaL_dostring(L, "package.path = 'lua/?.lua;lua/?/init.lua;' .. package.path\n"
                       "phub = require 'phub'\n"
                       "local name = ('oom-peer-%d@127.0.0.1'):format(pid)\n"
                       "assert(phub.node.start { name = name, cookie = 'c' })\n"
                       "return phub.node.address()"))
    _exit(1);
  const char *text = lua_tostring(L, -1);
  if (write(out, text, strlen(text) + 1) < 0) _exit(1);
  for (;;) (void)luaL_dostring(L, "phub.process.sleep(1000)");
}

static const char work[] = "local node = phub.node\n"
                           "if node.start(config) then\n"
                           "  node.connect(peer, 1000)\n"
                           "  if phub.start_link { hub_id = 'h' } then phub.stop 'h' end\n"
                           "  node.stop()\n"
                           "end";

static const char check[] = "local node = phub.node\n"
                            "while phub.is_alive 'h' do phub.stop 'h' end\n"
                            "if node.address() then node.stop() end\n"
                            "assert(node.start(config))\n"
                            "assert(node.connect(peer, 10000))\n"
                            "assert(#node.list() == 1)\n"
                            "assert(phub.start_link { hub_id = 'h' })\n"
                            "assert(phub.stop 'h')\n"
                            "assert(node.stop())";

static void a_node_may_run_out_of_memory(void **state) {
  (void)state;
  int fds = ne_count("/proc/self/fd"), threads = ne_count("/proc/self/task");
  long step = ne_slower() > 3 ? 7 : 1, n = 1; /* valgrind sees a part of them */
  for (bool tripped = true; tripped; n += step) {
    lua_State *L = open_state();
    te_fail_in(&mem, n);
    int rc = luaL_dostring(L, work); /* it may raise */
    tripped = te_tripped(&mem);
    te_fail_in(&mem, 0);
    if (!tripped && rc) fail_msg("%s", lua_tostring(L, -1));
    lua_settop(L, 0);
    if (luaL_dostring(L, check)) fail_msg("n = %ld: %s", n, lua_tostring(L, -1));
    lua_close(L);
    TE_END(&mem);
    assert_int_equal(ne_count("/proc/self/fd"), fds);
    assert_int_equal(ne_count("/proc/self/task"), threads);
  }
  assert_true(n > 50);
  print_message("%ld points of failure\n", n - 1);
}

static int setup(void **state) {
  (void)state;
  int ends[2];
  setenv("PHUB_LOG", "error", 0);
  if (oom_init() || pipe(ends)) return -1;
  peer = fork();
  if (peer == 0) be_peer(ends[1]);
  close(ends[1]);
  ssize_t got = read(ends[0], address, sizeof address - 1);
  close(ends[0]);
  if (peer < 0 || got <= 0) return -1;
  lua_State *L = open_state(); /* libuv keeps two files of its own once it has made a loop */
  int rc = luaL_dostring(L, check);
  if (rc) print_error("%s\n", lua_tostring(L, -1));
  lua_close(L);
  return rc ? -1 : 0;
}

static int teardown(void **state) {
  (void)state;
  kill(peer, SIGKILL);
  return waitpid(peer, NULL, 0) == peer ? 0 : -1;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_node_may_run_out_of_memory),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
