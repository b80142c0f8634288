-- Workers that have joined: 'workers' has their JSON, 'slots' how many jobs each runs at once, 'heard' when each was
-- heard of last, 'claims' what each has claimed last.
local GRACE = 15000  -- ms

local function forget_worker(worker)
  for _, name in ipairs({'workers', 'slots', 'claims'}) do call('HDEL', K .. ':' .. name, worker) end
  call('ZREM', K .. ':heard', worker)
end

local function name_of_server()
  return string.match(call('INFO', 'server'), 'run_id:(%w+)')
end

-- While a server is away nobody can renew a lease: when it is back nobody loses one before all had time to do so.
local function no_loss_before(time)
  local row, name = call('HMGET', K .. ':server', 'name', 'since'), name_of_server()
  if row[1] == name then return number(row[2]) + GRACE end
  call('HSET', K .. ':server', 'name', name, 'since', time)
  return time + GRACE
end

-- What a worker has claimed last, if that was with this secret and is under its lease: run, batch, token.
local function claimed_with(worker, secret)
  local last, batch, run = string.match(call('HGET', K .. ':claims', worker) or '', '^(%w+) (%d+) (.*)$')
  if last ~= secret then return end
  local R = K .. ':' .. run
  local token = batch .. '.' .. number(call('HGET', R .. ':batch:' .. batch, 'attempts')) .. '.' .. secret
  if call('ZSCORE', R .. ':lease', token) then return run, batch, token end
end
