-- So many chunks a blob may have. The bound only grows: an older writer may come late with its own.
-- KEYS: blob   ARGV: owner, bound
if tonumber(redis.call('HGET', KEYS[1], 'chunks') or 0) < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'chunks', ARGV[2])
end
return 1
