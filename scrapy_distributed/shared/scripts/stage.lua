-- needs: batches
-- Keeps a part of what an attempt has found (kind 'f') or scraped ('i') until it is settled. Returns whether it may.
local run, token, kind, index, data = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local R = K .. ':' .. run
local state, batch, attempt_number, attempt = attempt_of(R, token)
if not in_time(R, state, batch, attempt_number) then return 0 end
call('SET', R .. ':staged:' .. token .. ':' .. kind .. ':' .. index, data)
local name = kind == 'f' and 'found' or 'lines'
if number(call('HGET', attempt, name)) <= index then call('HSET', attempt, name, index + 1) end
return 1
