-- needs: reopening
-- Requests of a batch that have come to nothing wait once more, and their run goes on if it is over. ARGV: run, name of
-- this call, batch, number of the attempt that has told of them, digest of what it has told, that without these, JSON of
-- how many of these ended in which state for which reason, positions. Returns how many there are, 0 where something else
-- is told by now; or why the run does not go on.
local run, name, batch, told, digest, left = ARGV[1], ARGV[2], ARGV[3], ARGV[3] .. '.' .. ARGV[4], ARGV[5], ARGV[6]
local R = K .. ':' .. run
local row = call('HMGET', R, 'retry', 'retried')
if row[1] == name then return tonumber(row[2]) end  -- it was applied, and the answer was lost
if redis.sha1hex(call('HGET', R .. ':outcome', told) or '') ~= digest then return 0 end
local names, bodies = {}, {}
for at = 8, #ARGV do
  names[#names + 1] = batch .. ':' .. ARGV[at]
  bodies[#bodies + 1] = call('HGET', R .. ':kept', names[#names])
  if not bodies[#bodies] then return redis.error_reply('damaged: no request ' .. names[#names] .. ' of run ' .. run) end
end
local why = reopen(R, run)
if why then return why end

local function less(key, field, count)
  if call('HEXISTS', key, field) == 0 then field = string.match(field, '^%l+\n') .. 'other reasons' end
  local rest = call('HINCRBY', key, field, -count)
  if rest <= 0 then call('HDEL', key, field) end
  return rest
end

local size = #bodies
local portion = new_portion(R, size, 'p' .. table.concat(bodies, '\n'))
call('RPUSH', R .. ':portions', portion .. ':0:' .. size)
call('HDEL', R .. ':kept', unpack(names))
if left == '[]' then call('HDEL', R .. ':outcome', told) else call('HSET', R .. ':outcome', told, left) end
for ended, count in pairs(cjson.decode(ARGV[7])) do
  local state, reason = string.match(ended, '^(%l+)\n(.*)$')
  call('HINCRBY', R, state, -count)
  call('HINCRBY', R .. ':batch:' .. batch, state, -count)
  if less(R .. ':reasons', ended, count) <= 0 and call('HEXISTS', R .. ':followed', reason) == 0 then
    call('HDEL', R .. ':examples', reason)
  end
end
for _, key in ipairs({R, R .. ':batch:' .. batch}) do call('HINCRBY', key, 'moved', size) end
call('HINCRBY', R, 'queued', size)
call('HSET', R, 'retry', name, 'retried', size)
ring(run, 'waiting')
return size
