-- running → pending: an agent that drains hands its task back. That is nobody's failure.
-- ARGV: attempt or '', why   → 1, also when it is sent twice, or 0 when the attempt no longer holds the task
local attempt, why = unpack(ARGV)
if is_back_from(attempt, why) then
  return 1
end
if not is_held_by(attempt) then
  return 0
end
end_attempt(why)
let_go('pending')
return 1
