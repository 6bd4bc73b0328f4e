-- running → failed, or back to pending while tries are left.
-- ARGV: attempt or '', failure, its reason, how often this reason is tried again, '1' only if its lease has run out,
--   what it noted
-- → 'failed' | 'pending' | 'repeated' | 'stale'; sent twice it counts once
local attempt, failure, reason, retries, if_expired = unpack(ARGV)
local state, current, lease, max_attempts = get('state', 'attempt', 'lease_until', 'max_attempts')
if state == 'failed' and attempt == current then
  return 'repeated'
end
if is_back_from(attempt, failure) then
  return 'pending'
end
if not is_held_by(attempt) then
  return 'stale'
end
if if_expired == '1' and (not lease or tonumber(lease) > now()) then
  return 'stale'
end
note_arguments(6)
end_attempt(failure)
redis.call('HSET', task, 'failure', failure)
local failures = redis.call('HINCRBY', task, 'failures', 1)
local of_this_kind = redis.call('HINCRBY', task, 'failures:' .. reason, 1)
if of_this_kind <= tonumber(retries) and failures < tonumber(max_attempts) then
  let_go('pending')
  return 'pending'
end
finish_as('failed')
ring_ended()
return 'failed'
