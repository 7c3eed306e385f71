-- Forgets the settled tokens and the top-up of a window. Reservations stay.
-- KEYS: unused, hash and leases of the window. ARGV: lease, 1, bucket_ms, buckets.
local w = open_all(next_number())[1]
save(w)
local fields, drops, gone = redis.call('HGETALL', w.key), {CREDIT, CREDIT_END}, {}
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  if string.match(name, '^%d+$') then drops[#drops + 1] = name end
  if parse_expired(value) then drops[#drops + 1], gone[#gone + 1] = name, string.sub(name, 2) end
end
for _, name in ipairs(drops) do redis.call('HDEL', w.key, name) end
for _, id in ipairs(gone) do redis.call('ZREM', w.leases, id) end
-- go back to the bucket of now, in case the clock was ahead before
redis.call('HSET', w.key, SETTLED, 0, REACHED, math.floor(now / w.bucket_ms))
return {now, w.settled}
