-- A run that is over goes on, with all of it that was not crawled; if it was stopped, so does its walk. Returns nothing,
-- or why not: 'closing', or which run of the same identity was begun since ('another' where that is gone as well).
local function reopen(R, run)
  local row = call('HMGET', R, 'ended', 'stopped', 'identity_key', 'not_crawled')
  if not row[1] then return row[2] and 'closing' end
  local last = call('HGET', K .. ':identity', row[3]) or call('HGET', K .. ':stored', row[3])
  if last ~= run then return last or 'another' end
  call('HDEL', R, 'ended', 'stored', 'not_crawled')
  if row[2] then call('HDEL', R, 'stopped', 'walked') end
  call('HSET', K .. ':identity', row[3], run)
  call('HINCRBY', R, 'queued', number(row[4]))
  call('RPUSH', K .. ':open', run)
  ring(run, 'waiting')
end
