-- Who may do what: every function and table of the extension, called and used as each level.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE DATABASE regress_levels;
\c regress_levels
SET client_min_messages = warning;
\i demo/platform.sql
CREATE SCHEMA "Ops, too";
CREATE EXTENSION backlog_cleanup SCHEMA "Ops, too";
SET search_path = public, "Ops, too";

CREATE ROLE regress_nobody;
GRANT USAGE ON SCHEMA "Ops, too" TO regress_nobody;
CREATE ROLE regress_monitor;
CREATE ROLE "regress_Operator";
CREATE ROLE regress_admin;
SELECT backlog_cleanup_grant('regress_monitor', 'monitor'), backlog_cleanup_grant('regress_Operator', 'operator'),
       backlog_cleanup_grant('regress_admin', 'admin');

-- Whether a statement is refused with 42501; whatever else happens, it is undone.
CREATE FUNCTION may(role name, statement text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        EXECUTE format('SET LOCAL ROLE %I', role);
        EXECUTE statement;
        RAISE EXCEPTION 'undo';
    EXCEPTION
        WHEN insufficient_privilege THEN RESET ROLE; RETURN false;
        WHEN OTHERS THEN RESET ROLE; RETURN true;
    END;
END $$;
CREATE VIEW lowest_level AS
WITH ours AS (
    SELECT classid, objid FROM pg_depend
    WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
      AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'backlog_cleanup')
), statement (object, kind, sql) AS (
    -- A call with nothing but NULLs changes nothing.
    SELECT p.oid::regproc::text, 'EXECUTE',
           format('%s %s.%I(%s)', CASE p.prokind WHEN 'p' THEN 'CALL' ELSE 'SELECT' END, p.pronamespace::regnamespace, p.proname,
                  (SELECT string_agg('NULL::' || type::regtype, ', ') FROM unnest(p.proargtypes) AS type))
    FROM ours JOIN pg_proc p ON classid = 'pg_proc'::regclass AND objid = p.oid
    UNION ALL
    SELECT c.oid::regclass::text, privilege.*
    FROM ours JOIN pg_class c ON classid = 'pg_class'::regclass AND objid = c.oid
    CROSS JOIN LATERAL (VALUES
        ('SELECT', format('SELECT FROM %s', c.oid::regclass)),
        ('INSERT', format('INSERT INTO %s DEFAULT VALUES', c.oid::regclass)),
        ('UPDATE', format('UPDATE %s SET %I = NULL', c.oid::regclass,
                          (SELECT attname FROM pg_attribute WHERE attrelid = c.oid ORDER BY attnum DESC LIMIT 1))),
        ('DELETE', format('DELETE FROM %s', c.oid::regclass)),
        ('TRUNCATE', format('TRUNCATE %s CASCADE', c.oid::regclass)),
        ('USAGE', format('SELECT nextval(%L)', c.oid::regclass))
    ) privilege
    WHERE CASE c.relkind WHEN 'r' THEN privilege.column1 <> 'USAGE'
                         WHEN 'v' THEN privilege.column1 = 'SELECT'
                         WHEN 'S' THEN privilege.column1 IN ('SELECT', 'USAGE') END
)
SELECT object, kind,
       CASE WHEN may('regress_nobody', sql) THEN 'nobody' ELSE '-' END AS nobody,
       CASE WHEN may('regress_monitor', sql) THEN 'monitor' ELSE '-' END AS monitor,
       CASE WHEN may('regress_Operator', sql) THEN 'operator' ELSE '-' END AS operator,
       CASE WHEN may('regress_admin', sql) THEN 'admin' ELSE '-' END AS admin
FROM statement;
SELECT * FROM lowest_level WHERE admin <> '-' ORDER BY object COLLATE "C", kind COLLATE "C";
-- What no level has is for the extension's owner alone: a function or table that is missing in src/grant.rs turns up here.
SELECT object, string_agg(kind, ', ' ORDER BY kind COLLATE "C") FROM lowest_level WHERE admin = '-'
GROUP BY object ORDER BY object COLLATE "C";

-- What the levels are for works, with nothing on the platform's tables.
INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
SELECT 'system_backlog', 1, '', 'failed', now() AT TIME ZONE 'UTC' - interval '2 days' FROM generate_series(1, 15);
SET ROLE regress_monitor;
SELECT failed_count, removable_count FROM backlog_cleanup_status();
SELECT count(*) FROM generations;
SELECT backlog_cleanup_failed_generations(dry_run => true);
\echo :LAST_ERROR_SQLSTATE
SET ROLE "regress_Operator";
SELECT backlog_cleanup_failed_generations() -> 'cleanedUpGenerations' AS removed;
SELECT name, max_age, keep FROM backlog_cleanup.target JOIN backlog_cleanup.policy ON target = name;
SELECT target, removed, requested_by FROM backlog_cleanup.run;
UPDATE backlog_cleanup.policy SET keep = 0;
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_admin;
UPDATE backlog_cleanup.policy SET keep = 3;
UPDATE backlog_cleanup.target SET account = 'system_backlog', batch_size = 5;
SELECT backlog_cleanup_failed_generations() -> 'cleanedUpGenerations' AS removed;

