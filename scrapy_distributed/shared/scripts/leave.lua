-- needs: workers
-- A worker has gone.
forget_worker(ARGV[1])
