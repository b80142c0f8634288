-- A worker lives, and takes nothing for a while: it has no share. ARGV: worker, its JSON.
local worker, joined = ARGV[1], ARGV[2]
call('HDEL', K .. ':slots', worker)  -- first what takes no memory: a full server refuses the rest otherwise
call('ZADD', K .. ':heard', now(), worker)
call('HSET', K .. ':workers', worker, joined)
