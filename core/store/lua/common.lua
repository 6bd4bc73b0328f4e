-- What every transition shares. One clock for all cores: the server's.
local task = KEYS[1]

local function now()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1000000
end

local function get(...)
  return unpack(redis.call('HMGET', task, ...))
end

-- Whoever waits looks again by itself as well: an operator's Redis may forbid channels.
local function ring(channel)
  redis.pcall('PUBLISH', channel, task:match('{(.*)}'))
end

-- A write names its attempt; '' is a consumer of version 1, which has none and holds no lease.
local function is_held_by(attempt)
  local state, current, lease = get('state', 'attempt', 'lease_until')
  if attempt == '' then
    return state == 'pending' or (state == 'running' and not lease)
  end
  return state == 'running' and current == attempt
end

-- Attempts are kept in fields of their own: attempt:<number>:<what>.
local KEPT_ATTEMPTS = 50  -- agents that hand a task back don't use up its tries, so they alone could fill the memory

local function of_attempt(number, what)
  return 'attempt:' .. number .. ':' .. what
end

-- A claim or a consumer of version 1 takes the task. runner: who it is
local function begin_attempt(runner)
  local number = redis.call('HINCRBY', task, 'attempt', 1)
  redis.call('HSET', task, 'state', 'running', 'dispatched', now(),
    of_attempt(number, 'runner'), runner, of_attempt(number, 'started'), now())
  redis.call('HDEL', task, 'progress', 'log_batch')
  local old = number - KEPT_ATTEMPTS
  for _, what in ipairs({'runner', 'started', 'ended', 'image', 'gpus', 'revision', 'failure'}) do
    redis.call('HDEL', task, of_attempt(old, what))
  end
  ring('news')
end

-- What the attempt has found out: the arguments from there on are name, value, …
local function note_arguments(from)
  for at = from, #ARGV, 2 do
    redis.call('HSET', task, of_attempt(get('attempt'), ARGV[at]), ARGV[at + 1])
  end
end

-- failure: '' when it ended well. Nothing to do for a task that nobody runs.
local function end_attempt(failure)
  local state, number = get('state', 'attempt')
  if state ~= 'running' then
    return
  end
  redis.call('HSET', task, of_attempt(number, 'ended'), now())
  if failure ~= '' then
    redis.call('HSET', task, of_attempt(number, 'failure'), failure)
  end
end

-- This very call was sent before, and only its answer was lost.
local function is_back_from(attempt, failure)
  local state, current, earlier = get('state', 'attempt', of_attempt(attempt, 'failure'))
  return state == 'pending' and current == attempt and earlier == failure
end

local function let_go(state)
  redis.call('HSET', task, 'state', state)
  redis.call('HDEL', task, 'claim_id', 'lease_until', 'bounced', 'rung')
  if state == 'pending' then
    redis.call('HDEL', task, 'progress')
  end
  ring('news')
end

local function ring_ended()
  ring('ended')
end

-- A failed task keeps its input, to be tried again with.
local function finish_as(state)
  let_go(state)
  redis.call('HSET', task, 'finished', now())
  if state == 'finished' then
    redis.call('HDEL', task, 'input')
  end
end

-- fingerprint: of what a client posts under a uid that it chose, and may have posted before; else ''   posted: its zip
-- → nil when there is no such task, 'created' when this very call was sent before and only its answer was lost,
--   'same' when what was posted was the same, 'other' when it wasn't
local function earlier(fingerprint, posted)
  if redis.call('EXISTS', task) == 0 then
    return nil
  end
  local its_fingerprint, its_zip = get('fingerprint', 'posted')
  if fingerprint == '' or its_zip == posted then
    return 'created'
  end
  return its_fingerprint == fingerprint and 'same' or 'other'
end

-- fields: name, value, …
local function create(fields)
  redis.call('HSET', task, 'state', 'pending', 'attempt', 0, 'failures', 0, 'created', now(), unpack(fields))
  return 'created'
end
