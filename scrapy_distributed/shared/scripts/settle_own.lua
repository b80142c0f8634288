-- What the owner of the walk has scraped itself counts, where nobody scrapes it again. Returns 'done'; 'walking' where
-- the walk is not over; 0 where the owner has lost it.
local run, owner = ARGV[1], ARGV[2]
local R = K .. ':' .. run
if not owns(R, owner) then return 0 end
local row = call('HMGET', R, 'walked', 'stopped')
if not (row[1] or row[2]) then return 'walking' end
local own = call('LRANGE', R .. ':own', 0, -1)
call('UNLINK', R .. ':own')  -- first what takes no memory: a full server refuses the rest otherwise
for _, token in ipairs(own) do
  local attempt = R .. ':attempt:' .. string.match(token, '^%d+%.%d+')
  if call('HEXISTS', attempt, 'lines') == 1 then
    call('HSET', attempt, 'state', 'accepted', 'ended', now())
    call('RPUSH', R .. ':home', token)
    call('HSET', R, 'own_settled', 1)
  else
    call('UNLINK', attempt)
  end
end
ring(run, 'home')
return 'done'
