-- Small zips and their tasks, each of them in one step, where one server has all the keys.
-- KEYS: due, tasks, incoming, models; then for each zip: task, blob, chunk, waiting
-- ARGV: percent held back, epoch seconds of the first look and of now; then for each zip: fingerprint or '', its id, the
--   zip, the model's name, the model as the caller knows it, how many fields the task has, and these: name, value, …
-- → for each: as `earlier`, as `fits` when it doesn't, 'changed' when the model is another one now, or Redis's error
local reserve_percent, first_look, created = unpack(ARGV, 1, 3)
local begun, announced = still_to_come(KEYS[3])
local used, limit = memory()

local function submit(blob, chunk, waiting, fingerprint, id, zip, name, model, ...)
  local answer = earlier(fingerprint, id)
  if answer then
    return answer
  end
  if redis.call('HGET', KEYS[4], name) ~= model then
    return 'changed'
  end
  local fitting = fits(#zip, begun, announced, reserve_percent, used, limit)
  if fitting ~= 1 then
    return fitting
  end
  used = used + #zip
  local uid = task:match('{(.*)}')
  redis.call('SET', chunk, zip)
  redis.call('HSET', blob, 'owner', uid, 'chunks', 1, 'size', #zip)
  redis.call('ZADD', KEYS[1], first_look, uid)
  redis.call('ZADD', KEYS[2], created, uid)
  redis.call('ZADD', waiting, created, uid)
  return create({...})
end

local answers, at = {}, 4
for number = 1, #KEYS / 4 - 1 do
  task = KEYS[4 * number + 1]
  local blob, chunk, waiting = unpack(KEYS, 4 * number + 2, 4 * number + 4)
  local fingerprint, id, zip, name, model, fields = unpack(ARGV, at, at + 5)
  local last = at + 5 + fields
  local is_done, answer = pcall(submit, blob, chunk, waiting, fingerprint, id, zip, name, model, unpack(ARGV, at + 6, last))
  answers[number] = (is_done or type(answer) == 'table') and answer or {err = answer}
  at = last + 1
end
return answers
