-- Before create: the upload becomes the task in the same step, unless a younger writer has it.
-- KEYS: task, upload   ARGV: number of the writer; then as create   → as create, 'other' when it isn't the writer's
if redis.call('EXISTS', task) == 0 and redis.call('HGET', KEYS[2], 'writer') ~= ARGV[1] then
  return 'other'
end
redis.call('DEL', KEYS[2])
table.remove(ARGV, 1)
