-- How fast jobs of a run are: the last ten minutes of their work, or twice as much: 'paced' requests in 'paced_ms'.
local ENOUGH = 600000  -- ms

local function keep_pace(R, requests, ms)
  local row = call('HMGET', R, 'paced', 'paced_ms')
  requests, ms = number(row[1]) + requests, number(row[2]) + ms
  while ms > 2 * ENOUGH do requests, ms = math.ceil(requests / 2), math.floor(ms / 2) end
  call('HSET', R, 'paced', requests, 'paced_ms', ms)
end

-- How many requests a job does in so many ms: the first number where nobody knows, at most so many times those that this
-- rests on.
local function paced_for(R, ms, first, growth)
  local row = call('HMGET', R, 'paced', 'paced_ms')
  local requests = number(row[1])
  if requests == 0 then return first end
  return math.max(1, math.min(math.floor(ms * requests / math.max(number(row[2]), 100)), growth * requests))
end
