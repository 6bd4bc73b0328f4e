-- A new task, pending and not yet rung. ARGV: field, value, …
-- The uid is random: when it is there already, this very call was sent before and only its answer was lost.
if redis.call('EXISTS', task) == 0 then
  redis.call('HSET', task, 'state', 'pending', 'attempt', 0, 'failures', 0, 'created', now(), unpack(ARGV))
end
return 1
