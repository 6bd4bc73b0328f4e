-- The task is gone; whoever runs it learns so at the next renewal.   → its last fields, empty when there was none
local fields = redis.call('HGETALL', task)
redis.call('DEL', task)
return fields
