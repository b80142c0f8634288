-- needs: batches ending
-- Nothing more of a run is claimed; it is over when nothing of it is under way.
local run, reason = ARGV[1], ARGV[2]
local R = K .. ':' .. run
local row = call('HMGET', R, 'started', 'ended', 'stopped', 'walked')
if not row[1] or row[2] then return end
call('HDEL', R, 'paused')  -- first what takes no memory: a full server refuses the rest otherwise
call('HSET', R, 'stopped', row[3] or reason, 'walked', row[4] or now())
ring(run, 'stopped')
over(R, run)
