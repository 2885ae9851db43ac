-- SHA-256 and HMAC, for peers that specs play themselves.
local sha256 = {}

local K, H = {}, {}
do -- the first 32 bits of the fractional parts of roots of primes
  local n, found = 2, 0
  local function fraction(x, root)
    local y = x ^ (1 / root)
    local part = y - math.floor(y)
    return math.floor(part * 2 ^ 32)
  end
  while found < 64 do
    local prime = true
    for d = 2, math.floor(n ^ 0.5) do prime = prime and n % d ~= 0 end
    if prime then
      found = found + 1
      K[found] = fraction(n, 3)
      if found <= 8 then H[found] = fraction(n, 2) end
    end
    n = n + 1
  end
end

local function rotate(x, n) return (x >> n | x << (32 - n)) & 0xffffffff end

local function block(h, text, at)
  local w = { string.unpack(">" .. ("I4"):rep(16), text, at) }
  for i = 17, 64 do
    local a, b = w[i - 15], w[i - 2]
    local s0 = rotate(a, 7) ~ rotate(a, 18) ~ a >> 3
    local s1 = rotate(b, 17) ~ rotate(b, 19) ~ b >> 10
    w[i] = (w[i - 16] + s0 + w[i - 7] + s1) & 0xffffffff
  end
  local a, b, c, d, e, f, g, k = table.unpack(h)
  for i = 1, 64 do
    local s1 = rotate(e, 6) ~ rotate(e, 11) ~ rotate(e, 25)
    local t1 = (k + s1 + (e & f ~ ~e & g) + K[i] + w[i]) & 0xffffffff
    local s0 = rotate(a, 2) ~ rotate(a, 13) ~ rotate(a, 22)
    local t2 = s0 + (a & b ~ a & c ~ b & c)
    a, b, c, d, e, f, g, k = (t1 + t2) & 0xffffffff, a, b, c, (d + t1) & 0xffffffff, e, f, g
  end
  for i, x in ipairs { a, b, c, d, e, f, g, k } do h[i] = (h[i] + x) & 0xffffffff end
end

---@param text string
---@return string  32 bytes
function sha256.digest(text)
  local h = table.move(H, 1, 8, 1, {})
  local padded = text .. "\x80" .. ("\0"):rep((55 - #text) % 64) .. (">I8"):pack(#text * 8)
  for at = 1, #padded, 64 do block(h, padded, at) end
  return (">" .. ("I4"):rep(8)):pack(table.unpack(h))
end

---@param key string
---@param text string
---@return string  32 bytes
function sha256.hmac(key, text)
  if #key > 64 then key = sha256.digest(key) end
  key = key .. ("\0"):rep(64 - #key)
  local function pad(byte) return (key:gsub(".", function(c) return string.char(c:byte() ~ byte) end)) end
  return sha256.digest(pad(0x5c) .. sha256.digest(pad(0x36) .. text))
end

return sha256
