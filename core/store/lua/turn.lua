-- Whose turn it is to sweep.   KEYS: reaper   ARGV: who asks, milliseconds   → 'begins' | 'goes on' | 'others'
local who, milliseconds = unpack(ARGV)
local whose = redis.call('GET', KEYS[1])
if whose and whose ~= who then
  return 'others'
end
redis.call('SET', KEYS[1], who, 'PX', milliseconds)
return whose and 'goes on' or 'begins'
