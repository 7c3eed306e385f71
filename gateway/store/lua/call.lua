local now = clock()
-- What the gateway wants: a list in MessagePack, which begins with the length of a lease, and a flat list of every
-- window's length of a bucket, number of buckets and configured cap. What follows depends on the script.
local call = cmsgpack.unpack(ARGV[1])
local lease, lengths = call[1], call[2]
