-- needs: seen batches ending
-- Adds the first part of what accepted attempts have found. Returns how many parts are left, or -1 where none was.
local run = ARGV[1]
local R = K .. ':' .. run
local text = call('LINDEX', R .. ':moving', 0)
if not text then return -1 end
local head = cjson.decode(text)
local name = R .. ':staged:' .. head.token .. ':f:' .. head.at
local data, keys, bodies, at = call('GET', name) or '', {}, {}, 1
while at <= #data do
  local length
  keys[#keys + 1], length, at = struct.unpack('<c12I4', data, at)
  bodies[#bodies + 1] = string.sub(data, at, at + length - 1)
  at = at + length
end
if #keys > 0 then take_in(R, run, keys, bodies) end
call('UNLINK', name)
head.at = head.at + 1
if head.at < head.parts then
  call('LSET', R .. ':moving', 0, cjson.encode(head))
else
  call('LPOP', R .. ':moving')
  over(R, run)
end
return head.parts - head.at + call('LLEN', R .. ':moving')
