-- Settles requests: replaces what each has reserved by what it has spent.
-- KEYS: the sequence number of the last applied entry of this gateway's journal, then hash and leases of every window.
-- ARGV: confirmed (see `each_entry` in window.lua), lease, number of windows, (bucket_ms, buckets) of each, number of
--   entries, then for each entry: sequence, id, number of parts, (window, tokens spent, tokens expected) for each part.
-- Skips entries that were applied before. Counts the tokens even if the reservation is unknown.
return each_entry(function(w, id, tokens, expected)
  if lift(w, id) then w.drops[#w.drops + 1], w.gone[#w.gone + 1] = 'r' .. id, id end
  add_settled(w, tokens)
  w.expected = w.expected + expected
end)
