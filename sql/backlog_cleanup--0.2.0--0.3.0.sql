-- 0.3.0: the arguments of a batched run stand once, and a new column of target needs no list of columns.
DROP PROCEDURE backlog_cleanup_run;
DROP FUNCTION backlog_cleanup.start_run;
CREATE FUNCTION backlog_cleanup.start_run(arguments jsonb) RETURNS bigint
    LANGUAGE c AS 'MODULE_PATHNAME', 'start_batched_run_wrapper';
-- It has no SET clause and is no SECURITY DEFINER, since neither could commit.
CREATE PROCEDURE backlog_cleanup_run(
    target       text DEFAULT 'generations',
    mode         text DEFAULT 'regular',
    batch_size   integer DEFAULT NULL,
    pause        interval DEFAULT '0',
    max_duration interval DEFAULT NULL,
    max_rows     bigint DEFAULT NULL,
    workers      integer DEFAULT 1,
    recipe_id    text DEFAULT NULL,
    failure_type text DEFAULT NULL,
    force        boolean DEFAULT false,
    INOUT report jsonb DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
    run     bigint;
    seconds double precision := double precision '0';
BEGIN
    -- An error here, and not after the first batch, where nothing can be committed.
    CALL backlog_cleanup.commit_and_wait(seconds);
    run := backlog_cleanup.start_run(pg_catalog.jsonb_build_object(
        'target', target, 'mode', mode, 'batch_size', batch_size, 'pause', pause, 'max_duration', max_duration,
        'max_rows', max_rows, 'workers', workers, 'recipe_id', recipe_id, 'failure_type', failure_type, 'force', force));
    LOOP
        CALL backlog_cleanup.commit_and_wait(seconds);
        seconds := backlog_cleanup.next_batch(run);
        EXIT WHEN seconds IS NULL;
    END LOOP;
    report := backlog_cleanup.finish_run(run);
END
$$;
COMMENT ON PROCEDURE backlog_cleanup_run IS
    'removes what a regular or an emergency run removes, in batches, with a commit after each';
COMMENT ON FUNCTION backlog_cleanup.start_run IS
    'a part of backlog_cleanup_run: holds the target, fixes the cutoffs, divides the work; returns the run''s id';

DROP FUNCTION backlog_cleanup.remember_namer CASCADE;
CREATE FUNCTION backlog_cleanup.remember_namer() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = CURRENT_USER) THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'INSERT'
       OR (NEW.throttle_query, NEW.search_path) IS DISTINCT FROM (OLD.throttle_query, OLD.search_path)
       OR EXISTS (SELECT FROM jsonb_each_text(to_jsonb(NEW)) AS is_now JOIN jsonb_each_text(to_jsonb(OLD)) AS was USING (key)
                  WHERE key LIKE '%\_table' AND is_now.value <> coalesce(was.value, ''))
    THEN
        NEW.named_by := CURRENT_USER;
    ELSE
        NEW.named_by := OLD.named_by;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.remember_namer IS
    'remembers who makes a target use tables, a search path or a throttle query';
CREATE TRIGGER remember_namer BEFORE INSERT OR UPDATE ON backlog_cleanup.target
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.remember_namer();
COMMENT ON TRIGGER remember_namer ON backlog_cleanup.target IS 'a target uses only tables of the role that named them';

DROP FUNCTION backlog_cleanup.check_target CASCADE;
CREATE FUNCTION backlog_cleanup.check_target() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    stranger regclass;
    owner    regrole;
BEGIN
    -- A role that names a table lets runs remove its rows, read it and write to it as its owner. A role that takes the
    -- ledger away, or the account that it is kept for, lets runs remove rows unseen by the ledger's owner.
    SELECT c.oid::regclass, c.relowner::regrole INTO stranger, owner
    FROM jsonb_each_text(to_jsonb(NEW)) AS is_now
    LEFT JOIN jsonb_each_text(to_jsonb(OLD)) AS was USING (key)
    CROSS JOIN LATERAL (VALUES (is_now.value), (CASE WHEN key <> 'generations_table' THEN was.value END)) AS named (name)
    JOIN pg_class c ON c.oid = CASE WHEN key LIKE '%\_table' THEN to_regclass(named.name) END
    WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = CURRENT_USER)
      AND (is_now.value IS DISTINCT FROM was.value
           -- These two run as the owner of the target's table.
           OR key = 'generations_table'
              AND (NEW.throttle_query, NEW.search_path) IS DISTINCT FROM (OLD.throttle_query, OLD.search_path)
           OR key = 'ledger_table'
              AND (NEW.account, NEW.account_column) IS DISTINCT FROM (OLD.account, OLD.account_column))
      AND NOT pg_has_role(c.relowner, 'USAGE')
    ORDER BY c.oid;
    IF FOUND THEN
        RAISE EXCEPTION 'must be owner of table "%" to change how target "%" uses it', stranger, NEW.name
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('a superuser or a member of role %s must do this', owner);
    END IF;
    IF backlog_cleanup.restoring() THEN
        RETURN NULL;
    END IF;
    PERFORM @extschema@.backlog_cleanup_check(NEW.name);
    IF TG_OP = 'INSERT' THEN
        INSERT INTO backlog_cleanup.policy (target) VALUES (NEW.name);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.check_target IS
    'checks a written target and whose tables it names, and gives a new one the default policy';
CREATE TRIGGER check_target AFTER INSERT OR UPDATE ON backlog_cleanup.target
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.check_target();
COMMENT ON TRIGGER check_target ON backlog_cleanup.target IS
    'refuses a table, a column or a time zone that is not there, and tables of others';

