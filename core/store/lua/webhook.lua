-- How the telling of a task's end went.   ARGV: 'told', or 'failed' when it is tried again
-- → how often it has failed, or false when the task is gone
if redis.call('EXISTS', task) == 0 then
  return false
end
if ARGV[1] == 'told' then
  redis.call('HSET', task, 'webhook_told', now())
  return 0
end
return redis.call('HINCRBY', task, 'webhook_tries', 1)
