-- needs: seen taking_in batches ending
-- Adds the first part of what accepted attempts have found, if it is still the first. ARGV: run, what tells which it is,
-- and what take_in reads. Returns how many parts are left; flags where take_in does.
local run, text = ARGV[1], ARGV[2]
local R = K .. ':' .. run
if call('LINDEX', R .. ':moving', 0) == text then
  local known = take_in(R, run, 3, 0)
  if known then return known end
  local head = cjson.decode(text)
  call('UNLINK', R .. ':staged:' .. head.token .. ':f:' .. head.at)
  head.at = head.at + 1
  if head.at < head.parts then
    call('LSET', R .. ':moving', 0, cjson.encode(head))
    return head.parts - head.at + call('LLEN', R .. ':moving') - 1
  end
  call('LPOP', R .. ':moving')
  over(R, run)
end
return call('LLEN', R .. ':moving')
