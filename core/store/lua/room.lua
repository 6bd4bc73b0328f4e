-- Announcements, of which nothing has come, take no more than this of what is free, and of all there are no more than so
-- many: to announce costs nothing (docs/decisions/0032).
local SPOKEN_FOR = 15 / 16
local MOST_ANNOUNCED = 1000

-- An entry of `incoming` is 'bytes still to come, deadline', and ' begun' behind it once its first chunk was let in.
local function entry(left, seconds, begun)
  return string.format('%d %.3f%s', left, now() + seconds, begun)
end

-- → bytes, deadline, ' begun' or ''; nil when there is none
local function room_of(incoming, ticket)
  return (redis.call('HGET', incoming, ticket) or ''):match('(%d+) ([%d.]+)(.*)')
end

-- → bytes that are used, and that may be
local function memory()
  local info = redis.call('INFO', 'memory')
  local function figure(name)
    return tonumber(info:match('\n' .. name .. ':(%d+)')) or 0
  end
  local limit = figure('maxmemory')
  if limit == 0 then
    limit = figure('total_system_memory')
  end
  -- What Redis itself doesn't hold against maxmemory: buffers of the append-only file and of replicas.
  return figure('used_memory') - figure('mem_not_counted_for_evict'), limit
end

-- Room for a zip, beside what is stored, and what the others haven't stored yet: `begun` in full, `announced` up to its
-- bound.   → 1, or 0 when it doesn't fit now, or -1 when it never does
local function fits(bytes, begun, announced, reserve_percent, used, limit)
  if not used then
    used, limit = memory()
  end
  local allowed = limit * (100 - reserve_percent) / 100
  if bytes > allowed then
    return -1
  end
  local free = math.max(0, allowed - used - begun)
  return used + begun + math.min(announced, free * SPOKEN_FOR) + bytes > allowed and 0 or 1
end

-- incoming: the hash of those that come   but: a ticket whose own doesn't count
-- → bytes that are still to come: of those that have begun, of those that are only announced. Of too many of these the
--   oldest is forgotten: it is looked at again when it begins.
local function still_to_come(incoming, but)
  local begun, announced, count, moment = 0, 0, 0, now()
  local oldest, its_deadline, its_bytes
  local entries = redis.call('HGETALL', incoming)
  for at = 1, #entries, 2 do
    local bytes, deadline, has_begun = entries[at + 1]:match('(%d+) ([%d.]+)(.*)')
    deadline = tonumber(deadline)
    if deadline < moment then
      redis.call('HDEL', incoming, entries[at])
    elseif entries[at] ~= but and has_begun ~= '' then
      begun = begun + bytes
    elseif entries[at] ~= but then
      announced, count = announced + bytes, count + 1
      if not oldest or deadline < its_deadline then
        oldest, its_deadline, its_bytes = entries[at], deadline, bytes
      end
    end
  end
  if count >= MOST_ANNOUNCED then
    redis.call('HDEL', incoming, oldest)
    announced = announced - its_bytes
  end
  return begun, announced
end
