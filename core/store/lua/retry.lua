-- failed → pending: somebody wants it tried again, with the same input and all its tries.
-- → 'pending', also when it is sent twice; 'gone' when the input was not kept; 'stale' when the task hasn't failed
local state, queued, input = get('state', 'queued', 'input')
if queued and (state == 'pending' or state == 'running') then
  return 'pending'
end
if state ~= 'failed' then
  return 'stale'
end
if not input then
  return 'gone'
end
for _, name in ipairs(redis.call('HKEYS', task)) do
  if name:match('^failures:') then
    redis.call('HDEL', task, name)
  end
end
let_go('pending')
redis.call('HDEL', task, 'failure', 'finished', 'announced', 'webhook_told', 'webhook_tries')
redis.call('HSET', task, 'failures', 0, 'queued', now())
return 'pending'
