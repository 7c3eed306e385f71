-- Adds tokens to the cap of a window, for the length of the window.
-- KEYS: unused, hash and leases of the window. After lease and windows follow: tokens.
local w = open(1)
local credit = w.credit + call[3]
save(w)
redis.call('HSET', w.key, CREDIT, text(credit), CREDIT_END, text(w.now + w.bucket_ms * w.buckets))
redis.call('PEXPIRE', w.key, (w.buckets + 2) * w.bucket_ms + lease)
return {now, credit}
