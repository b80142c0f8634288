-- The owner of the walk tells what of it has failed (JSON). Returns whether it is the owner.
local R = K .. ':' .. ARGV[1]
if not owns(R, ARGV[2]) then return 0 end
call('HDEL', R, 'lost')  -- first what takes no memory: a full server refuses the rest otherwise
call('HSET', R, 'lost', ARGV[3])
return 1
