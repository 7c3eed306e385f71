-- KEYS: the last entry this replica's journal has delivered, then hash and leases of every window.
-- ARGV: lease, windows, (ms, n) each, entries, then for each: sequence, id, parts, (window, tokens, expected) each
-- An entry delivered before is skipped; one whose reservation is gone (or never was) counts all the same.
-- Returns {now, entries applied}.
local lease = take()
local all = open_all(lease)
local last, applied = tonumber(redis.call('GET', KEYS[1])) or 0, 0
for _ = 1, take() do
  local sequence, id, parts = take(), word(), take()
  for _ = 1, parts do
    local w, tokens, expected = all[take()], take(), take()
    if sequence > last then
      if lift(w, id) then w.drops[#w.drops + 1], w.gone[#w.gone + 1] = 'r' .. id, id end
      add(w, tokens)
      w.expected = w.expected + expected
    end
  end
  if sequence > last then last, applied = sequence, applied + 1 end
end
for _, w in ipairs(all) do save(w) end
redis.call('SET', KEYS[1], text(last), 'PX', 86400000)
return {now, applied}