-- An admin points the extension at their own tables only, whatever else they say.
RESET ROLE;
CREATE TABLE victim (LIKE generations);
CREATE ROLE regress_owner_of_victim;
ALTER TABLE victim OWNER TO regress_owner_of_victim;
SET ROLE regress_admin;
UPDATE backlog_cleanup.target SET generations_table = 'public.victim';
\echo :LAST_ERROR_SQLSTATE
UPDATE backlog_cleanup.target SET recipes_table = 'public.users';
\echo :LAST_ERROR_SQLSTATE
UPDATE backlog_cleanup.target SET users_table = 'public.recipes';
\echo :LAST_ERROR_SQLSTATE
UPDATE backlog_cleanup.target SET ledger_table = 'public.victim';
\echo :LAST_ERROR_SQLSTATE
INSERT INTO backlog_cleanup.target (name) VALUES ('second');
\echo :LAST_ERROR_SQLSTATE
-- What a restore is allowed, somebody who is no superuser and pretends to be one is not.
SET xmloption = 'document';
UPDATE backlog_cleanup.target SET generations_table = 'public.victim';
\echo :LAST_ERROR_SQLSTATE
UPDATE backlog_cleanup.target SET generations_table = 'public.not_there_yet';
\echo :LAST_ERROR_SQLSTATE
RESET xmloption;
UPDATE backlog_cleanup.target SET recipes_table = NULL, users_table = NULL, ledger_table = NULL;
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
GRANT regress_owner_of_victim TO regress_admin;
SET ROLE regress_admin;
INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table)
VALUES ('own', 'public.victim', NULL, NULL, NULL);
-- The owner may not use the extension's schema, in which the fingerprint is.
INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, fingerprint)
VALUES ('own', 'public.victim', NULL, NULL, NULL, false);
SELECT backlog_cleanup_emergency('own') -> 'removedCount' AS removed;

-- What a target's names mean later is theirs only where it is their table.
RESET ROLE;
CREATE SCHEMA regress_decoy AUTHORIZATION regress_admin;
CREATE SCHEMA regress_of_admin AUTHORIZATION regress_admin;
GRANT CREATE ON DATABASE regress_levels TO regress_admin;
CREATE TABLE regress_of_admin.job (LIKE generations);
SET ROLE regress_admin;
CREATE TABLE regress_decoy.job (LIKE public.victim);
INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, throttle_query)
VALUES ('decoy', 'regress_decoy.job', NULL, NULL, NULL, 'SELECT NULL::text');
UPDATE backlog_cleanup.target SET named_by = NULL WHERE name = 'decoy';
ALTER SCHEMA regress_decoy RENAME TO regress_renamed;
ALTER SCHEMA regress_of_admin RENAME TO regress_decoy;
SELECT backlog_cleanup_emergency('decoy');
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_status('decoy');
\echo :LAST_ERROR_SQLSTATE
CALL backlog_cleanup_run('decoy');
\echo :LAST_ERROR_SQLSTATE
UPDATE backlog_cleanup.target SET named_by = NULL, batch_size = 1 WHERE name = 'decoy';
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
SELECT status, detail, fix FROM backlog_cleanup_doctor('decoy') WHERE check_name = 'target';
UPDATE backlog_cleanup.target SET named_by = NULL, throttle_query = NULL, search_path = NULL WHERE name = 'decoy';
SELECT backlog_cleanup_emergency('decoy') -> 'removedCount' AS removed;
DELETE FROM backlog_cleanup.target WHERE name = 'decoy';
REVOKE CREATE ON DATABASE regress_levels FROM regress_admin;
DROP SCHEMA regress_decoy, regress_renamed CASCADE;

-- The function of a column's domain runs as the table's owner, whoever points a target there or selects.
RESET ROLE;
ALTER TABLE victim OWNER TO CURRENT_USER;
CREATE FUNCTION spy(text) RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN RAISE WARNING 'the domain is checked as %', current_user; RETURN true; END $$;
CREATE DOMAIN recipe_name AS text CHECK (public.spy(VALUE));
ALTER TABLE victim ALTER recipe_id TYPE recipe_name, ALTER user_id TYPE recipe_name;
ALTER TABLE victim OWNER TO regress_owner_of_victim;
UPDATE backlog_cleanup.target SET account = 'me' WHERE name = 'own';
SELECT backlog_cleanup_emergency('own', recipe_id => '1') -> 'removedCount' AS removed;

-- Levels are given and taken by the extension's owner or a superuser.
SET ROLE regress_admin;
SELECT backlog_cleanup_grant('regress_nobody', 'monitor');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
GRANT EXECUTE ON FUNCTION backlog_cleanup_grant, backlog_cleanup_revoke TO regress_admin;
SET ROLE regress_admin;
SELECT backlog_cleanup_grant('regress_nobody', 'monitor');
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_revoke('regress_monitor');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
REVOKE EXECUTE ON FUNCTION backlog_cleanup_grant, backlog_cleanup_revoke FROM regress_admin;
SELECT backlog_cleanup_grant('no "such" role', 'monitor');
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_grant('public', 'monitor');
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_grant('regress_nobody', 'Monitor');
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_grant(NULL, 'monitor');
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_grant('regress_nobody', NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_revoke(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT backlog_cleanup_revoke('no "such" role');
\echo :LAST_ERROR_SQLSTATE

-- A lower level takes nothing away; a revoke takes everything, also twice, and also where somebody has made functions of
-- the extension's names.
CREATE FUNCTION "Ops, too".backlog_cleanup_emergency(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION "Ops, too".backlog_cleanup_status(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';
SELECT backlog_cleanup_grant('regress_admin', 'monitor');
SELECT count(*) FROM lowest_level WHERE admin <> '-';
SELECT backlog_cleanup_revoke('regress_monitor'), backlog_cleanup_revoke('regress_Operator'),
       backlog_cleanup_revoke('regress_admin'), backlog_cleanup_revoke('regress_admin');
SELECT * FROM lowest_level WHERE (nobody, monitor, operator, admin) <> ('-', '-', '-', '-');
\c regression
DROP DATABASE regress_levels;
DROP ROLE regress_nobody, regress_monitor, "regress_Operator", regress_admin, regress_owner_of_victim;
