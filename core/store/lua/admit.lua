-- Room for a zip that is about to come. One script, so that no two cores give away the same room.
-- KEYS: incoming   ARGV: ticket, bytes, seconds for which it counts, percent held back, '1' if it may have room already,
--   of a cluster also the bytes that are used and may be
-- → as `fits`
local ticket, bytes, seconds, reserve_percent, may_hold, used, limit = unpack(ARGV)
bytes = tonumber(bytes)
local left, deadline, has_begun = room_of(KEYS[1], ticket)
local answer = 1
if not (may_hold == '1' and left and tonumber(deadline) >= now() and tonumber(left) >= bytes) then
  local begun, announced = still_to_come(KEYS[1], ticket)
  answer = fits(bytes, begun, announced, reserve_percent, used, limit)
end
if answer == 1 then
  redis.call('HSET', KEYS[1], ticket, entry(bytes, seconds, has_begun or ''))
end
return answer
