-- Replaces the price controller's memory in each window where it still is what the gateway read.
-- KEYS: the hash of every window. ARGV, for each: the old memory, the new memory.
-- Losing this race is harmless: the winner has computed the same. Returns the number of memories replaced.
local MEMORY = 'P'  -- as in window.lua, which this script does without
local written = 0
for i, key in ipairs(KEYS) do
  if (redis.call('HGET', key, MEMORY) or '') == ARGV[2 * i - 1] and redis.call('EXISTS', key) == 1 then
    redis.call('HSET', key, MEMORY, ARGV[2 * i])
    written = written + 1
  end
end
return written
