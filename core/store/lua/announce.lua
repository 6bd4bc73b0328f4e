-- RabbitMQ has confirmed the message of a task's end.
if get('finished') then
  redis.call('HSET', task, 'announced', now())
end
return 1
