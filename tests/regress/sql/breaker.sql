-- A run that would remove more than its target allows is refused, with the numbers.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE DATABASE regress_breaker;
\c regress_breaker
SET client_min_messages = warning;
\i demo/platform.sql
CREATE EXTENSION backlog_cleanup;
INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
SELECT 'system_backlog', 1, '', 'failed', now() AT TIME ZONE 'UTC' - interval '3 days' FROM generate_series(1, 100);

UPDATE backlog_cleanup.target SET max_share = 89;
SELECT backlog_cleanup_failed_generations();
\echo :LAST_ERROR_SQLSTATE
CALL backlog_cleanup_run();
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_failed_generations(dry_run => true) ->> 'message' AS message;
UPDATE backlog_cleanup.target SET max_share = 90, max_rows_per_run = 89;
SELECT backlog_cleanup_failed_generations();
\echo :LAST_ERROR_SQLSTATE
SELECT (SELECT count(*) FROM generations) AS rows, (SELECT count(*) FROM backlog_cleanup.run) AS runs,
       (SELECT count(*) FROM credit_transactions) AS ledger;

-- What is selected counts, and force lets one run through; an emergency is one.
SELECT backlog_cleanup_failed_generations(recipe_id => '2') -> 'cleanedUpGenerations' AS removed;
SELECT backlog_cleanup_failed_generations(force => NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_failed_generations(force => true) -> 'cleanedUpGenerations' AS removed;
SELECT backlog_cleanup_emergency() -> 'removedCount' AS removed;
-- The row is not shown: it has the time at which it was made.
\set VERBOSITY terse
UPDATE backlog_cleanup.target SET max_share = 101;
\echo :LAST_ERROR_SQLSTATE
UPDATE backlog_cleanup.target SET max_rows_per_run = 0;
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY default
\c regression
DROP DATABASE regress_breaker;
