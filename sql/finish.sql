-- The last of the install script: what all functions have in common.
-- Refuses other functions with the extension's names, whatever their arguments: they could be called instead of the
-- extension's, also by the nightly job.
DO $strangers$
DECLARE
    stranger text;
BEGIN
    SELECT p.oid::pg_catalog.regprocedure INTO stranger
    FROM pg_catalog.pg_proc p
    WHERE p.pronamespace OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace
      AND p.proname OPERATOR(pg_catalog.~) '^backlog_cleanup_'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                      WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
                        AND d.objid OPERATOR(pg_catalog.=) p.oid
                        AND d.deptype OPERATOR(pg_catalog.=) 'e'
                        AND d.refobjid OPERATOR(pg_catalog.=)
                            (SELECT e.oid FROM pg_catalog.pg_extension e
                             WHERE e.extname OPERATOR(pg_catalog.=) 'backlog_cleanup'));
    IF FOUND THEN
        RAISE EXCEPTION 'function "%" exists already', stranger
            USING ERRCODE = 'duplicate_function', HINT = pg_catalog.format('DROP FUNCTION %s', stranger);
    END IF;
END
$strangers$;

COMMENT ON FUNCTION backlog_cleanup_failed_generations IS
    'removes the expired failed rows of each recipe but the newest; returns a report';
COMMENT ON FUNCTION backlog_cleanup_emergency IS
    'removes every row in scope but those that are held, whatever its age; returns a report';
COMMENT ON FUNCTION backlog_cleanup_index_sql IS
    'the statement that builds the partial index of a target, for \gexec';
COMMENT ON FUNCTION backlog_cleanup_simulate IS
    'what a regular run would remove and keep now, and what it would under a changed policy, per policy and recipe';
COMMENT ON FUNCTION backlog_cleanup_explain IS
    'why a row stays or goes: its policy, its rank, when it expires, when it can go';
COMMENT ON FUNCTION backlog_cleanup_status IS
    'the rows of the account by recipe and status, most failures first';
COMMENT ON FUNCTION backlog_cleanup_schedule IS
    'registers the nightly pg_cron job, or changes the existing one; returns its id';
COMMENT ON FUNCTION backlog_cleanup_tick IS
    'takes a sample of each target, opens and resolves alerts, and prunes what is too old, as its pg_cron job does every five minutes; returns what each step took';
COMMENT ON FUNCTION backlog_cleanup_quiet_hours IS
    'how busy the database is at each hour of the day and of the week, in transactions per second, in the target''s time zone';
COMMENT ON FUNCTION backlog_cleanup_explain_tick IS 'what the last tick has decided about an adaptive target, and why';
COMMENT ON FUNCTION backlog_cleanup_schedule_tick IS
    'registers the pg_cron job of the tick, or changes the existing one; returns its id';
COMMENT ON FUNCTION backlog_cleanup_unschedule IS 'removes the pg_cron job of that name; returns false if there is none';
COMMENT ON FUNCTION backlog_cleanup_status_json IS
    'the status as one document, with the pg_cron job and the last run';
COMMENT ON FUNCTION backlog_cleanup_doctor IS
    'checks a target and its surroundings, one row per check or problem, with the statement that fixes it';
COMMENT ON FUNCTION backlog_cleanup_stop IS 'stops a batched run: its batch ends early; returns false if it has ended';
COMMENT ON FUNCTION backlog_cleanup_failures IS
    'the failed rows by hour and failure type, oldest hour first: those that are there, and those that runs have removed';
COMMENT ON FUNCTION backlog_cleanup_fingerprint IS
    'the first line of a message without what differs from one failure to the next: numbers, ids, times, addresses, paths, quoted strings';
COMMENT ON FUNCTION backlog_cleanup_has_value IS
    'whether an expression, which calls the row g, does not fail for a row of these columns';
COMMENT ON FUNCTION backlog_cleanup_books IS
    'compares the removed-row counts in ledger and history, of all targets that share the ledger; no row without a ledger';
COMMENT ON FUNCTION backlog_cleanup_run_details IS
    'what a run of the history did per recipe that lost rows, most removed first';
COMMENT ON FUNCTION backlog_cleanup_snooze IS 'keeps an open alert from being told of until then; NULL ends that';
COMMENT ON FUNCTION backlog_cleanup_acknowledge IS 'records that the caller has taken an open alert on';
COMMENT ON FUNCTION backlog_cleanup_report IS
    'what has happened to a target, by its samples, runs and alerts: a page for psql, or the same as Markdown';
COMMENT ON FUNCTION backlog_cleanup_grant IS
    'gives a role a level: monitor (status, history), operator (also runs) or admin (also targets, policies, the job)';