DROP FUNCTION backlog_cleanup.give_way_to_dump CASCADE;
CREATE FUNCTION backlog_cleanup.give_way_to_dump() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    columns text;
BEGIN
    IF NOT backlog_cleanup.restoring() THEN
        RETURN NEW;
    END IF;
    -- Not an advisory lock, which anybody can hold.
    LOCK TABLE backlog_cleanup.target IN SHARE ROW EXCLUSIVE MODE;
    -- The policies that CREATE EXTENSION has made, and not those that the dump has brought.
    DELETE FROM backlog_cleanup.policy
    WHERE target = NEW.name AND xmin = (SELECT e.xmin FROM pg_extension e WHERE e.extname = 'backlog_cleanup');
    PERFORM FROM backlog_cleanup.target WHERE name = NEW.name;
    IF FOUND THEN
        SELECT string_agg(quote_ident(attname), ', ') INTO columns
        FROM pg_attribute
        WHERE attrelid = 'backlog_cleanup.target'::regclass AND attnum > 0 AND NOT attisdropped;
        EXECUTE format('UPDATE backlog_cleanup.target SET (%1$s) = (SELECT %1$s FROM (SELECT ($1).*) dumped) WHERE name = ($1).name',
                       columns) USING NEW;
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.give_way_to_dump IS 'makes way for the targets of a dump that is being restored';
CREATE TRIGGER give_way_to_dump BEFORE INSERT ON backlog_cleanup.target
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.give_way_to_dump();
COMMENT ON TRIGGER give_way_to_dump ON backlog_cleanup.target IS 'a restored target replaces the one of that name';

DROP FUNCTION backlog_cleanup.give_way_to_dumped_policy CASCADE;
CREATE FUNCTION backlog_cleanup.give_way_to_dumped_policy() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT backlog_cleanup.restoring() THEN
        RETURN NEW;
    END IF;
    -- Not an advisory lock, which anybody can hold.
    LOCK TABLE backlog_cleanup.target IN SHARE ROW EXCLUSIVE MODE;
    PERFORM FROM backlog_cleanup.target WHERE name = NEW.target;
    IF NOT FOUND THEN
        INSERT INTO backlog_cleanup.target (name) VALUES (NEW.target);
    END IF;
    DELETE FROM backlog_cleanup.policy
    WHERE (target, recipe_id, failure_type) IS NOT DISTINCT FROM (NEW.target, NEW.recipe_id, NEW.failure_type);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.give_way_to_dumped_policy IS
    'makes way for the policies of a dump that is being restored';
CREATE TRIGGER give_way_to_dumped_policy BEFORE INSERT ON backlog_cleanup.policy
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.give_way_to_dumped_policy();
COMMENT ON TRIGGER give_way_to_dumped_policy ON backlog_cleanup.policy IS 'a restored policy replaces the one of its kind';

COMMENT ON FUNCTION backlog_cleanup_check IS
    'an error if a target names a table, a column or a time zone that cannot be used';

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

-- Nobody but the owner calls anything until backlog_cleanup_grant(role_name, level) has given a level.
DO $privileges$
DECLARE
    ours pg_catalog.regprocedure;
BEGIN
    FOR ours IN
        SELECT d.objid FROM pg_catalog.pg_depend d
        WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
          AND d.deptype OPERATOR(pg_catalog.=) 'e'
          AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
          AND d.refobjid OPERATOR(pg_catalog.=) (SELECT e.oid FROM pg_catalog.pg_extension e
                                                 WHERE e.extname OPERATOR(pg_catalog.=) 'backlog_cleanup')
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', ours);
    END LOOP;
END
$privileges$;

-- A GRANT in this script would be missing from dumps: backlog_cleanup_grant has to be called again, once per role.
DO $levels$
DECLARE
    again text;
BEGIN
    SELECT pg_catalog.string_agg(pg_catalog.format('SELECT @extschema@.backlog_cleanup_grant(%L, %L)', r.rolname, held.level), '; '
                                 ORDER BY r.rolname)
    INTO again
    FROM (SELECT DISTINCT ON (grantee) grantee, level
          FROM (SELECT a.grantee, 3, 'admin'
                FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
                WHERE c.oid OPERATOR(pg_catalog.=) 'backlog_cleanup.target'::pg_catalog.regclass
                  AND a.privilege_type OPERATOR(pg_catalog.=) 'INSERT' AND a.grantee OPERATOR(pg_catalog.<>) c.relowner
                UNION ALL
                SELECT a.grantee, 2, 'operator'
                FROM pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) a
                WHERE p.oid OPERATOR(pg_catalog.=)
                      '@extschema@.backlog_cleanup_emergency(text, text, text, boolean)'::pg_catalog.regprocedure
                  AND a.grantee OPERATOR(pg_catalog.<>) p.proowner
                UNION ALL
                SELECT a.grantee, 1, 'monitor'
                FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
                WHERE c.oid OPERATOR(pg_catalog.=) 'backlog_cleanup.run'::pg_catalog.regclass
                  AND a.grantee OPERATOR(pg_catalog.<>) c.relowner) levels (grantee, rank, level)
          ORDER BY grantee, rank DESC) held
    JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) held.grantee;
    IF again IS NOT NULL THEN
        RAISE WARNING 'roles with a level do not have the new functions yet' USING HINT = again;
    END IF;
END
$levels$;
