-- Puts items of an accepted attempt into the stream of their run. ARGV: run, owner, token, how many of its items were
-- gone through already, spider, batch and job, then item and class of each; the item is '' where it can't be written.
-- Returns how many were gone through now, others than were meant where the answer to an earlier call was lost, and how many
-- of these could not be written; nothing where the owner has lost the walk.
local run, owner, token, before, spider, batch, job = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6], ARGV[7]
local R = K .. ':' .. run
if not owns(R, owner) then return false end
local attempt = R .. ':attempt:' .. string.match(token, '^%d+%.%d+')
local row = call('HMGET', attempt, 'streamed', 'unwritten')
local place, unwritten, put = number(row[1]), number(row[2]), 0
if place ~= before then return {place, unwritten} end
call('HDEL', attempt, 'streamed')  -- first what takes no memory: a full server refuses the rest otherwise
for at = 8, #ARGV, 2 do
  place = place + 1
  if ARGV[at] == '' then
    unwritten = unwritten + 1
  else
    put = put + 1
    call('XADD', R .. ':items', '*', 'item', ARGV[at], 'class', ARGV[at + 1], 'spider', spider, 'run', run, 'batch', batch,
      'job', job, 'number', place)
  end
end
call('HSET', attempt, 'streamed', place, 'unwritten', unwritten)
call('HINCRBY', R, 'streamed', put)
return {place, unwritten}
