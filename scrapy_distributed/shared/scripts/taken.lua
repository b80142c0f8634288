-- needs: batches
-- What an accepted attempt has brought is safe where it goes, by the owner of the walk: it leaves the list, and its lines
-- go. Returns whether it is the owner.
local run, owner, token, items, twice, size, digest, lost = unpack(ARGV)
local R = K .. ':' .. run
if not owns(R, owner) then return 0 end
if call('LREM', R .. ':home', 1, token) == 0 then return 1 end
local _, batch, attempt_number, attempt = attempt_of(R, token)
for index = 0, number(call('HGET', attempt, 'lines')) - 1 do call('UNLINK', R .. ':staged:' .. token .. ':i:' .. index) end
call('HSET', attempt, 'home', items, 'twice', twice, 'bytes', size, 'digest', digest)
call('HINCRBY', R, 'taken', 1)
call('HINCRBY', R, 'counted', items)
if lost ~= '0' then call('HINCRBY', R, 'lost_items', lost) end
return 1
