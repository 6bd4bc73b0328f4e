-- What is due is the caller's for a while.   KEYS: a sorted set   ARGV: now, until when, how many   → the members
local now, till, limit = unpack(ARGV)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], 0, now, 'LIMIT', 0, limit)
for _, member in ipairs(due) do
  redis.call('ZADD', KEYS[1], till, member)
end
return due
