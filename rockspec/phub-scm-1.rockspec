rockspec_format = "3.0"
package = "phub"
version = "scm-1"
source = {
  url = "git+file://.",
}
description = {
  summary = "Supervised processes kept running across a cluster of Lua nodes",
  detailed = [[
    phub runs child processes on the nodes of a cluster: each child has its place, every node
    knows where everything runs, and a node that joins, leaves or dies moves only what must move.
    Needs the libraries libuv, msgpack-c, OpenSSL and xxHash with their headers, and uthash.]],
  license = "MIT",
}
supported_platforms = { "linux" }
dependencies = {
  "lua >= 5.4, < 5.5",
}
build = {
  type = "make",
  build_variables = {
    PHUB_DEPS = "check",
    LUA = "$(LUA)",
    LUA_INCDIR = "$(LUA_INCDIR)",
  },
  install_variables = {
    PHUB_DEPS = "check",
    LUA = "$(LUA)",
    LUA_INCDIR = "$(LUA_INCDIR)",
    LUADIR = "$(LUADIR)",
    LIBDIR = "$(LIBDIR)",
  },
}
