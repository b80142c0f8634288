-- The owner of the walk gives it up. ARGV: run, owner, whether all that it has found is added.
local R = K .. ':' .. ARGV[1]
if owns(R, ARGV[2]) then
  if ARGV[3] == '1' then call('HDEL', R, 'unadded') end
  call('HDEL', R, 'owner', 'owner_until')
  ring(ARGV[1], 'walk')
end
