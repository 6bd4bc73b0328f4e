-- A new task, pending and not yet rung. ARGV: field, value, …   → 1, or 0 when the uid is taken
if redis.call('EXISTS', task) == 1 then
  return 0
end
redis.call('HSET', task, 'state', 'pending', 'attempt', 0, 'failures', 0, 'created', now(), unpack(ARGV))
return 1
