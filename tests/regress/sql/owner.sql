-- Nothing runs as somebody else: whatever code hangs on a table, a run by a superuser lets it run as the table's owner.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE DATABASE regress_owner;
\c regress_owner
SET client_min_messages = warning;
-- PostgreSQL 16 has renamed it.
SELECT name AS in_parallel FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query') \gset
\i demo/platform.sql
CREATE ROLE regress_of_generations;
CREATE ROLE regress_of_leaf;
CREATE ROLE regress_of_recipes;
CREATE ROLE regress_of_users;
CREATE ROLE regress_of_ledger;

-- What ran, and as whom. A function that claims to be immutable may run in the planner and in parallel workers, where it
-- can write nothing: it fails where it runs as anybody else.
ALTER DATABASE regress_owner SET regress.is_set_up = 'yes';
CREATE TABLE seen (place text, who name);
GRANT INSERT ON seen TO PUBLIC;
CREATE FUNCTION see(place text) RETURNS boolean LANGUAGE sql AS
    'INSERT INTO public.seen VALUES (place, current_user) RETURNING true';
CREATE FUNCTION code_of(VARIADIC owners name[]) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    BEGIN
        IF current_user <> ALL (owners) AND current_setting('regress.is_set_up', true) = 'yes' THEN RAISE EXCEPTION 'code of % runs as %', owners, current_user; END IF;
        RETURN true;
    END $$;
CREATE FUNCTION see_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM public.see(concat(TG_TABLE_NAME, ' ', TG_NAME));
        -- What would reach further than the statement is refused in a security-restricted operation.
        BEGIN
            SET LOCAL ROLE postgres;
            PERFORM public.see('SET ROLE');
        EXCEPTION WHEN insufficient_privilege THEN
        END;
        BEGIN
            CREATE TEMP TABLE kept (x integer);
            PERFORM public.see('CREATE TEMP TABLE');
        EXCEPTION WHEN insufficient_privilege THEN
        END;
        PERFORM set_config('search_path', 'seen_by_nobody', false), set_config('row_security', 'on', false),
                set_config('lock_timeout', '1', false);
        RETURN CASE WHEN TG_WHEN = 'BEFORE' THEN coalesce(OLD, NEW) END;
    END $$;

-- The table of attempts: partitions, one of which belongs to somebody else; domains, an enum with a cast, a generated
-- column, indexes on expressions with predicates, policies, triggers of every kind, a rule.
CREATE DOMAIN name_of_mine AS text CHECK (public.code_of('regress_of_generations', 'regress_of_leaf') AND VALUE <> 'no such');
CREATE TYPE mood AS ENUM ('failed', 'completed', 'pending', 'processing');
CREATE FUNCTION mood(mood) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    $$ SELECT CASE WHEN public.code_of('regress_of_generations', 'regress_of_leaf') THEN 'm' END $$;
CREATE CAST (mood AS text) WITH FUNCTION mood(mood);
CREATE TABLE job (
    "id"";DROP TABLE seen; --" name_of_mine NOT NULL,
    user_id    name_of_mine NOT NULL,
    recipe     mood,
    status     mood NOT NULL,
    updated_at timestamptz NOT NULL,
    failure_reason text,
    part       integer NOT NULL,
    doubled    integer GENERATED ALWAYS AS (part * 2) STORED
) PARTITION BY LIST (part);
CREATE TABLE job_0 PARTITION OF job FOR VALUES IN (0);
CREATE TABLE job_1 PARTITION OF job FOR VALUES IN (1);
CREATE INDEX ON job_0 ((code_of('regress_of_generations'))) WHERE code_of('regress_of_generations');
CREATE INDEX ON job_1 ((code_of('regress_of_leaf'))) WHERE code_of('regress_of_leaf');
ALTER TABLE job_1 ADD CHECK (code_of('regress_of_leaf') AND part = 1);
CREATE TRIGGER before BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION see_trigger();
CREATE TRIGGER after AFTER DELETE ON job_0 FOR EACH STATEMENT EXECUTE FUNCTION see_trigger();
CREATE CONSTRAINT TRIGGER deferred AFTER DELETE ON job DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION see_trigger();
CREATE RULE also AS ON DELETE TO job_0 DO ALSO SELECT see('job_0 rule');
CREATE POLICY mine ON job_1 USING (see('job_1 policy'));
ALTER TABLE job_1 ENABLE ROW LEVEL SECURITY;
-- Who looks at users and recipes looks at views.
CREATE VIEW seen_recipes AS SELECT 'm'::text AS id, 'Moody'::text AS name WHERE see('seen_recipes');
CREATE VIEW seen_users AS SELECT id FROM users WHERE see('seen_users');
ALTER TABLE users OWNER TO regress_of_users;
ALTER TABLE seen_users OWNER TO regress_of_users;
ALTER TABLE seen_recipes OWNER TO regress_of_recipes;
-- The ledger: a trigger, a default, a check.
ALTER TABLE credit_transactions ADD seen boolean DEFAULT see('ledger default'), ADD CHECK (see('ledger check'));
CREATE TRIGGER before BEFORE INSERT ON credit_transactions FOR EACH ROW EXECUTE FUNCTION see_trigger();
CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON credit_transactions DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION see_trigger();
ALTER TABLE credit_transactions OWNER TO regress_of_ledger;
ALTER SEQUENCE credit_transactions_id_seq OWNER TO regress_of_ledger;
ALTER TABLE job OWNER TO regress_of_generations;
ALTER TABLE job_0 OWNER TO regress_of_generations;
ALTER TABLE job_1 OWNER TO regress_of_leaf;

