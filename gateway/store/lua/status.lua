-- Reads the state of windows. Writes nothing.
-- KEYS: the hash of the caps set by an admin, then hash and leases of every window.
-- Returns {now, state...}, one state per window. `WindowState` in gateway/store/commands.py has the same fields in the
-- same order.

local windows = {}
for i = 1, #lengths / 3 do windows[i] = read(i, {}) end
read_caps(windows)
-- The tokens of a window's reservations whose leases have expired. Looks at up to `most` of them.
local function stale_tokens(w, most)
  if w.first_end == 0 or w.now < w.first_end then return 0 end
  local names, stale = {}, 0
  for j, id in ipairs(redis.call('ZRANGE', w.leases, '-inf', w.now, 'BYSCORE', 'LIMIT', 0, most)) do
    names[j] = 'r' .. id
  end
  if #names > 0 then
    for _, value in ipairs(redis.call('HMGET', w.key, unpack(names))) do
      stale = stale + (parse_live(value or '') or 0)
    end
  end
  return stale
end

local replies, most = {now}, math.max(math.floor(1000 / #windows), 10)
for i, w in ipairs(windows) do
  read_rest(w)
  read_tally(w)
  if w.reached > 0 then w.settled = w.settled - outdated(w, w.bucket) end
  local stale = stale_tokens(w, most)
  local entries, reset = redis.call('ZCARD', w.leases), reset_time(w)
  local memory = redis.call('HGET', w.key, MEMORY) or ''
  replies[i + 1] = {
    w.cap,  -- tokens allowed: the number set by an admin, else the configured one; plus a top-up
    w.settled,  -- tokens spent by finished requests that still count
    w.reserved,  -- tokens reserved for running requests
    stale,  -- those of them whose leases have expired
    entries,  -- reservations, including expired ones that the window still remembers
    reset,  -- milliseconds until nothing that is settled counts any more
    w.arrivals,  -- requests since the window was first used
    w.limited,  -- those of them that were shortened or refused because of this window
    w.spent,  -- tokens settled since the window was first used
    w.expected,  -- tokens that were predicted for the same completions
    memory,  -- what the price controller remembers; empty if it has not run yet
  }
end
return replies
