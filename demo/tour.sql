\set QUIET on
SET client_min_messages = warning;
\pset border 1
\pset footer off
CREATE EXTENSION pg_cron;
CREATE EXTENSION backlog_cleanup;
\set QUIET off
\set ECHO queries

SELECT recipe_id, recipe_name, total_count, failed_count, removable_count, oldest_failed_age
FROM backlog_cleanup_status() LIMIT 5;

SELECT jsonb_pretty(backlog_cleanup_failed_generations() - 'cleanupDetails') AS report;

SELECT recipe_id, recipe_name, total_count, failed_count, removable_count, oldest_failed_age
FROM backlog_cleanup_status() LIMIT 5;

SELECT user_id, amount, type, description FROM credit_transactions WHERE type = 'backlog_cleanup';

SELECT jobid, jobname, schedule, command, active FROM cron.job;
