-- What every transition shares. One clock for all cores: the server's.
local task = KEYS[1]

local function now()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1000000
end

local function get(...)
  return unpack(redis.call('HMGET', task, ...))
end

-- A write names its attempt; '' is a consumer of version 1, which has none and holds no lease.
local function is_held_by(attempt)
  local state, current, lease = get('state', 'attempt', 'lease_until')
  if attempt == '' then
    return state == 'pending' or (state == 'running' and not lease)
  end
  return state == 'running' and current == attempt
end

local function let_go(state)
  redis.call('HSET', task, 'state', state)
  redis.call('HDEL', task, 'claim_id', 'agent', 'lease_until', 'waits_for', 'rung')
end

local function finish_as(state)
  let_go(state)
  redis.call('HSET', task, 'finished', now())
  redis.call('HDEL', task, 'input')
end
