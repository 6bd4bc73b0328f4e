-- What was leased leaves, or comes again, unless somebody has touched it since.
-- KEYS: a sorted set   ARGV: member, until when it was leased, when it comes again or ''
local member, till, again = unpack(ARGV)
if tonumber(redis.call('ZSCORE', KEYS[1], member) or 0) ~= tonumber(till) then
  return
end
if again == '' then
  redis.call('ZREM', KEYS[1], member)
else
  redis.call('ZADD', KEYS[1], again, member)
end
