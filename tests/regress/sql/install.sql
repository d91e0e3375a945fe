-- What is there before the extension is refused, not adopted; its PL/pgSQL is clean.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE DATABASE regress_install;
\c regress_install
SET client_min_messages = warning;

CREATE SCHEMA backlog_cleanup;
CREATE TABLE backlog_cleanup.target (name text);
CREATE EXTENSION backlog_cleanup;
\echo :LAST_ERROR_SQLSTATE
DROP SCHEMA backlog_cleanup CASCADE;

CREATE FUNCTION backlog_cleanup_status(target text DEFAULT 'generations') RETURNS text LANGUAGE sql AS 'SELECT target';
CREATE EXTENSION backlog_cleanup;
\echo :LAST_ERROR_SQLSTATE
DROP FUNCTION backlog_cleanup_status;
-- Without arguments it would be called in place of ours, by the nightly job.
CREATE FUNCTION backlog_cleanup_failed_generations() RETURNS jsonb LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
CREATE EXTENSION backlog_cleanup;
\echo :LAST_ERROR_SQLSTATE
DROP FUNCTION backlog_cleanup_failed_generations;

CREATE EXTENSION backlog_cleanup;
-- Where the server has no plpgsql_check, it has nothing to say.
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'plpgsql_check') THEN
        CREATE EXTENSION plpgsql_check;
    ELSE
        CREATE FUNCTION plpgsql_check_function(oid, oid, extra_warnings boolean, performance_warnings boolean,
                                               security_warnings boolean)
            RETURNS SETOF text LANGUAGE sql AS 'SELECT NULL WHERE false';
    END IF;
END $$;
SELECT p.oid::regprocedure, t.tgrelid::regclass, problem
FROM pg_depend d
JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
JOIN pg_language l ON l.oid = p.prolang AND l.lanname = 'plpgsql'
LEFT JOIN pg_trigger t ON t.tgfoid = p.oid
CROSS JOIN LATERAL plpgsql_check_function(p.oid, coalesce(t.tgrelid, 0), extra_warnings => true,
                                          performance_warnings => true, security_warnings => true) AS problem
WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
  AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'backlog_cleanup');

\c regression
DROP DATABASE regress_install;
