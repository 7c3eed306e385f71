-- KEYS and ARGV as for settling, but (window, amount, reported) each; reported -1: nothing known yet.
-- Moves the lease, notes the progress, and sets a reservation up again that was lost or had lapsed.
return each_entry(function(w, id, amount, reported)
  lift(w, id)
  hold(w, id, math.max(amount, reported), reported)
end)
