-- What is known of a run: keys, and the sources of those that are pages which have brought items. A key is in one of some
-- sets: all but the last are full, and each is twice as large as the one before. So no table doubles that is large, which
-- takes half as much memory again meanwhile.
local FULL = 900000  -- keys in the first set: with 917,504 the table doubles on Valkey, with 1,048,576 on Redis

-- Returns a flag for each key, 1 for one that is known, how many are, and how many sets are full.
local function known_of(R, keys)
  local full, count = number(call('HGET', R, 'full')), 0
  local known = call('SMISMEMBER', R .. ':seen:' .. full, unpack(keys))
  for index = 0, full - 1 do
    for at, is_known in ipairs(call('SMISMEMBER', R .. ':seen:' .. index, unpack(keys))) do
      known[at] = known[at] + is_known
    end
  end
  for at = 1, #keys do count = count + known[at] end
  return known, count, full
end

-- Enters keys none of which is known.
local function enter(R, keys, full)
  local name = R .. ':seen:' .. full
  call('SADD', name, unpack(keys))
  if call('SCARD', name) >= FULL * 2 ^ full then call('HSET', R, 'full', full + 1) end
end

local function forget_seen(R)
  for index = 0, number(call('HGET', R, 'full')) do call('UNLINK', R .. ':seen:' .. index) end
  call('UNLINK', R .. ':pages')
end

-- A request was redirected to the page of a key, which may be that of another request as well.
local function land(R, key)
  if call('SADD', R .. ':landed', key) == 0
    or known_of(R, {key})[1] == 1 and call('HEXISTS', R .. ':pages', key) == 0 then
    call('HINCRBY', R, 'twice', 1)
  end
end

local function count_landed(R, keys)
  if call('EXISTS', R .. ':landed') == 0 then return end
  for _, landed in ipairs(call('SMISMEMBER', R .. ':landed', unpack(keys))) do
    if landed == 1 then call('HINCRBY', R, 'twice', 1) end
  end
end
