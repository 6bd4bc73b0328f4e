-- Room for a zip that is about to come. One script, so that no two cores give away the same room.
-- KEYS: incoming   ARGV: ticket, bytes, seconds for which it counts, percent held back, '1' if it may have room already,
--   of a cluster also the bytes that are used and may be
-- → as `fits`
local ticket, bytes, seconds, reserve_percent, may_hold, used, limit = unpack(ARGV)
bytes = tonumber(bytes)
local left, deadline = (redis.call('HGET', KEYS[1], ticket) or ''):match('(%d+) ([%d.]+)')
local has_room = may_hold == '1' and left and tonumber(deadline) >= now() and tonumber(left) >= bytes
local answer = has_room and 1 or fits(bytes, announced_in(KEYS[1], ticket), reserve_percent, used, limit)
if answer == 1 then
  redis.call('HSET', KEYS[1], ticket, string.format('%d %.3f', bytes, now() + seconds))
end
return answer
