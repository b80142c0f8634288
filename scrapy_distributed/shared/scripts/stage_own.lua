-- Keeps lines of items that the owner of the walk has scraped itself, until they are settled. Returns 'done';
-- 'forgotten' where the attempt that keeps them is not known, 0 where the owner has lost the walk.
local run, owner, token, index, lines, items = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
local R = K .. ':' .. run
if not owns(R, owner) then return 0 end
local attempt = R .. ':attempt:' .. string.match(token, '^%d+%.%d+')
if call('HEXISTS', attempt, 'source') == 0 then return 'forgotten' end
if number(call('HGET', attempt, 'lines')) <= index then  -- else it was applied, and the answer was lost
  call('SET', R .. ':staged:' .. token .. ':i:' .. index, lines)
  call('HSET', attempt, 'lines', index + 1)
  call('HINCRBY', attempt, 'items', items)
  call('HINCRBY', R, 'adds', 1)
end
return 'done'
