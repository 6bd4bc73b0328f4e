-- pending → running for a consumer of version 1, which holds no lease.
-- ARGV: runner   → 1, or 0 when somebody else has the task
if not is_held_by('') then
  return 0
end
if get('state') == 'pending' then
  begin_attempt(ARGV[1])
end
return 1
