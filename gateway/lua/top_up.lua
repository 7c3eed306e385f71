-- KEYS: unused, hash and leases of one window. ARGV: lease, 1, ms, n, tokens. Adds to the cap for one window.
local w = open_all(take())[1]
local credit = w.credit + take()
save(w)
redis.call('HSET', w.key, 'K', text(credit), 'E', text(now + w.ms * w.n))
redis.call('PEXPIRE', w.key, (w.n + 2) * w.ms + w.lease)
return {now, credit}
