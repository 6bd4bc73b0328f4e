-- RabbitMQ has confirmed the message of a task. Nothing to note when the task has moved on since.
-- ARGV: for so many seconds more an agent may have the message, so that nobody sees it in its queue → 1 if pending
if get('state') ~= 'pending' then
  return 0
end
redis.call('HSET', task, 'rung', now() + (ARGV[1] or 0))
return 1
