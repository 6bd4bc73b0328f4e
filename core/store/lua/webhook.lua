-- How the telling of a task's end went.   ARGV: 'told', or 'failed' when it is tried again; which end: its time
-- → false when that isn't the task's end (any more), and nothing is noted
local how, ended = unpack(ARGV)
if get('finished') ~= ended then
  return false
end
if how == 'told' then
  redis.call('HSET', task, 'webhook_told', now())
else
  redis.call('HINCRBY', task, 'webhook_tries', 1)
end
return true
