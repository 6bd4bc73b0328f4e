-- The blob has its owner: it is loose no more, unless somebody has said so anew since.
-- KEYS: loose   ARGV: blob, until when it was loose as far as the caller knows
local deadline = redis.call('ZSCORE', KEYS[1], ARGV[1])
if deadline and tonumber(deadline) == tonumber(ARGV[2]) then
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return 1
