-- What three idle nodes take: CPU, and bytes between them.
local uv = require "luv"
local os_process = require "spec.support.os_process"

local CHILDREN = 10000
local MOST_CPU, MOST_BYTES = 0.5, 2048 -- percent, bytes a second; a node

-- Nanoseconds that the threads of a process have run.
local function cpu_ns(pid)
  local sum = 0
  local scan = assert(uv.fs_scandir(("/proc/%d/task"):format(pid)))
  for task in function() return (uv.fs_scandir_next(scan)) end do
    local file <close> = io.open(("/proc/%d/task/%s/schedstat"):format(pid, task))
    sum = sum + (file and tonumber(file:read("a"):match "^%d+") or 0)
  end
  return sum
end

-- The inodes of a process's sockets. (ss could tell the process itself, but looks through all that run.)
local function sockets(pid)
  local inodes = {}
  local fds = ("/proc/%d/fd"):format(pid)
  local scan = assert(uv.fs_scandir(fds))
  for fd in function() return (uv.fs_scandir_next(scan)) end do
    local inode = (uv.fs_readlink(fds .. "/" .. fd) or ""):match "^socket:%[(%d+)%]$"
    if inode then inodes[inode] = true end
  end
  return inodes
end

-- Bytes that each of these processes has sent over its TCP connections.
local function sent(pids)
  local result, out, errors = os_process.sh("ss -tineOH", 60000)
  assert(result.code == 0, errors)
  local by_inode, by_pid = {}, {}
  for line in out:gmatch "[^\n]+" do
    local inode, bytes = line:match "ino:(%d+)", line:match "bytes_sent:(%d+)"
    if inode and bytes then by_inode[inode] = tonumber(bytes) end
  end
  for _, pid in ipairs(pids) do
    for inode in pairs(sockets(pid)) do
      if by_inode[inode] then by_pid[pid] = (by_pid[pid] or 0) + by_inode[inode] end
    end
    assert(by_pid[pid], "ss shows no connection of a node")
  end
  return by_pid
end

-- The nodes do not even look for commands meanwhile.
local function rest(c, seconds)
  for _, node in ipairs(c) do node:eval("pause_ms = ...", (seconds + 1) * 1000) end
  uv.sleep(1000)
end

local function idle(b, n, seconds)
  local c = b:cluster(3)
  local pids, cpu, bytes, most = {}, {}, 0, 0
  for i, node in ipairs(c) do pids[i] = node.process.pid end
  b:on(c[1], "bulk.fill", n)
  rest(c, seconds)
  local sent_before = sent(pids)
  for i, pid in ipairs(pids) do cpu[i] = -cpu_ns(pid) end
  uv.sleep(math.tointeger(seconds * 1000))
  for i, pid in ipairs(pids) do cpu[i] = (cpu[i] + cpu_ns(pid)) / seconds / 1e7 end
  local sent_after = sent(pids)
  for _, pid in ipairs(pids) do
    local rate = (sent_after[pid] - sent_before[pid]) / seconds
    bytes, most = bytes + rate, math.max(most, rate)
  end
  b:close(c, n)
  b:row { key = "idle_cpu", what = "idle: CPU, busiest node", nodes = 3, n = n, unit = "%",
    value = math.max(table.unpack(cpu)), runs = cpu, seconds = seconds }
  b:row { key = "idle_bytes", what = "idle: bytes between all nodes", nodes = 3, n = n,
    unit = "bytes/s", value = bytes, seconds = seconds }
  return math.max(table.unpack(cpu)), most
end

return function(b)
  for _, n in ipairs(b.sizes) do
    local seconds = not b.full and 10 or n == CHILDREN and 60 or 30
    local cpu, bytes = idle(b, n, seconds)
    b:check(("an idle node of three with %d children uses at most %.1f %% CPU and sends 2 KB/s"):format(n,
      MOST_CPU), cpu <= MOST_CPU and bytes <= MOST_BYTES, ("%.2f %%, %.0f bytes/s"):format(cpu, bytes))
  end
end
