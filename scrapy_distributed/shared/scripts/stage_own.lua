-- Keeps lines of items that the owner of the walk has scraped itself, until they are settled: at the end of the last part,
-- as long as that is small. ARGV: run, owner, token, which call of the attempt it is, from 0, lines, number of items. Returns
-- 'done'; 'forgotten' where the attempt that keeps them is not known, or not all calls before; 0 where the owner has lost
-- the walk.
local PART = 1024 * 1024
local run, owner, token, index, lines, items = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
local R = K .. ':' .. run
if not owns(R, owner) then return 0 end
local attempt = R .. ':attempt:' .. string.match(token, '^%d+%.%d+')
local row = call('HMGET', attempt, 'source', 'calls', 'lines')
local calls, parts, staged = number(row[2]), number(row[3]), R .. ':staged:' .. token .. ':i:'
if not row[1] or calls < index then return 'forgotten' end
if calls == index then  -- else it was applied, and the answer was lost
  if parts == 0 or call('STRLEN', staged .. parts - 1) + #lines > PART then parts = parts + 1 end
  call('APPEND', staged .. parts - 1, lines)
  call('HSET', attempt, 'calls', index + 1, 'lines', parts)
  call('HINCRBY', attempt, 'items', items)
  call('HINCRBY', R, 'adds', 1)
end
return 'done'
