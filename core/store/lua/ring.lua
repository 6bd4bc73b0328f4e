-- RabbitMQ has confirmed the message of a task. Nothing to note when the task has moved on since.
if get('state') == 'pending' then
  redis.call('HSET', task, 'rung', now())
end
return 1
