-- The task is gone; whoever runs it learns so at the next renewal.
-- ARGV: its output as the caller knows it, or ''   → its last fields, empty when there was none; or 'changed'
if redis.call('EXISTS', task) == 1 and (get('output') or '') ~= ARGV[1] then
  return 'changed'
end
local fields = redis.call('HGETALL', task)
redis.call('DEL', task)
ring_ended()
ring('news')
return fields
