-- running → pending: an agent that drains hands its task back. That is nobody's failure.
-- ARGV: attempt   → 1, or 0 when the attempt no longer holds the task
if not is_held_by(ARGV[1]) then
  return 0
end
let_go('pending')
return 1
