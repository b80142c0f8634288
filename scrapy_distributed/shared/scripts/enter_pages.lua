-- needs: seen
-- Enters the keys of pages that items have come from, for a source. Returns '1' for each that is new, or its own; nothing
-- where the owner has lost the walk.
local run, owner, source, keys = ARGV[1], ARGV[2], ARGV[3], {unpack(ARGV, 4)}
local R = K .. ':' .. run
if not owns(R, owner) then return false end
local known, _, full = known_of(R, keys)
local sources = call('HMGET', R .. ':pages', unpack(keys))
local flags, new, pairs_of_new = {}, {}, {}
for at, key in ipairs(keys) do
  if known[at] == 0 then
    new[#new + 1] = key
    pairs_of_new[#pairs_of_new + 1] = key
    pairs_of_new[#pairs_of_new + 1] = source
  end
  flags[at] = (known[at] == 0 or sources[at] == source) and '1' or '0'
end
if #new > 0 then
  enter(R, new, full)
  call('HSET', R .. ':pages', unpack(pairs_of_new))
end
return table.concat(flags)
