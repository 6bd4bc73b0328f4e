-- pending or running → failed, whoever holds it: an agent learns so at its next renewal.
-- ARGV: failure   → 'failed' | 'stale'
local state = get('state')
if state ~= 'pending' and state ~= 'running' then
  return 'stale'
end
end_attempt(ARGV[1])
redis.call('HSET', task, 'failure', ARGV[1])
finish_as('failed')
ring_ended()
return 'failed'
