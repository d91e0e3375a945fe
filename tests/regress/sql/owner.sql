-- Nothing runs as somebody else: whatever code hangs on a table, a run by a superuser lets it run as the table's owner.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE DATABASE regress_owner;
\c regress_owner
SET client_min_messages = warning;
-- PostgreSQL 16 has renamed it.
SELECT name AS in_parallel FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query') \gset
\i demo/platform.sql
\i tests/hostile.sql

-- What a caller finds after a call is what was there before it; and a temporary table can be made again.
SET lock_timeout = '7s';
SET enable_bitmapscan = off;
SET regress.is_set_up = 'yes';
SET search_path = public, pg_catalog;
CREATE VIEW public.context AS
SELECT current_user AS who, name, setting FROM pg_catalog.pg_settings
WHERE name::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY[
    'search_path', 'row_security', 'lock_timeout', 'enable_seqscan', 'enable_bitmapscan', 'parallel_setup_cost',
    'parallel_tuple_cost', 'role'
]::pg_catalog.text[]);
CREATE TABLE before AS TABLE context;
CREATE PROCEDURE public.settle() LANGUAGE plpgsql AS $$
BEGIN
    CREATE TEMP TABLE anything ();
    DROP TABLE anything;
    IF EXISTS (TABLE public.context EXCEPT TABLE before) THEN RAISE EXCEPTION 'the context is not restored'; END IF;
END $$;
-- Hostile namesakes of tables and types where every search path looks first.
DO $$
DECLARE
    catalog text;
BEGIN
    FOREACH catalog IN ARRAY '{pg_class,pg_namespace,pg_type,pg_proc,pg_roles,pg_settings,pg_inherits,pg_index,
                               pg_constraint,pg_trigger,pg_rewrite,pg_depend,pg_extension,pg_database,pg_locks,pg_stat_activity}'::pg_catalog.text[]
    LOOP
        EXECUTE pg_catalog.format('CREATE VIEW pg_temp.%I AS SELECT * FROM pg_catalog.%1$I WHERE public.see(''a view in pg_temp'')',
                                  catalog);
    END LOOP;
END $$;
CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (public.see('a type in pg_temp'));
CREATE DOMAIN pg_temp.regclass AS pg_catalog.regclass CHECK (public.see('a type in pg_temp'));
CREATE TEMP TABLE target ();
CREATE TEMP TABLE run ();
-- Our own statements do not find them; code of other roles would, so that nothing of theirs runs.
SELECT count(*) FROM backlog_cleanup.progress;
SELECT check_name, status, detail FROM backlog_cleanup_doctor('job')
WHERE check_name OPERATOR(pg_catalog.=) ANY ('{target,access,references}'::pg_catalog.text[]);
SELECT backlog_cleanup_emergency('job');
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_status('job');
\echo :LAST_ERROR_SQLSTATE
DISCARD TEMP;
CALL settle();

-- A run in one transaction, by a superuser.
CALL fill();
SELECT backlog_cleanup_failed_generations('job', dry_run => true) OPERATOR(pg_catalog.->) 'cleanedUpGenerations' AS removable;
CALL settle();
SELECT * FROM ran ORDER BY place;
SELECT backlog_cleanup_failed_generations('job') OPERATOR(pg_catalog.->) 'cleanedUpGenerations' AS removed;
CALL settle();
SELECT * FROM ran ORDER BY place;
-- The same through the index, with parallel workers, selective, in an emergency, and what only looks.
CALL fill();
SELECT backlog_cleanup_index_sql('job') \gexec
VACUUM ANALYZE job;
SET min_parallel_table_scan_size = 0;
SET :in_parallel = on;
SELECT backlog_cleanup_failed_generations('job', recipe_id => 'pending') OPERATOR(pg_catalog.->) 'cleanedUpGenerations' AS removed;
SELECT recipe_id, total_count, failed_count, removable_count FROM backlog_cleanup_status('job');
SELECT backlog_cleanup_status_json('job') OPERATOR(pg_catalog.->) 'failedGenerations' AS failed;
SELECT check_name, status, detail FROM backlog_cleanup_doctor('job')
WHERE check_name OPERATOR(pg_catalog.=) ANY ('{index,owner,row_security,privileges}'::pg_catalog.text[]);
SELECT backlog_cleanup_emergency('job', dry_run => true) OPERATOR(pg_catalog.->) 'removedCount' AS removable;
SELECT backlog_cleanup_emergency('job') OPERATOR(pg_catalog.->) 'removedCount' AS removed;
CALL settle();
SELECT * FROM ran ORDER BY place;
RESET :in_parallel;
-- In batches, in this session and in background workers.
CALL fill();
CALL backlog_cleanup_run('job', batch_size => 20, max_rows => 50) \gset
CALL settle();
CALL backlog_cleanup_run('job', batch_size => 20, workers => 2) \gset
CALL settle();
SELECT :'report'::jsonb OPERATOR(pg_catalog.->) 'cleanedUpGenerations' AS removed;
SELECT * FROM ran ORDER BY place;

