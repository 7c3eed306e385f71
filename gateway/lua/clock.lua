-- Milliseconds by the server's clock; tests put a clock of their own here.
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
