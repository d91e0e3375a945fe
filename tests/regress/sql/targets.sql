-- What a target may name, how its values are read, and as whom.
\set SHOW_CONTEXT never
SET client_min_messages = error;
CREATE DATABASE regress_targets ENCODING 'UTF8' TEMPLATE template0;
\c regress_targets
SET client_min_messages = error;
\set ECHO none
\i demo/platform.sql
\set ECHO all
CREATE SCHEMA "My jobs";
CREATE EXTENSION backlog_cleanup SCHEMA "My jobs";
SET search_path = public, "My jobs";
CREATE TABLE job (id integer, owner char(20), queue text, state char(10), at timestamp, error date);
CREATE VIEW jobs_left AS SELECT owner, state, count(*) FROM job GROUP BY 1, 2 ORDER BY 1, 2;
INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                                    recipe_column, status_column, failed_at_column, failure_type_column)
VALUES ('job', 'public.job', NULL, NULL, NULL, 'owner', 'queue', 'state', 'at', 'error');

-- A value of type char(n) is compared whole.
INSERT INTO job SELECT i, 'system_backlog', 'a', 'failed', '2020-01-01' FROM generate_series(1, 12) i;
INSERT INTO job SELECT i, 's', 'a', 'f', '2020-01-01' FROM generate_series(1, 12) i;
SELECT backlog_cleanup_failed_generations('job') -> 'cleanedUpGenerations' AS removed;
SELECT * FROM jobs_left;
SELECT backlog_cleanup_emergency('job') -> 'removedCount' AS removed;
SELECT * FROM jobs_left;

-- A local time in an hour that the time zone repeats is that of the second pass, whichever pass the cutoff is in.
TRUNCATE job;
UPDATE backlog_cleanup.target SET time_zone = 'America/New_York' WHERE name = 'job';
BEGIN;
UPDATE backlog_cleanup.policy
SET keep = 0, max_age = now() AT TIME ZONE 'UTC' - timestamp '2025-11-02 05:30' WHERE target = 'job';
INSERT INTO job SELECT i, 'system_backlog', NULL, 'failed', '2025-11-02 00:50'::timestamp + i * interval '10 minutes'
FROM generate_series(0, 8) i;
SELECT removable_count FROM backlog_cleanup_status('job');
SELECT backlog_cleanup_failed_generations('job') ->> 'cutoff' AS cutoff;
SELECT min(at) FROM job;
UPDATE backlog_cleanup.policy
SET max_age = now() AT TIME ZONE 'UTC' - timestamp '2025-11-02 06:30' WHERE target = 'job';
SELECT backlog_cleanup_failed_generations('job') ->> 'cutoff' AS cutoff;
SELECT min(at) FROM job;
ROLLBACK;

-- A time without end has no age, and the past one is expired.
INSERT INTO job SELECT i, 'system_backlog', at::text, 'failed', at
FROM generate_series(1, 12) i, unnest(ARRAY['-infinity', 'infinity']::timestamp[]) at;
SELECT recipe_id, failed_count, removable_count, oldest_failed_at, oldest_failed_age FROM backlog_cleanup_status('job')
ORDER BY 1;
SELECT backlog_cleanup_status_json('job') -> 'recipesWithFailedGenerations' AS recipes;
SELECT backlog_cleanup_failed_generations('job') -> 'cleanedUpGenerations' AS removed;

