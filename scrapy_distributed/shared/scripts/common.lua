-- What every script begins with. KEYS[1]: what all keys of the project begin with.
local K = KEYS[1]
local call = redis.call

local function now()  -- ms, by the server's clock alone
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function ring(run, what)
  call('XADD', K .. ':events', 'MAXLEN', '~', 1000, '*', 'run', run, 'what', what)
end

local function last_event()
  local found = call('XREVRANGE', K .. ':events', '+', '-', 'COUNT', 1)[1]
  return found and found[1] or '0-0'
end

local function number(value)
  return tonumber(value or 0) or 0
end

local function owns(R, owner)
  return call('HGET', R, 'owner') == owner
end

-- Requests that are kept together, packed where they come from. Whoever has some of them waits for a part of it, told as
-- 'id:first:size'.
local function new_portion(R, size, data)
  local id = call('HINCRBY', R, 'portion', 1)
  call('HSET', R .. ':portion', id, data)
  call('HSET', R .. ':used', id, size)
  return id
end

-- A run that is over since nothing was left of it goes on, as its walk does. Returns whether it does not: it was stopped,
-- or given up for another.
local function walks_on(R, run)
  local row = call('HMGET', R, 'ended', 'stopped', 'stored')
  if not row[1] then return false end
  if row[2] or row[3] then return true end
  call('HDEL', R, 'ended')
  call('RPUSH', K .. ':open', run)
  return false
end
