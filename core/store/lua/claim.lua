-- pending → running.
-- ARGV: claim id, runner, lease seconds, '1' with a GPU, need that is served, '1' if redelivered, failure of a lost agent
-- → {'claimed', fields} | {'taken'} | {'unsuitable'} | {'waiting'} | {'gone'}
local claim_id, runner, lease_seconds, has_gpu, serves, redelivered, lost = unpack(ARGV)
local state, holder, lease, needs, need = get('state', 'claim_id', 'lease_until', 'needs', 'need')
if not state then
  return {'gone'}
end
local is_mine = state == 'running' and holder == claim_id  -- the answer to this very claim was lost on its way
-- A consumer of version 1 set it running and died before its acknowledgement.
local is_abandoned = state == 'running' and not lease and redelivered == '1'
if not is_mine then
  if state ~= 'pending' and not is_abandoned then
    return {'taken'}
  end
  if need and need ~= serves then
    return {'waiting'}
  end
  if needs == 'gpu' and has_gpu ~= '1' then
    -- Said once: whoever hears 'unsuitable' rings the agents with GPUs, whoever hears 'waiting' needn't.
    return {redis.call('HSET', task, 'bounced', 1) == 1 and 'unsuitable' or 'waiting'}
  end
  end_attempt(lost)
  begin_attempt(runner)
  redis.call('HSET', task, 'claim_id', claim_id)
  redis.call('HDEL', task, 'bounced', 'failure')
end
redis.call('HSET', task, 'lease_until', now() + lease_seconds)
return {'claimed', redis.call('HGETALL', task)}
