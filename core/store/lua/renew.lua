-- ARGV: attempt, lease seconds, what it noted   → 1, or 0 when the attempt no longer holds the task
local attempt, lease_seconds = unpack(ARGV)
if not is_held_by(attempt) then
  return 0
end
note_arguments(3)
redis.call('HSET', task, 'lease_until', now() + lease_seconds)
return 1
