-- KEYS: the last entry this replica's journal has delivered, then hash and leases of every window.
-- ARGV: lease, windows, (ms, n) each, entries, then for each: sequence, id, parts, (window, tokens, expected) each
-- An entry delivered before is skipped; one whose reservation is gone (or never was) counts all the same.
-- Returns {now, entries applied}.
return each_entry(open_all(take()), function(w, id, tokens, expected)
  if lift(w, id) then w.drops[#w.drops + 1], w.gone[#w.gone + 1] = 'r' .. id, id end
  add(w, tokens)
  w.expected = w.expected + expected
end)
