-- KEYS: caps set by hand, then hash and leases of every window.
-- ARGV: lease, deadline (0: none), windows, (ms, n) each, cap each, requests, then for each request:
--   id, choices, minimum, soft, arrivals, wanted, candidates, parts, (window, fixed) each, then
--   candidates x parts amounts, dearest candidate first
-- Reserved is the first candidate from `wanted` on that fits all its windows. If none does, the last is cut to
-- a clamp: fixed + choices x clamp tokens, clamp >= minimum, or, where `soft`, what an empty window would hold.
-- Returns {now, reply...}, one reply a request: candidate (0 refused), clamp (0 none), the tightest window, its
-- room, reset, cap; the window that blocked the wanted candidate (0 none), wait, its settled, reserved, cap;
-- and of all candidates those that had room, as bits.
local lease, deadline = take(), take()
if deadline > 0 and now > deadline then return {now} end  -- its callers have given up: hold nothing for them
local all = open_all(lease)
caps(all)

local function room(w)
  return w.cap - w.settled - w.reserved
end

local function fits(windows, amounts)
  for p, w in ipairs(windows) do
    if amounts[p] > 0 and amounts[p] > room(w) then return false end
  end
  return true
end

local function clamp_for(ask)
  local clamp, least = math.huge, ask.minimum
  for p, w in ipairs(ask.windows) do
    clamp = math.min(clamp, math.floor((room(w) - ask.fixed[p]) / ask.choices))
    if ask.soft == 1 then least = math.min(least, math.floor((w.cap - ask.fixed[p]) / ask.choices)) end
  end
  if clamp < least or clamp < 1 or clamp == math.huge then return nil end
  local amounts = {}
  for p in ipairs(ask.windows) do
    amounts[p] = math.min(ask.last[p], ask.fixed[p] + ask.choices * clamp)
  end
  return clamp, amounts
end

-- Milliseconds until `amount` fits; -1 never. What is reserved now may come free at any moment: one second.
local function wait(w, amount)
  local short = amount - room(w)
  if short <= 0 then return 0 end
  if amount > w.cap then return -1 end
  local first = w.bucket - w.n
  for i, found in ipairs(redis.call('HMGET', w.key, unpack(names_between(first, w.bucket)))) do
    short = short - (tonumber(found) or 0)
    if first + i - 1 == w.bucket then short = short - w.fresh end
    if short <= 0 then return (first + i + w.n) * w.ms - now end
  end
  return 1000
end

local function blocker(ask)
  local worst, most = 0, 0
  for p, w in ipairs(ask.windows) do
    local short = ask.wanted[p] - room(w)
    if short > most then worst, most = p, short end
  end
  return worst
end

-- The window that keeps a refused request waiting longest, and for how long; -1 is for ever.
local function longest_wait(ask)
  local worst, longest = 1, 0
  for p, w in ipairs(ask.windows) do
    local least = ask.minimum
    if ask.soft == 1 then least = math.min(least, math.floor((w.cap - ask.fixed[p]) / ask.choices)) end
    local time = wait(w, math.min(ask.last[p], ask.fixed[p] + ask.choices * math.max(least, 1)))
    if time == -1 then return p, -1 end
    if time > longest then worst, longest = p, time end
  end
  return worst, longest
end

local function read_ask()
  local ask = {id = word(), choices = take(), minimum = take(), soft = take(), arrivals = take(),
    first = take(), windows = {}, fixed = {}}
  local candidates = take()
  for p = 1, take() do
    ask.windows[p], ask.fixed[p] = all[take()], take()
  end
  ask.candidates = {}
  for c = 1, candidates do
    local amounts = {}
    for p = 1, #ask.windows do amounts[p] = take() end
    ask.candidates[c] = amounts
  end
  ask.wanted, ask.last = ask.candidates[ask.first], ask.candidates[candidates]
  return ask
end

local function grant(ask)
  local granted, bits = 0, 0
  for c, amounts in ipairs(ask.candidates) do
    if fits(ask.windows, amounts) then
      bits = bits + 2 ^ (c - 1)
      if granted == 0 and c >= ask.first then granted = c end
    end
  end
  if granted > 0 then return granted, 0, ask.candidates[granted], bits end
  local clamp, amounts = clamp_for(ask)
  if clamp then return #ask.candidates, clamp, amounts, bits end
  return 0, 0, nil, bits
end

local function serve(ask)
  for _, w in ipairs(ask.windows) do w.asked = w.asked + ask.arrivals end
  local blocked, time, cause = blocker(ask), 0, {0, 0, 0}
  local granted, clamp, amounts, bits = grant(ask)
  if granted == 0 then blocked, time = longest_wait(ask) end
  if blocked > 0 then
    local w = ask.windows[blocked]
    w.limited = w.limited + ask.arrivals
    cause = {w.settled, w.reserved, w.cap}
  end
  local tightest, least = 1, math.huge
  for p, w in ipairs(ask.windows) do
    if amounts then hold(w, ask.id, amounts[p], -1) end
    if room(w) < least then tightest, least = p, room(w) end
  end
  local w = ask.windows[tightest]
  return {granted, clamp, tightest, math.max(least, 0), reset(w), w.cap, blocked, time, cause[1], cause[2],
    cause[3], bits}
end

local replies = {now}
for i = 1, take() do replies[i + 1] = serve(read_ask()) end
for _, w in ipairs(all) do save(w) end
return replies
