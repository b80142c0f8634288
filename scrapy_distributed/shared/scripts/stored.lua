-- The owner of the walk has stored the result of a run that has ended: its identity is free for another one. It alone
-- can be opened again from now on, and the last one before can't be: returns that one's name, '' if there is none; nothing
-- where the run goes on, and 0 where it is not the owner.
local run, owner = ARGV[1], ARGV[2]
local R = K .. ':' .. run
if not owns(R, owner) then return 0 end
local row = call('HMGET', R, 'ended', 'identity_key')
if not row[1] then return false end
if call('HGET', K .. ':identity', row[2]) == run then call('HDEL', K .. ':identity', row[2]) end
local before = call('HGET', K .. ':stored', row[2])
if before and before ~= run then call('HSET', R, 'before', before) end
call('HSET', K .. ':stored', row[2], run)
call('HSET', R, 'stored', now())
return call('HGET', R, 'before') or ''
