-- The sliding token budget: what the scripts share. `sources` in gateway/store/connection.py puts clock.lua and this
-- file in front of each script, except pace.lua.
--
-- A window allows at most `cap` tokens in any `bucket_ms * buckets` milliseconds, for one holder of one budget.
-- It has two keys: a hash, and a sorted set of leases (reservation id -> when its lease expires, in milliseconds).
-- Tokens settled in bucket n count until bucket n + buckets is over: for the whole window, plus at most one bucket.
-- Time is the server's clock. Every script declares its keys, and all keys share one hash tag.

-- The fields of the hash. Redis holds these letters already, so they must stay.
local SETTLED = 'S'  -- settled tokens that still count
local RESERVED = 'V'  -- tokens reserved for running requests
local REACHED = 'T'  -- the bucket of the last change
local FIRST_END = 'L'  -- no lease expires before this time; 0 without leases
local NEWEST = 'B'  -- the newest bucket with settled tokens
local CREDIT = 'K'  -- tokens added by a top-up
local CREDIT_END = 'E'  -- when the top-up ends
local ARRIVALS = 'A'  -- requests since the hash was created
local LIMITED = 'D'  -- those of them that were shortened or refused because of this window
local SPENT = 'U'  -- tokens settled since the hash was created
local EXPECTED = 'X'  -- tokens that were predicted for the same completions
local TOUCHED = 'H'  -- when a gateway last changed the window
local GRACE_END = 'G'  -- until then no lease expires; 0 outside a period of grace
local MEMORY = 'P'  -- the price controller's memory, a text
-- Two more kinds of fields: <n> holds the tokens settled in bucket n. r<id> holds a reservation: "amount:reported"
-- until its lease expires, with -1 before the first report, and then "x<tokens>:<bucket>" (see `reclaim`).

local now = clock()
local position = 0

local function next_text()
  position = position + 1
  return ARGV[position]
end

local function next_number()
  return tonumber(next_text())
end

local function text(n)
  return string.format('%.0f', n)
end

-- Amount and reported tokens of a reservation that has not been expired; nil for another value.
local function parse_live(value)
  local amount, reported = string.match(value, '^(%d+):(%-?%d+)$')
  return tonumber(amount), tonumber(reported)
end

-- Tokens of an expired reservation, and the bucket in which they were settled; nil for another value.
local function parse_expired(value)
  local tokens, bucket = string.match(value, '^x(%d+):(%d+)$')
  return tonumber(tokens), tonumber(bucket)
end

local function add_settled(w, tokens)
  if tokens > 0 then
    w.settled, w.fresh, w.newest = w.settled + tokens, w.fresh + tokens, w.bucket
    w.spent = w.spent + tokens
  end
end

