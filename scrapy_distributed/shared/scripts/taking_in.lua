-- How requests come in: in portions, each with its key. It needs what seen has.

-- Which of the requests of a portion are new, as parts of it, and how many. It begins with those that are skipped.
local function parts_of(flags, skipped)
  local parts, count = {}, 0
  for from, to in string.gmatch(flags, '()1+()') do
    parts[#parts + 1] = {skipped + from - 1, to - from}
    count = count + to - from
  end
  return parts, count
end

-- The portion last has grown, if some of it waits at the end; the first of the parts may go on where that ends. Returns
-- whether it has.
local function grow(R, last, parts, count, data)
  local id, first, size = string.match(call('LINDEX', R .. ':portions', -1) or '', '^(%d+):(%d+):(%d+)$')
  if not last or id ~= last then return false end
  call('HSET', R .. ':portion', id, data)
  call('HINCRBY', R .. ':used', id, count)
  if first + size == parts[1][1] then
    call('LSET', R .. ':portions', -1, id .. ':' .. first .. ':' .. size + parts[1][2])
    table.remove(parts, 1)
  end
  return true
end

-- Appends what is new to what waits. From there on ARGV has size and data of each portion. The data of the first one
-- begins with so many requests that are not meant: those of the portion last. Returns the last portion of which something
-- is new, and whether it can grow.
local function append(R, run, flags, from, skipped, last)
  local id, can_grow, after = nil, true, 0
  for at = from, #ARGV, 2 do
    local size, data = tonumber(ARGV[at]), ARGV[at + 1]
    local parts, count = parts_of(string.sub(flags, after + 1, after + size), skipped)
    if count > 0 then
      local grown = skipped > 0 and grow(R, last, parts, count, data)
      id, can_grow = grown and last or new_portion(R, count, data), grown or skipped == 0
      for index, part in ipairs(parts) do parts[index] = id .. ':' .. part[1] .. ':' .. part[2] end
      if #parts > 0 and call('RPUSH', R .. ':portions', unpack(parts)) == #parts then ring(run, 'waiting') end
    end
    after, skipped = after + size, 0
  end
  return id, can_grow
end

-- Takes in requests whose key is new. From there on ARGV has all keys as one text, and size and data of each portion.
-- Returns flags, '1' for each that is new, and what append does.
local function take_in(R, run, from, skipped, last)
  local row = call('HMGET', R, 'seen', 'buckets', 'diverted', 'duplicates', 'queued', 'ended', 'landed')
  local seen, keys, queued = seen_from(R, row[1], row[2]), ARGV[from], number(row[5])
  local flags, count = enter(R, seen, keys, '')
  local id, can_grow
  if count > 0 then
    id, can_grow = append(R, run, flags, from + 1, skipped, last)
    if row[7] then count_landed(R, keys, flags) end
    if row[6] and walks_on(R, run) then
      call('HINCRBY', R, 'not_crawled', count)
    else
      queued = queued + count
    end
  end
  call('HSET', R, 'seen', seen.keys, 'buckets', seen.buckets, 'diverted', number(row[3]) + count, 'duplicates',
    number(row[4]) + #flags - count, 'queued', queued)
  return flags, id, can_grow
end
