-- The books, and what all runs add up to: sums that never fall.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE DATABASE regress_total;
\c regress_total
SET client_min_messages = warning;
\i demo/platform.sql
CREATE EXTENSION backlog_cleanup;
CREATE ROLE regress_watcher;
SELECT backlog_cleanup_grant('regress_watcher', 'monitor');
INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
SELECT 'system_backlog', 1, '', 'failed', now() AT TIME ZONE 'UTC' - interval '2 days' FROM generate_series(1, 15);
SELECT backlog_cleanup_failed_generations() -> 'cleanedUpGenerations' AS removed;
SELECT backlog_cleanup_failed_generations() -> 'cleanedUpGenerations' AS removed;
CALL backlog_cleanup_run(mode => 'emergency', batch_size => 3, max_rows => 6) \gset
-- Times that the histogram tells apart, also at a bound itself.
UPDATE backlog_cleanup.run SET finished_at = started_at + (ARRAY[interval '0.1 s', interval '30 s', interval '5 h'])[id];
SET ROLE regress_watcher;
SELECT target, mode, state, seconds_up_to, runs, removed, seconds FROM backlog_cleanup.total ORDER BY mode, state, seconds_up_to;
SELECT * FROM backlog_cleanup_books();
SELECT backlog_cleanup.duration_bound(0), backlog_cleanup.duration_bound(0.1), backlog_cleanup.duration_bound(1e9),
       backlog_cleanup.duration_bound(NULL);
RESET ROLE;

-- A history that is cut off leaves the sums as they are, and the balance.
CREATE TABLE before AS SELECT * FROM backlog_cleanup.total;
DELETE FROM backlog_cleanup.run WHERE id < 3;
TABLE before EXCEPT TABLE backlog_cleanup.total;
SELECT * FROM backlog_cleanup_books();
DELETE FROM backlog_cleanup.run;
TABLE before EXCEPT TABLE backlog_cleanup.total;
SELECT count(*) FROM backlog_cleanup.total;
-- A run that was said to be running ended as one that was interrupted.
INSERT INTO backlog_cleanup.run (target, mode, state, requested_by, total_failed, removed, recipes_affected, started_at)
VALUES ('generations', 'regular', 'running', 'me', 1, 1, 1, now());
SELECT state, seconds_up_to, runs, removed, seconds FROM backlog_cleanup.total WHERE state IN ('running', 'interrupted');
DELETE FROM backlog_cleanup.run;
SELECT state, seconds_up_to, runs, removed, seconds FROM backlog_cleanup.total WHERE state IN ('running', 'interrupted');

-- Books out of balance, targets that share a ledger, and a target that has none.
SELECT * FROM backlog_cleanup_books();
-- What cleaned up before the extension is not in the books.
INSERT INTO credit_transactions (user_id, amount, type, description, created_at)
VALUES ('system_backlog', 4, 'backlog_cleanup', 'Backlog cleanup', now() AT TIME ZONE 'UTC' - interval '1 day');
SELECT backlog_cleanup_failed_generations() -> 'cleanedUpGenerations' AS removed;
INSERT INTO credit_transactions (user_id, amount, type, description, created_at)
VALUES ('system_backlog', 1, 'backlog_cleanup', '', now() AT TIME ZONE 'UTC');
SELECT * FROM backlog_cleanup_books();
INSERT INTO backlog_cleanup.target (name, ledger_table) VALUES ('second', DEFAULT), ('unbooked', NULL);
SELECT * FROM backlog_cleanup_books('second');
SELECT * FROM backlog_cleanup_books('unbooked');
SELECT * FROM backlog_cleanup_books('x');
SELECT * FROM backlog_cleanup_books(NULL);
-- The ledger of runs that the history does not tell of any more is nobody's: a target was removed or renamed, the extension
-- created anew, whose runs have the same numbers.
TRUNCATE credit_transactions;
SELECT backlog_cleanup_emergency('second') -> 'removedCount' AS removed;
UPDATE backlog_cleanup.target SET name = 'third' WHERE name = 'second';
SELECT * FROM backlog_cleanup_books();
DELETE FROM backlog_cleanup.target WHERE name = 'third';
SELECT * FROM backlog_cleanup_books();
DROP EXTENSION backlog_cleanup;
CREATE EXTENSION backlog_cleanup;
UPDATE credit_transactions SET description = 'emergency backlog cleanup, run 1: removed 4 failed rows',
                               created_at = created_at - interval '3 days';
INSERT INTO generations (user_id, prompt, status) VALUES ('system_backlog', '', 'failed');
SELECT backlog_cleanup_emergency() -> 'removedCount' AS removed;
SELECT * FROM backlog_cleanup_books();
-- A run that the ledger tells otherwise of.
UPDATE credit_transactions SET amount = 2 WHERE amount = 1;
SELECT * FROM backlog_cleanup_books();
\c regression
DROP DATABASE regress_total;
DROP ROLE regress_watcher;
