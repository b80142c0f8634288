-- needs: batches
-- An attempt and its batch as they are now: state of the attempt ('forgotten': there is none with this token), whether
-- its receipt counts, what it was not sent (bitmap), its worker, fate and again where it has ended, and of the batch
-- size, settled, attempts, failures, state, avoid, parts.
local run, token = ARGV[1], ARGV[2]
local R = K .. ':' .. run
local state, batch, attempt_number, attempt = attempt_of(R, token)
local row = call('HMGET', attempt, 'without', 'worker', 'fate', 'again')
local of_batch = call('HMGET', R .. ':batch:' .. batch, 'size', 'settled', 'attempts', 'failures', 'state', 'avoid',
  'parts')
return {state, in_time(R, state, batch, attempt_number) and 1 or 0, row, of_batch,
  call('HMGET', R, 'rules', 'stopped')}
