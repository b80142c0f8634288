-- needs: batches
-- The owner of the walk begins to keep what it scrapes itself, as an attempt at a batch 0. ARGV: run, owner, secret of
-- the attempt, its host, whether the walk begins anew: then what was kept before and was not settled counts no more.
-- Returns number and source of it; 0 where the owner has lost the walk.
local run, owner, secret, host, anew = unpack(ARGV)
local R = K .. ':' .. run
if not owns(R, owner) then return 0 end
local last = call('LINDEX', R .. ':own', -1)
if last and string.match(last, '%w+$') == secret then  -- it was applied, and the answer was lost
  local number_of_last = string.match(last, '^0%.(%d+)')
  return {tonumber(number_of_last), call('HGET', R .. ':attempt:0.' .. number_of_last, 'source')}
end
if anew == '1' then
  for _, token in ipairs(call('LRANGE', R .. ':own', 0, -1)) do
    local _, _, _, attempt = attempt_of(R, token)
    drop_staged(R, token, attempt)
    call('UNLINK', attempt)
  end
  call('UNLINK', R .. ':own')
  -- The pages of a walk whose items were settled are another source: theirs do not count twice.
  if call('HDEL', R, 'own_settled') == 1 then call('HINCRBY', R, 'walks', 1) end
end
local attempt_number = number(call('HGET', R .. ':batch:0', 'attempts')) + 1
local attempt = R .. ':attempt:0.' .. attempt_number
call('UNLINK', attempt)  -- first what takes no memory: a full server refuses the rest otherwise
call('HSET', R .. ':batch:0', 'attempts', attempt_number)
local source = 'own.' .. number(call('HGET', R, 'walks'))
call('HSET', attempt, 'token', secret, 'state', 'sent', 'worker', host, 'bound', now(),
  'source', source, 'size', 0, 'receipt', '', 'errors', 0, 'items', 0, 'reason', 'scraped here')
call('RPUSH', R .. ':own', '0.' .. attempt_number .. '.' .. secret)
return {attempt_number, source}
