-- Renews leases and stores the progress of each request. Restores a reservation that was lost or has expired.
-- KEYS: the sequence number of the last applied entry of this gateway's journal, then hash and leases of every window.
-- After lease and windows follow: confirmed and entries (see `apply`), with (window, amount, reported) for each part:
-- the tokens reserved, and the tokens spent so far or -1 if unknown.
-- Returns {now, applied, known} (see `apply`) in MessagePack.
local windows = {}
for i, ids in ipairs(ids_by_window(call[4])) do windows[i] = open(i, ids) end
local applied, known = apply(call[4], windows, KEYS[1], call[3], function(w, id, amount, reported)
  lift(w, id)
  hold(w, id, math.max(amount, reported), reported)
end)
for _, w in ipairs(windows) do save(w) end
return cmsgpack.pack({now, applied, known})
