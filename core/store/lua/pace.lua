-- Posts of a key, of which so many a minute may come: all at once after a pause, else evenly (GCRA).
-- KEYS: pace   ARGV: how many a minute, how many come now; 0: may one come?
-- → 0, or the seconds until one may
local gap, posts = 60 / ARGV[1], tonumber(ARGV[2])
local begin = now()
local due = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), begin)
local early = due + gap - (begin + 60)
if early > 0.001 then
  return math.ceil(early)
end
if posts > 0 then
  redis.call('SET', KEYS[1], string.format('%.6f', due + posts * gap), 'EX', 120)
end
return 0
