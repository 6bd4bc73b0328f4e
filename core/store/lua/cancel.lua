-- pending or running → failed, whoever holds it: an agent learns so at its next renewal.
-- ARGV: failure, '1' only if it is pending   → 'failed' | 'stale'
local failure, only_pending = unpack(ARGV)
local state = get('state')
if state ~= 'pending' and (state ~= 'running' or only_pending == '1') then
  return 'stale'
end
end_attempt(failure)
redis.call('HSET', task, 'failure', failure)
finish_as('failed')
ring_ended()
return 'failed'
