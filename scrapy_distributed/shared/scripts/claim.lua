-- needs: batches workers pace
-- A batch for a worker. ARGV: worker, its slots, its JSON, the version of its code, the secret of the attempt that may
-- begin, for how many ms a worker counts that is not heard of; of a batch: how many requests it has where nobody knows
-- how fast its run is, how many times those that are known, how many at most, for how many ms of work, which part of
-- these is worth a job; number of runs that it does not want, these, and each of its spiders with how many requests it
-- wants of it, 0 where it does not know.
-- Returns an array that begins with what it is: 'overdue' (and run, token, deadline of each attempt), 'batch', 'moving'
-- (and a run whose finds are to be added), 'nothing' (ms until that may change or -1, last event, then run, spider,
-- version, why for each that was passed over).
local worker, slots, joined, version = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local secret, away = ARGV[5], tonumber(ARGV[6])
local FIRST, GROWTH, MOST = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local WORK, WORTH, unwanted = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local MOST_BYTES = 100000  -- of the portions of a batch: what fits into an argument
local MOST_LOOKED_AT = 1000  -- batches that go out again: some milliseconds, in which everybody waits
local time, refused, wanted = now(), {}, {}
for at = 13, 12 + unwanted do refused[ARGV[at]] = true end
for at = 13 + unwanted, #ARGV, 2 do wanted[ARGV[at]] = tonumber(ARGV[at + 1]) end

call('ZADD', K .. ':heard', time, worker)  -- first what takes memory: a full server gives out nothing more
for _, gone in ipairs(call('ZRANGEBYSCORE', K .. ':heard', '-inf', time - away)) do forget_worker(gone) end
call('HSET', K .. ':workers', worker, joined)
call('HSET', K .. ':slots', worker, slots)

local all_slots, others = 0, -1
for _, its_slots in ipairs(call('HVALS', K .. ':slots')) do all_slots, others = all_slots + its_slots, others + 1 end

