-- Nobody goes on with a run, whatever is left of it: it is over, and its identity is free for another one. ARGV: run,
-- whether also one that is not over. Returns 'done', 'unknown', 'open', or 'walked' and by whom.
local run, force = ARGV[1], ARGV[2]
local R = K .. ':' .. run
local row = call('HMGET', R, 'started', 'ended', 'identity_key', 'owner', 'owner_until')
if not row[1] then return {'unknown', ''} end
if not row[2] and force ~= '1' then return {'open', ''} end
if not row[2] and row[4] and number(row[5]) > now() then return {'walked', row[4]} end
for _, last in ipairs({K .. ':identity', K .. ':stored'}) do
  if call('HGET', last, row[3]) == run then call('HDEL', last, row[3]) end
end
call('LREM', K .. ':open', 0, run)
call('UNLINK', R .. ':lease')  -- a sign of life would write what was dropped before
call('HSET', R, 'ended', row[2] or now(), 'stored', now())
ring(run, 'over')
return {'done', ''}
