-- All before the offset is stored.
-- KEYS: upload   ARGV: number of the writer, offset, seconds for which it lives, '1' if the writer ends
-- → 'done' | 'stale' | 'gone'
local writer = redis.call('HGET', KEYS[1], 'writer')
if writer ~= ARGV[1] then
  return writer and 'stale' or 'gone'
end
redis.call('HSET', KEYS[1], 'offset', ARGV[2])
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[3] * 1000))
if ARGV[4] == '1' then
  redis.call('HDEL', KEYS[1], 'writes')
end
return 'done'
