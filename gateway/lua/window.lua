-- The rolling token budget: what every script shares. `gateway/store.py` puts clock.lua and this in front of a phase.
--
-- A window is "at most CAP tokens in any MS * N milliseconds" for one holder of one budget. Two keys:
--   a hash: S tokens settled, V reserved, T bucket reached, L no lease ends before, B newest bucket with
--           tokens, K credit and E its end, <n> tokens of bucket n, P the memory of the pacing,
--           H when last changed, G until when no lease lapses;
--           r<id> a reservation "amount:reported", or "x<tokens>:<bucket>" once its lease ran out;
--           ever since the hash exists: A requests, D shortened or refused here, U spent, X expected tokens
--   a sorted set: reservation -> end of its lease
-- Tokens settled in bucket n count until bucket n + N is over: at least the whole window, at most one bucket
-- longer. Time is the server's. Every script declares its keys; all share one hash tag.

local now = clock()
local at = 0

local function word()
  at = at + 1
  return ARGV[at]
end

local function take()
  return tonumber(word())
end

local function text(n)
  return string.format('%.0f', n)
end

local function live(value)
  local amount, reported = string.match(value, '^(%d+):(%-?%d+)$')
  return tonumber(amount), tonumber(reported)
end

local function lapsed(value)
  local tokens, bucket = string.match(value, '^x(%d+):(%d+)$')
  return tonumber(tokens), tonumber(bucket)
end

local function add(w, tokens)
  if tokens > 0 then
    w.settled, w.fresh, w.newest = w.settled + tokens, w.fresh + tokens, w.bucket
    w.spent = w.spent + tokens
  end
end

