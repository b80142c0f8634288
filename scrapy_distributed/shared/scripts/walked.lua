-- needs: batches ending
-- The owner of the walk says whether it is done. Returns whether it is the owner.
local run, owner, done = ARGV[1], ARGV[2], ARGV[3]
local R = K .. ':' .. run
if not owns(R, owner) then return 0 end
local walked = call('HGET', R, 'walked')
call('HDEL', R, 'walked')  -- first what takes no memory: a full server refuses the rest otherwise
if done == '1' then
  call('HSET', R, 'walked', walked or now())
  ring(run, 'walked')
  over(R, run)
else
  walks_on(R, run)
end
return 1
