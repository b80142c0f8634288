-- needs: seen
-- Enters the keys of pages that items have come from, for a source. ARGV: run, owner, source, all keys as one text. Returns
-- '1' for each that is new, or its own; nothing where the owner has lost the walk.
local run, owner, source, keys = unpack(ARGV)
local R = K .. ':' .. run
if not owns(R, owner) then return false end
call('HDEL', R, 'pages')  -- first what takes no memory: a full server refuses the rest otherwise
call('HSET', R, 'pages', 1)
local seen = seen_of(R)
local flags = enter(R, seen, keys, source)
call('HSET', R, 'seen', seen.keys, 'buckets', seen.buckets)
return (string.gsub(flags, '()0', function(place)
  local key = key_at(keys, place)
  return call('HGET', bucket_of(seen, key), key) == source and '1' or '0'
end))
