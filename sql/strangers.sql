-- A function of one of our names that is not ours could be called in its place, by the nightly job too: whatever its
-- arguments, it is refused.
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
