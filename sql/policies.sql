CREATE FUNCTION backlog_cleanup.has_row_of(target text, recipe_id text, failure_type text, status text) RETURNS boolean
    LANGUAGE c AS 'MODULE_PATHNAME', 'has_row_of_wrapper';
COMMENT ON FUNCTION backlog_cleanup.has_row_of IS
    'a part of backlog_cleanup_set_policy: whether the target has a row in scope now that has what a policy names';

CREATE FUNCTION backlog_cleanup_set_policy(
    recipe_id    text DEFAULT NULL,
    failure_type text DEFAULT NULL,
    status       text DEFAULT NULL,
    max_age      interval DEFAULT NULL,
    keep         integer DEFAULT NULL,
    enabled      boolean DEFAULT NULL,
    note         text DEFAULT NULL,
    target       text DEFAULT 'generations',
    max_keep_age interval DEFAULT NULL)
RETURNS backlog_cleanup.policy LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    names   text[] := backlog_cleanup.written_names($8, $1, $2, $3);
    written backlog_cleanup.policy;
BEGIN
    IF NOT backlog_cleanup.has_row_of($8, $1, $2, $3) THEN
        RAISE WARNING 'target "%" has no row now that this policy is for', $8
            USING HINT = format('SELECT * FROM backlog_cleanup_status(%L)', $8);
    END IF;
    -- A new one has the defaults of the table.
    INSERT INTO backlog_cleanup.policy (target, recipe_id, failure_type, status) VALUES ($8, names[1], names[2], names[3])
    ON CONFLICT DO NOTHING;
    UPDATE backlog_cleanup.policy
    SET max_age = coalesce($4, max_age), keep = coalesce($5, keep), enabled = coalesce($6, enabled), note = coalesce($7, note),
        max_keep_age = coalesce($9, max_keep_age)
    WHERE (target, recipe_id, failure_type, status) IS NOT DISTINCT FROM ($8, names[1], names[2], names[3])
    RETURNING * INTO written;
    RETURN written;
EXCEPTION WHEN check_violation THEN
    RAISE EXCEPTION 'a policy needs a "keep" of at least 0, a "max_age" from 0 to 1000 years, and no "max_keep_age" below it'
        USING ERRCODE = 'invalid_parameter_value',
              HINT = format('SELECT * FROM backlog_cleanup_simulate(max_age => ''30 days'', keep => 10, max_keep_age => ''1 year'', target => %L)',
                            $8);
END
$$;
COMMENT ON FUNCTION backlog_cleanup_set_policy IS
    'writes the policy for a recipe, a failure type, a status, or any row; what is NULL stays as it is, or has its default; returns the policy';

CREATE FUNCTION backlog_cleanup_drop_policy(
    recipe_id    text DEFAULT NULL,
    failure_type text DEFAULT NULL,
    status       text DEFAULT NULL,
    target       text DEFAULT 'generations')
RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF coalesce($1, $2, $3) IS NULL THEN
        PERFORM backlog_cleanup.written_names($4, NULL, NULL, NULL);
        RAISE EXCEPTION 'the default policy of target "%" cannot be dropped', $4
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = format('SELECT backlog_cleanup_set_policy(enabled => false, target => %L)', $4);
    END IF;
    -- As it was written, or as rows have it.
    DELETE FROM backlog_cleanup.policy
    WHERE (target, recipe_id, failure_type, status) IS NOT DISTINCT FROM ($4, $1, $2, $3);
    IF FOUND THEN
        RETURN true;
    END IF;
    DELETE FROM backlog_cleanup.policy USING (SELECT backlog_cleanup.written_names($4, $1, $2, $3)) AS written (names)
    WHERE (target, recipe_id, failure_type, status) IS NOT DISTINCT FROM ($4, names[1], names[2], names[3]);
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION backlog_cleanup_drop_policy IS
    'removes the policy for a recipe, a failure type, a status; its rows have the next one then; returns false if there was none';
