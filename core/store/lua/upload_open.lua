-- A new resumable upload.   KEYS: upload   ARGV: what is known of it, seconds for which it lives
redis.call('HSET', KEYS[1], 'about', ARGV[1], 'offset', 0, 'writer', 0)
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[2] * 1000))
return 1
