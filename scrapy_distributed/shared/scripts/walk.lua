-- Takes or keeps the walk of a run. Returns whether the owner has it, else who has it, and for how many ms yet.
local run, owner, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local R, time = K .. ':' .. run, now()
local row = call('HMGET', R, 'owner', 'owner_until', 'started')
if not row[3] then return {0, '', 0} end  -- it was forgotten
if row[1] and row[1] ~= owner and number(row[2]) > time then return {0, row[1], number(row[2]) - time} end
call('HDEL', R, 'owner')  -- first what takes no memory: a full server refuses the rest otherwise
call('HSET', R, 'owner', owner, 'owner_until', time + lease)
return {1, owner, lease}
