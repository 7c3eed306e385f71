-- KEYS and ARGV as for topping up, without tokens. Forgets what was settled; reservations stay.
local w = open_all(take())[1]
save(w)
local fields, drops, gone = redis.call('HGETALL', w.key), {'K', 'E'}, {}
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  if string.match(name, '^%d+$') then drops[#drops + 1] = name end
  if lapsed(value) then drops[#drops + 1], gone[#gone + 1] = name, string.sub(name, 2) end
end
for _, name in ipairs(drops) do redis.call('HDEL', w.key, name) end
for _, id in ipairs(gone) do redis.call('ZREM', w.leases, id) end
redis.call('HSET', w.key, 'S', 0, 'T', math.floor(now / w.ms))  -- even where the clock had been ahead
return {now, w.settled}
