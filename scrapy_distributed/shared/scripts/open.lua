-- The first requests that wait in no portion yet, if there are so many; and what tells whether they still do.
local run, size = ARGV[1], tonumber(ARGV[2])
local R = K .. ':' .. run
if call('LLEN', R .. ':open') < size then return false end
return {call('HGET', R, 'generation') or '0', call('LRANGE', R .. ':open', 0, size - 1)}
