-- pending → running for a consumer of version 1, which holds no lease.   → 1, or 0 when somebody else has the task
if not is_held_by('') then
  return 0
end
if get('state') == 'pending' then
  redis.call('HINCRBY', task, 'attempt', 1)
  redis.call('HSET', task, 'state', 'running', 'dispatched', now())
end
return 1