local function names_between(first, last)
  local names = {}
  for n = first, last do names[#names + 1] = text(n) end
  return names
end

-- Tokens of buckets that have left the window by `bucket`, and those buckets' names.
local function outdated(w, bucket)
  local names = names_between(w.reached - w.n, math.min(bucket - w.n - 1, w.reached))
  local tokens = 0
  if #names > 0 then
    for _, found in ipairs(redis.call('HMGET', w.key, unpack(names))) do
      tokens = tokens + (tonumber(found) or 0)
    end
  end
  return tokens, names
end

local function read(key, leases, ms, n)
  local f = redis.call('HMGET', key, 'S', 'V', 'T', 'L', 'B', 'K', 'E', 'A', 'D', 'U', 'X', 'H', 'G')
  for i = 1, 13 do f[i] = tonumber(f[i]) or 0 end
  local w = {key = key, leases = leases, ms = ms, n = n, settled = f[1], reserved = f[2], reached = f[3],
    first = f[4], newest = f[5], credit = f[6], credit_end = f[7], asked = f[8], limited = f[9],
    spent = f[10], expected = f[11], heard = f[12], spared = f[13]}
  w.bucket = math.max(math.floor(now / ms), w.reached)  -- a clock that was set back stands still here
  if now >= w.credit_end then w.credit = 0 end
  return w
end

-- Reservations nobody renewed: what was last reported was spent; of one that never reported, all of it.
local function reclaim(w)
  local ids = redis.call('ZRANGE', w.leases, '-inf', now, 'BYSCORE', 'LIMIT', 0, 200)
  if #ids > 0 then
    local names = {}
    for i, id in ipairs(ids) do names[i] = 'r' .. id end
    local values = redis.call('HMGET', w.key, unpack(names))
    for i, id in ipairs(ids) do
      local amount, reported = live(values[i] or '')
      if amount then
        local spent = reported >= 0 and reported or amount
        w.reserved = w.reserved - amount
        add(w, spent)
        redis.call('HSET', w.key, names[i], 'x' .. text(spent) .. ':' .. text(w.bucket))
        redis.call('ZADD', w.leases, (w.bucket + w.n + 1) * w.ms, id)  -- until its tokens have left
      else
        redis.call('HDEL', w.key, names[i])
        redis.call('ZREM', w.leases, id)
      end
    end
  end
  w.first = tonumber(redis.call('ZRANGE', w.leases, 0, 0, 'WITHSCORES')[2]) or 0
end

-- Where nobody was heard for so long that even the living could not renew, Redis or the way to it was away: before
-- anything lapses they get the time to. Once, or rare callers would never see the end of the dead.
local function spare(w)
  if w.heard > 0 and now - w.heard > w.lease / 2 and w.spared == 0 then w.spared = now + math.floor(w.lease / 2) end
  w.heard = now
  if now >= w.spared then w.spared = 0 end
end

-- The window as of now, ready to be changed; `save` writes it.
local function open(key, leases, ms, n, lease)
  local w = read(key, leases, ms, n)
  w.lease, w.fresh, w.sets, w.ends, w.drops, w.gone = lease, 0, {}, {}, {}, {}
  w.lifted, w.held = {}, {}
  w.expires = w.reached ~= w.bucket or w.reserved == 0
  if w.reached > 0 and w.reached < w.bucket then
    local tokens, names = outdated(w, w.bucket)
    redis.call('HDEL', key, unpack(names))
    w.settled = w.settled - tokens
  end
  w.reached = w.bucket
  spare(w)
  if w.spared == 0 and w.first > 0 and now >= w.first then reclaim(w) end
  return w
end

local function save(w)
  redis.call('HSET', w.key, 'S', w.settled, 'V', w.reserved, 'T', w.reached, 'L', w.first, 'B', w.newest,
    'A', w.asked, 'D', w.limited, 'U', w.spent, 'X', w.expected, 'H', w.heard, 'G', w.spared,
    unpack(w.sets))
  if w.fresh > 0 then redis.call('HINCRBY', w.key, text(w.bucket), w.fresh) end
  if #w.ends > 0 then redis.call('ZADD', w.leases, unpack(w.ends)) end
  if #w.drops > 0 then
    redis.call('HDEL', w.key, unpack(w.drops))
    redis.call('ZREM', w.leases, unpack(w.gone))
  end
  if w.expires then
    local ttl = (w.n + 2) * w.ms + w.lease
    redis.call('PEXPIRE', w.key, ttl)
    redis.call('PEXPIRE', w.leases, ttl)
  end
end

local function hold(w, id, amount, reported)
  local ends = now + w.lease
  w.reserved = w.reserved + amount - (w.held[id] or 0)  -- a batch told again may renew one twice
  w.held[id] = amount
  w.sets[#w.sets + 1], w.sets[#w.sets + 2] = 'r' .. id, text(amount) .. ':' .. text(reported)
  w.ends[#w.ends + 1], w.ends[#w.ends + 2] = ends, id
  if w.first == 0 or ends < w.first then w.first = ends end
end

-- Undo what a reservation holds, or what it was counted as when its lease ran out; false if there is none.
local function lift(w, id)
  local value = not w.lifted[id] and redis.call('HGET', w.key, 'r' .. id)
  if not value then return false end
  w.lifted[id] = true
  local amount = live(value)
  if amount then
    w.reserved = w.reserved - amount
    return true
  end
  local tokens, bucket = lapsed(value)
  w.spent = w.spent - tokens
  if tokens > 0 and bucket >= w.bucket - w.n then
    w.settled = w.settled - tokens
    redis.call('HINCRBY', w.key, text(bucket), -tokens)
  end
  return true
end

-- Milliseconds until nothing of what is settled counts any more.
local function reset(w)
  if w.reserved > 0 then return (w.n + 1) * w.ms end
  return w.settled > 0 and (w.newest + w.n + 1) * w.ms - now or 0
end

local function open_all(lease)
  local all = {}
  for i = 1, take() do
    local ms, n = take(), take()
    all[i] = open(KEYS[2 * i], KEYS[2 * i + 1], ms, n, lease)
  end
  return all
end

local function caps(all)
  local keys = {}
  for i, w in ipairs(all) do keys[i] = w.key end
  local set = #keys > 0 and redis.call('HMGET', KEYS[1], unpack(keys)) or {}
  for i, w in ipairs(all) do
    local configured = take()
    w.cap = (tonumber(set[i]) or configured) + w.credit
  end
end

-- Applies `change(window, id, number, number)` for every part of the journal's entries not delivered before; saves
-- all windows. `previous` is the last entry that was acknowledged: a server that does not know of it has lost what it
-- had acknowledged, in a fail-over or a restart, and must be told that first. ARGV: previous, then as for settling.
-- Returns {now, entries applied, or -1 where some must be told first, the last entry known before}.
local function each_entry(change)
  local known, previous = tonumber(redis.call('GET', KEYS[1])) or 0, take()
  if known < previous then return {now, -1, known} end
  local all, last, applied = open_all(take()), known, 0
  for _ = 1, take() do
    local sequence, id, parts = take(), word(), take()
    for _ = 1, parts do
      local w, first, second = all[take()], take(), take()
      if sequence > last then change(w, id, first, second) end
    end
    if sequence > last then last, applied = sequence, applied + 1 end
  end
  for _, w in ipairs(all) do save(w) end
  redis.call('SET', KEYS[1], text(last), 'PX', 86400000)
  return {now, applied, known}
end
