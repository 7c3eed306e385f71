-- KEYS: the last entry this replica's journal has delivered, then hash and leases of every window.
-- ARGV: previous, lease, windows, (ms, n) each, entries, then for each: sequence, id, parts, (window, tokens, expected)
-- An entry delivered before is skipped; one whose reservation is gone (or never was) counts all the same.
return each_entry(function(w, id, tokens, expected)
  if lift(w, id) then w.drops[#w.drops + 1], w.gone[#w.gone + 1] = 'r' .. id, id end
  add(w, tokens)
  w.expected = w.expected + expected
end)
