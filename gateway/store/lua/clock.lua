-- The server's clock in milliseconds. Tests put a clock of their own in place of this file.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
