-- A model becomes another revision, or is no more.
-- KEYS: models   ARGV: its name, it as the caller knows it, it as it is to be or ''
-- → 1, also when it is sent twice, or 0 when it is another one now
local name, known, new = unpack(ARGV)
local current = redis.call('HGET', KEYS[1], name) or ''
if current == known then
  if new == '' then
    redis.call('HDEL', KEYS[1], name)
  else
    redis.call('HSET', KEYS[1], name, new)
  end
end
return (current == known or current == new) and 1 or 0