-- Hostile namesakes of what our own statements use, before pg_catalog in the caller's search path.
DO $$
DECLARE
    op text;
    of text;
BEGIN
    FOREACH of IN ARRAY '{text,varchar,integer,bigint,oid,timestamp,timestamptz,interval,jsonb,name,mood}'::text[] LOOP
        EXECUTE format('CREATE FUNCTION trap(%s, %1$s) RETURNS boolean LANGUAGE plpgsql AS ''BEGIN RAISE ''''captured''''; END''', of);
        FOREACH op IN ARRAY '{=,<>,<,>,<=,>=,-,+,||}'::text[] LOOP
            EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %2$s, FUNCTION = public.trap)', op, of);
        END LOOP;
    END LOOP;
END $$;
CREATE FUNCTION now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'captured'; END $$;
CREATE FUNCTION unnest(anyarray) RETURNS SETOF anyelement LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'captured'; END $$;
CREATE FUNCTION timezone(text, timestamptz) RETURNS timestamp LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'captured'; END $$;
CREATE FUNCTION to_regclass(text) RETURNS regclass LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'captured'; END $$;
CREATE FUNCTION hashtext(text) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'captured'; END $$;
CREATE AGGREGATE count(*) (SFUNC = int8inc, STYPE = int8, INITCOND = '1000000');

CREATE EXTENSION backlog_cleanup;
INSERT INTO backlog_cleanup.target
    (name, generations_table, recipes_table, users_table, id_column, recipe_column)
VALUES ('job', 'public.job', 'public.seen_recipes', 'public.seen_users', 'id";DROP TABLE seen; --', 'recipe');
UPDATE backlog_cleanup.policy SET keep = 3 WHERE target = 'job';
CREATE PROCEDURE fill() LANGUAGE sql
SET search_path = pg_catalog, public SET regress.is_set_up = no AS $$
    TRUNCATE job;
    INSERT INTO job SELECT pg_catalog.concat('id ', i), 'system_backlog', (ARRAY['failed', NULL, 'pending'])[i % 3 OPERATOR(pg_catalog.+) 1]::mood, 'failed',
                           now() OPERATOR(pg_catalog.-) make_interval(days => 2, secs => i), NULL, i % 2
                    FROM generate_series(1, 200) i;
    TRUNCATE seen;
$$;
GRANT ALL ON job, job_0, job_1 TO regress_of_generations, regress_of_leaf;

-- What a caller finds after a call is what was there before it; and a temporary table can be made again.
SET lock_timeout = '7s';
SET enable_bitmapscan = off;
SET regress.is_set_up = 'yes';
SET search_path = pg_temp, public, pg_catalog;
CREATE VIEW public.context AS
SELECT current_user AS who, name, setting FROM pg_catalog.pg_settings
WHERE name::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY[
    'search_path', 'row_security', 'lock_timeout', 'enable_seqscan', 'enable_bitmapscan', 'parallel_setup_cost',
    'parallel_tuple_cost', 'role'
]::pg_catalog.text[]);
CREATE TEMP TABLE before AS TABLE context;
CREATE PROCEDURE public.settle() LANGUAGE plpgsql AS $$
BEGIN
    CREATE TEMP TABLE anything ();
    DROP TABLE anything;
    IF EXISTS (TABLE public.context EXCEPT TABLE before) THEN RAISE EXCEPTION 'the context is not restored'; END IF;
END $$;
CREATE VIEW public.ran AS
SELECT DISTINCT place COLLATE "C" AS place, who FROM public.seen;

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
WHERE check_name OPERATOR(pg_catalog.=) ANY ('{index,owner,row_security,privileges}'::text[]);
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
UPDATE before SET setting = 'pg_catalog, public' WHERE name OPERATOR(pg_catalog.=) 'search_path';
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'the trigger fails'; END $$;
CREATE TRIGGER fail BEFORE DELETE ON job_1 FOR EACH ROW EXECUTE FUNCTION fail();
CALL fill();
DO $$
BEGIN
    PERFORM backlog_cleanup_emergency('job');
EXCEPTION WHEN raise_exception THEN
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
-- What a trigger would put off to the end of the transaction, when somebody else would be at work, is an error.
CREATE FUNCTION put_off() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET CONSTRAINTS ALL DEFERRED; RETURN OLD; END $$;
CREATE TRIGGER put_off BEFORE DELETE ON job_1 FOR EACH ROW EXECUTE FUNCTION put_off();
SELECT backlog_cleanup_emergency('job');
\echo :LAST_ERROR_SQLSTATE
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
CREATE FUNCTION ours.reason() RETURNS text LANGUAGE sql AS $$ SELECT NULL::text FROM public.see('throttle_query') $$;
GRANT USAGE ON SCHEMA ours TO regress_of_generations;
UPDATE backlog_cleanup.target SET throttle_query = 'SELECT reason();', search_path = 'pg_catalog, ours, public' WHERE name = 'job';
TRUNCATE seen;
CALL backlog_cleanup_run('job', batch_size => 100, max_rows => 1) \gset
SELECT * FROM ran WHERE place = 'throttle_query';
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
