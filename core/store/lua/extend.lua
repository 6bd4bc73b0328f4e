-- More of a chunk that several writers may write, one after the other. What an older one sent is refused, however late
-- it comes.
-- KEYS: chunk, writer   ARGV: number of the writer, position, bytes
-- → the chunk's length now; less than the position when bytes before it are lost; -1 when a younger writer has it
local number, position, bytes = unpack(ARGV)
position = tonumber(position)
if tonumber(redis.call('GET', KEYS[2]) or 0) > tonumber(number) then
  return -1
end
local length = redis.call('STRLEN', KEYS[1])
if length < position then
  return length
end
if position > 0 then
  bytes = redis.call('GETRANGE', KEYS[1], 0, position - 1) .. bytes
end
redis.call('SET', KEYS[1], bytes)
return #bytes
