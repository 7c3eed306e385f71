-- Renews leases and stores the progress of each request. A reservation that was lost or has expired is restored.
-- KEYS and ARGV: as for settle.lua, but with (window, amount, reported) for each part; reported is -1 while unknown.
return each_entry(function(w, id, amount, reported)
  lift(w, id)
  hold(w, id, math.max(amount, reported), reported)
end)
