-- Settles requests that have ended, then reserves tokens for a batch of new ones, each in one or more windows.
-- KEYS: hash of the caps set by an admin, hash and leases of every window, then the sequence number of the last applied
--   entry of this gateway's journal.
-- After lease and windows follow:
--   confirmed and entries (see `apply`), with (window, tokens spent, tokens expected) for each part
--   deadline: reserve nothing after this time; 0 for none
--   requests, each a list: id, choices, minimum, soft, arrivals, then lists with one item for each of its windows:
--     window, fixed, and amount of the wanted candidate
-- The next arguments hold, for each request, the amounts of the other candidates by window, ever cheaper. They are
-- arguments of their own because most requests get what they want.
-- Returns {now, applied, known, reply...}, one reply per request, in MessagePack: Redis writes each table of a reply to
-- the socket on its own, and each write wakes the gateway. After the deadline there are no replies.
--
-- Settling replaces what a request has reserved by what it has spent. It counts the tokens even if the reservation is
-- unknown.
--
-- Each new request gets the first candidate that fits into all its windows. If none fits, the last one is cut to the
-- most completion tokens per choice (`clamp`) that fit, but not below `minimum`. For example, a request has candidates
-- of 900, 500 and 100 tokens and a minimum of 40. With room for 600 tokens it gets the second; with room for 60 the
-- third, cut to 60; with room for 30 it is refused.
-- A soft request also accepts less than `minimum`, if even the empty window could not hold that much.

local RUNNING_WAIT = 1000  -- milliseconds until a new attempt if running requests are in the way: they end at any time

local confirmed, entries, deadline, requests = call[3], call[4], call[5], call[6]
if deadline > 0 and now > deadline then  -- the callers have given up: reserve nothing for them
  if confirmed < 0 then return cmsgpack.pack({now, 0, 0}) end
  requests = {}
end

local windows, applied, known = {}, 0, 0
if confirmed < 0 then  -- no journal
  for i = 1, #lengths / 3 do windows[i] = open(i) end
