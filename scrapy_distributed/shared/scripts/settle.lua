-- needs: seen batches ending pace
-- Accepts an attempt as step says. Returns 'done', also where it was done before; 'changed' where the step was computed
-- from what is no more; 'missing' where something that was staged is not there; 'late' with the state of the attempt,
-- and then what it has staged is dropped.
local run, token, step = ARGV[1], ARGV[2], cjson.decode(ARGV[3])
local R = K .. ':' .. run
local state, batch, attempt_number, attempt = attempt_of(R, token)
if state == 'accepted' then return {'done'} end
if not in_time(R, state, batch, attempt_number) then
  drop_staged(R, token, attempt)
  return {'late', state}
end
if not is_of_now(R, state, batch, step) then return {'changed'} end
for index = 0, step.found - 1 do
  if call('EXISTS', R .. ':staged:' .. token .. ':f:' .. index) == 0 then return {'missing'} end
end
for index = 0, step.lines - 1 do
  if call('EXISTS', R .. ':staged:' .. token .. ':i:' .. index) == 0 then return {'missing'} end
end
apply(R, run, batch, attempt_number, token, step, 4)
if step.found > 0 then
  call('RPUSH', R .. ':moving', cjson.encode({token = token, parts = step.found, at = 0}))
end
call('RPUSH', R .. ':home', token)
if step.stops ~= '' and not call('HGET', R, 'stopped') then
  call('HSET', R, 'stopped', step.stops)
  call('HSETNX', R, 'walked', now())
  ring(run, 'stopped')
end
keep_pace(R, step.paced, step.paced_ms)
call('HINCRBY', R, 'items', step.items)
call('HINCRBY', R .. ':batch:' .. batch, 'items', step.items)
if step.unexported > 0 then call('HINCRBY', R, 'unexported', step.unexported) end
for at = #ARGV - step.landed + 1, #ARGV do land(R, ARGV[at]) end
ring(run, 'home')
over(R, run)
return {'done'}
