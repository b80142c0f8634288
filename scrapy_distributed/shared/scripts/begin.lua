-- needs: batches ending workers
-- Takes up the run of an identity whose result is not stored yet, or begins one. ARGV: what stands for the identity,
-- whether one may be taken up, the name of a new one, then fields and values: they are written where nobody has the walk.
-- Returns its name, whether it is new, and version, walked, ended, stopped of it.
local identity_key, resume, run = ARGV[1], ARGV[2], ARGV[3]
local time = now()
local found = call('HGET', K .. ':identity', identity_key)
if found and call('EXISTS', K .. ':' .. found) == 0 then found = false end
if found == run then  -- it was applied, and the answer was lost
  return {run, 1, call('HMGET', K .. ':' .. run, 'version', 'walked', 'ended', 'stopped')}
end
if found and resume == '1' then
  local R = K .. ':' .. found
  local row = call('HMGET', R, 'owner_until')
  if number(row[1]) <= time then
    call('HDEL', R, ARGV[4])  -- first what takes no memory: a full server refuses the rest otherwise
    call('HSET', R, unpack(ARGV, 4))
    ring(found, 'begun')  -- workers may have had another version
  end
  return {found, 0, call('HMGET', R, 'version', 'walked', 'ended', 'stopped')}
end
if found then
  local R = K .. ':' .. found
  call('HSET', R, 'stored', time)
  call('HSETNX', R, 'stopped', 'it was begun afresh')
  call('HSETNX', R, 'walked', time)
  ring(found, 'stopped')
  over(R, found)
end
if call('HSETNX', K .. ':server', 'name', name_of_server()) == 1 then call('HSET', K .. ':server', 'since', 0) end
call('HSET', K .. ':' .. run, 'started', time, 'identity_key', identity_key, unpack(ARGV, 4))
call('ZADD', K .. ':runs', time, run)
call('RPUSH', K .. ':open', run)
call('HSET', K .. ':identity', identity_key, run)
ring(run, 'begun')
return {run, 1, call('HMGET', K .. ':' .. run, 'version', 'walked', 'ended', 'stopped')}
