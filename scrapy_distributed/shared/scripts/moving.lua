-- needs: seen
-- The first part of what accepted attempts have found: what tells which it is, the part, and a flag for each request of
-- it, '1' where its key is known; nothing where no part is left.
local R = K .. ':' .. ARGV[1]
local text = call('LINDEX', R .. ':moving', 0)
if not text then return false end
local head, seen, flags, at = cjson.decode(text), seen_of(R), {}, 1
local data = call('GET', R .. ':staged:' .. head.token .. ':f:' .. head.at) or ''
while at <= #data do
  local key, length, body = struct.unpack('<c12I4', data, at)
  flags[#flags + 1] = call('HEXISTS', bucket_of(seen, key), key)
  at = body + length
end
return {text, data, table.concat(flags)}
