-- KEYS: the hash of every window. ARGV for each: the pacing's memory as read, and as it should be.
-- Compare-and-set; a lost race is harmless, as the winner computed the same. Returns how many were written.
local written = 0
for i, key in ipairs(KEYS) do
  if (redis.call('HGET', key, 'P') or '') == ARGV[2 * i - 1] and redis.call('EXISTS', key) == 1 then
    redis.call('HSET', key, 'P', ARGV[2 * i])
    written = written + 1
  end
end
return written
