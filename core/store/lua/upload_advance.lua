-- All before the offset is stored.
-- KEYS: task, upload   ARGV: number of the writer, offset, seconds for which it lives, '1' if the writer ends
-- → 'done' | 'stale': a younger writer has the upload, or has finished it | 'gone'
local writer = redis.call('HGET', KEYS[2], 'writer')
if writer ~= ARGV[1] then
  return (writer or redis.call('EXISTS', task) == 1) and 'stale' or 'gone'
end
redis.call('HSET', KEYS[2], 'offset', ARGV[2])
redis.call('PEXPIRE', KEYS[2], math.ceil(ARGV[3] * 1000))
if ARGV[4] == '1' then
  redis.call('HDEL', KEYS[2], 'writes')
end
return 'done'
