-- What of a run is in its stream, at one moment: counts of the run, entries that stand there, and accepted attempts whose
-- items are still to be put there.
local R = K .. ':' .. ARGV[1]
return {
  call('HMGET', R, 'counted', 'streamed', 'lost_items', 'reread'), call('XLEN', R .. ':items'), call('LLEN', R .. ':home'),
}
