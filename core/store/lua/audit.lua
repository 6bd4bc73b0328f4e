-- KEYS: audit   ARGV: how many entries are kept, about; then the new ones, packed, oldest first
for number = 2, #ARGV do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'entry', ARGV[number])
end
