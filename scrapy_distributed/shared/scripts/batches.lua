-- Batches: how they are made, how they are given out, and what the end of an attempt changes.

-- A portion goes when all of it is settled.
local function drop_part(R, part)
  local id, _, size = string.match(part, '(%d+):(%d+):(%d+)')
  if call('HINCRBY', R .. ':used', id, -size) <= 0 then
    call('HDEL', R .. ':used', id)
    call('HDEL', R .. ':portion', id)
  end
end

local function drop_parts(R, parts)
  for part in string.gmatch(parts, '[^,]+') do drop_part(R, part) end
end

local function drop_staged(R, token, attempt)
  local row = call('HMGET', attempt, 'found', 'lines')
  for index = 0, number(row[1]) - 1 do call('UNLINK', R .. ':staged:' .. token .. ':f:' .. index) end
  for index = 0, number(row[2]) - 1 do call('UNLINK', R .. ':staged:' .. token .. ':i:' .. index) end
end

-- A batch of its own for requests in a portion that is new.
local function add_ready(R, child, data, time)
  local id = new_portion(R, child.size, data)
  local batch = call('HINCRBY', R, 'batches', 1)
  call('HSET', R .. ':batch:' .. batch, 'size', child.size, 'parts', id .. ':0:' .. child.size, 'settled', '',
    'attempts', 0, 'failures', child.failures, 'avoid', child.avoid, 'last', child.last, 'parent', child.parent,
    'state', 'ready', 'ready', time)
  call('RPUSH', R .. ':again', batch)
  call('HINCRBY', R, 'queued', child.size)
end

-- Adds to a count of its own for each name, as long as there are not too many: workers may make up any number.
local function count_names(key, counts)
  for name, count in pairs(counts) do
    if call('HEXISTS', key, name) == 0 and call('HLEN', key) >= 1000 then
      name = string.match(name, '^%l+\n') or ''
      name = name .. 'other reasons'
    end
    call('HINCRBY', key, name, count)
  end
end

-- What is told of an attempt: the requests that were not crawled, why, and where others have landed. From at on ARGV has
-- the JSON of outcomes, and the body of each request that is kept.
local function tell(R, batch, label, step, at)
  if step.outcomes then call('HSET', R .. ':outcome', label, ARGV[at]) end
  for index, position in ipairs(step.kept) do call('HSET', R .. ':kept', batch .. ':' .. position, ARGV[at + index]) end
  count_names(R .. ':reasons', step.reasons)
  count_names(R .. ':followed', step.followed)
  for reason, text in pairs(step.examples) do
    if call('HLEN', R .. ':examples') < 100 then call('HSETNX', R .. ':examples', reason, text) end
  end
  if step.becomes == 'rejected' or step.becomes == 'unknown' then
    call('LPUSH', R .. ':failures', label)
    call('LTRIM', R .. ':failures', 0, 99)
  end
end

-- An attempt has ended as step says, and its batch is what that makes of it. From at on ARGV has the bitmap of what is
-- settled now, what is to be told, and the portion of each child.
local function apply(R, run, batch, attempt_number, token, step, at)
  local name, label = R .. ':batch:' .. batch, batch .. '.' .. attempt_number
  local time, under_way = now(), call('ZREM', R .. ':lease', token) == 1
  call('HDEL', R .. ':attempt:' .. label, 'progress')
  call('HINCRBY', R, under_way and 'in_flight' or 'queued', -step.left_before)
  for _, outcome in ipairs({'crawled', 'failed', 'filtered', 'dead', 'moved'}) do
    if step[outcome] ~= 0 then
      call('HINCRBY', R, outcome, step[outcome])
      call('HINCRBY', name, outcome, step[outcome])
    end
  end
  if step.failures ~= 0 then call('HINCRBY', name, 'failures', step.failures) end
  if step.settles then call('HSET', name, 'settled', ARGV[at]) end
  tell(R, batch, label, step, at + 1)
  if step.left_after == 0 then
    call('HSET', name, 'state', 'settled')
    call('LREM', R .. ':again', 0, batch)
    drop_parts(R, call('HGET', name, 'parts'))
    call('HDEL', name, 'parts')
  else
    call('HSET', name, 'state', 'ready', 'ready', time)
    call('HINCRBY', R, 'queued', step.left_after)
    if under_way then call(step.first and 'LPUSH' or 'RPUSH', R .. ':again', batch) end
  end
  for index, child in ipairs(step.children) do add_ready(R, child, ARGV[at + 1 + #step.kept + index], time) end
  call('HSET', R .. ':attempt:' .. label, 'ended', time, unpack(step.attempt))
  if step.left_after > 0 or #step.children > 0 then ring(run, 'waiting') end
end

-- What may be asked of an attempt: its state, whether it is that of the token, its batch and its number.
local function attempt_of(R, token)
  local batch, attempt_number, secret = string.match(token, '^(%d+)%.(%d+)%.(%w+)$')
  local attempt = R .. ':attempt:' .. batch .. '.' .. attempt_number
  local row = call('HMGET', attempt, 'token', 'state')
  return row[1] == secret and row[2] or 'forgotten', batch, attempt_number, attempt
end

-- Whether a receipt still counts that comes after the lease: where its batch waits, and this was the last to have it.
-- None does of a run that is over: its result may be stored, and what was left of it is told as not crawled.
local function in_time(R, state, batch, attempt_number)
  if state ~= 'sent' and state ~= 'unknown' or call('HEXISTS', R, 'ended') == 1 then return false end
  if state == 'sent' then return true end
  local row = call('HMGET', R .. ':batch:' .. batch, 'state', 'attempts')
  return row[1] == 'ready' and row[2] == attempt_number
end

-- Whether the step was computed from what the batch is now.
local function is_of_now(R, state, batch, step)
  return step.state == state and step.batch_failures == number(call('HGET', R .. ':batch:' .. batch, 'failures'))
end
