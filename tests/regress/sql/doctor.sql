-- The doctor: a healthy target, and what is wrong with broken ones.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE DATABASE regress_doctor;
\c regress_doctor
SET client_min_messages = warning;
\i demo/platform.sql
CREATE EXTENSION backlog_cleanup;
CREATE ROLE regress_platform;
ALTER TABLE generations OWNER TO regress_platform;
ALTER TABLE recipes OWNER TO regress_platform;
ALTER TABLE users OWNER TO regress_platform;
ALTER TABLE credit_transactions OWNER TO regress_platform;
GRANT USAGE ON SCHEMA public TO regress_platform;
SELECT backlog_cleanup_index_sql() \gexec
SELECT backlog_cleanup_failed_generations() ->> 'success' AS success;
CREATE ROLE regress_watcher;
SELECT backlog_cleanup_grant('regress_watcher', 'monitor');
SET ROLE regress_watcher;
-- Nothing but pg_cron, which this server has not.
\x
SELECT * FROM backlog_cleanup_doctor();
\x
RESET ROLE;

-- Each state is looked at and rolled back; what it says comes down to the checks that it is about.
CREATE VIEW ill AS SELECT * FROM backlog_cleanup_doctor() WHERE status <> 'ok' AND check_name NOT IN ('pg_cron', 'job');
\pset format unaligned
BEGIN;
DROP TABLE recipes, credit_transactions;
SELECT * FROM ill;
ROLLBACK;
BEGIN;
ALTER TABLE generations RENAME updated_at TO failed_at;
SELECT * FROM ill;
ROLLBACK;
BEGIN;
DELETE FROM users;
SELECT * FROM ill;
ROLLBACK;
BEGIN;
UPDATE backlog_cleanup.policy SET enabled = false;
SELECT * FROM ill;
DELETE FROM backlog_cleanup.policy;
SELECT * FROM ill;
ROLLBACK;
BEGIN;
DROP INDEX generations_recipe_id_updated_at_id_idx;
SELECT * FROM ill;
ROLLBACK;
-- As a CREATE INDEX CONCURRENTLY that was cancelled leaves it.
BEGIN;
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'generations_recipe_id_updated_at_id_idx'::regclass;
SELECT * FROM ill;
ROLLBACK;
BEGIN;
UPDATE backlog_cleanup.target SET statuses = '{error}';
SELECT * FROM ill;
ROLLBACK;
BEGIN;
CREATE TABLE likes (generation_id integer CONSTRAINT likes_generation REFERENCES generations DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE shares (generation_id integer PRIMARY KEY REFERENCES generations);
SELECT * FROM ill;
ROLLBACK;
BEGIN;
CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER veto BEFORE DELETE ON generations FOR EACH ROW EXECUTE FUNCTION veto();
CREATE TRIGGER harmless BEFORE INSERT ON generations FOR EACH ROW EXECUTE FUNCTION veto();
CREATE CONSTRAINT TRIGGER late AFTER DELETE ON generations DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    EXECUTE FUNCTION veto();
CREATE RULE never AS ON DELETE TO generations DO INSTEAD NOTHING;
SELECT regexp_replace(row(ill.*)::text, '\d+', '...', 'g') AS ill FROM ill;
ROLLBACK;
BEGIN;
ALTER TABLE generations ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SELECT * FROM ill;
ROLLBACK;
BEGIN;
ALTER TABLE users OWNER TO CURRENT_USER;
REVOKE DELETE ON generations FROM regress_platform;
REVOKE INSERT ON credit_transactions FROM regress_platform;
SELECT * FROM ill;
ROLLBACK;
-- A view of one role over the table of another, and a table that a removal changes.
BEGIN;
CREATE ROLE regress_other;
CREATE VIEW names AS SELECT id, name FROM recipes;
CREATE VIEW all_recipes AS TABLE names;
ALTER VIEW all_recipes OWNER TO regress_platform;
ALTER TABLE recipes OWNER TO regress_other;
UPDATE backlog_cleanup.target SET recipes_table = 'public.all_recipes';
CREATE TABLE likes (generation_id integer PRIMARY KEY REFERENCES generations ON DELETE CASCADE);
ALTER TABLE likes OWNER TO regress_other;
SELECT * FROM ill;
ROLLBACK;
BEGIN;
ALTER TABLE generations SET (autovacuum_enabled = false);
SELECT * FROM ill;
ROLLBACK;
BEGIN;
INSERT INTO credit_transactions (user_id, amount, type, description, created_at)
VALUES ('system_backlog', 7, 'backlog_cleanup', '', now() AT TIME ZONE 'UTC');
SELECT * FROM ill;
ROLLBACK;
BEGIN;
UPDATE backlog_cleanup.run SET finished_at = '2001-01-01 UTC';
SELECT * FROM ill;
DELETE FROM backlog_cleanup.run;
SELECT * FROM ill;
ROLLBACK;
BEGIN;
GRANT EXECUTE ON FUNCTION backlog_cleanup_emergency TO PUBLIC;
GRANT SELECT ON backlog_cleanup.run TO PUBLIC;
GRANT CREATE ON SCHEMA public TO PUBLIC;
CREATE FUNCTION backlog_cleanup_emergency() RETURNS jsonb LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
SELECT * FROM ill;
ROLLBACK;
BEGIN;
UPDATE pg_extension SET extversion = '0.0.1' WHERE extname = 'backlog_cleanup';
SELECT check_name, status, fix FROM ill;
ROLLBACK;
-- Partitions are looked at as the table itself.
BEGIN;
CREATE TABLE jobs (LIKE generations) PARTITION BY LIST (status);
CREATE TABLE jobs_failed PARTITION OF jobs FOR VALUES IN ('failed') WITH (autovacuum_enabled = false);
UPDATE backlog_cleanup.target SET generations_table = 'public.jobs';
SELECT * FROM ill;
ROLLBACK;
-- A table of another server, where its index is; a name that is too long for that of a job.
BEGIN;
CREATE FOREIGN DATA WRAPPER elsewhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;
CREATE FOREIGN TABLE jobs (id integer, user_id text, recipe_id integer, status text, updated_at timestamp, failure_reason text)
    SERVER elsewhere;
UPDATE backlog_cleanup.target SET name = repeat('ä', 40), generations_table = 'public.jobs';
SELECT check_name, detail, fix FROM backlog_cleanup_doctor(repeat('ä', 40)) WHERE check_name IN ('target', 'index', 'job');
SELECT backlog_cleanup_index_sql(repeat('ä', 40));
ROLLBACK;
SELECT * FROM backlog_cleanup_doctor('x');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM backlog_cleanup_doctor(NULL);
\echo :LAST_ERROR_SQLSTATE
\c regression
DROP DATABASE regress_doctor;
DROP ROLE regress_platform, regress_watcher;
