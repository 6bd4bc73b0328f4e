-- Before create: the upload becomes the task in the same step, unless a younger writer has it, or the uid has become
-- that of another task, which a client posted under it.
-- KEYS: task, upload   ARGV: number of the writer; then as create   → as create, 'other' when nothing was done
local writer, _, zip = unpack(ARGV)
if redis.call('EXISTS', task) == 1 then
  if get('posted') ~= zip then
    return 'other'
  end
elseif redis.call('HGET', KEYS[2], 'writer') ~= writer then
  return 'other'
end
redis.call('DEL', KEYS[2])
table.remove(ARGV, 1)
