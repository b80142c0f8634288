-- What of a run is in its stream, at one moment: counts of the run, entries that stand there, accepted attempts whose items
-- are still to be put there, and items that coordinators have scraped themselves and that do not count yet.
local R = K .. ':' .. ARGV[1]
local own = 0
for _, token in ipairs(call('LRANGE', R .. ':own', 0, -1)) do
  own = own + number(call('HGET', R .. ':attempt:' .. string.match(token, '^%d+%.%d+'), 'items'))
end
return {
  call('HMGET', R, 'counted', 'streamed', 'lost_items', 'reread'), call('XLEN', R .. ':items'), call('LLEN', R .. ':home'),
  own,
}
