std = "lua54"
cache = false
max_line_length = 120
max_comment_line_length = false -- a type annotation cannot be broken
exclude_files = { "build" }

files["spec"] = { std = "+busted" }
files["rockspec"] = { std = "rockspec" }
files[".luacheckrc"] = { std = "luacheckrc" }
-- phub replaces these three (preemption passes through nested coroutines)
files["lua/phub"] = { globals = { "coroutine.resume", "coroutine.wrap", "coroutine.close" } }
