-- The files that the demo counts, and what wc makes of them.
local files = {}

local function quote(s)
  return "'" .. s:gsub("'", "'\\''") .. "'"
end

-- Output of a command that must succeed.
local function run(command)
  local pipe = assert(io.popen(command, "r"))
  local out = pipe:read("a")
  local ok, how, code = pipe:close()
  if not ok then return nil, ("%s %d"):format(how, code) end
  return out
end

-- Names may hold anything but a zero byte.
local function split(text)
  local list = {}
  for name in text:gmatch("([^\0]+)\0") do
    list[#list + 1] = name
  end
  return list
end

-- Symbolic links are followed, and each file is taken once.
local DISTINCT = " | xargs -0 -r realpath -z -- | LC_ALL=C sort -z -u"

--- The licence and copyright texts of this machine.
---@return string[]|nil paths, string|nil err
function files.default()
  local out = run("find -L /usr/share/doc/*/copyright /usr/share/common-licenses/* -maxdepth 0"
    .. " -type f -readable -print0 2>/dev/null" .. DISTINCT)
  local list = split(out or "")
  if #list == 0 then
    return nil, "no licence text under /usr/share: name a folder of text files with DIR=path"
  end
  return list
end

--- The regular files that lie in a folder (not those of its folders).
---@param dir string
---@return string[]|nil paths, string|nil err
function files.of_folder(dir)
  local from = quote(dir:find("^/") and dir or "./" .. dir)
  if not run("test -d " .. from) then return nil, dir .. " is not a folder" end
  if not run("test -r " .. from .. " && test -x " .. from) then
    return nil, "the folder " .. dir .. " is not readable"
  end
  local here = "find -L " .. from .. " -mindepth 1 -maxdepth 1 "
  -- under -L what is still a link leads nowhere
  local out, err = run(here .. "\\( -type f ! -readable -o -type l \\) -print0")
  if not out then return nil, "cannot list " .. dir .. ": " .. err end
  local unreadable = split(out)
  if #unreadable > 0 then return nil, "cannot read " .. unreadable[1] end
  out, err = run(here .. "-type f -print0" .. DISTINCT)
  if not out then return nil, "cannot list " .. dir .. ": " .. err end
  local list = split(out)
  if #list == 0 then return nil, "the folder " .. dir .. " holds no file" end
  return list
end

--- The sum of `LC_ALL=C wc -w` over the files.
---@param paths string[]
---@return integer|nil words, string|nil err
function files.wc(paths)
  local list = os.tmpname()
  local file = assert(io.open(list, "wb"))
  file:write(table.concat(paths, "\0"), "\0")
  file:close()
  local out, err = run("LC_ALL=C wc -w --files0-from=" .. quote(list))
  os.remove(list)
  if not out then return nil, "wc failed: " .. err end
  -- the last line is the total; of one file there is only its own
  local total = #paths == 1 and out:match("^%s*(%d+) ") or out:match("(%d+) total\n$")
  if not total then return nil, "cannot read what wc printed" end
  return math.tointeger(total)
end

return files
