-- The first part of what accepted attempts have found: what tells which it is, and the part; nothing where none is left.
local R = K .. ':' .. ARGV[1]
local head = call('LINDEX', R .. ':moving', 0)
if not head then return false end
local part = cjson.decode(head)
return {head, call('GET', R .. ':staged:' .. part.token .. ':f:' .. part.at) or ''}
