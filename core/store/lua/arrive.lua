-- An admitted zip has come so far. One that has ended meanwhile doesn't come back.
-- KEYS: incoming   ARGV: ticket, bytes still to come, seconds for which they count, percent held back, of a cluster also
--   the bytes that are used and may be
-- → as `fits`, of nothing more: others that fitted then may have come first
local ticket, left, seconds, reserve_percent, used, limit = unpack(ARGV)
if redis.call('HEXISTS', KEYS[1], ticket) == 1 then
  redis.call('HSET', KEYS[1], ticket, string.format('%d %.3f', left, now() + seconds))
end
return fits(0, 0, reserve_percent, used, limit)
