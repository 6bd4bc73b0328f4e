-- A small zip and its task in one step, where one server has all the keys.
-- KEYS: task, blob, chunk, due, tasks, incoming, models
-- ARGV: the zip, percent held back, epoch seconds of the first look and of now, the model's name, the model as the caller
--   knows it; then the task's fields
-- → as `fits`, or 'changed' when the model is another one now; sent twice it counts once
local zip, reserve_percent, first_look, created, name, model = unpack(ARGV)
if redis.call('EXISTS', task) == 1 then
  return 1  -- the uid is random: this very call was sent before and only its answer was lost
end
if redis.call('HGET', KEYS[7], name) ~= model then
  return 'changed'
end
local answer = fits(#zip, announced_in(KEYS[6]), reserve_percent)
if answer ~= 1 then
  return answer
end
local uid = task:match('{(.*)}')
redis.call('SET', KEYS[3], zip)
redis.call('HSET', KEYS[2], 'owner', uid, 'chunks', 1, 'size', #zip)
redis.call('ZADD', KEYS[4], first_look, uid)
redis.call('ZADD', KEYS[5], created, uid)
redis.call('HSET', task, 'state', 'pending', 'attempt', 0, 'failures', 0, 'created', now(), unpack(ARGV, 7))
return 1
