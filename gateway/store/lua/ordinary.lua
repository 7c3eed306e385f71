-- The exchange in the ordinary case, at a third of the cost: every request gets what it wants, and every reservation that
-- ends is live. A window is ordinary if it was changed before in this bucket and half a lease, its clock was not set
-- back, none of its leases has ended, and no top-up counts.
-- It changes the windows as exchange.lua does, whose rules are in front of it. It returns nil, and has written nothing, if
-- anything is not ordinary.

-- Reads the windows. names: the fields of the reservations that end, by window.
local function ordinary_windows(names)
  local windows = {}
  for i = 1, #names do
    local bucket, key = string.format('%.0f', math.floor(now / lengths[3 * i - 2])), KEYS[2 * i]
    local v = redis.call('HMGET', key, REACHED, GRACE_END, AHEAD, CREDIT, TOUCHED, FIRST_END, SETTLED, RESERVED, ARRIVALS,
      NEWEST, SPENT, EXPECTED, bucket, unpack(names[i]))
    if v[1] ~= bucket or v[2] ~= '0' or v[3] ~= '0' or v[4] ~= '0' then return nil end
    local touched, first_end, reserved = tonumber(v[5]) or 0, tonumber(v[6]) or 0, tonumber(v[8]) or 0
    if now < touched or now - touched > lease / 2 or (first_end > 0 and now >= first_end) then return nil end
    windows[i] = {bucket = bucket, stored = v, at = 13, first_end = first_end, settled = tonumber(v[7]) or 0,
      reserved = reserved, was_reserved = reserved, cap = 0, fresh = 0, expected = 0, arrivals = 0,
      sets = {key, TOUCHED, now}, ends = {KEYS[2 * i + 1]}}
  end
  return windows
end

-- Takes back what a reservation holds, and settles what was spent. Returns false if it is not live.
local function settle_live(windows, entry)
  for p = 3, #entry, 3 do
    local w = windows[entry[p]]
    w.at = w.at + 1
    local amount = string.match(w.stored[w.at] or '', '^(%d+):')
    if not amount then return false end
    w.reserved, w.settled, w.fresh = w.reserved - amount, w.settled + entry[p + 1], w.fresh + entry[p + 1]
    w.expected = w.expected + entry[p + 2]
  end
  return true
end

-- Reserves what a request wants. Returns the reply, or nil if it does not fit.
local function reserve_wanted(windows, request)
  local id, arrivals, places, amounts, rooms = request[1], request[5], request[6], request[8], {}
  local tightest, least = 1, math.huge
  for p = 1, #places do
    local w, amount = windows[places[p]], amounts[p]
    local room = w.cap - w.settled - w.reserved
    if amount > 0 and amount > room then return nil end
    rooms[p] = room
    if room - amount < least then tightest, least = p, room - amount end
    w.reserved, w.arrivals = w.reserved + amount, w.arrivals + arrivals
    local sets, ends = w.sets, w.ends
    local n = #sets
    sets[n + 1], sets[n + 2] = 'r' .. id, string.format('%.0f:-1', amount)
    n = #ends
    ends[n + 1], ends[n + 2] = now + lease, id
  end
  local i = places[tightest]
  local w, reset = windows[i], 0
  if w.reserved > 0 then
    reset = (lengths[3 * i - 1] + 1) * lengths[3 * i - 2]
  elseif w.settled > 0 then
    local newest = w.fresh > 0 and w.bucket or w.stored[10]
    reset = (newest + lengths[3 * i - 1] + 1) * lengths[3 * i - 2] - now
  end
  return {1, 0, tightest, math.max(least, 0), reset, w.cap, 0, 0, 0, 0, 0, 0, rooms}
end

local function save_ordinary(i, w, gone, drops)
  local sets, ends, n = w.sets, w.ends, #w.sets
  if w.fresh > 0 then
    local v, bucket, fresh = w.stored, w.bucket, w.fresh
    sets[n + 1], sets[n + 2], sets[n + 3], sets[n + 4] = bucket, (v[13] or 0) + fresh, NEWEST, bucket
    sets[n + 5], sets[n + 6], sets[n + 7], sets[n + 8] = SPENT, (v[11] or 0) + fresh, SETTLED, w.settled
    n = n + 8
  end
  if w.expected ~= 0 then sets[n + 1], sets[n + 2], n = EXPECTED, (w.stored[12] or 0) + w.expected, n + 2 end
  if w.arrivals ~= 0 then sets[n + 1], sets[n + 2], n = ARRIVALS, (w.stored[9] or 0) + w.arrivals, n + 2 end
  if w.reserved ~= w.was_reserved then sets[n + 1], sets[n + 2], n = RESERVED, w.reserved, n + 2 end
  if #ends > 1 and (w.first_end == 0 or now + lease < w.first_end) then
    sets[n + 1], sets[n + 2] = FIRST_END, now + lease
  end
  redis.call('HSET', unpack(sets))
  if #ends > 1 then redis.call('ZADD', unpack(ends)) end
  if #drops > 0 then
    redis.call('HDEL', w.sets[1], unpack(drops))
    redis.call('ZREM', ends[1], unpack(gone))
  end
  if w.was_reserved == 0 then
    redis.call('PEXPIRE', ends[1], (lengths[3 * i - 1] + 2) * lengths[3 * i - 2] + lease)
  end
end

local function ordinary()
  local confirmed, entries, deadline, requests = call[3], call[4], call[5], call[6]
  if deadline > 0 and now > deadline then return nil end
  local known, last = 0, 0
  if confirmed >= 0 then
    known = tonumber(redis.call('GET', KEYS[#KEYS])) or 0
    if known < confirmed or (#entries > 0 and entries[1][1] <= known) then return nil end
    last = known
  end
  local fields, ids, seen = {}, {}, {}
  for i = 1, #lengths / 3 do fields[i], ids[i] = {}, {} end
  for e = 1, #entries do
    local entry = entries[e]
    local id = entry[2]
    if seen[id] then return nil end
    seen[id], last = true, entry[1]
    for p = 3, #entry, 3 do
      local i = entry[p]
      local n = #ids[i] + 1
      fields[i][n], ids[i][n] = 'r' .. id, id
    end
  end
  local windows = ordinary_windows(fields)
  if not windows then return nil end
  for e = 1, #entries do
    if not settle_live(windows, entries[e]) then return nil end
  end
  local replies = {now, #entries, known}
  if #requests > 0 then
    local keys = {}
    for i = 1, #windows do keys[i] = KEYS[2 * i] end
    local caps = redis.call('HMGET', KEYS[1], unpack(keys))
    for i = 1, #windows do windows[i].cap = tonumber(caps[i]) or lengths[3 * i] end
    for r = 1, #requests do
      local reply = reserve_wanted(windows, requests[r])
      if not reply then return nil end
      replies[r + 3] = reply
    end
  end
  if confirmed >= 0 then redis.call('SET', KEYS[#KEYS], last, 'PX', 86400000) end
  for i = 1, #windows do save_ordinary(i, windows[i], ids[i], fields[i]) end
  return replies
end

local done = ordinary()
if done then return cmsgpack.pack(done) end
