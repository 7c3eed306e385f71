-- Adds tokens to the cap of a window, for the length of the window.
-- KEYS: unused, hash and leases of the window. ARGV: lease, 1, bucket_ms, buckets, tokens.
local w = open_all(next_number())[1]
local credit = w.credit + next_number()
save(w)
redis.call('HSET', w.key, CREDIT, text(credit), CREDIT_END, text(w.now + w.bucket_ms * w.buckets))
redis.call('PEXPIRE', w.key, (w.buckets + 2) * w.bucket_ms + w.lease)
return {now, credit}
