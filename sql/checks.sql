-- A name may mean another table tomorrow. The target remembers the role that wrote the name, and each run checks that role's
-- right.
CREATE FUNCTION backlog_cleanup.remember_namer() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    namer backlog_cleanup.role := OLD.named_by;
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
        namer := CURRENT_USER::backlog_cleanup.role;
    END IF;
    IF NEW.named_by::oid IS DISTINCT FROM OLD.named_by::oid AND NEW.named_by::oid IS DISTINCT FROM namer::oid THEN
        RAISE EXCEPTION 'permission denied to set named_by of target "%"', NEW.name
            USING ERRCODE = 'insufficient_privilege', HINT = 'leave it out: it is the role that names what the target uses';
    END IF;
    NEW.named_by := namer;
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
CREATE FUNCTION backlog_cleanup.check_policies(target text, before text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'check_policies_of_target_wrapper';
COMMENT ON FUNCTION backlog_cleanup.check_policies IS
    'a part of check_target: raises an error if a policy would not be for the same rows any more; before is the target''s row before the statement, as JSON';

-- For the trigger: all that is wrong in a row is told at once.
CREATE FUNCTION backlog_cleanup.check_limits_of_target("row" text, before text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'check_limits_of_target_wrapper';
COMMENT ON FUNCTION backlog_cleanup.check_limits_of_target IS
    'a part of tell_limits: raises an error of all mistakes of a row that is beyond a limit; before is the row before the statement, both as JSON';

-- PostgreSQL ends a statement at the first limit of a table that a row is beyond, before check_target can tell what else is wrong in it.
CREATE FUNCTION backlog_cleanup.tell_limits() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 3 SET intervalstyle = postgres
AS $$
BEGIN
    -- Where its subscripts begin means nothing.
    NEW.run_between := NEW.run_between[:];
    IF NOT backlog_cleanup.restoring() THEN
        PERFORM backlog_cleanup.check_limits_of_target(
            to_jsonb(NEW)::text, CASE TG_OP WHEN 'INSERT' THEN '{}' ELSE to_jsonb(OLD)::text END);
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.tell_limits IS 'tells at once all limits that a row of target is beyond, and what else is wrong in it';
CREATE TRIGGER tell_limits BEFORE INSERT OR UPDATE ON backlog_cleanup.target
    FOR EACH ROW WHEN (NEW.name IS NOT NULL) EXECUTE FUNCTION backlog_cleanup.tell_limits();
COMMENT ON TRIGGER tell_limits ON backlog_cleanup.target IS 'all that is wrong in a row is one error';

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
    BEGIN
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
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE EXCEPTION '% (target "%")', SQLERRM, NEW.name
            USING ERRCODE = 'insufficient_privilege', HINT = 'a superuser or a role that may use the schema must do this';
    END;
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
    ELSE
        PERFORM backlog_cleanup.check_policies(NEW.name, to_jsonb(OLD)::text);
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

-- For the trigger: what a policy names, as rows of the target have it.
CREATE FUNCTION backlog_cleanup.written_names(target text, recipe_id text, failure_type text, status text) RETURNS text[]
    LANGUAGE c AS 'MODULE_PATHNAME', 'written_names_wrapper';
COMMENT ON FUNCTION backlog_cleanup.written_names IS
    'a part of check_policy: raises an error if no row can have what a policy names; returns recipe, failure type and status as rows have them';

-- Names the limit of a policy that no run could obey, before a CHECK does.
CREATE FUNCTION backlog_cleanup.check_limits(
    target text, recipe_id text, failure_type text, status text, max_age interval, keep integer, max_keep_age interval) RETURNS void
    LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wrong    text[];
    possible text;
    mistake  text;
    detail   text;
    hint     text;
BEGIN
    SELECT array_agg(concat_ws(' ', limit_name, checked.wrong) ORDER BY place),
           string_agg(format('%s => %L', limit_name, checked.possible), ', ' ORDER BY place) INTO wrong, possible
    FROM (VALUES
        (1, max_age < '0', 'max_age', format('"%s" is below 0', max_age), '0'),
        (2, max_age > '1000 years', 'max_age', format('"%s" is more than 1000 years', max_age),
         least(max_keep_age, '1000 years')::text),
        (3, keep < 0, 'keep', format('%s is below 0', keep), '0'),
        (4, max_keep_age > '1000 years', 'max_keep_age', format('"%s" is more than 1000 years', max_keep_age), '1000 years'),
        (5, max_keep_age < '0', 'max_keep_age', format('"%s" is below 0', max_keep_age), greatest(max_age, '0')::text)
    ) checked (place, is_wrong, limit_name, wrong, possible) WHERE is_wrong;
    -- Within those, no sum is beyond what a timestamp can be.
    IF wrong IS NULL AND max_keep_age < max_age
       AND timestamp '2000-07-01' + max_keep_age < timestamp '2000-07-01' + max_age THEN
        wrong := ARRAY[format('max_keep_age "%s" is below max_age "%s"', max_keep_age, max_age)];
        possible := format('max_keep_age => %L', max_age);
    END IF;
    IF wrong IS NULL THEN
        RETURN;
    END IF;
    BEGIN
        PERFORM backlog_cleanup.written_names(target, recipe_id, failure_type, status);
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS mistake = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
        wrong := wrong || string_to_array(coalesce(nullif(detail, ''), mistake), E'\n');
    END;
    hint := coalesce(hint, format('SELECT * FROM backlog_cleanup_simulate(%s%s, target => %L)',
                                  concat('recipe_id => ' || quote_literal(recipe_id) || ', ',
                                         'failure_type => ' || quote_literal(failure_type) || ', ',
                                         'status => ' || quote_literal(status) || ', '),
                                  possible, target));
    IF cardinality(wrong) = 1 THEN
        RAISE EXCEPTION 'policy of target "%": %', target, wrong[1]
            USING ERRCODE = 'invalid_parameter_value', COLUMN = split_part(wrong[1], ' ', 1), HINT = hint;
    END IF;
    RAISE EXCEPTION 'policy of target "%" has % mistakes', target, cardinality(wrong)
        USING ERRCODE = 'invalid_parameter_value', DETAIL = array_to_string(wrong, E'\n'), HINT = hint;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.check_limits IS
    'a part of check_policy: raises an error of all mistakes of a policy if none can have its limits';

-- For the trigger: somebody may have mistaken a name.
CREATE FUNCTION backlog_cleanup.tell_unmatched(target text, recipe_id text, failure_type text, status text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'tell_unmatched_wrapper';
COMMENT ON FUNCTION backlog_cleanup.tell_unmatched IS
    'a part of check_policy: warns if the target has no row in scope now that has what a policy names';

-- Refuses what no run could obey. A restored policy is kept, since a dump must not lose it.
CREATE FUNCTION backlog_cleanup.check_policy() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    names text[];
BEGIN
    IF backlog_cleanup.restoring()
       -- A target that gets another name takes its policies along, by a foreign key: that acts as the extension's owner, who may see what an admin
       -- may not.
       OR NEW.target <> OLD.target AND pg_trigger_depth() > 1
          AND EXISTS (SELECT FROM pg_class c JOIN pg_roles r ON r.oid = relowner WHERE c.oid = TG_RELID AND rolname = CURRENT_USER) THEN
        RETURN NEW;
    END IF;
    PERFORM backlog_cleanup.check_limits(NEW.target, NEW.recipe_id, NEW.failure_type, NEW.status, NEW.max_age, NEW.keep, NEW.max_keep_age);
    IF coalesce(NEW.recipe_id, NEW.failure_type, NEW.status) IS NULL
       OR TG_OP = 'UPDATE' AND (NEW.target, NEW.recipe_id, NEW.failure_type, NEW.status)
                               IS NOT DISTINCT FROM (OLD.target, OLD.recipe_id, OLD.failure_type, OLD.status) THEN
        RETURN NEW;
    END IF;
    names := backlog_cleanup.written_names(NEW.target, NEW.recipe_id, NEW.failure_type, NEW.status);
    NEW.recipe_id := names[1];
    NEW.failure_type := names[2];
    NEW.status := names[3];
    PERFORM backlog_cleanup.tell_unmatched(NEW.target, NEW.recipe_id, NEW.failure_type, NEW.status);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.check_policy IS
    'refuses a policy for what no row can have, and limits that none can have; warns of what no row has now';
CREATE TRIGGER check_policy BEFORE INSERT OR UPDATE ON backlog_cleanup.policy
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.check_policy();
COMMENT ON TRIGGER check_policy ON backlog_cleanup.policy IS 'a policy is obeyed, or refused when it is written';

-- For the trigger. Policy and hold are their recipe, failure type, and status.
CREATE FUNCTION backlog_cleanup.lifted(group_word text, policy text[], hold text[]) RETURNS text STRICT
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifted_wrapper';
COMMENT ON FUNCTION backlog_cleanup.lifted IS
    'a part of tell_of_holds: says that a policy takes rows out of a hold, if it does';

-- Whoever writes a policy is told what it does to a hold, and whoever writes a hold, what it does not keep.
CREATE FUNCTION backlog_cleanup.tell_of_holds() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    written CONSTANT text[] := ARRAY[NEW.recipe_id, NEW.failure_type, NEW.status];
    lifted  text;
    at_work bigint;
BEGIN
    IF backlog_cleanup.restoring()
       OR TG_OP = 'UPDATE' AND (NEW.recipe_id, NEW.failure_type, NEW.status, NEW.enabled)
                               IS NOT DISTINCT FROM (OLD.recipe_id, OLD.failure_type, OLD.status, OLD.enabled)
          AND (NEW.target = OLD.target OR NOT EXISTS (SELECT FROM backlog_cleanup.target WHERE name = OLD.target)) THEN
        RETURN NULL;
    END IF;
    SELECT said INTO lifted
    FROM backlog_cleanup.policy AS other JOIN backlog_cleanup.target ON target.name = other.target
         CROSS JOIN LATERAL (SELECT ARRAY[other.recipe_id, other.failure_type, other.status] AS names) AS named
         CROSS JOIN LATERAL (SELECT CASE WHEN NEW.enabled THEN backlog_cleanup.lifted(group_word, written, names)
                                         ELSE backlog_cleanup.lifted(group_word, names, written) END AS said) AS told
    WHERE other.target = NEW.target AND other.enabled <> NEW.enabled AND said IS NOT NULL
    LIMIT 1;
    IF lifted IS NOT NULL THEN
        RAISE WARNING '%', lifted
            USING HINT = format('SELECT detail FROM backlog_cleanup_doctor(%L) WHERE check_name = ''policy''', NEW.target);
    END IF;
    IF NOT NEW.enabled THEN
        SELECT run_id INTO at_work FROM backlog_cleanup.progress WHERE target = NEW.target AND state = 'running' LIMIT 1;
        IF FOUND THEN
            RAISE WARNING 'run % of target "%" is at work, and keeps the policies that it has begun with', at_work, NEW.target
                USING HINT = format('SELECT backlog_cleanup_stop(%s)', at_work);
        END IF;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.tell_of_holds IS 'warns of a policy that takes rows out of a hold, and of a run that does not obey a new one';
CREATE TRIGGER tell_of_holds AFTER INSERT OR UPDATE ON backlog_cleanup.policy
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.tell_of_holds();
COMMENT ON TRIGGER tell_of_holds ON backlog_cleanup.policy IS 'held rows do not go without a word';
