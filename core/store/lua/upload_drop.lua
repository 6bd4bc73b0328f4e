-- The upload ends without a task.
-- KEYS: upload   ARGV: number of the writer, or '' whoever writes
-- → {offset, latest writer, '1' if that one may write still}, empty when the upload isn't there, or isn't the writer's
local offset, writer, writes = unpack(redis.call('HMGET', KEYS[1], 'offset', 'writer', 'writes'))
if not offset or (ARGV[1] ~= '' and ARGV[1] ~= writer) then
  return {}
end
redis.call('DEL', KEYS[1])
return {offset, writer, writes or ''}