local function bucket_names(first, last)
  local names = {}
  for n = first, last do names[#names + 1] = text(n) end
  return names
end

-- Tokens in the buckets that have left the window by `bucket`, and the names of those buckets.
local function outdated(w, bucket)
  local names = bucket_names(w.reached - w.buckets, math.min(bucket - w.buckets - 1, w.reached))
  local tokens = 0
  if #names > 0 then
    for _, settled in ipairs(redis.call('HMGET', w.key, unpack(names))) do
      tokens = tokens + (tonumber(settled) or 0)
    end
  end
  return tokens, names
end

-- The window as it is stored.
local function read(key, leases, bucket_ms, buckets)
  local v = redis.call('HMGET', key, SETTLED, RESERVED, REACHED, FIRST_END, NEWEST, CREDIT, CREDIT_END, ARRIVALS,
    LIMITED, SPENT, EXPECTED, TOUCHED, GRACE_END)
  for i = 1, #v do v[i] = tonumber(v[i]) or 0 end
  local w = {key = key, leases = leases, bucket_ms = bucket_ms, buckets = buckets,
    settled = v[1], reserved = v[2], reached = v[3], first_end = v[4], newest = v[5], credit = v[6], credit_end = v[7],
    arrivals = v[8], limited = v[9], spent = v[10], expected = v[11], touched = v[12], grace_end = v[13]}
  w.bucket = math.max(math.floor(now / bucket_ms), w.reached)  -- if the clock was set back, time stands still here
  if now >= w.credit_end then w.credit = 0 end
  return w
end

-- Expires up to 200 reservations that have not been renewed: their gateway is dead, or cannot reach Redis.
-- For example, a request reserved 900 tokens ("900:-1") and its last renewal reported 250 ("900:250"). When its lease
-- expires, 250 tokens count as settled in the current bucket n and the field becomes "x250:n". A request that has never
-- reported counts in full, as 900. If the gateway was alive after all, its settlement takes those tokens back (see
-- `lift`) and settles what was really spent. The entry is kept until bucket n has left the window.
local function reclaim(w)
  local ids = redis.call('ZRANGE', w.leases, '-inf', now, 'BYSCORE', 'LIMIT', 0, 200)
  if #ids > 0 then
    local names = {}
    for i, id in ipairs(ids) do names[i] = 'r' .. id end
    local values = redis.call('HMGET', w.key, unpack(names))
    for i, id in ipairs(ids) do
      local amount, reported = parse_live(values[i] or '')
      if amount then
        local tokens = reported >= 0 and reported or amount
        w.reserved = w.reserved - amount
        add_settled(w, tokens)
        redis.call('HSET', w.key, names[i], 'x' .. text(tokens) .. ':' .. text(w.bucket))
        redis.call('ZADD', w.leases, (w.bucket + w.buckets + 1) * w.bucket_ms, id)
      else  -- it expired earlier, and its tokens have now left the window
        redis.call('HDEL', w.key, names[i])
        redis.call('ZREM', w.leases, id)
      end
    end
  end
  w.first_end = tonumber(redis.call('ZRANGE', w.leases, 0, 0, 'WITHSCORES')[2]) or 0
end

-- If no gateway touched this window for half a lease, Redis was probably unreachable. Give live gateways half a lease
-- to renew before expiring reservations. Do this once per outage; otherwise a rarely used window would never expire
-- the reservations of dead gateways.
local function give_grace(w)
  if w.touched > 0 and now - w.touched > w.lease / 2 and w.grace_end == 0 then
    w.grace_end = now + math.floor(w.lease / 2)
  end
  w.touched = now
  if now >= w.grace_end then w.grace_end = 0 end
end

-- The window as of now, ready to be changed. `save` writes the changes that are collected in its lists.
local function open(key, leases, bucket_ms, buckets, lease)
  local w = read(key, leases, bucket_ms, buckets)
  w.lease = lease
  w.fresh = 0  -- tokens settled by this call
  w.sets, w.drops = {}, {}  -- fields of the hash to write (field, value, ...) and to delete
  w.ends, w.gone = {}, {}  -- leases to write (end, id, ...) and ids of leases to delete
  w.lifted, w.held = {}, {}  -- by id: reservations lifted, and amounts reserved, by this call
  -- whether to extend the lives of the keys: once per bucket, and if the set of leases may be new
  w.expires = w.reached ~= w.bucket or w.reserved == 0
  if w.reached > 0 and w.reached < w.bucket then
    local tokens, names = outdated(w, w.bucket)
    redis.call('HDEL', key, unpack(names))
    w.settled = w.settled - tokens
  end
  w.reached = w.bucket
  give_grace(w)
  if w.grace_end == 0 and w.first_end > 0 and now >= w.first_end then reclaim(w) end
  return w
end

local function save(w)
  redis.call('HSET', w.key, SETTLED, w.settled, RESERVED, w.reserved, REACHED, w.reached, FIRST_END, w.first_end,
    NEWEST, w.newest, ARRIVALS, w.arrivals, LIMITED, w.limited, SPENT, w.spent, EXPECTED, w.expected,
    TOUCHED, w.touched, GRACE_END, w.grace_end, unpack(w.sets))
  if w.fresh > 0 then redis.call('HINCRBY', w.key, text(w.bucket), w.fresh) end
  if #w.ends > 0 then redis.call('ZADD', w.leases, unpack(w.ends)) end
  if #w.drops > 0 then
    redis.call('HDEL', w.key, unpack(w.drops))
    redis.call('ZREM', w.leases, unpack(w.gone))
  end
  if w.expires then
    local ttl = (w.buckets + 2) * w.bucket_ms + w.lease
    redis.call('PEXPIRE', w.key, ttl)
    redis.call('PEXPIRE', w.leases, ttl)
  end
end

-- Reserves an amount with a lease that begins now.
local function hold(w, id, amount, reported)
  local lease_end = now + w.lease
  w.reserved = w.reserved + amount - (w.held[id] or 0)  -- a redelivered batch may renew a reservation twice
  w.held[id] = amount
  w.sets[#w.sets + 1], w.sets[#w.sets + 2] = 'r' .. id, text(amount) .. ':' .. text(reported)
  w.ends[#w.ends + 1], w.ends[#w.ends + 2] = lease_end, id
  if w.first_end == 0 or lease_end < w.first_end then w.first_end = lease_end end
end

-- Takes back the tokens that a reservation holds or, if it has expired, the tokens that were settled for it. Returns
-- false if there is no such reservation.
local function lift(w, id)
  local value = not w.lifted[id] and redis.call('HGET', w.key, 'r' .. id)
  if not value then return false end
  w.lifted[id] = true
  local amount = parse_live(value)
  if amount then
    w.reserved = w.reserved - amount
    return true
  end
  local tokens, bucket = parse_expired(value)
  w.spent = w.spent - tokens
  if tokens > 0 and bucket >= w.bucket - w.buckets then
    w.settled = w.settled - tokens
    redis.call('HINCRBY', w.key, text(bucket), -tokens)
  end
  return true
end

-- Milliseconds until nothing that is settled counts any more.
local function reset_time(w)
  if w.reserved > 0 then return (w.buckets + 1) * w.bucket_ms end
  return w.settled > 0 and (w.newest + w.buckets + 1) * w.bucket_ms - now or 0
end

-- Opens the windows whose keys follow KEYS[1].
local function open_all(lease)
  local windows = {}
  for i = 1, next_number() do
    local bucket_ms, buckets = next_number(), next_number()
    windows[i] = open(KEYS[2 * i], KEYS[2 * i + 1], bucket_ms, buckets, lease)
  end
  return windows
end

-- Sets `cap` of each window: the number set by an admin (in the hash KEYS[1]), else the configured one from the
-- arguments; in either case plus the top-up.
local function read_caps(windows)
  local keys = {}
  for i, w in ipairs(windows) do keys[i] = w.key end
  local set = #keys > 0 and redis.call('HMGET', KEYS[1], unpack(keys)) or {}
  for i, w in ipairs(windows) do
    local configured = next_number()
    w.cap = (tonumber(set[i]) or configured) + w.credit
  end
end

-- Applies the journal entries that have not been applied before: `change(window, id, number, number)` for every part.
-- KEYS[1] holds `known`, the sequence number of the last applied entry. `confirmed` is the last one that the gateway
-- knows to be applied. If that is higher, this server has lost entries in a fail-over or a restart: then this applies
-- nothing, and the gateway redelivers what comes after `known`.
-- KEYS and ARGV: as for settle.lua.
-- Returns {now, applied, known}: applied is the number of entries applied, or -1 if entries were lost.
local function each_entry(change)
  local known, confirmed = tonumber(redis.call('GET', KEYS[1])) or 0, next_number()
  if known < confirmed then return {now, -1, known} end
  local windows, last, applied = open_all(next_number()), known, 0
  for _ = 1, next_number() do
    local sequence, id, parts = next_number(), next_text(), next_number()
    for _ = 1, parts do
      local w, first, second = windows[next_number()], next_number(), next_number()
      if sequence > last then change(w, id, first, second) end
    end
    if sequence > last then last, applied = sequence, applied + 1 end
  end
  for _, w in ipairs(windows) do save(w) end
  redis.call('SET', KEYS[1], text(last), 'PX', 86400000)
  return {now, applied, known}
end
