-- How requests come in: in portions, each with its key. It needs what seen has.
local KEY_BYTES = 12

local function each_key(text)
  local keys = {}
  for at = 1, #text, KEY_BYTES do keys[#keys + 1] = string.sub(text, at, at + KEY_BYTES - 1) end
  return keys
end

-- Appends portions to what waits. From there on ARGV has size and data of each of them. The data of the first one begins
-- with so many requests that are not meant: those of the portion last, which grows if all of it still waits, at the end.
-- Returns the last portion, and whether all of its data is meant.
local function append(R, run, from, skipped, last)
  local id, whole
  for at = from, #ARGV, 2 do
    local size, data, first = ARGV[at], ARGV[at + 1], at == from and skipped or 0
    if first > 0 and last and call('LINDEX', R .. ':portions', -1) == last .. ':0:' .. first then
      id, whole = last, true
      call('HSET', R .. ':portion', id, data)
      call('HINCRBY', R .. ':used', id, size)
      call('LSET', R .. ':portions', -1, id .. ':0:' .. first + size)
    else
      id, whole = new_portion(R, size, data), first == 0
      if call('RPUSH', R .. ':portions', id .. ':' .. first .. ':' .. size) == 1 then ring(run, 'waiting') end
    end
  end
  return id, whole
end

-- Takes requests in if the key of none of them is known; else it does nothing and returns a flag for each, 1 for one
-- that is. Where all are known they are counted, and it returns nothing, either. From at on ARGV has how many others of
-- the call are known, all keys as one text, and size and data of each portion.
-- Returns flags, or nothing and what append does, if anything was new.
local function take_in(R, run, at, skipped, last)
  local duplicates, keys = tonumber(ARGV[at]), each_key(ARGV[at + 1])
  local id, whole
  if #keys > 0 then
    local known, number_known, full = known_of(R, keys)
    if number_known > 0 and number_known < #keys then return known end
    if number_known == #keys then
      duplicates = duplicates + #keys
    else
      enter(R, keys, full)
      id, whole = append(R, run, at + 2, skipped, last)
      count_landed(R, keys)
      call('HINCRBY', R, 'diverted', #keys)
      call('HINCRBY', R, walks_on(R, run) and 'not_crawled' or 'queued', #keys)
    end
  end
  if duplicates > 0 then call('HINCRBY', R, 'duplicates', duplicates) end
  return nil, id, whole
end
