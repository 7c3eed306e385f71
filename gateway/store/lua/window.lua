-- The sliding token budget: what the scripts share. `sources` in gateway/store/scripts.py puts clock.lua, call.lua and
-- this file in front of each script, except pace.lua.
--
-- A window allows at most `cap` tokens in any `bucket_ms * buckets` milliseconds, for one holder of one budget.
-- It has two keys: a hash, and a sorted set of leases (reservation id -> when its lease expires, in milliseconds).
-- Tokens settled in bucket n count until bucket n + buckets is over: for the whole window, plus at most one bucket.
-- Every script declares its keys, and all keys share one hash tag.
--
-- Time is the server's clock, but the time of a window never goes back. If the clock is set back by no more than the
-- length of the window, the window's time stands still until the clock has caught up. If it is set back by more, for
-- example because it was a day ahead for a moment, the window's time continues from where it is: `ahead` holds the
-- difference until the clock has caught up. In either case no token and no lease ends before its time, and none is held
-- for longer than one more window.

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
local AHEAD = 'O'  -- milliseconds that the window's time is ahead of the clock
local ERA = 'R'  -- how often the window was reset
-- Two more kinds of fields: <n> holds the tokens settled in bucket n. r<id> holds a reservation: "amount:reported"
-- until its lease expires, with -1 before the first report, and then "x<tokens>:<bucket>:<era>" (see `reclaim`); the
-- era is left out before the first reset.

local may_expire = 200  -- reservations that this call may still expire, so that Redis is not blocked for long

local function text(n)
  return string.format('%.0f', n)
end

local function put(list, name, value)
  local n = #list
  list[n + 1], list[n + 2] = name, value
end

-- Amount and reported tokens of a reservation that has not been expired; nil for another value.
local function parse_live(value)
  local amount, reported = string.match(value, '^(%d+):(%-?%d+)$')
  return tonumber(amount), tonumber(reported)
end

-- Tokens of an expired reservation, and the bucket and the era in which they were settled; nil for another value.
local function parse_expired(value)
  local tokens, bucket, era = string.match(value, '^x(%d+):(%d+):?(%d*)$')
  return tonumber(tokens), tonumber(bucket), tonumber(era) or 0
end

local function format_expired(w, tokens)
  local era = w.era > 0 and ':' .. text(w.era) or ''
  return 'x' .. text(tokens) .. ':' .. text(w.bucket) .. era
end

-- Reads the fields that few calls need, unless that was done before.
local function read_rest(w)
  if w.rest then return end
  local v = redis.call('HMGET', w.key, LIMITED, CREDIT_END, ERA)
  w.rest, w.limited, w.credit_end, w.era = v, tonumber(v[1]) or 0, tonumber(v[2]) or 0, tonumber(v[3]) or 0
end

-- Reads the counts of what was settled, unless that was done before. v: the stored values, if they are known.
local function read_tally(w, v)
  if w.tally then return end
  v = v or redis.call('HMGET', w.key, SPENT, EXPECTED)
  w.spent, w.expected = tonumber(v[1]) or 0, tonumber(v[2]) or 0
  w.tally = {w.spent, w.expected}
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

-- Sets the window's time (`now`, and its `bucket`), and what it would be if it could go back (`unheld`).
local function set_time(w)
  local latest = math.max(w.touched, w.reached * w.bucket_ms)
  if now >= latest then
    w.ahead = 0
  elseif latest - now - w.ahead > w.bucket_ms * w.buckets then
    w.ahead = latest - now
  end
  w.unheld = now + w.ahead
  w.now = math.max(w.unheld, latest)
  w.bucket = math.floor(w.now / w.bucket_ms)
end

-- The window as it is stored. more: names of further fields, whose values are in `stored` from 11 on. Redis hands over
-- up to 16 values at less cost, so what few calls need is read when they need it.
local function read(i, more)
  local key = KEYS[2 * i]
  local v = redis.call('HMGET', key, SETTLED, RESERVED, REACHED, TOUCHED, FIRST_END, NEWEST, GRACE_END, AHEAD, ARRIVALS,
    CREDIT, unpack(more))
  for field = 1, 10 do v[field] = tonumber(v[field]) or 0 end
  local w = {key = key, leases = KEYS[2 * i + 1], bucket_ms = lengths[3 * i - 2], buckets = lengths[3 * i - 1],
    stored = v, settled = v[1], reserved = v[2], reached = v[3], touched = v[4], first_end = v[5], newest = v[6],
    grace_end = v[7], ahead = v[8], arrivals = v[9], credit = v[10], cap = 0, now = 0, bucket = 0, unheld = 0,
    fresh = 0,  -- tokens settled by this call in the current bucket
    sets = {}, drops = {},  -- fields of the hash to write (field, value, ...) and to delete
    ends = {}, gone = {},  -- leases to write (end, id, ...) and ids of leases to delete
    known = {}, held = {}}  -- by id: what `lift` is to find (false: nothing), and amounts reserved by this call
  set_time(w)
  if w.credit > 0 then
    read_rest(w)
    if w.now >= w.credit_end then w.credit = 0 end
  end
  return w