-- What is no name of a table is refused as a table that is not there.
UPDATE backlog_cleanup.target SET generations_table = '' WHERE name = 'job';
\echo :LAST_ERROR_SQLSTATE
UPDATE backlog_cleanup.target SET generations_table = 'job' WHERE name = 'job';
\echo :LAST_ERROR_SQLSTATE
-- A table of an extension is no suggestion.
UPDATE backlog_cleanup.target SET generations_table = 'decisions' WHERE name = 'job';
UPDATE backlog_cleanup.target SET generations_table = 'public.job; DROP TABLE job' WHERE name = 'job';
\echo :LAST_ERROR_SQLSTATE
UPDATE backlog_cleanup.target SET recipes_table = 'a.b.c' WHERE name = 'job';
\echo :LAST_ERROR_SQLSTATE
UPDATE backlog_cleanup.target SET users_table = 'a.b.c.d' WHERE name = 'job';
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_emergency('job', failure_type => 'abc');
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_emergency(dry_run => NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_schedule('0 2 * * *', job_name => NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_schedule();
\echo :LAST_ERROR_SQLSTATE

-- All mistakes are told at once, each with what would be right; the hint corrects what is there, or inserts what is not.
CREATE SCHEMA oban;
CREATE TYPE oban.job_state AS ENUM ('available', 'executing', 'retryable', 'completed', 'discarded');
CREATE TABLE oban.jobs (id bigint PRIMARY KEY, state oban.job_state, queue text, worker text, inserted_at timestamp,
                        discarded_at timestamp, errors jsonb);
CREATE VIEW oban.discarded AS SELECT * FROM oban.jobs WHERE state = 'discarded';
-- E1: the schema is missing, on a table that is there.
INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
    recipe_column, status_column, failed_at_column, failure_type_column, account, statuses, completed_status,
    pending_status, processing_status)
VALUES ('oban', 'jobs', NULL, NULL, NULL, 'queue', 'worker', 'state', 'discarded_at', 'worker', 'default', '{discarded}',
    '{completed}', '{available}', '{executing}');
\echo :LAST_ERROR_SQLSTATE
-- E2, E3: a wrong case, a misspelling, a table with a column too few, values that an empty table does not show.
INSERT INTO backlog_cleanup.target (name, generations_table, users_table, ledger_table, account_column, recipe_column,
    status_column, failed_at_column, failure_type_column, account, statuses, time_zone)
VALUES ('oban', 'oban.jobz', 'public.user', 'oban.jobs', 'Queue', 'wrker', 'state', 'errors', 'worker', 'default', '{Discarded}',
    'Europe/Berln');
\echo :LAST_ERROR_SQLSTATE
INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
    recipe_column, status_column, failed_at_column, failure_type_column, account, statuses, completed_status,
    pending_status, processing_status)
VALUES ('oban', 'oban.jobs', NULL, NULL, NULL, 'queue', 'worker', 'state', 'discarded_at', 'worker', 'default', '{discarded}',
    '{completed}', '{available}', '{executing}');
UPDATE backlog_cleanup.target SET statuses = '{discraded,completed}', completed_status = '{done}' WHERE name = 'oban';
UPDATE backlog_cleanup.target SET name = 'jobs', statuses = '{discarded,retryabel}', throttle_query = 'SELEC 1' WHERE name = 'oban';
UPDATE backlog_cleanup.target SET generations_table = 'oban.discarded', status_column = 'State' WHERE name = 'oban';
UPDATE backlog_cleanup.target SET generations_table = 'oban.jobs_pkey', ledger_table = 'oban.jobs_pkey' WHERE name = 'oban';
UPDATE backlog_cleanup.target SET recipes_table = 'public.recipe', recipe_key_column = 'key' WHERE name = 'oban';
UPDATE backlog_cleanup.target SET batch_size = 7, lock_timeout = '1 min', search_path = 'pg_temp, oban' WHERE name = 'oban';
SELECT backlog_cleanup_emergency('oban', recipe_id => 'x', failure_type => NULL) -> 'removedCount' AS removed;
UPDATE backlog_cleanup.target SET recipe_column = 'state' WHERE name = 'oban';
SELECT backlog_cleanup_emergency('oban', recipe_id => 'dead');
-- What is dropped behind a target is told in the same way.
ALTER TABLE oban.jobs RENAME worker TO workers;
ALTER TABLE oban.jobs DROP discarded_at CASCADE;
SELECT backlog_cleanup_emergency('oban');
SELECT detail, fix FROM backlog_cleanup_doctor('oban') WHERE check_name = 'target';
-- E4: without a table of names a recipe's name is its id.
INSERT INTO job SELECT i, 'system_backlog', 'mail', 'failed', '2020-01-01' FROM generate_series(1, 12) i;
SELECT recipe_name FROM backlog_cleanup_status('job');
SELECT backlog_cleanup_failed_generations('job', dry_run => true) -> 'cleanupDetails' -> 0 ->> 'recipeName' AS name;
TRUNCATE job;
DELETE FROM backlog_cleanup.target WHERE name = 'oban';

