-- An admitted zip has come so far. One that has ended meanwhile doesn't come back.
-- KEYS: incoming   ARGV: ticket, bytes still to come, seconds for which they count
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%d %.3f', ARGV[2], now() + ARGV[3]))
end
return 1
