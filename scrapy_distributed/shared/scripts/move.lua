-- needs: seen taking_in batches ending
-- Adds the first part of what accepted attempts have found, if it is still the first. ARGV: run, what tells which it is,
-- how many of it are known, and of the others what take_in reads. Returns how many parts are left.
local run, text, known = ARGV[1], ARGV[2], ARGV[3]
local R = K .. ':' .. run
if call('LINDEX', R .. ':moving', 0) == text then
  take_in(R, run, 4, 0)
  call('HINCRBY', R, 'duplicates', known)
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
