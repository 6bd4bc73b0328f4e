-- The input or the output was kept for long enough; the task itself stays.
-- ARGV: which   → 1, or 0 when it is needed, because the task is tried again
local which = ARGV[1]
if which == 'input' and get('state') ~= 'failed' then
  return 0
end
redis.call('HDEL', task, which)
return 1
