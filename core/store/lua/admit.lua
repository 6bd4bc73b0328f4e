-- Room for a zip, if what all of them announced and haven't stored yet fits beside what is stored.
-- One script, so that no two cores give away the same room.
-- KEYS: incoming   ARGV: ticket, bytes, seconds for which it counts, percent held back, '1' if it may have room already,
--   of a cluster also the bytes that are used and may be
-- → 1, or 0 when it doesn't fit now, or -1 when it never does
local ticket, bytes, seconds, reserve_percent, may_hold, used, limit = unpack(ARGV)
bytes = tonumber(bytes)
local function note()
  redis.call('HSET', KEYS[1], ticket, string.format('%d %.3f', bytes, now() + seconds))
  return 1
end
local announced = 0
local entries = redis.call('HGETALL', KEYS[1])
for at = 1, #entries, 2 do
  local left, deadline = entries[at + 1]:match('(%d+) ([%d.]+)')
  if tonumber(deadline) >= now() then
    if entries[at] ~= ticket then
      announced = announced + left
    elseif may_hold == '1' and tonumber(left) >= bytes then
      return note()
    end
  end
end
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
if used + announced + bytes > allowed then
  return 0
end
return note()
