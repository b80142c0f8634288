-- The end of a run. It needs what batches has.

-- What attempts have staged whose leases have run out: no receipt of theirs counts any more.
local function drop_late(R)
  for _, batch in ipairs(call('LRANGE', R .. ':again', 0, -1)) do
    local label = batch .. '.' .. number(call('HGET', R .. ':batch:' .. batch, 'attempts'))
    local attempt = R .. ':attempt:' .. label
    local row = call('HMGET', attempt, 'state', 'token')
    if row[1] == 'unknown' then drop_staged(R, label .. '.' .. row[2], attempt) end
  end
end

-- A run is over when its walk is done, or it was stopped, and nothing of it waits, is under way, or is still to be added.
local function over(R, run)
  local row = call('HMGET', R, 'walked', 'stopped', 'queued', 'in_flight', 'ended')
  local stopped = row[2]
  if row[5] or number(row[4]) > 0 or call('LLEN', R .. ':moving') > 0 then return end
  if not stopped and not (row[1] and number(row[3]) == 0) then return end
  if stopped then
    call('HSET', R, 'not_crawled', number(row[3]), 'queued', 0)
    drop_late(R)
  end
  call('HSET', R, 'ended', now())
  call('LREM', K .. ':open', 0, run)
  ring(run, 'over')
end
