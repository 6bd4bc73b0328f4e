-- RabbitMQ has confirmed the message that a task was posted with, a moment ago. Nothing to note when an attempt has begun
-- since: if the task waits again, it waits for another message.
local state, attempt = get('state', 'attempt')
if state == 'pending' and attempt == '0' then
  redis.call('HSET', task, 'rung', now())
end
