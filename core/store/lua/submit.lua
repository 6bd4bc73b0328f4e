-- A small zip and its task in one step, where one server has all the keys.
-- KEYS: task, blob, chunk, due, tasks, incoming, models, waiting
-- ARGV: fingerprint or '', zip's id, the zip, percent held back, epoch seconds of the first look and of now, the model's
--   name, the model as the caller knows it; then the task's fields
-- → as `earlier`, as `fits` when it doesn't, or 'changed' when the model is another one now
local fingerprint, id, zip, reserve_percent, first_look, created, name, model = unpack(ARGV)
local answer = earlier(fingerprint, id)
if answer then
  return answer
end
if redis.call('HGET', KEYS[7], name) ~= model then
  return 'changed'
end
local begun, announced = still_to_come(KEYS[6])
local fitting = fits(#zip, begun, announced, reserve_percent)
if fitting ~= 1 then
  return fitting
end
local uid = task:match('{(.*)}')
redis.call('SET', KEYS[3], zip)
redis.call('HSET', KEYS[2], 'owner', uid, 'chunks', 1, 'size', #zip)
redis.call('ZADD', KEYS[4], first_look, uid)
redis.call('ZADD', KEYS[5], created, uid)
redis.call('ZADD', KEYS[8], created, uid)
return create({unpack(ARGV, 9)})
