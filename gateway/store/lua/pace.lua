-- Replaces the price controller's memory in each window that still has the memory which the gateway read.
-- KEYS: the hash of every window. ARGV, for each: the old memory, the new memory.
-- Returns the number of memories replaced. A gateway that comes too late loses nothing: another has computed the same.
local MEMORY = 'P'  -- as in window.lua, which is not loaded for this script
local written = 0
for i, key in ipairs(KEYS) do
  if (redis.call('HGET', key, MEMORY) or '') == ARGV[2 * i - 1] and redis.call('EXISTS', key) == 1 then
    redis.call('HSET', key, MEMORY, ARGV[2 * i])
    written = written + 1
  end
end
return written
