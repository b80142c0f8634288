-- needs: seen
-- Enters the keys of pages that items have come from, for a source. Returns '1' for each that is new, or its own; nothing
-- where the owner has lost the walk.
local run, owner, source, keys = ARGV[1], ARGV[2], ARGV[3], {}
if not owns(K .. ':' .. run, owner) then return false end
for at = 4, #ARGV do keys[#keys + 1] = ARGV[at] end
local new, own = enter(K .. ':' .. run, keys, source)
for at = 1, #keys do new[at] = (new[at] or own[at]) and '1' or '0' end
return table.concat(new)