local function given(run, batch)
  local R = K .. ':' .. run
  local row = call('HMGET', R .. ':batch:' .. batch, 'size', 'settled', 'attempts', 'failures', 'avoid', 'parts')
  local answer = {'batch', run, batch, row[1], row[2], row[3], row[4], row[5] or '', others}
  for _, value in ipairs(call('HMGET', R, 'spider', 'template', 'version', 'rules')) do answer[#answer + 1] = value end
  local before
  for part in string.gmatch(row[6], '[^,]+') do
    local id = string.match(part, '^%d+')
    answer[#answer + 1] = part
    answer[#answer + 1] = id == before and '' or call('HGET', R .. ':portion', id)
    before = id
  end
  return answer
end

local function book(run, R, batch, size)
  local name = R .. ':batch:' .. batch
  local attempt_number = call('HINCRBY', name, 'attempts', 1)
  if attempt_number > 1 then  -- the receipt of one that was lost comes too late from now on
    local label = batch .. '.' .. (attempt_number - 1)
    local before = R .. ':attempt:' .. label
    local row = call('HMGET', before, 'state', 'token')
    if row[1] == 'unknown' then drop_staged(R, label .. '.' .. row[2], before) end
  end
  call('HSET', name, 'state', 'in flight', 'last', worker)
  call('HSET', R .. ':attempt:' .. batch .. '.' .. attempt_number, 'token', secret, 'worker', worker, 'state', 'sent',
    'bound', time, 'without', call('HGET', name, 'settled'), 'size', size)
  call('ZADD', R .. ':lease', time + number(call('HGET', R, 'lease')), batch .. '.' .. attempt_number .. '.' .. secret)
  call('HINCRBY', R, 'queued', -size)
  call('HINCRBY', R, 'in_flight', size)
  call('LREM', K .. ':open', 0, run)
  call('RPUSH', K .. ':open', run)
  call('HSET', K .. ':claims', worker, secret .. ' ' .. batch .. ' ' .. run)
  return given(run, batch)
end

if call('HGET', K .. ':claims', worker) == secret then return {'nothing', -1, last_event()} end  -- see forgo
local its_run, its_batch = claimed_with(worker, secret)
if its_run then return given(its_run, its_batch) end  -- it was not heard

local runs = call('LRANGE', K .. ':open', 0, -1)
local overdue, soonest = {'overdue'}, -1
local function may_change(at)
  if soonest < 0 or at - time < soonest then soonest = math.max(0, at - time) end
end
for _, run in ipairs(runs) do
  local lease = K .. ':' .. run .. ':lease'
  local late = call('ZRANGEBYSCORE', lease, '-inf', time, 'WITHSCORES', 'LIMIT', 0, 20)
  for at = 1, #late, 2 do
    overdue[#overdue + 1] = run
    overdue[#overdue + 1] = late[at]
    overdue[#overdue + 1] = late[at + 1]
  end
  local first = call('ZRANGE', lease, 0, 0, 'WITHSCORES')
  if first[2] then may_change(number(first[2])) end
end
if #overdue > 1 then
  local from = no_loss_before(time)
  if time >= from then return overdue end
  soonest = from - time
end

-- One that goes out again goes to another worker, if one takes it within a lease.
local function again(R)
  local lease = number(call('HGET', R, 'lease'))
  for _, batch in ipairs(call('LRANGE', R .. ':again', 0, MOST_LOOKED_AT - 1)) do
    local name = R .. ':batch:' .. batch
    local row = call('HMGET', name, 'last', 'ready')
    local from = number(row[2]) + lease
    if row[1] ~= worker or others == 0 or time >= from then
      local left, ended = number(call('HGET', name, 'size')), {'crawled', 'failed', 'filtered', 'dead', 'moved'}
      for _, count in ipairs(call('HMGET', name, unpack(ended))) do left = left - number(count) end
      return batch, left
    end
    may_change(from)
  end
end

local function parts_of(R, size)
  local parts, taken, bytes, before = {}, 0, 0, nil
  while taken < size do
    local head = call('LINDEX', R .. ':portions', 0)
    if not head then break end
    local id, first, left = string.match(head, '(%d+):(%d+):(%d+)')
    local part = math.min(size - taken, left)
    if id ~= before then bytes, before = bytes + call('HSTRLEN', R .. ':portion', id), id end
    if bytes > MOST_BYTES and taken > 0 then return parts, taken end
    if part < tonumber(left) then
      call('LSET', R .. ':portions', 0, id .. ':' .. (first + part) .. ':' .. (left - part))
    else
      call('LPOP', R .. ':portions')
    end
    parts[#parts + 1] = id .. ':' .. first .. ':' .. part
    taken = taken + part
  end
  return parts, taken
end

local nothing, moving = {}, nil
for _, run in ipairs(runs) do
  local R = K .. ':' .. run
  if call('LLEN', R .. ':moving') > 0 then moving = run end
  local row = call('HMGET', R, 'spider', 'version', 'paused', 'stopped', 'queued')
  local why = row[4] and 'stopped' or row[3] and 'paused' or not wanted[row[1]] and 'spider'
    or row[2] ~= version and 'version' or refused[run] and 'refused'
  if why then
    for _, value in ipairs({run, row[1], row[2], why}) do nothing[#nothing + 1] = value end
  else
    local batch, left = again(R)
    if batch then
      call('LREM', R .. ':again', 1, batch)
      return book(run, R, batch, left)
    end
    local most = wanted[row[1]] > 0 and wanted[row[1]] or math.min(MOST, paced_for(R, WORK, FIRST, GROWTH))
    local share = math.max(1, math.floor(most / WORTH), math.ceil(number(row[5]) / all_slots))
    local parts, size = parts_of(R, math.min(most, share))
    if size > 0 then
      batch = call('HINCRBY', R, 'batches', 1)
      call('HSET', R .. ':batch:' .. batch, 'size', size, 'parts', table.concat(parts, ','), 'settled', '',
        'attempts', 0, 'failures', 0, 'state', 'ready')
      return book(run, R, batch, size)
    end
  end
end
if moving then return {'moving', moving} end
return {'nothing', soonest, last_event(), unpack(nothing)}
