-- Whoever announces much and sends nothing mustn't keep everybody out: of what is free, announcements take no more than
-- this (docs/decisions/0032).
local SPOKEN_FOR = 15 / 16

-- Room for a zip, if what all of them announced and haven't stored yet fits beside what is stored.
-- → 1, or 0 when it doesn't fit now, or -1 when it never does
local function fits(bytes, announced, reserve_percent, used, limit)
  if not used then
    local memory = redis.call('INFO', 'memory')
    local function figure(name)
      return tonumber(memory:match('\n' .. name .. ':(%d+)')) or 0
    end
    limit = figure('maxmemory')
    if limit == 0 then
      limit = figure('total_system_memory')
    end
    -- What Redis itself doesn't hold against maxmemory: buffers of the append-only file and of replicas.
    used = figure('used_memory') - figure('mem_not_counted_for_evict')
  end
  local allowed = limit * (100 - reserve_percent) / 100
  if bytes > allowed then
    return -1
  end
  announced = math.min(announced, math.max(0, allowed - used) * SPOKEN_FOR)
  return used + announced + bytes > allowed and 0 or 1
end

-- incoming: the hash of those that come   but: a ticket whose own doesn't count
-- → their bytes that are still to come
local function announced_in(incoming, but)
  local announced, moment = 0, now()
  local entries = redis.call('HGETALL', incoming)
  for at = 1, #entries, 2 do
    local left, deadline = entries[at + 1]:match('(%d+) ([%d.]+)')
    if entries[at] ~= but and tonumber(deadline) >= moment then
      announced = announced + left
    end
  end
  return announced
end
