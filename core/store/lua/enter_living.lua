-- One more living task of a key, unless it has as many as it may.
-- KEYS: living   ARGV: uid, now, how many there may be, seconds that all are kept   → 1: it is among them
local uid, entered, limit, kept = unpack(ARGV)
if redis.call('ZSCORE', KEYS[1], uid) then
  return 1
end
if redis.call('ZCARD', KEYS[1]) >= tonumber(limit) then
  return 0
end
redis.call('ZADD', KEYS[1], entered, uid)
redis.call('EXPIRE', KEYS[1], kept)
return 1
