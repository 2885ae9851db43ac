-- The examples of the documentation do what they say: each block of Lua is run, in a process.
local phub = require "phub"

for _, name in ipairs { "hub", "distributor", "results" } do
  local path = ("doc/%s.md"):format(name)

  describe(path, function()
    local page <close> = assert(io.open(path))
    local n = 0
    for code in page:read("a"):gmatch "```lua\n(.-)```" do
      n = n + 1
      it("example " .. n .. " does what it says", function()
        local example = assert(load(code, "=" .. path, "t", setmetatable({}, { __index = _G })))
        phub.run(example)
      end)
    end

    it("has examples", function() assert.is_true(n > 0) end)
  end)
end
