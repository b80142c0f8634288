-- needs: workers
-- What a worker has claimed with this secret and has not heard of: run and token; nothing where there is none, and then
-- it gets nothing with this secret any more.
local worker, secret = ARGV[1], ARGV[2]
local run, _, token = claimed_with(worker, secret)
if run then return {run, token} end
call('HDEL', K .. ':claims', worker)  -- first what takes no memory: a full server refuses the rest otherwise
call('HSET', K .. ':claims', worker, secret)
