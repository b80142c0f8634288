-- The owner of the walk gives it up.
local R = K .. ':' .. ARGV[1]
if owns(R, ARGV[2]) then
  call('HDEL', R, 'owner', 'owner_until')
  ring(ARGV[1], 'walk')
end
