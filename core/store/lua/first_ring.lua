-- RabbitMQ has confirmed the messages that tasks were posted with, a moment ago. Nothing to note where an attempt has
-- begun since: if such a task waits again, it waits for another message.
-- KEYS: tasks; where one server has all keys, also due   ARGV: then the epoch second, and that of each task's next look,
--   which is put off until then unless somebody wants one now
local moment = tonumber(ARGV[1])
for number = 1, math.max(#ARGV - 1, 1) do
  task = KEYS[number]
  local state, attempt = get('state', 'attempt')
  if state == 'pending' and attempt == '0' then
    redis.call('HSET', task, 'rung', now())
    local uid = task:match('{(.*)}')
    if moment and tonumber(redis.call('ZSCORE', KEYS[#KEYS], uid) or 0) > moment then
      redis.call('ZADD', KEYS[#KEYS], ARGV[number + 1], uid)
    end
  end
end
