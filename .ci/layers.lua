-- The layer rules of the core, checked by include and by nm.
--
--   lua5.4 .ci/layers.lua OBJDIR SHARED_OBJECT -- SOURCE...
--
-- 1. A folder of core/ includes only itself and the folders above it, and none of them phub.h or
--    what else lies in core/ itself, which ties them together; only that, the binding and net/tcp
--    itself include net/tcp. Tests may besides include help of their own folder, and those of net
--    may include net/tcp. lua.h is seen in lua/src alone, uv.h and socket headers in core/base,
--    core/net/tcp and lua/src.
-- 2. Objects outside base and net/tcp import no uv, socket, clock, random or Lua symbol, and hold
--    no writable global.
-- 3. The shared object exports luaopen_* alone.

local LAYERS = { "base", "wire", "net", "cluster", "proc", "hub" }
local RANK = {}
for i, name in ipairs(LAYERS) do
  RANK[name] = i
end

local function set(words)
  local s = {}
  for word in words:gmatch("%S+") do
    s[word] = true
  end
  return s
end

local FORBIDDEN = {
  socket = set [[ socket socketpair bind listen accept accept4 connect send sendto sendmsg recv
    recvfrom recvmsg getaddrinfo freeaddrinfo getnameinfo gethostbyname getsockopt setsockopt
    getsockname getpeername shutdown poll ppoll select pselect epoll_create epoll_create1 epoll_ctl
    epoll_wait epoll_pwait eventfd ]],
  clock = set [[ clock clock_gettime clock_getres clock_nanosleep gettimeofday time timespec_get
    nanosleep usleep sleep times getrusage ]],
  random = set [[ rand rand_r srand random random_r srandom drand48 erand48 lrand48 getrandom
    getentropy arc4random arc4random_buf RAND_bytes RAND_priv_bytes ]],
}
local SYSTEM_HEADER = {
  ["^lua"] = "lua", ["^lauxlib"] = "lua", ["^uv%.h"] = "uv", ["^uv/"] = "uv",
  ["^sys/socket"] = "socket", ["^sys/epoll"] = "socket", ["^sys/un%.h"] = "socket",
  ["^netinet/"] = "socket", ["^arpa/"] = "socket", ["^netdb"] = "socket", ["^poll%.h"] = "socket",
}

local problems = 0
local function problem(...)
  problems = problems + 1
  print(string.format(...))
end

local function lines_of(command)
  local pipe <close> = assert(io.popen(command, "r"))
  local list = {}
  for line in pipe:lines() do
    list[#list + 1] = line
  end
  return list
end

-- "base", "net/tcp", ... of core/base/x.c; "lua" of lua/src; "" of core/x.h and core/test
local function place(path)
  if path:find("^lua/src/") then return "lua" end
  local inner = path:match("^core/(.*)$")
  if inner:find("^net/tcp/") then return "net/tcp" end
  local folder = inner:match("^([^/]+)/")
  return folder ~= "test" and folder or ""
end

local function is_outer(where)
  return where == "base" or where == "net/tcp"
end

local function exists(path)
  local file <close> = io.open(path)
  return file ~= nil
end

local function check_own_include(path, line, where, included)
  local folder = path:match("^(.*/test/)")
  if folder and not included:find("/") and exists(folder .. included) then return end
  local to = place("core/" .. included)
  if where == "" or where == "lua" then return end
  local from_rank, to_rank = RANK[where:match("^[^/]+")], RANK[to:match("^[^/]+")]
  if to == "" then
    problem("%s:%d: includes %s, which lies in no folder", path, line, included)
  elseif not to_rank then
    problem("%s:%d: includes %s, no folder of core", path, line, included)
  elseif from_rank and to_rank > from_rank then
    problem("%s:%d: %s includes %s, which is below it", path, line, where, included)
  elseif to == "net/tcp" and where ~= "net/tcp" and not (folder and where == "net") then
    problem("%s:%d: only net/tcp and the binding include net/tcp", path, line)
  end
end

local function check_includes(path)
  local where, number = place(path), 0
  local in_test = path:find("/test/") ~= nil
  for line in io.lines(path) do
    number = number + 1
    local own = line:match('^%s*#%s*include%s*"([^"]+)"')
    local system = line:match("^%s*#%s*include%s*<([^>]+)>")
    if own and own:find("^l[ua][ux]") then system = own end
    if system then
      for pattern, kind in pairs(SYSTEM_HEADER) do
        local allowed = where == "lua" or (kind ~= "lua" and (is_outer(where) or in_test))
        if system:find(pattern) and not allowed then
          problem("%s:%d: includes <%s>", path, number, system)
        end
      end
    elseif own then
      check_own_include(path, number, where, own)
    end
  end
end

local function kind_of(symbol)
  if symbol:find("^uv_") then return "uv" end
  if symbol:find("^lua_") or symbol:find("^luaL_") then return "Lua" end
  for kind, names in pairs(FORBIDDEN) do
    if names[symbol] then return kind end
  end
end

-- nm's own letters call a constant table of pointers (.data.rel.ro) "d": the section decides.
local function is_writable(section)
  return (section:find("^%.[td]data") or section:find("^%.data") or section:find("^%.t?bss")
    or section == "*COM*") and not section:find("^%.data%.rel%.ro")
end

local function check_object(path, object)
  for _, line in ipairs(lines_of("nm -f sysv '" .. object .. "'")) do
    local name, class, section = line:match("^(%S+)%s*|[^|]*|%s*(%S)%s*|[^|]*|[^|]*|[^|]*|%s*(%S*)")
    if name and class == "U" then
      local kind = kind_of((name:gsub("@.*", "")))
      if kind then problem("%s: imports the %s symbol %s", path, kind, name) end
    elseif name and is_writable(section) then
      problem("%s: holds the writable global %s", path, name)
    end
  end
end

local function check_exports(shared)
  local count = 0
  for _, line in ipairs(lines_of("nm -D --defined-only '" .. shared .. "'")) do
    local name = line:match("(%S+)$")
    count = count + 1
    if not name:find("^luaopen_") then problem("%s exports %s", shared, name) end
  end
  if count == 0 then problem("%s exports nothing", shared) end
end

local objdir, shared = assert(arg[1]), assert(arg[2])
local objects = 0
for i = 4, #arg do
  local path = arg[i]
  if path:find("^spec/") then goto continue end -- stands above them all
  check_includes(path)
  local where = place(path)
  if path:find("%.c$") and not path:find("/test/") and where ~= "lua" and not is_outer(where) then
    check_object(path, objdir .. "/" .. path:gsub("%.c$", ".o"))
    objects = objects + 1
  end
  ::continue::
end
check_exports(shared)
print(("layers: %d files, %d objects, %d problems"):format(#arg - 3, objects, problems))
os.exit(problems == 0)