-- An error in the code of a table leaves the caller's context as it was, also where the caller catches it.
RESET search_path;
SET search_path = pg_catalog, public;
UPDATE public.before SET setting = 'pg_catalog, public' WHERE name OPERATOR(pg_catalog.=) 'search_path';
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ BEGIN PERFORM pg_cancel_backend(pg_backend_pid()); PERFORM pg_sleep(10); RETURN OLD; END $$;
CREATE TRIGGER fail BEFORE DELETE ON job_1 FOR EACH ROW EXECUTE FUNCTION fail();
CALL fill();
DO $$
BEGIN
    PERFORM backlog_cleanup_emergency('job');
EXCEPTION WHEN query_canceled THEN
    CALL settle();
    RAISE WARNING '%', SQLERRM;
END $$;
BEGIN;
SAVEPOINT here;
SELECT backlog_cleanup_failed_generations('job');
ROLLBACK TO here;
CALL settle();
COMMIT;
CALL backlog_cleanup_run('job');
CALL settle();
DROP TRIGGER fail ON job_1;
-- What a trigger would put off to the end of the transaction, when somebody else would be at work, is refused.
CREATE FUNCTION put_off() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET CONSTRAINTS ALL DEFERRED; RETURN OLD; END $$;
CREATE TRIGGER put_off BEFORE DELETE ON job_1 FOR EACH ROW EXECUTE FUNCTION put_off();
SELECT backlog_cleanup_emergency('job') ->> 'keptBackReason' AS kept_back_reason;
CALL settle();
DROP TRIGGER put_off ON job_1;
-- A policy that would hide rows from their owner is an error, and not a silent nothing.
ALTER TABLE job_1 FORCE ROW LEVEL SECURITY;
SELECT backlog_cleanup_failed_generations('job');
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_status('job');
\echo :LAST_ERROR_SQLSTATE
CALL settle();
ALTER TABLE job_1 NO FORCE ROW LEVEL SECURITY;
SET regress.is_set_up = 'no';
SELECT count(*), (SELECT sum(removed) FROM backlog_cleanup.run) = (SELECT sum(amount) FROM credit_transactions) AS is_balanced
FROM job;
SET regress.is_set_up = 'yes';

-- The throttle query runs as the owner of the target's table, in the search path that its triggers find, too.
CREATE SCHEMA ours;
CREATE FUNCTION ours.reason() RETURNS text LANGUAGE sql AS $$ SELECT NULL::text FROM public.see_reading('throttle_query') $$;
GRANT USAGE ON SCHEMA ours TO regress_of_generations;
UPDATE backlog_cleanup.target SET throttle_query = 'SELECT reason();', search_path = 'pg_catalog, ours, public' WHERE name = 'job';
TRUNCATE seen;
CALL backlog_cleanup_run('job', batch_size => 100, max_rows => 1) \gset
-- The owner of a partition has not agreed to that search path, in which somebody else could put what is not theirs.
GRANT USAGE ON SCHEMA ours TO regress_of_leaf;
CREATE FUNCTION ours.whose() RETURNS text LANGUAGE sql AS $$ SELECT 'of another' $$;
CREATE FUNCTION public.whose() RETURNS text LANGUAGE sql AS $$ SELECT 'its own' $$;
CREATE FUNCTION public.find() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM public.see(concat(TG_TABLE_NAME, ' finds what is ', whose())); RETURN NULL; END $$;
CREATE TRIGGER find BEFORE DELETE ON job_0 FOR EACH STATEMENT EXECUTE FUNCTION find();
CREATE TRIGGER find BEFORE DELETE ON job_1 FOR EACH STATEMENT EXECUTE FUNCTION find();
CALL fill();
SELECT backlog_cleanup_emergency('job') OPERATOR(pg_catalog.->) 'removedCount' AS removed;
SELECT * FROM ran WHERE place OPERATOR(pg_catalog.~) 'finds' ORDER BY place;
DROP TRIGGER find ON job_0;
DROP TRIGGER find ON job_1;
-- It is tried when it is written.
UPDATE backlog_cleanup.target SET throttle_query = 'SELECT 1 / 0' WHERE name = 'job';
\echo :LAST_ERROR_SQLSTATE
UPDATE backlog_cleanup.target SET throttle_query = 'COMMIT' WHERE name = 'job';
\echo :LAST_ERROR_SQLSTATE
-- A run that has nothing to remove writes the ledger, too, and its deferred trigger fires as the ledger's owner.
CALL backlog_cleanup_run('job') \gset
CALL backlog_cleanup_run('job') \gset
UPDATE backlog_cleanup.target SET throttle_query = NULL WHERE name = 'job';

-- A table that is read or written as a whole, and has a part that belongs to somebody else, is refused.
CREATE TABLE public.ledger (LIKE credit_transactions) PARTITION BY RANGE (created_at);
CREATE TABLE public.ledger_now PARTITION OF ledger DEFAULT;
ALTER TABLE ledger OWNER TO regress_of_ledger;
ALTER TABLE ledger_now OWNER TO regress_of_leaf;
UPDATE backlog_cleanup.target SET ledger_table = 'public.ledger' WHERE name = 'job';
\echo :LAST_ERROR_SQLSTATE

\c regression
DROP DATABASE regress_owner;
DROP ROLE regress_of_generations, regress_of_leaf, regress_of_recipes, regress_of_users, regress_of_ledger;
