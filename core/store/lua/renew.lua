-- ARGV: attempt, lease seconds   → 1, or 0 when the attempt no longer holds the task
if not is_held_by(ARGV[1]) then
  return 0
end
redis.call('HSET', task, 'lease_until', now() + ARGV[2])
return 1
