-- running → finished. ARGV: attempt or '', output or '', what it noted   → 'done' | 'repeated' | 'stale'
local attempt, output = unpack(ARGV)
local state, current, earlier = get('state', 'attempt', 'output')
if state == 'finished' and output ~= '' and earlier == output then
  return 'done'  -- this very call was sent before and only its answer was lost
end
if state == 'finished' and (attempt == '' or attempt == current) then
  -- A consumer of version 1 may set the status first and post the output after.
  if attempt == '' and output ~= '' and not earlier then
    redis.call('HSET', task, 'output', output)
    ring_ended()
    return 'done'
  end
  return 'repeated'
end
if not is_held_by(attempt) then
  return 'stale'
end
if output ~= '' then
  redis.call('HSET', task, 'output', output)
end
note_arguments(3)
end_attempt('')
finish_as('finished')
if attempt ~= '' or output ~= '' then  -- else the output is about to come: who waits would hear that there is none
  ring_ended()
end
return 'done'
