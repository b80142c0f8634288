-- needs: workers
-- The attempts of a run whose leases have run out: token and deadline of each.
local lease, time = K .. ':' .. ARGV[1] .. ':lease', now()
local late = call('ZRANGEBYSCORE', lease, '-inf', time, 'WITHSCORES', 'LIMIT', 0, 20)
return #late > 0 and time >= no_loss_before(time) and late or {}
