-- KEYS as for reserving. ARGV: windows, (ms, n) each, cap each. Writes nothing.
-- Returns {now, window...}: cap, settled, reserved, held by lapsed leases, entries (reservations, and
-- those that lapsed while their tokens count), reset, requests, limited, spent, expected, the pacing's memory.
local all = {}
for i = 1, take() do
  local ms, n = take(), take()
  all[i] = read(KEYS[2 * i], KEYS[2 * i + 1], ms, n)
end
caps(all)
local replies = {now}
for i, w in ipairs(all) do
  if w.reached > 0 then w.settled = w.settled - outdated(w, w.bucket) end
  local stale, names = 0, {}
  for j, id in ipairs(redis.call('ZRANGE', w.leases, '-inf', now, 'BYSCORE', 'LIMIT', 0, 1000)) do
    names[j] = 'r' .. id
  end
  if #names > 0 then
    for _, value in ipairs(redis.call('HMGET', w.key, unpack(names))) do
      stale = stale + (live(value or '') or 0)
    end
  end
  local held = redis.call('ZCARD', w.leases)
  local memory = redis.call('HGET', w.key, 'P') or ''
  replies[i + 1] = {w.cap, w.settled, w.reserved, stale, held, reset(w), w.asked, w.limited, w.spent, w.expected,
    memory}
end
return replies
