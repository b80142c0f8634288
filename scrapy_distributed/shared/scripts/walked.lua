-- needs: batches ending
-- The owner of the walk says whether it is done. It does not go on where nobody walks again: where the run was stopped, or
-- what was scraped here counts. Until it is done its owner may know of more than the server ('unadded'). Returns whether
-- it is the owner.
local run, owner, done = ARGV[1], ARGV[2], ARGV[3]
local R = K .. ':' .. run
if not owns(R, owner) then return 0 end
local row = call('HMGET', R, 'walked', 'stopped', 'own_settled')
call('HDEL', R, 'unadded')  -- first what takes no memory: a full server refuses the rest otherwise
if done == '1' then
  call('HSET', R, 'walked', row[1] or now())
  ring(run, 'walked')
  over(R, run)
else
  call('HSET', R, 'unadded', 1)
  if not (row[2] or row[3]) then
    call('HDEL', R, 'walked')
    walks_on(R, run)
  end
end
return 1
