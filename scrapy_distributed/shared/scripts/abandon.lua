-- Nobody goes on with a run, whatever is left of it: it is over, its identity is free for another one, and who has had its
-- walk writes no more. ARGV: run, whether also one that is not over. Returns 'done', 'unknown', 'open', or 'walked' and by
-- whom, where its result is not stored yet.
local run, force = ARGV[1], ARGV[2]
local R = K .. ':' .. run
local row = call('HMGET', R, 'started', 'ended', 'identity_key', 'owner', 'owner_until', 'stored')
if not row[1] then return {'unknown', ''} end
if not row[2] and force ~= '1' then return {'open', ''} end
if not (row[2] and row[6]) and row[4] and number(row[5]) > now() then return {'walked', row[4]} end
for _, last in ipairs({K .. ':identity', K .. ':stored'}) do
  if call('HGET', last, row[3]) == run then call('HDEL', last, row[3]) end
end
call('LREM', K .. ':open', 0, run)
call('UNLINK', R .. ':lease')  -- a sign of life would write what was dropped before
local time = now()
call('HSET', R, 'ended', row[2] or time, 'stored', time, 'owner', '', 'owner_until', time + 60000)  -- until it is gone
ring(run, 'over')
return {'done', ''}
