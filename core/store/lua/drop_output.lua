-- The output was kept for long enough. The task stays finished.
redis.call('HDEL', task, 'output')
return 1