else
  for i, ids in ipairs(ids_by_window(entries)) do windows[i] = open(i, ids) end
  applied, known = apply(entries, windows, KEYS[#KEYS], confirmed, function(w, id, tokens, expected)
    if lift(w, id) then w.drops[#w.drops + 1], w.gone[#w.gone + 1] = 'r' .. id, id end
    add_settled(w, tokens)
    w.expected = w.expected + expected
  end)
end
if #requests > 0 then read_caps(windows) end

local function room_in(w)
  return w.cap - w.settled - w.reserved
end

-- Completion tokens per choice below which a request is not cut because of a window.
local function minimum(request, w, fixed)
  if request.soft == 0 then return request.minimum end
  return math.min(request.minimum, math.floor((w.cap - fixed) / request.choices))
end

-- The amounts of the last candidate, by window.
local function last_amounts(request)
  local last = {}
  for p, column in ipairs(request.others) do last[p] = column[#column] or request.wanted[p] end
  return last
end

-- The clamp that makes the last candidate fit, and the amounts that remain; 0 if it is less than the minimum.
local function cut(request)
  local clamp, least, last = math.huge, request.minimum, last_amounts(request)
  for p, w in ipairs(request.windows) do
    clamp = math.min(clamp, math.floor((request.rooms[p] - request.fixed[p]) / request.choices))
    least = math.min(least, minimum(request, w, request.fixed[p]))
  end
  if clamp < least or clamp < 1 or clamp == math.huge then return 0, nil end
  local amounts = {}
  for p, amount in ipairs(last) do
    amounts[p] = math.min(amount, request.fixed[p] + request.choices * clamp)
  end
  return clamp, amounts
end

-- Returns the milliseconds until an amount may fit, or -1 if it never will; then 1 if only running requests are in the
-- way, else 0. Settled tokens leave the window bucket by bucket, so this adds up buckets, oldest first, until enough
-- tokens are free.
local function time_until(w, amount)
  local missing = amount - room_in(w)
  if missing <= 0 then return 0, 0 end
  if amount > w.cap then return -1, 0 end
  local first = w.bucket - w.buckets
  w.counts = w.counts or redis.call('HMGET', w.key, unpack(bucket_names(first, w.bucket)))
  for i, tokens in ipairs(w.counts) do
    missing = missing - (tonumber(tokens) or 0)
    if first + i - 1 == w.bucket then missing = missing - w.fresh end  -- not in the hash before `save`
    if missing <= 0 then return (first + i + w.buckets) * w.bucket_ms - w.unheld, 0 end
  end
  return RUNNING_WAIT, 1
end

-- The window that lacks the most room for the wanted candidate; 0 if it fits into all. A window of which the request
-- wants nothing is never in the way, even if it is over its cap.
local function find_blocker(request)
  local worst, most = 0, 0
  for p, amount in ipairs(request.wanted) do
    local missing = amount - request.rooms[p]
    if amount > 0 and missing > most then worst, most = p, missing end
  end
  return worst
end

-- The window that makes a refused request wait longest, and what `time_until` returns for it.
local function longest_wait(request)
  local worst, longest, only_running, last = 1, 0, 0, last_amounts(request)
  for p, w in ipairs(request.windows) do
    local fixed = request.fixed[p]
    local least = math.max(minimum(request, w, fixed), 1)
    local time, running = time_until(w, math.min(last[p], fixed + request.choices * least))
    if time == -1 then return p, -1, 0 end
    if time > longest then worst, longest, only_running = p, time, running end
  end
  return worst, longest, only_running
end

-- The candidate to reserve (0 for none) if the wanted one does not fit, its clamp (0 if it is not cut), and its amounts.
local function choose(request)
  local others, rooms = request.others, request.rooms
  for c = 1, #others[1] do
    local fits, amounts = true, {}
    for p = 1, #rooms do
      local amount = others[p][c]
      amounts[p] = amount
      if amount > 0 and amount > rooms[p] then fits = false break end
    end
    if fits then return c + 1, 0, amounts end
  end
  local clamp, amounts = cut(request)
  return amounts and #others[1] + 1 or 0, clamp, amounts
end

-- Decides about a request. `ReserveReply` in gateway/store/commands.py has the same fields in the same order.
local function serve(message, cheaper)
  local id, arrivals = message[1], message[5]
  local places, amounts, rooms, under = message[6], message[8], {}, {}
  local candidate, clamp, blocker, wait, only_running = 1, 0, 0, 0, 0
  for p = 1, #places do
    local w = windows[places[p]]
    local room = w.cap - w.settled - w.reserved
    under[p], rooms[p] = w, room
    w.arrivals = w.arrivals + arrivals
    if amounts[p] > 0 and amounts[p] > room then candidate = 0 end
  end
  if candidate == 0 then
    local request = {choices = message[2], minimum = message[3], soft = message[4], windows = under, fixed = message[7],
      wanted = amounts, others = cmsgpack.unpack(cheaper), rooms = rooms}
    blocker = find_blocker(request)
    candidate, clamp, amounts = choose(request)
    if candidate == 0 then blocker, wait, only_running = longest_wait(request) end
  end
  local blocker_settled, blocker_reserved, blocker_cap = 0, 0, 0
  if blocker > 0 then
    local w = under[blocker]
    read_rest(w)
    w.limited = w.limited + arrivals
    blocker_settled, blocker_reserved, blocker_cap = w.settled, w.reserved, w.cap
  end
  local tightest, room = 1, math.huge
  for p = 1, #under do
    local w, left = under[p], rooms[p]
    if amounts then
      hold(w, id, amounts[p], -1)
      left = left - amounts[p]
    end
    if left < room then tightest, room = p, left end
  end
  room = math.max(room, 0)
  local reset, cap = reset_time(under[tightest]), under[tightest].cap
  return {
    candidate,  -- the reserved candidate, counted from 1; 0 if the request was refused
    clamp,  -- completion tokens per choice that it was cut to; 0 if it was not cut
    tightest,  -- the window with the least room left after this request, counted from 1
    room,  -- tokens left in the tightest window
    reset,  -- milliseconds until nothing that is settled in the tightest window counts any more
    cap,  -- cap of the tightest window
    blocker,  -- the window that lacked the most room, counted from 1; 0 if none. If refused: that of the longest wait
    wait,  -- milliseconds until a refused request may fit; -1 if it never will
    only_running,  -- 1 if only the reservations of running requests keep a refused request from fitting; else 0
    blocker_settled,  -- settled tokens of the blocker
    blocker_reserved,  -- reserved tokens of the blocker, before this request
    blocker_cap,  -- cap of the blocker
    rooms,  -- tokens left in every window before this request; negative if it is over its cap
  }
end

local replies = {now, applied, known}
for i, message in ipairs(requests) do replies[i + 3] = serve(message, ARGV[i + 1]) end
for _, w in ipairs(windows) do save(w) end
return cmsgpack.pack(replies)
