-- needs: seen taking_in
-- Adds requests that the owner of the walk has found. ARGV: run, owner, name of this call, of the one before, how many
-- requests of that one the first portion begins with, a flag for each request of this call ('1' for those that may be
-- new), number of sessions, id and text of each, and what take_in reads. Returns flags, '1' for each that was new, and
-- whether the last portion that it has appended, or there was, can grow; where take_in returns flags false and these;
-- nothing where the owner has lost the walk.
local run, owner, name, before, skipped, flags, sessions = unpack(ARGV, 1, 7)
local R = K .. ':' .. run
local row = call('HMGET', R, 'owner', 'added', 'flags', 'adds', 'last')
if row[1] ~= owner then return false end
if row[2] == name then return {row[3], 0} end  -- it was applied, and the answer was lost
local last = row[2] == before and row[5]
local at = 8 + 2 * tonumber(sessions)
local known, id, whole = take_in(R, run, at, tonumber(skipped), last)
if known then return {false, unpack(known)} end
if not id then
  flags, id, whole = string.gsub(flags, '1', '0'), last or '', last
end
for session = 8, at - 2, 2 do call('HSETNX', R .. ':sessions', ARGV[session], ARGV[session + 1]) end
call('HSET', R, 'added', name, 'flags', flags, 'adds', number(row[4]) + 1, 'last', id)
return {flags, whole and 1 or 0}
