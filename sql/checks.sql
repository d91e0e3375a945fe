-- A name may mean another table tomorrow. The target remembers the role that wrote the name, and each run checks that role's
-- right.
CREATE FUNCTION backlog_cleanup.remember_namer() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = CURRENT_USER) THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'INSERT'
       OR EXISTS (SELECT FROM jsonb_each_text(to_jsonb(NEW)) AS is_now JOIN jsonb_each_text(to_jsonb(OLD)) AS was USING (key)
                  WHERE is_now.value IS DISTINCT FROM was.value
                    AND (key IN ('throttle_query', 'search_path', 'condition') OR key LIKE '%\_table' AND is_now.value IS NOT NULL
                         OR key LIKE '%\_column' AND is_now.value LIKE '(%'))
    THEN
        NEW.named_by := CURRENT_USER::backlog_cleanup.role;
    ELSE
        NEW.named_by := OLD.named_by;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.remember_namer IS
    'remembers the role that makes a target use tables, a search path, a throttle query or expressions';
CREATE TRIGGER remember_namer BEFORE INSERT OR UPDATE ON backlog_cleanup.target
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.remember_namer();
COMMENT ON TRIGGER remember_namer ON backlog_cleanup.target IS 'a target uses only tables of the role that named them';

-- For the trigger: its hint corrects the statement that has written the target.
CREATE FUNCTION backlog_cleanup.check_written(target text, before text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'check_written_target_wrapper';
COMMENT ON FUNCTION backlog_cleanup.check_written IS
    'a part of check_target: raises an error if a target cannot be used; before is its row before the statement, as JSON';

-- Checks a written target with the code of a run. A restored target is not checked, since a table that it names may be
-- gone.
CREATE FUNCTION backlog_cleanup.check_target() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    stranger regclass;
    owner    regrole;
    -- This runs as the owner of the target's table.
    has_code boolean := EXISTS (
        SELECT FROM jsonb_each_text(to_jsonb(NEW)) AS is_now LEFT JOIN jsonb_each_text(to_jsonb(OLD)) AS was USING (key)
        WHERE is_now.value IS DISTINCT FROM was.value
          AND (key IN ('throttle_query', 'search_path', 'condition') OR key LIKE '%\_column' AND is_now.value LIKE '(%'));
BEGIN
    -- To name a table is to let runs read it, write to it and remove its rows as its owner.
    SELECT c.oid::regclass, c.relowner::regrole INTO stranger, owner
    FROM jsonb_each_text(to_jsonb(NEW)) AS is_now
    LEFT JOIN jsonb_each_text(to_jsonb(OLD)) AS was USING (key)
    CROSS JOIN LATERAL (VALUES (is_now.value), (CASE WHEN key <> 'generations_table' THEN was.value END)) AS named (name)
    JOIN pg_class c ON c.oid = CASE WHEN key LIKE '%\_table' THEN to_regclass(named.name) END
    WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = CURRENT_USER)
      AND (is_now.value IS DISTINCT FROM was.value
           OR key = 'generations_table' AND has_code
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
    IF NEW.named_by::oid = 0 AND OLD.named_by::oid IS DISTINCT FROM 0 THEN
        RAISE EXCEPTION 'the role that target "%" is to be named by does not exist', NEW.name
            USING ERRCODE = 'undefined_object', HINT = 'SELECT rolname FROM pg_roles';
    END IF;
    PERFORM backlog_cleanup.check_written(NEW.name, CASE TG_OP WHEN 'INSERT' THEN '{}' ELSE to_jsonb(OLD)::text END);
    IF TG_OP = 'INSERT' THEN
        INSERT INTO backlog_cleanup.policy (target) VALUES (NEW.name);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.check_target IS
    'checks a written target and the right to use its tables, and gives a new target the default policy';
CREATE TRIGGER check_target AFTER INSERT OR UPDATE ON backlog_cleanup.target
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.check_target();
COMMENT ON TRIGGER check_target ON backlog_cleanup.target IS
    'refuses a table, a column or a time zone that does not exist, and tables of other roles';

-- Refuses what no run would obey. A restored policy is kept, since a dump must not lose it.
CREATE FUNCTION backlog_cleanup.check_policy() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own text := concat_ws(' and ', 'recipe ' || quote_ident(left(NEW.recipe_id, 100)),
                                   'failure type ' || quote_ident(left(NEW.failure_type, 100)));
BEGIN
    -- A target that is renamed takes along what an earlier version has let in.
    IF own = '' OR TG_OP = 'UPDATE' AND to_jsonb(NEW) - 'target' = to_jsonb(OLD) - 'target' THEN
        RETURN NEW;
    END IF;
    IF backlog_cleanup.restoring() THEN
        RAISE WARNING 'no run obeys the policy of target "%" for %', NEW.target, own
            USING HINT = format('SELECT * FROM backlog_cleanup.policy WHERE target = %L', NEW.target);
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'a policy for % is not supported: only the default policy of target "%" is obeyed', own, NEW.target
        USING ERRCODE = 'feature_not_supported',
              HINT = format('UPDATE backlog_cleanup.policy SET max_age = %L, keep = %s, enabled = %s '
                            'WHERE target = %L AND recipe_id IS NULL AND failure_type IS NULL',
                            NEW.max_age, NEW.keep, NEW.enabled::text, NEW.target);
END
$$;
COMMENT ON FUNCTION backlog_cleanup.check_policy IS 'refuses a policy for a recipe or a failure type, which no run obeys';
CREATE TRIGGER check_policy BEFORE INSERT OR UPDATE ON backlog_cleanup.policy
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.check_policy();
COMMENT ON TRIGGER check_policy ON backlog_cleanup.policy IS 'a policy is obeyed, or refused when it is written';
