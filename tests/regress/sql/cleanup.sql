-- The nightly run and the emergency run on the platform's tables.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
\i demo/platform.sql
CREATE EXTENSION backlog_cleanup;

INSERT INTO recipes (name, slug, description, prompt, category, credit_cost)
VALUES ('Cat Olympic Diving', 'cat', '', '', 'video', 10), ('Fresh', 'fresh', '', '', 'video', 10);

CREATE FUNCTION fail(account text, recipe integer, age interval, many integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at, failure_reason)
    SELECT account, recipe, '', 'failed', now() AT TIME ZONE 'UTC' - age, 'timeout' FROM generate_series(1, many)
$$;
CREATE VIEW left_over AS
    SELECT user_id, recipe_id, count(*) FROM generations WHERE status = 'failed' GROUP BY 1, 2 ORDER BY 1, 2;
CREATE VIEW books AS
    SELECT (SELECT sum(amount) FROM credit_transactions WHERE type = 'backlog_cleanup') AS ledger,
           (SELECT sum(removed) FROM backlog_cleanup.run) AS runs,
           (SELECT sum(cleaned_count) FROM backlog_cleanup.run_recipe) AS recipes;
CREATE FUNCTION steady(report jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT report - '{cutoff,durationMs,walBytes,fullPageImages}'::text[] $$;

-- 15 expired failures of one recipe lose 5, with ties in failed-at; 12 expired and 5 fresh ones lose 2;
-- fresh ones, NULL and future times, and other people's failures lose none; NULL is a recipe of its own.
SET TimeZone = 'Pacific/Kiritimati';
BEGIN;
SELECT fail('system_backlog', 1, '3 days', 15);
SELECT fail('system_backlog', NULL, '25 hours', 12), fail('system_backlog', NULL, '23 hours', 5);
SELECT fail('system_backlog', 2, '23 hours 59 minutes', 50), fail('system_backlog', 3, '-1 day', 30);
SELECT fail('system_backlog', 3, NULL, 30), fail('user-1', 1, '3 days', 20);
COMMIT;
SELECT recipe_id, recipe_name, total_count, completed_count, failed_count, pending_count, processing_count, removable_count,
       oldest_failed_age
FROM backlog_cleanup_status();
SELECT jsonb_pretty(steady(backlog_cleanup_failed_generations(dry_run => true)));
SELECT * FROM left_over;
SELECT jsonb_pretty(steady(backlog_cleanup_failed_generations()));
SELECT * FROM left_over;
SELECT * FROM books;
SELECT jsonb_pretty(jsonb_set(backlog_cleanup_status_json() #- '{lastRun,startedAt}' #- '{lastRun,finishedAt}',
                              '{recipesWithFailedGenerations}',
                              (SELECT jsonb_agg(r - 'oldestFailedAt')
                               FROM jsonb_array_elements(backlog_cleanup_status_json() -> 'recipesWithFailedGenerations') r)));

-- The newest by id stay where failed-at is the same.
SELECT min(id), max(id) FROM generations WHERE recipe_id = 1 AND user_id = 'system_backlog';
-- A second run removes nothing, and still writes the ledger.
SELECT backlog_cleanup_failed_generations() -> 'cleanedUpGenerations' AS removed;
SELECT amount, type, description FROM credit_transactions ORDER BY id;

-- Selective, with the index, and emergency.
SELECT backlog_cleanup_index_sql() \gexec
SELECT backlog_cleanup_failed_generations(dry_run => true) -> 'cleanedUpGenerations' AS removable;
SELECT pg_stat_force_next_flush();
SELECT indexrelname, idx_scan > 0 AS is_used FROM pg_stat_user_indexes WHERE indexrelname ~ '^generations_recipe_id';
SELECT steady(backlog_cleanup_emergency(recipe_id => '2', failure_type => 'timeout'));
SELECT steady(backlog_cleanup_emergency(dry_run => true));
SELECT steady(backlog_cleanup_emergency());
SELECT * FROM left_over;
SELECT * FROM books;

-- A caller who may only execute needs no privilege on the platform's tables; triggers run as the owner.
CREATE TABLE witness (who name);
CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO witness VALUES (current_user); RETURN NULL; END $$;
CREATE ROLE regress_owner;
CREATE ROLE regress_operator;
ALTER TABLE generations OWNER TO regress_owner;
ALTER TABLE witness OWNER TO regress_owner;
CREATE CONSTRAINT TRIGGER deferred AFTER DELETE ON generations DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION witness();
SELECT fail('system_backlog', 1, '3 days', 11);
SET ROLE regress_operator;
SELECT backlog_cleanup_failed_generations();
RESET ROLE;
GRANT EXECUTE ON FUNCTION backlog_cleanup_failed_generations TO regress_operator;
SET ROLE regress_operator;
SELECT backlog_cleanup_failed_generations() -> 'cleanedUpGenerations' AS removed;
RESET ROLE;
SELECT * FROM witness;

-- What cannot be done is an error, and changes nothing.
SELECT backlog_cleanup_failed_generations('x');
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_failed_generations(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_failed_generations(dry_run => NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_failed_generations(recipe_id => 'abc');
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_failed_generations(recipe_id => '99999999999');
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_schedule();
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_schedule(batched => NULL);
\echo :LAST_ERROR_SQLSTATE
BEGIN READ ONLY;
SELECT backlog_cleanup_failed_generations();
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
UPDATE backlog_cleanup.policy SET keep = -1;
\echo :LAST_ERROR_SQLSTATE
UPDATE backlog_cleanup.policy SET max_age = '-1 s';
\echo :LAST_ERROR_SQLSTATE
-- The row is not shown: it has the time at which it was made.
\set VERBOSITY terse
UPDATE backlog_cleanup.target SET batch_size = 0;
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY default
UPDATE backlog_cleanup.target SET status_column = 'metadata';
\echo :LAST_ERROR_SQLSTATE
UPDATE backlog_cleanup.target SET status_column = 'is_public';
\echo :LAST_ERROR_SQLSTATE
UPDATE backlog_cleanup.target SET generations_table = 'public.left_over';
\echo :LAST_ERROR_SQLSTATE
ALTER TABLE generations ADD COLUMN place point, ADD COLUMN shown regclass;
UPDATE backlog_cleanup.target SET id_column = 'place';
\echo :LAST_ERROR_SQLSTATE
UPDATE backlog_cleanup.target SET recipe_column = 'shown';
\echo :LAST_ERROR_SQLSTATE
UPDATE backlog_cleanup.target SET time_zone = 'Mars/Olympus';
\echo :LAST_ERROR_SQLSTATE
UPDATE backlog_cleanup.target SET generations_table = 'missing';
\echo :LAST_ERROR_SQLSTATE
UPDATE backlog_cleanup.target SET ledger_table = 'missing';
\echo :LAST_ERROR_SQLSTATE
UPDATE backlog_cleanup.target SET failed_at_column = 'missing';
\echo :LAST_ERROR_SQLSTATE
UPDATE backlog_cleanup.target SET failed_at_column = 'prompt';
\echo :LAST_ERROR_SQLSTATE
BEGIN;
UPDATE backlog_cleanup.target SET account = 'nobody';
SELECT backlog_cleanup_emergency();
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN;
ALTER TABLE credit_transactions RENAME TO elsewhere;
SELECT backlog_cleanup_emergency();
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN;
ALTER TABLE generations RENAME updated_at TO failed_at;
SELECT backlog_cleanup_emergency();
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
SELECT * FROM books;

-- An id that is NULL is no crash, and ranks as the newest.
BEGIN;
UPDATE backlog_cleanup.target SET id_column = 'metadata';
SELECT fail('system_backlog', 5, '3 days', 15);
SELECT backlog_cleanup_failed_generations(recipe_id => '5') -> 'cleanedUpGenerations' AS removed;
ROLLBACK;

-- A disabled policy removes nothing, and says so.
BEGIN;
UPDATE backlog_cleanup.policy SET enabled = false;
SELECT fail('system_backlog', 1, '3 days', 15);
SELECT backlog_cleanup_failed_generations() - '{runId,cleanupDetails,durationMs,walBytes,fullPageImages}'::text[];
ROLLBACK;

-- Every object that the extension makes has a comment, and nobody but the owner may use it, except for the fingerprint.
SELECT pg_describe_object(classid, objid, 0) AS without_comment
FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'backlog_cleanup')
  AND coalesce(obj_description(objid, classid::regclass::name), '') = ''
  AND NOT (classid = 'pg_class'::regclass AND (SELECT relkind FROM pg_class WHERE oid = objid) IN ('S', 'i'))
  AND classid <> 'pg_type'::regclass;
SELECT attrelid::regclass, attname AS without_comment FROM pg_attribute
WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'backlog_cleanup'::regnamespace AND relkind = 'r')
  AND attnum > 0 AND col_description(attrelid, attnum) IS NULL;
SELECT objid::regprocedure AS open_to_public
FROM pg_depend JOIN pg_proc ON pg_proc.oid = objid
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND classid = 'pg_proc'::regclass
  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'backlog_cleanup')
  AND has_function_privilege('regress_operator', objid, 'EXECUTE')
  AND proname <> 'backlog_cleanup_failed_generations';
