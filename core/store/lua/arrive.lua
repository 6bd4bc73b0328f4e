-- An admitted zip has come so far. One that has ended meanwhile doesn't come back.
-- KEYS: incoming   ARGV: ticket, bytes still to come, seconds for which they count, percent held back, of a cluster also
--   the bytes that are used and may be
-- → as `fits`, of nothing more: others that fitted then may have come first
local ticket, left, seconds, reserve_percent, used, limit = unpack(ARGV)
local _, _, has_begun = room_of(KEYS[1], ticket)
if has_begun then
  redis.call('HSET', KEYS[1], ticket, entry(left, seconds, has_begun))
end
return fits(0, 0, 0, reserve_percent, used, limit)
