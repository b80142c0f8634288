-- A sign of life of an attempt: progress is what it says of itself. Returns false where it has lost its lease, else what
-- is wished: whether the run is paused, and why it was stopped.
local run, token, progress, worker = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local R, time = K .. ':' .. run, now()
if call('ZREM', R .. ':lease', token) == 0 then return false end  -- first: a full server refuses the rest otherwise
local row = call('HMGET', R, 'lease', 'paused', 'stopped')
call('ZADD', R .. ':lease', time + number(row[1]), token)
call('ZADD', K .. ':heard', time, worker)
local batch, attempt_number = string.match(token, '^(%d+)%.(%d+)%.')
call('HSET', R .. ':attempt:' .. batch .. '.' .. attempt_number, 'progress', progress)
return {row[2] and 1 or 0, row[3] or ''}
