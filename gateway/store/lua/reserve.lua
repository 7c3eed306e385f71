-- Reserves tokens for a batch of requests, each in one or more windows.
-- KEYS: hash of the caps set by an admin, then hash and leases of every window.
-- ARGV: lease, deadline (0 for none), number of windows, (bucket_ms, buckets) of each, cap of each, number of
--   requests, then for each request: id, choices, minimum, soft, arrivals, number of candidates, number of its
--   windows, (window, fixed) for each of those, then the amounts of each candidate in each of those windows, the
--   wanted candidate first and then ever cheaper ones.
-- Returns {now, reply...}, one reply per request; {now} alone after the deadline.
--
-- Each request gets the first candidate that fits into all its windows. If none fits, the last one is cut to the most
-- completion tokens per choice (`clamp`) that fit, but not below `minimum`. For example, a request has candidates of
-- 900, 500 and 100 tokens and a minimum of 40. With room for 600 tokens it gets the second; with room for 60 the
-- third, cut to 60; with room for 30 it is refused.
-- A soft request also accepts less than `minimum`, if even the empty window could not hold that much.

local RUNNING_WAIT = 1000  -- milliseconds until a new attempt if running requests are in the way: they end at any time

local lease, deadline = next_number(), next_number()
if deadline > 0 and now > deadline then return {now} end  -- the callers have given up: reserve nothing for them
local windows = open_all(lease)
read_caps(windows)

local function room_in(w)
  return w.cap - w.settled - w.reserved
end

local function fits_all(request, amounts)
  for p, w in ipairs(request.windows) do
    if amounts[p] > 0 and amounts[p] > room_in(w) then return false end
  end
  return true
end

-- Completion tokens per choice below which a request is not cut because of a window.
local function minimum(request, p)
  if request.soft == 0 then return request.minimum end
  return math.min(request.minimum, math.floor((request.windows[p].cap - request.fixed[p]) / request.choices))
end

-- The clamp that makes the last candidate fit, and the amounts that remain; nil if it is less than the minimum.
local function cut(request)
  local clamp, least = math.huge, request.minimum
  for p, w in ipairs(request.windows) do
    clamp = math.min(clamp, math.floor((room_in(w) - request.fixed[p]) / request.choices))
    least = math.min(least, minimum(request, p))
  end
  if clamp < least or clamp < 1 or clamp == math.huge then return nil end
  local amounts = {}
  for p in ipairs(request.windows) do
    amounts[p] = math.min(request.last_amounts[p], request.fixed[p] + request.choices * clamp)
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
  for p, w in ipairs(request.windows) do
    local missing = request.wanted_amounts[p] - room_in(w)
    if request.wanted_amounts[p] > 0 and missing > most then worst, most = p, missing end
  end
  return worst
end

-- The window that makes a refused request wait longest, and what `time_until` returns for it.
local function longest_wait(request)
  local worst, longest, only_running = 1, 0, 0
  for p, w in ipairs(request.windows) do
    local least = math.max(minimum(request, p), 1)
    local time, running = time_until(w, math.min(request.last_amounts[p], request.fixed[p] + request.choices * least))
    if time == -1 then return p, -1, 0 end
    if time > longest then worst, longest, only_running = p, time, running end
  end
  return worst, longest, only_running
end

local function next_request()
  local request = {id = next_text(), choices = next_number(), minimum = next_number(), soft = next_number(),
    arrivals = next_number(), windows = {}, fixed = {}, candidates = {}}
  local candidates = next_number()
  for p = 1, next_number() do
    request.windows[p], request.fixed[p] = windows[next_number()], next_number()
  end
  for c = 1, candidates do
    local amounts = {}
    for p = 1, #request.windows do amounts[p] = next_number() end
    request.candidates[c] = amounts
  end
  request.wanted_amounts = request.candidates[1]
  request.last_amounts = request.candidates[candidates]
  return request
end

-- The candidate to reserve (0 for none), its clamp (0 if it is not cut), and its amounts.
local function choose(request)
  for c, amounts in ipairs(request.candidates) do
    if fits_all(request, amounts) then return c, 0, amounts end
  end
  local clamp, amounts = cut(request)
  if clamp then return #request.candidates, clamp, amounts end
  return 0, 0, nil
end

-- Decides about a request. `ReserveReply` in gateway/store/commands.py has the same fields in the same order.
local function serve(request)
  for _, w in ipairs(request.windows) do w.arrivals = w.arrivals + request.arrivals end
  local blocker, wait, only_running = find_blocker(request), 0, 0
  local candidate, clamp, amounts = choose(request)
  if candidate == 0 then blocker, wait, only_running = longest_wait(request) end
  local blocker_settled, blocker_reserved, blocker_cap = 0, 0, 0
  if blocker > 0 then
    local w = request.windows[blocker]
    w.limited = w.limited + request.arrivals
    blocker_settled, blocker_reserved, blocker_cap = w.settled, w.reserved, w.cap
  end
  local tightest, room, rooms = 1, math.huge, {}
  for p, w in ipairs(request.windows) do
    rooms[p] = room_in(w)
    if amounts then hold(w, request.id, amounts[p], -1) end
    local left = room_in(w)
    if left < room then tightest, room = p, left end
  end
  room = math.max(room, 0)
  local reset, cap = reset_time(request.windows[tightest]), request.windows[tightest].cap
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

local replies = {now}
for i = 1, next_number() do replies[i + 1] = serve(next_request()) end
for _, w in ipairs(windows) do save(w) end
return replies