COMMENT ON FUNCTION backlog_cleanup_revoke IS 'revokes all levels from a role';
COMMENT ON FUNCTION backlog_cleanup_check IS
    'raises an error if a target names a table, a column or a time zone that cannot be used';

-- Only the owner may do anything until backlog_cleanup_grant(role_name, level) has given a level, whatever the default privileges
-- here are. Two functions are for all: owners of tables call them in runs, and the fingerprint in indexes.
DO $privileges$
DECLARE
    revoke text;
BEGIN
    FOR revoke IN
        WITH ours AS (
            SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
            JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
            WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
              AND d.deptype OPERATOR(pg_catalog.=) 'e' AND e.extname OPERATOR(pg_catalog.=) 'backlog_cleanup'
        ), given (object, owner, acl) AS (
            SELECT pg_catalog.concat('ROUTINE ', p.oid::pg_catalog.regprocedure), p.proowner,
                   COALESCE(p.proacl, pg_catalog.acldefault('f', p.proowner))
            FROM ours JOIN pg_catalog.pg_proc p
                ON classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass AND objid OPERATOR(pg_catalog.=) p.oid
            WHERE p.oid OPERATOR(pg_catalog.<>) ALL (ARRAY['@extschema@.backlog_cleanup_fingerprint(text)'::pg_catalog.regprocedure,
                                                             '@extschema@.backlog_cleanup_has_value(text,"any")'::pg_catalog.regprocedure]::pg_catalog.oid[])
            UNION ALL
            SELECT pg_catalog.concat(CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END, c.oid::pg_catalog.regclass),
                   c.relowner, c.relacl
            FROM ours JOIN pg_catalog.pg_class c
                ON classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND objid OPERATOR(pg_catalog.=) c.oid
            UNION ALL
            SELECT pg_catalog.concat('SCHEMA ', n.oid::pg_catalog.regnamespace), n.nspowner, n.nspacl
            FROM ours JOIN pg_catalog.pg_namespace n
                ON classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass AND objid OPERATOR(pg_catalog.=) n.oid
        )
        SELECT DISTINCT pg_catalog.format('REVOKE ALL ON %s FROM %s', object,
                                          CASE WHEN grantee OPERATOR(pg_catalog.=) '0'::pg_catalog.oid THEN 'PUBLIC' ELSE grantee::pg_catalog.regrole::pg_catalog.text END)
        FROM given CROSS JOIN LATERAL pg_catalog.aclexplode(acl)
        WHERE grantee OPERATOR(pg_catalog.<>) owner
    LOOP
        EXECUTE revoke;
    END LOOP;
END
$privileges$;

INSERT INTO backlog_cleanup.as_created (relation, file, place, made, command)
SELECT tableoid, pg_catalog.pg_relation_filenode(tableoid), ctid, xmin, cmin FROM backlog_cleanup.target UNION ALL
SELECT tableoid, pg_catalog.pg_relation_filenode(tableoid), ctid, xmin, cmin FROM backlog_cleanup.policy UNION ALL
SELECT tableoid, pg_catalog.pg_relation_filenode(tableoid), ctid, xmin, cmin FROM backlog_cleanup.alert_rule;

-- Registers the nightly job, but not in a restore: the dump brings the job in pg_cron's own table, where a second one
-- would be an error.
DO $register$
DECLARE
    problem text;
    remedy  text;
BEGIN
    IF backlog_cleanup.restoring() THEN
        RETURN;
    END IF;
    PERFORM @extschema@.backlog_cleanup_schedule();
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT, remedy = PG_EXCEPTION_HINT;
    RAISE WARNING 'the nightly job is not scheduled: %', problem USING HINT = remedy;
END
$register$;

-- Says so at once if the default target cannot be used in this database: its nightly job would fail.
DO $target$
DECLARE
    problem text;
    detail  text;
    remedy  text;
BEGIN
    IF backlog_cleanup.restoring() THEN
        RETURN;
    END IF;
    PERFORM @extschema@.backlog_cleanup_check('generations');
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, remedy = PG_EXCEPTION_HINT;
    -- Whoever has other tables needs a target of their own, and this one no more.
    IF pg_catalog.starts_with(remedy, 'INSERT INTO backlog_cleanup.target ') THEN
        remedy := pg_catalog.concat(
            remedy, '; -- and then DELETE FROM backlog_cleanup.target WHERE name = ''generations''',
            CASE WHEN pg_catalog.to_regclass('cron.job') IS NOT NULL THEN '; SELECT @extschema@.backlog_cleanup_unschedule()' END);
    END IF;
    RAISE WARNING 'target "generations" cannot be used: %', pg_catalog.rtrim(pg_catalog.concat_ws(E'\n', problem, detail), E'\n') USING HINT = remedy;
END
$target$;
