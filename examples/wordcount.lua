-- A child of the demo: a gen_server that counts the words of one file and keeps the count.
--
-- A word is a run of bytes other than space, \t, \n, \v, \f and \r that holds a printable ASCII
-- byte: what `LC_ALL=C wc -w` counts.
local gen_server = require "phub.gen_server"
local node = require "phub.node"

local wordcount = {}

-- One match a word: it starts at the run's first printable byte and takes the rest of the run; the
-- empty capture gives a position, so that no string is made.
local WORD = "()[!-~][^ \t\n\v\f\r]*"
local BLOCK = 1 << 20

---@param text string
---@return integer
function wordcount.words(text)
  local n = 0
  for _ in text:gmatch(WORD) do
    n = n + 1
  end
  return n
end

--- Reads whole lines at a time, so no word lies in two blocks.
---@param path string
---@return integer|nil words, string|nil err
function wordcount.words_of_file(path)
  local file <close>, err = io.open(path, "rb")
  if not file then return nil, err end
  local n = 0
  while true do
    local block, read_err = file:read(BLOCK)
    if read_err then return nil, read_err end
    if not block then return n end
    n = n + wordcount.words(block .. (file:read("L") or ""))
  end
end

--- What a child spec's `start` names.
---@param path string
function wordcount.start(path)
  return gen_server.start_link(wordcount, path)
end

function wordcount.init(path)
  local words, err = wordcount.words_of_file(path)
  if not words then return nil, { "unreadable", err } end
  return { words = words }
end

--- "count": the words, and the node on which they were counted.
function wordcount.handle_call(state, msg)
  if msg == "count" then
    return { words = state.words, node = node.self() }
  end
  return nil
end

return wordcount
