-- needs: reopening
-- A run that is over goes on. Returns why not, or nothing.
local run = ARGV[1]
return reopen(K .. ':' .. run, run)
