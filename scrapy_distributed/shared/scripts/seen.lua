-- The seen-set: buckets of a small hash each, grown by linear hashing, so that each stays a compact list and none is
-- ever moved as a whole. One of them has up to twice the mean, and Redis makes a table of a hash of more than 128.
local MEAN = 40
local FIRST = 16384  -- buckets to begin with: none is split before 650,000 keys, and they take 2 MB at most
local hash_of = struct.unpack

local function buckets_of(count)
  return count and tonumber(count) or FIRST
end

local function level_of(buckets)
  local level = 1
  while level * 2 <= buckets do level = level * 2 end
  return level
end

local function bucket_of(key, buckets, level)
  local hash = hash_of('>I4', key)
  local bucket = hash % (2 * level)
  return bucket < buckets and bucket or hash % level
end

local function split(R, name, buckets, level)
  local from, leave, moved = name .. (buckets - level), {}, {}
  for _, key in ipairs(call('HKEYS', from)) do
    if hash_of('>I4', key) % (2 * level) == buckets then
      leave[#leave + 1] = key
      moved[#moved + 1] = key
      moved[#moved + 1] = ''
    end
  end
  if #leave == 0 then return end
  if call('HEXISTS', R, 'pages') == 1 then  -- else no key has a value
    for at, value in ipairs(call('HMGET', from, unpack(leave))) do moved[2 * at] = value end
  end
  call('HDEL', from, unpack(leave))
  call('HSET', name .. buckets, unpack(moved))
end

-- Enters keys, each with the value; returns for each whether it is new, and whether it was there with that value.
local function enter(R, keys, value)
  local row = call('HMGET', R, 'seen', 'buckets')
  local seen, buckets = number(row[1]), buckets_of(row[2])
  local level, name = level_of(buckets), R .. ':seen:'
  local new, own = {}, {}
  if value ~= '' then call('HSET', R, 'pages', 1) end
  for at = 1, #keys do
    local key = keys[at]
    local bucket = name .. bucket_of(key, buckets, level)
    new[at] = call('HSETNX', bucket, key, value) == 1
    if new[at] then
      seen = seen + 1
      if seen > buckets * MEAN then
        split(R, name, buckets, level)
        buckets = buckets + 1
        if buckets == 2 * level then level = buckets end
      end
    elseif value ~= '' then
      own[at] = call('HGET', bucket, key) == value
    end
  end
  call('HSET', R, 'seen', seen, 'buckets', buckets)
  return new, own
end

-- A request was redirected to the page of a key, which may be that of another request as well.
local function land(R, key)
  local buckets = buckets_of(call('HGET', R, 'buckets'))
  local bucket = R .. ':seen:' .. bucket_of(key, buckets, level_of(buckets))
  if call('SADD', R .. ':landed', key) == 0 or call('HGET', bucket, key) == '' then call('HINCRBY', R, 'twice', 1) end
end

-- Adds requests to those that wait, each key once; returns '1' for each that is new, '0' for the others.
local function take_in(R, run, keys, bodies)
  local new = enter(R, keys, '')
  local fresh, flags, landed = {}, {}, call('EXISTS', R .. ':landed') == 1
  for at, is_new in ipairs(new) do
    flags[at] = is_new and '1' or '0'
    if is_new then
      fresh[#fresh + 1] = bodies[at]
      if landed and call('SISMEMBER', R .. ':landed', keys[at]) == 1 then call('HINCRBY', R, 'twice', 1) end
    end
  end
  if #fresh > 0 then
    local length = call('RPUSH', R .. ':open', unpack(fresh))
    call('HINCRBY', R, 'diverted', #fresh)
    call('HINCRBY', R, walks_on(R, run) and 'not_crawled' or 'queued', #fresh)
    if length == #fresh and call('LLEN', R .. ':portions') == 0 then ring(run, 'waiting') end
  end
  if #fresh < #keys then call('HINCRBY', R, 'duplicates', #keys - #fresh) end
  return table.concat(flags)
end
