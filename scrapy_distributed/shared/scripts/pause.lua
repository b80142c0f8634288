-- Whether nothing of a run is claimed now.
local run, R = ARGV[1], K .. ':' .. ARGV[1]
if call('HDEL', R, 'paused') == 1 and ARGV[2] == '0' then ring(run, 'waiting') end
if ARGV[2] == '1' and call('HEXISTS', R, 'started') == 1 then call('HSET', R, 'paused', 1) end
