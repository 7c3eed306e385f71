-- Renews leases and stores the progress of each request. Restores a reservation that was lost or has expired.
-- KEYS and ARGV: as for settle.lua, but with (window, amount, reported) for each part: the tokens reserved, and the
-- tokens spent so far or -1 if unknown.
return each_entry(function(w, id, amount, reported)
  lift(w, id)
  hold(w, id, math.max(amount, reported), reported)
end)
