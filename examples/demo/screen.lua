-- A small table of nodes that is redrawn in place on a terminal, and printed only when asked for
-- elsewhere.
local screen = {}

local ROW = "  %-7s %8s  %-8s %9s  %s"
local BAR_WIDTH = 40

local is_terminal = os.execute("test -t 1") == true
local shown = 0 -- lines of the table now at the bottom of the terminal

local function erase()
  if shown > 0 then io.stdout:write(("\27[%dA\27[J"):format(shown)) end
  shown = 0
end

local function lines_of(nodes, children)
  local lines = { (ROW:format("node", "pid", "state", "children", ""):gsub("%s+$", "")) }
  for _, n in ipairs(nodes) do
    local count = n.children or 0
    local bar = ("#"):rep(math.ceil(BAR_WIDTH * count / math.max(children, 1)))
    lines[#lines + 1] = ROW:format(n.short, n.pid, n.state, n.children or "-", bar)
        :gsub("%s+$", "")
  end
  return lines
end

--- A line that stays.
function screen.say(...)
  erase()
  print(string.format(...))
  io.stdout:flush()
end

--- Redraws the table; does nothing where nothing can be redrawn.
---@param nodes { short: string, pid: integer, state: string, children: integer? }[]
---@param children integer  how many there are in all
function screen.update(nodes, children)
  if not is_terminal then return end
  erase()
  local lines = lines_of(nodes, children)
  io.stdout:write(table.concat(lines, "\n"), "\n")
  io.stdout:flush()
  shown = #lines
end

--- Prints the table as lines that stay.
function screen.table(nodes, children)
  erase()
  print(table.concat(lines_of(nodes, children), "\n"))
  io.stdout:flush()
end

return screen
