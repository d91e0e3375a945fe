-- What the history would hold of each target after three years without pruning: of each night the run, and 2,000 recipes that lost rows; the
-- samples that three years of ticks have left; more ticks and decisions than are kept.
INSERT INTO backlog_cleanup.run (target, mode, requested_by, total_failed, removed, recipes_affected, started_at, finished_at)
SELECT name, 'regular', 'postgres', 50000, 20000, 2000, at, at + interval '2 seconds'
FROM backlog_cleanup.target, generate_series(now() - interval '1095 days', now(), interval '1 day') at;
INSERT INTO backlog_cleanup.run_policy (run_id, place, cutoff, keep, enabled, in_scope, removed)
SELECT id, 0, started_at, 10, true, 50000, 20000 FROM backlog_cleanup.run;
INSERT INTO backlog_cleanup.run_status (run_id, place, status, in_scope, removed, kept_back)
SELECT id, 0, 'failed', 50000, 20000, 0 FROM backlog_cleanup.run;
INSERT INTO backlog_cleanup.run_failure
SELECT id, started_at - interval '1 hour' * hours, 'failure type ' || types, recipes, 17
FROM backlog_cleanup.run, generate_series(24, 71) hours, generate_series(1, 4) types, generate_series(1, 6) recipes
WHERE started_at > now() - interval '100 days';
INSERT INTO backlog_cleanup.run_recipe SELECT id, recipe, 25, 10 FROM backlog_cleanup.run, generate_series(1, 2000) recipe
WHERE started_at > now() - interval '100 days';
INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, in_scope, statuses, removable, oldest_at, failed, failed_seconds, recipes,
    failure_types, milliseconds, table_bytes, index_bytes, live_rows, dead_rows, seconds, inserted, updated, deleted, transactions,
    removed, counters)
SELECT name, grain, at, 50000, '{"failed": 50000}', 20000, at - interval '2 days', 300, 300, recipes,
       '[{"change": 200, "failureType": "provider_unavailable"}, {"change": 60, "failureType": "timeout"}]', 12.5, 800000000,
       90000000, 1000000, 20000, 300, 900, 300, 0, 30000, 0,
       '{"deleted": 20000000, "inserted": 900000000, "removed": 20000000, "transactions": 9000000000, "updated": 300000000}'
FROM backlog_cleanup.target,
     (SELECT 'fine', at FROM generate_series(now() - interval '3 days', now() - interval '5 minutes', interval '5 minutes') at
      UNION ALL
      SELECT 'hour', at FROM generate_series(date_trunc('hour', now()) - interval '100 days', now() - interval '3 days', interval '1 hour') at
      UNION ALL
      SELECT 'day', at FROM generate_series(date_trunc('day', now()) - interval '1095 days', now() - interval '3 days', interval '1 day') at
     ) past (grain, at),
     LATERAL (SELECT jsonb_agg(jsonb_build_object('recipeId', r, 'inScope', 25, 'change', 3)) FROM generate_series(1, CASE grain WHEN 'fine' THEN 50 ELSE 5 END) r) named (recipes);
INSERT INTO backlog_cleanup.tick (started_at, milliseconds, steps)
SELECT at, 20, (SELECT jsonb_agg(jsonb_build_object('step', 'sample', 'target', 'generations', 'milliseconds', 12.345, 'skipped', NULL, 'error', NULL))
                FROM generate_series(1, 23))
FROM generate_series(now() - interval '14 days', now() - interval '5 minutes', interval '5 minutes') at;
INSERT INTO backlog_cleanup.decision (tick, target, decided_at, action, reason, numbers)
SELECT 1, name, at, 'none', repeat('x', 120),
       (SELECT jsonb_object_agg('aNumberThatTheDecision' || n, 12345.678901) FROM generate_series(1, 17) n)
FROM backlog_cleanup.target, generate_series(now() - interval '100 days', now() - interval '5 minutes', interval '5 minutes') at;
