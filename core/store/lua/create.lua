-- A new task, pending and not yet rung.
-- ARGV: its fingerprint or '', its zip's id; then the fields: name, value, …   → as `earlier`
return earlier(ARGV[1], ARGV[2]) or create({unpack(ARGV, 3)})
