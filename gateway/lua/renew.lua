-- KEYS and ARGV as for settling, but (window, amount, reported) each; reported -1: nothing known yet.
-- Moves the lease, notes the progress, and sets a reservation up again that was lost or had lapsed.
local lease = take()
local all = open_all(lease)
local last, applied = tonumber(redis.call('GET', KEYS[1])) or 0, 0
for _ = 1, take() do
  local sequence, id, parts = take(), word(), take()
  for _ = 1, parts do
    local w, amount, reported = all[take()], take(), take()
    if sequence > last then
      lift(w, id)
      hold(w, id, math.max(amount, reported), reported)
    end
  end
  if sequence > last then last, applied = sequence, applied + 1 end
end
for _, w in ipairs(all) do save(w) end
redis.call('SET', KEYS[1], text(last), 'PX', 86400000)
return {now, applied}
