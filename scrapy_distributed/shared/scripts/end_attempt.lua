-- needs: batches ending
-- An attempt does not count, as step says: rejected or given back by who holds it, or lost: then it must be overdue
-- still, with the deadline that step knows. Returns as settle does.
local run, token, step = ARGV[1], ARGV[2], cjson.decode(ARGV[3])
local R = K .. ':' .. run
local state, batch, attempt_number, attempt = attempt_of(R, token)
if state == step.becomes then return {'done'} end
if step.becomes == 'unknown' then
  local deadline = call('ZSCORE', R .. ':lease', token)
  if state ~= 'sent' or number(deadline) ~= step.deadline or step.deadline > now() then return {'late', state} end
elseif state == 'unknown' then  -- its batch has gone its way
  drop_staged(R, token, attempt)
  call('HDEL', attempt, 'fate')
  call('HSET', attempt, 'state', step.becomes, 'ended', now())
  return {'late', state}
elseif state ~= 'sent' or call('HEXISTS', R, 'ended') == 1 then
  return {'late', state}
end
if not is_of_now(R, state, batch, step) then return {'changed'} end
apply(R, run, batch, attempt_number, token, step, 4)
if step.becomes ~= 'unknown' or step.left_after == 0 then drop_staged(R, token, attempt) end
over(R, run)
return {'done'}
