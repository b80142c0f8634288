-- How a run stands, at one moment.
local run = ARGV[1]
local R = K .. ':' .. run
local time = now()
return {
  time, call('HGETALL', R), call('LLEN', R .. ':portions'), call('LLEN', R .. ':again'),
  call('LLEN', R .. ':moving'), call('LLEN', R .. ':home'), call('ZCARD', R .. ':lease'),
  call('LLEN', R .. ':own'), call('HVALS', K .. ':workers'), call('ZRANGE', K .. ':heard', 0, -1, 'WITHSCORES'), last_event(),
}
