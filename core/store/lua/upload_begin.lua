-- Somebody writes on at the offset. Whoever wrote before has lost the upload.
-- KEYS: upload   ARGV: offset, seconds for which it lives
-- → {the writer's number, 1 if the one before didn't say that it has ended}, or {} when the upload isn't at that offset
if redis.call('HGET', KEYS[1], 'offset') ~= ARGV[1] then
  return {}
end
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[2] * 1000))
return {redis.call('HINCRBY', KEYS[1], 'writer', 1), 1 - redis.call('HSET', KEYS[1], 'writes', 1)}
