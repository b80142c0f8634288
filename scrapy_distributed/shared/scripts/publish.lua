-- Puts items of an accepted attempt into the stream of their run. ARGV: run, owner, token, how many of them are there
-- already, spider, batch and job, then item and class of each. Returns how many are there now: others than were meant
-- where the answer to an earlier call was lost; nothing where the owner has lost the walk.
local run, owner, token, before, spider, batch, job = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6], ARGV[7]
local R = K .. ':' .. run
if not owns(R, owner) then return false end
local attempt = R .. ':attempt:' .. string.match(token, '^%d+%.%d+')
local there = number(call('HGET', attempt, 'streamed'))
if there ~= before then return there end
call('HDEL', attempt, 'streamed')  -- first what takes no memory: a full server refuses the rest otherwise
for at = 8, #ARGV, 2 do
  there = there + 1
  call('XADD', R .. ':items', '*', 'item', ARGV[at], 'class', ARGV[at + 1], 'spider', spider, 'run', run, 'batch', batch,
    'job', job, 'number', there)
end
call('HSET', attempt, 'streamed', there)
call('HINCRBY', R, 'streamed', there - before)
return there
