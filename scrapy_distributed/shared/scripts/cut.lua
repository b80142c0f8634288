-- The first requests that wait are a portion from now on, if they are still the first. Returns whether they were.
local run, generation, size, data = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local R = K .. ':' .. run
if (call('HGET', R, 'generation') or '0') ~= generation or call('LLEN', R .. ':open') < size then return 0 end
call('LTRIM', R .. ':open', size, -1)  -- first what makes room: a full server refuses the rest otherwise
call('HINCRBY', R, 'generation', 1)
local id = call('HINCRBY', R, 'portion', 1)
call('HSET', R .. ':portion', id, data)
call('HSET', R .. ':used', id, size)
call('RPUSH', R .. ':portions', id .. ':0:' .. size)
return 1
