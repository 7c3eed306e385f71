-- Forgets the settled tokens and the top-up of a window. Reservations stay.
-- KEYS: unused, hash and leases of the window.
--
-- The work does not grow with the number of reservations: those that have expired stay, but belong to an earlier era,
-- so their tokens are not taken back from what is settled later (see `lift`).
local w = open(1)
read_rest(w)
save(w)
redis.call('HDEL', w.key, unpack(bucket_names(w.bucket - w.buckets, w.bucket)))
-- with nothing left that counts, the window's time need not stand still until the clock has caught up
redis.call('HSET', w.key, SETTLED, 0, CREDIT, 0, CREDIT_END, 0, ERA, w.era + 1, AHEAD, w.now - now)
return {now, w.settled}
