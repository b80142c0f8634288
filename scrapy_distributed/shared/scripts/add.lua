-- needs: seen taking_in
-- Adds requests that the owner of the walk has found. ARGV: run, owner, name of this call, of the one before, how many
-- requests of that one the first portion begins with, number of sessions, id and text of each, and what take_in reads.
-- Returns flags, '1' for each that was new, and whether the last portion with such ones can grow; nothing where the owner
-- has lost the walk.
local run, owner, name, before, skipped, sessions = unpack(ARGV, 1, 6)
local R = K .. ':' .. run
local row = call('HMGET', R, 'owner', 'added', 'flags', 'adds', 'last')
if row[1] ~= owner then return false end
if row[2] == name then return {row[3], 0} end  -- it was applied, and the answer was lost
local last, at = row[2] == before and row[5], 7 + 2 * tonumber(sessions)
for session = 7, at - 2, 2 do call('HSETNX', R .. ':sessions', ARGV[session], ARGV[session + 1]) end
local flags, id, can_grow = take_in(R, run, at, tonumber(skipped), last)
call('HSET', R, 'added', name, 'flags', flags, 'adds', number(row[4]) + 1, 'last', id or last or '')
return {flags, can_grow and 1 or 0}
