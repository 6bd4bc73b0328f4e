-- Room that was given to uploads which didn't come, or whose core died.   KEYS: incoming   → how many there were
local overdue, moment = 0, now()
local entries = redis.call('HGETALL', KEYS[1])
for at = 1, #entries, 2 do
  if tonumber(entries[at + 1]:match('%d+ ([%d.]+)')) < moment then
    overdue = overdue + redis.call('HDEL', KEYS[1], entries[at])
  end
end
return overdue
