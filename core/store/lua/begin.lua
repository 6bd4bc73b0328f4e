-- The first chunk of an admitted zip is there, and not stored yet: from here on its room is its own. What others have
-- announced doesn't stand in its way.
-- KEYS: incoming   ARGV: ticket, bytes still to come, seconds for which they count, percent held back, of a cluster also
--   the bytes that are used and may be
-- → as `fits`
local ticket, left, seconds, reserve_percent, used, limit = unpack(ARGV)
left = tonumber(left)
local _, _, has_begun = room_of(KEYS[1], ticket)
local answer = has_begun == ' begun' and 1
  or fits(left, still_to_come(KEYS[1], ticket), 0, reserve_percent, used, limit)
if answer == 1 then
  redis.call('HSET', KEYS[1], ticket, entry(left, seconds, ' begun'))
end
return answer
