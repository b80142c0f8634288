-- The seen-set: buckets of a small hash each, grown by linear hashing, so that each stays a compact list and none is
-- ever moved as a whole. One of them has up to twice the mean, and Redis makes a table of a hash of more than 128.
local KEY_BYTES = 12
local MEAN = 40
local FIRST = 16384  -- buckets to begin with: none is split before 650,000 keys, and they take 2 MB at most

local byte, sub, format = string.byte, string.sub, string.format

-- The key at a place, from 1, of those that are one text.
local function key_at(keys, place)
  return sub(keys, (place - 1) * KEY_BYTES + 1, place * KEY_BYTES)
end

local function hash_of(key)
  local high, middle, low = byte(key, 1, 3)
  return (high * 256 + middle) * 256 + low
end

-- From how many keys there are in how many buckets, as the run tells.
local function seen_from(R, keys, buckets)
  local seen = {keys = number(keys), buckets = tonumber(buckets or FIRST), level = 1, name = R .. ':seen:'}
  while seen.level * 2 <= seen.buckets do seen.level = seen.level * 2 end
  return seen
end

local function seen_of(R)
  return seen_from(R, unpack(call('HMGET', R, 'seen', 'buckets')))
end

local function bucket_of(seen, key)
  local bucket = hash_of(key) % (2 * seen.level)
  return format('%s%d', seen.name, bucket < seen.buckets and bucket or bucket - seen.level)
end

local function split(R, seen)
  local from, leave, moved = seen.name .. (seen.buckets - seen.level), {}, {}
  for _, key in ipairs(call('HKEYS', from)) do
    if hash_of(key) % (2 * seen.level) == seen.buckets then
      leave[#leave + 1] = key
      moved[#moved + 1] = key
      moved[#moved + 1] = ''
    end
  end
  if #leave > 0 then
    if call('HEXISTS', R, 'pages') == 1 then  -- else no key has a value
      for at, value in ipairs(call('HMGET', from, unpack(leave))) do moved[2 * at] = value end
    end
    call('HDEL', from, unpack(leave))
    call('HSET', seen.name .. seen.buckets, unpack(moved))
  end
  seen.buckets = seen.buckets + 1
  if seen.buckets == 2 * seen.level then seen.level = seen.buckets end
end

-- Enters keys, each with the value: '' for a request, the source of a page. Returns flags, '1' for each that is new, and
-- how many are. What seen says then is for the caller to keep.
local function enter(R, seen, keys, value)
  local flags, before = {}, seen.keys
  for place = 1, #keys / KEY_BYTES do
    local key = key_at(keys, place)
    flags[place] = '0'
    if call('HSETNX', bucket_of(seen, key), key, value) == 1 then
      flags[place] = '1'
      seen.keys = seen.keys + 1
      if seen.keys > seen.buckets * MEAN then split(R, seen) end
    end
  end
  return table.concat(flags), seen.keys - before
end

-- A request was redirected to the page of a key, which may be that of another request as well.
local function land(R, key)
  call('HSET', R, 'landed', 1)
  if call('SADD', R .. ':landed', key) == 0 or call('HGET', bucket_of(seen_of(R), key), key) == '' then
    call('HINCRBY', R, 'twice', 1)
  end
end

-- Requests are new to which others may have been redirected before.
local function count_landed(R, keys, flags)
  for place in string.gmatch(flags, '()1') do
    if call('SISMEMBER', R .. ':landed', key_at(keys, place)) == 1 then call('HINCRBY', R, 'twice', 1) end
  end
end