-- Values that would remove what did not fail, or nothing, or for ever, cannot be written.
\set VERBOSITY terse
UPDATE backlog_cleanup.target SET statuses = '{failed,completed}';
UPDATE backlog_cleanup.target SET statuses = '{}';
UPDATE backlog_cleanup.target SET statuses = '{{failed},{dead}}';
UPDATE backlog_cleanup.target SET statuses = '{failed,NULL}';
UPDATE backlog_cleanup.target SET pending_status = '{NULL}';
UPDATE backlog_cleanup.target SET statuses = '{failed,failed}';
UPDATE backlog_cleanup.target SET batch_size = 1000001;
UPDATE backlog_cleanup.target SET lock_timeout = '-1 ms';
UPDATE backlog_cleanup.target SET time_zone = '';
UPDATE backlog_cleanup.policy SET max_age = '178000000 years';
UPDATE backlog_cleanup.policy SET max_age = '-1 day';
INSERT INTO backlog_cleanup.policy (target) VALUES ('job');
\set VERBOSITY default
-- All that is wrong in a row is one answer, with a statement that is right, also what PostgreSQL would end the statement at.
INSERT INTO backlog_cleanup.target (name, statuses, batch_size, pause, group_word, time_zone, recipe_column)
VALUES ('other', '{}', NULL, '-1 s', '', 'UTCC', 'recipe');
-- What would be right by default may be wrong here, and nobody has written it.
INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account, account_column,
                                    recipe_column, status_column, failed_at_column, failure_type_column)
VALUES ('other', 'job', NULL, NULL, NULL, NULL, NULL, 'queue', 'state', NULL, NULL);
UPDATE backlog_cleanup.target SET workers = 2, max_rows = 10, wal_compression = 'gzip', statuses = '{failed,completed}';

-- Whoever may write targets needs no more; the code of a column's type runs as the table's owner, whoever asks.
CREATE ROLE regress_configurer;
CREATE ROLE regress_job_owner;
SELECT backlog_cleanup_grant('regress_configurer', 'admin');
GRANT regress_job_owner TO regress_configurer;
CREATE SEQUENCE seen;
ALTER SEQUENCE seen OWNER TO regress_job_owner;
CREATE FUNCTION see(text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF current_user <> 'regress_job_owner' THEN RAISE 'the type is read as %', current_user; END IF;
    RETURN nextval('public.seen') > 0;
END $$;
CREATE DOMAIN watched AS text CHECK (see(value));
CREATE TABLE watched_job (LIKE job);
ALTER TABLE watched_job ALTER owner TYPE watched, ALTER queue TYPE watched, ALTER state TYPE watched;
ALTER TABLE watched_job OWNER TO regress_job_owner;
SET ROLE regress_configurer;
INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                                    recipe_column, status_column, failed_at_column, failure_type_column, fingerprint)
VALUES ('watched', 'public.watched_job', NULL, NULL, NULL, 'owner', 'queue', 'state', 'at', 'error', false);
UPDATE backlog_cleanup.target SET status_column = 'missing' WHERE name = 'watched';
RESET ROLE;
SELECT target, max_age, keep FROM backlog_cleanup.policy ORDER BY target;
SELECT backlog_cleanup_failed_generations('watched', recipe_id => 'a') -> 'cleanedUpGenerations' AS removed;
SELECT backlog_cleanup_emergency('watched', recipe_id => 'a') -> 'removedCount' AS removed;
SELECT count(*) AS statuses FROM backlog_cleanup_status('watched');
-- What reads is rolled back, but not a sequence.
SELECT is_called FROM seen;

-- A session that has set what pg_dump sets, but not all of it, restores nothing: what it writes is checked.
SET xmloption = 'content';
INSERT INTO backlog_cleanup.target (name, generations_table) VALUES ('nowhere', 'nowhere.at_all');
\echo :LAST_ERROR_SQLSTATE
-- And one that restores can still run: what starts now is not what was at work when a dump was taken.
SET check_function_bodies = off;
CALL backlog_cleanup_run('watched') \gset
SELECT :'report'::jsonb -> 'success' AS success;
RESET xmloption;
RESET check_function_bodies;

-- A database in another encoding is refused at once.
CREATE DATABASE regress_latin ENCODING 'LATIN1' TEMPLATE template0;
\c regress_latin
CREATE EXTENSION backlog_cleanup;
\echo :LAST_ERROR_SQLSTATE
