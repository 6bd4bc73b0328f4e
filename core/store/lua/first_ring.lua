-- RabbitMQ has confirmed the messages that tasks were posted with, a moment ago. Nothing to note where an attempt has
-- begun since: if such a task waits again, it waits for another message.
-- KEYS: tasks; where one server has all keys, also due   ARGV: then for each task the epoch second of its next look
for number = 1, math.max(#ARGV, 1) do
  task = KEYS[number]
  local state, attempt = get('state', 'attempt')
  if state == 'pending' and attempt == '0' then
    redis.call('HSET', task, 'rung', now())
    if ARGV[number] then
      redis.call('ZADD', KEYS[#KEYS], 'XX', ARGV[number], task:match('{(.*)}'))
    end
  end
end