end

-- Expires reservations that have not been renewed: their gateway is dead, or cannot reach Redis. Those that are too many
-- for this call are left to later ones.
-- For example, a request reserved 900 tokens ("900:-1") and its last renewal reported 250 ("900:250"). When its lease
-- expires, 250 tokens count as settled in the current bucket n and the field becomes "x250:n". A request that has never
-- reported counts in full, as 900. If the gateway was alive after all, its settlement takes those tokens back (see
-- `lift`) and settles what was really spent. The entry is kept until bucket n has left the window.
local function reclaim(w)
  local ids = redis.call('ZRANGE', w.leases, '-inf', w.now, 'BYSCORE', 'LIMIT', 0, may_expire)
  may_expire = may_expire - #ids
  if #ids > 0 then
    read_rest(w)
    read_tally(w)
    local names, sets, ends, drops, gone = {}, {}, {}, {}, {}
    for i, id in ipairs(ids) do names[i] = 'r' .. id end
    for i, value in ipairs(redis.call('HMGET', w.key, unpack(names))) do
      local amount, reported = parse_live(value or '')
      if amount then
        local tokens = reported >= 0 and reported or amount
        w.reserved = w.reserved - amount
        add_settled(w, tokens)
        w.known[ids[i]] = format_expired(w, tokens)
        put(sets, names[i], w.known[ids[i]])
        put(ends, (w.bucket + w.buckets + 1) * w.bucket_ms, ids[i])
      else  -- it expired earlier, and its tokens have now left the window
        drops[#drops + 1], gone[#gone + 1] = names[i], ids[i]
        w.known[ids[i]] = false
      end
    end
    if #sets > 0 then
      redis.call('HSET', w.key, unpack(sets))
      redis.call('ZADD', w.leases, unpack(ends))
    end
    if #drops > 0 then
      redis.call('HDEL', w.key, unpack(drops))
      redis.call('ZREM', w.leases, unpack(gone))
    end
  end
  w.first_end = tonumber(redis.call('ZRANGE', w.leases, 0, 0, 'WITHSCORES')[2]) or 0
end

-- If no gateway touched this window for half a lease, Redis was probably unreachable. Give live gateways half a lease
-- to renew before expiring reservations. Do this once per outage; otherwise a rarely used window would never expire
-- the reservations of dead gateways.
local function give_grace(w)
  if w.touched > 0 and w.now - w.touched > lease / 2 and w.grace_end == 0 then
    w.grace_end = w.now + math.floor(lease / 2)
  end
  w.touched = w.now
  if w.now >= w.grace_end then w.grace_end = 0 end
end

-- The window as of now, ready to be changed. `save` writes the changes that are collected in its lists.
-- ids: reservations that this call may lift; nil if it only reserves.
local function open(i, ids)
  local more, bucket = {}, nil
  if ids then
    bucket = math.floor(now / lengths[3 * i - 2])
    more = {SPENT, EXPECTED, text(bucket)}
    for j, id in ipairs(ids) do more[j + 3] = 'r' .. id end
  end
  local w = read(i, more)
  if ids then
    local v = w.stored
    read_tally(w, {v[11], v[12]})
    if bucket == w.bucket then w.count = tonumber(v[13]) or 0 end
    for j, id in ipairs(ids) do w.known[id] = v[j + 13] end
  end
  local standing = w.now > w.unheld
  -- Which keys are to live longer: both once per bucket and while time stands still, the leases also if they may be new.
  w.lives = w.reached ~= w.bucket or standing
  w.leases_live = w.lives or w.reserved == 0
  if w.reached > 0 and w.reached < w.bucket then
    local tokens, names = outdated(w, w.bucket)
    redis.call('HDEL', w.key, unpack(names))
    w.settled = w.settled - tokens
  end
  w.reached = w.bucket
  give_grace(w)
  if w.grace_end == 0 and w.first_end > 0 and w.now >= w.first_end and may_expire > 0 then reclaim(w) end
  return w
end

-- Writes what has changed in a window. A new window gets all fields, because Redis finds a field faster than it finds
-- that there is none.
local function save(w)
  local stored, sets, tally = w.stored, w.sets, w.tally
  if stored[3] == 0 then
    redis.call('HSET', w.key, SETTLED, 0, RESERVED, 0, FIRST_END, 0, NEWEST, 0, ARRIVALS, 0, LIMITED, 0, SPENT, 0,
      EXPECTED, 0, GRACE_END, 0, AHEAD, 0, CREDIT, 0, CREDIT_END, 0, ERA, 0)
  end
  if w.settled ~= stored[1] then put(sets, SETTLED, w.settled) end
  if w.reserved ~= stored[2] then put(sets, RESERVED, w.reserved) end
  if w.reached ~= stored[3] then put(sets, REACHED, w.reached) end
  if w.first_end ~= stored[5] then put(sets, FIRST_END, w.first_end) end
  if w.newest ~= stored[6] then put(sets, NEWEST, w.newest) end
  if w.grace_end ~= stored[7] then put(sets, GRACE_END, w.grace_end) end
  if w.ahead ~= stored[8] then put(sets, AHEAD, w.ahead) end
  if w.arrivals ~= stored[9] then put(sets, ARRIVALS, w.arrivals) end
  if w.rest and w.limited ~= (tonumber(w.rest[1]) or 0) then put(sets, LIMITED, w.limited) end
  if tally then
    if w.spent ~= tally[1] then put(sets, SPENT, w.spent) end
    if w.expected ~= tally[2] then put(sets, EXPECTED, w.expected) end
  end
  if w.fresh ~= 0 then
    if w.count then
      put(sets, text(w.bucket), w.count + w.fresh)
    else
      redis.call('HINCRBY', w.key, text(w.bucket), w.fresh)
    end
  end
  redis.call('HSET', w.key, TOUCHED, w.touched, unpack(sets))
  if #w.ends > 0 then redis.call('ZADD', w.leases, unpack(w.ends)) end
  if #w.drops > 0 then
    redis.call('HDEL', w.key, unpack(w.drops))
    redis.call('ZREM', w.leases, unpack(w.gone))
  end
  if w.leases_live then
    local ttl = (w.buckets + 2) * w.bucket_ms + lease
    if w.lives then redis.call('PEXPIRE', w.key, ttl) end
    redis.call('PEXPIRE', w.leases, ttl)
  end
end

-- Reserves an amount with a lease that begins now.
local function hold(w, id, amount, reported)
  local lease_end = w.now + lease
  w.reserved = w.reserved + amount - (w.held[id] or 0)  -- a redelivered batch may renew a reservation twice
  w.held[id] = amount
  put(w.sets, 'r' .. id, string.format('%.0f:%.0f', amount, reported))
  put(w.ends, lease_end, id)
  if w.first_end == 0 or lease_end < w.first_end then w.first_end = lease_end end
end

-- Takes back the tokens that a reservation holds or, if it has expired, the tokens that were settled for it. Returns
-- false if there is no such reservation.
local function lift(w, id)
  local value = w.known[id]
  if not value then return false end
  w.known[id] = false
  local amount = parse_live(value)
  if amount then
    w.reserved = w.reserved - amount
    return true
  end
  read_rest(w)
  local tokens, bucket, era = parse_expired(value)
  w.spent = w.spent - tokens
  if tokens > 0 and bucket >= w.bucket - w.buckets and era == w.era then  -- a reset has forgotten older ones
    w.settled = w.settled - tokens
    if bucket == w.bucket then
      w.fresh = w.fresh - tokens
    else
      redis.call('HINCRBY', w.key, text(bucket), -tokens)
    end
  end
  return true
end

-- Milliseconds until nothing that is settled counts any more.
local function reset_time(w)
  if w.reserved > 0 then return (w.buckets + 1) * w.bucket_ms end
  return w.settled > 0 and (w.newest + w.buckets + 1) * w.bucket_ms - w.unheld or 0
end

-- Sets `cap` of each window: the number set by an admin (in the hash KEYS[1]), else the configured one; in either case
-- plus the top-up.
local function read_caps(windows)
  local keys = {}
  for i, w in ipairs(windows) do keys[i] = w.key end
  local set = #keys > 0 and redis.call('HMGET', KEYS[1], unpack(keys)) or {}
  for i, w in ipairs(windows) do w.cap = (tonumber(set[i]) or lengths[3 * i]) + w.credit end
end

-- By window, the ids of the reservations that the journal entries are about.
local function ids_by_window(entries)
  local ids = {}
  for i = 1, #lengths / 3 do ids[i] = {} end
  for _, entry in ipairs(entries) do
    for p = 3, #entry, 3 do
      local of = ids[entry[p]]
      of[#of + 1] = entry[2]
    end
  end
  return ids
end

-- Applies the journal entries that have not been applied before: `change(window, id, number, number)` for every part.
-- key: of `known`, the sequence number of the last applied entry. `confirmed` is the last one that the gateway knows to
-- be applied. If that is higher, this server has lost entries in a fail-over or a restart: then this applies nothing,
-- and the gateway redelivers what comes after `known`.
-- Each entry is a list: sequence, id, and (window, number, number) for each part.
-- Returns applied and known: applied is the number of entries applied, or -1 if entries were lost.
local function apply(entries, windows, key, confirmed, change)
  local known = tonumber(redis.call('GET', key)) or 0
  if known < confirmed then return -1, known end
  local last, applied = known, 0
  for _, entry in ipairs(entries) do
    local sequence, id = entry[1], entry[2]
    if sequence > last then
      for p = 3, #entry, 3 do change(windows[entry[p]], id, entry[p + 1], entry[p + 2]) end
      last, applied = sequence, applied + 1
    end
  end
  redis.call('SET', key, text(last), 'PX', 86400000)
  return applied, known
end
