-- The failed rows by hour and failure type.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE DATABASE regress_failures;
\c regress_failures
SET client_min_messages = warning;
\i demo/platform.sql
CREATE EXTENSION backlog_cleanup;
SET TimeZone = 'Asia/Kolkata';
INSERT INTO generations (user_id, prompt, status, updated_at, failure_reason) VALUES
    ('system_backlog', '', 'failed', '2026-01-02 03:00', 'timeout'),
    ('system_backlog', '', 'failed', '2026-01-02 03:59:59.999999', 'timeout'),
    ('system_backlog', '', 'failed', '2026-01-02 03:30', NULL),
    ('system_backlog', '', 'failed', '2026-01-02 04:00', repeat('long ', 1000)),
    ('system_backlog', '', 'failed', NULL, 'timeout'),
    ('system_backlog', '', 'failed', now() AT TIME ZONE 'UTC', 'provider'),
    ('system_backlog', '', 'completed', now() AT TIME ZONE 'UTC', NULL),
    ('user-1', '', 'failed', now() AT TIME ZONE 'UTC', 'timeout');

-- An hour is whole in UTC, whatever the session's time zone.
SELECT CASE WHEN hour < '2026-01-03' THEN hour AT TIME ZONE 'UTC' END AS hour, failure_type, failed_count
FROM backlog_cleanup_failures(since => NULL);
SELECT hour = date_trunc('hour', now(), 'UTC') AS this_hour, failure_type, failed_count FROM backlog_cleanup_failures();
-- Free text makes no more rows than are asked for.
SELECT failure_type, sum(failed_count) FROM backlog_cleanup_failures(since => NULL, types => 1) GROUP BY 1 ORDER BY 1;
SELECT failure_type, sum(failed_count) FROM backlog_cleanup_failures(since => NULL, types => 0) GROUP BY 1 ORDER BY 1;

-- The target's time zone reads a timestamp; partitions are added up.
UPDATE backlog_cleanup.target SET time_zone = 'Europe/Berlin';
SELECT min(hour) AT TIME ZONE 'UTC' AS hour FROM backlog_cleanup_failures(since => NULL);
CREATE TABLE parted (id int, who text, recipe int, state text, at timestamptz, reason text) PARTITION BY LIST (recipe);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_2 PARTITION OF parted DEFAULT;
INSERT INTO parted SELECT i, 'worker', i % 3, 'failed', '2026-01-02 03:00+00', 'late' FROM generate_series(1, 9) i;
INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                                    recipe_column, status_column, failed_at_column, failure_type_column, account)
VALUES ('parted', 'public.parted', NULL, NULL, NULL, 'who', 'recipe', 'state', 'at', 'reason', 'worker');
SELECT hour AT TIME ZONE 'UTC' AS hour, failure_type, failed_count FROM backlog_cleanup_failures('parted', NULL);

SELECT * FROM backlog_cleanup_failures('nothing');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM backlog_cleanup_failures(types => NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM backlog_cleanup_failures(types => -1);
\echo :LAST_ERROR_SQLSTATE
\c regression
DROP DATABASE regress_failures;
