-- needs: seen
-- Adds requests that the owner of the walk has found. ARGV: run, owner, name of this call, number of requests, key and
-- body of each, then id and text of each session. Returns a flag for each; nothing where the owner has lost the walk.
local run, owner, name, size = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local R = K .. ':' .. run
if not owns(R, owner) then return false end
local row = call('HMGET', R, 'added', 'flags')
if row[1] == name then return row[2] end  -- it was applied, and the answer was lost
local keys, bodies = {}, {}
for at = 1, size do
  keys[at] = ARGV[3 + 2 * at]
  bodies[at] = ARGV[4 + 2 * at]
end
for at = 5 + 2 * size, #ARGV, 2 do call('HSETNX', R .. ':sessions', ARGV[at], ARGV[at + 1]) end
local flags = take_in(R, run, keys, bodies)
call('HSET', R, 'added', name, 'flags', flags)
call('HINCRBY', R, 'adds', 1)
return flags
