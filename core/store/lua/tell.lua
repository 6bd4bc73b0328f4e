-- What the container of an attempt has printed, and how far it says it is. Where there is too much, the oldest goes.
-- KEYS: task, log   ARGV: attempt, which of its batches, text or '', progress or '', bytes that are kept, bytes that an
--   entry takes beside its text, seconds for which an attempt is heard after its end, percent held back
-- → 1, also when it is sent twice, or 0 when the attempt is no longer the task's latest, or has ended long ago, or -1 when
--   the text was left out: on this server there is no room beside what is held back
local log = KEYS[2]
local attempt, batch, text, progress, kept, beside, late_seconds, reserve_percent = unpack(ARGV)
local state, current, last, ended = get('state', 'attempt', 'log_batch', of_attempt(attempt, 'ended'))
if current ~= attempt or (state ~= 'running' and (not ended or now() - ended > tonumber(late_seconds))) then
  return 0
end
if tonumber(batch) <= tonumber(last or 0) then
  return 1  -- this very call was sent before and only its answer was lost
end
redis.call('HSET', task, 'log_batch', batch)
if progress ~= '' and state == 'running' then
  redis.call('HSET', task, 'progress', progress)
end

local function more_by(bytes)
  return redis.call('HINCRBY', task, 'log_bytes', bytes)
end

local is_left_out = text ~= '' and fits(#text + beside, 0, 0, reserve_percent) ~= 1
if text ~= '' and not is_left_out then
  redis.call('XADD', log, '*', attempt, text)
  local held = more_by(#text + beside)
  while held > tonumber(kept) do
    local id, fields = unpack(redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1])
    redis.call('XDEL', log, id)
    redis.call('HSET', task, 'log_cut', fields[1])
    held = more_by(-#fields[2] - beside)
  end
end
ring('news')
return is_left_out and -1 or 1
