-- What is to be looked at later is due now, in the order that it had.
-- KEYS: due   ARGV: now, until when it was due at the latest, how many at once   → how many there were
local moment, latest, limit = unpack(ARGV)
local entries = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. moment, latest, 'WITHSCORES', 'LIMIT', 0, limit)
for at = 1, #entries, 2 do
  redis.call('ZADD', KEYS[1], moment - (latest - entries[at + 1]) / 1000, entries[at])
end
return #entries / 2
