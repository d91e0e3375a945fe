CREATE FUNCTION backlog_cleanup_set_policy(
    recipe_id    text DEFAULT NULL,
    failure_type text DEFAULT NULL,
    status       text DEFAULT NULL,
    max_age      interval DEFAULT NULL,
    keep         integer DEFAULT NULL,
    enabled      boolean DEFAULT NULL,
    note         text DEFAULT NULL,
    target       text DEFAULT 'generations',
    max_keep_age interval DEFAULT NULL,
    no_max_keep_age boolean DEFAULT false)
RETURNS backlog_cleanup.policy LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    names   text[];
    written backlog_cleanup.policy;
BEGIN
    BEGIN
        names := backlog_cleanup.written_names($8, $1, $2, $3);
    EXCEPTION WHEN invalid_text_representation OR invalid_parameter_value OR datatype_mismatch THEN
        -- Tells of these as well.
        PERFORM backlog_cleanup.check_limits($8, $1, $2, $3, $4, $5, $9);
        RAISE;
    END;
    IF $10 AND $9 IS NOT NULL THEN
        RAISE EXCEPTION 'a policy with no_max_keep_age has no max_keep_age' USING ERRCODE = 'invalid_parameter_value',
            HINT = format('SELECT * FROM backlog_cleanup_simulate(max_keep_age => %L, target => %L)', $9, $8);
    END IF;
    -- A new one has the defaults of the table, but a hold is one from its start.
    INSERT INTO backlog_cleanup.policy (target, recipe_id, failure_type, status, enabled)
    VALUES ($8, names[1], names[2], names[3], coalesce($6, true)) ON CONFLICT DO NOTHING;
    UPDATE backlog_cleanup.policy
    SET max_age = coalesce($4, max_age), keep = coalesce($5, keep), enabled = coalesce($6, enabled), note = nullif(coalesce($7, note), ''),
        max_keep_age = CASE WHEN $10 THEN NULL ELSE coalesce($9, max_keep_age) END
    WHERE (target, recipe_id, failure_type, status) IS NOT DISTINCT FROM ($8, names[1], names[2], names[3])
    RETURNING * INTO written;
    RETURN written;
END
$$;
COMMENT ON FUNCTION backlog_cleanup_set_policy IS
    'writes the policy for a recipe, a failure type, a status, or any row; what is NULL stays as it is, or has its default; an empty note is none; returns the policy';

CREATE FUNCTION backlog_cleanup_drop_policy(
    recipe_id    text DEFAULT NULL,
    failure_type text DEFAULT NULL,
    status       text DEFAULT NULL,
    target       text DEFAULT 'generations')
RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    names text[];
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
    names := backlog_cleanup.written_names($4, $1, $2, $3);
    DELETE FROM backlog_cleanup.policy
    WHERE (target, recipe_id, failure_type, status) IS NOT DISTINCT FROM ($4, names[1], names[2], names[3]);
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION backlog_cleanup_drop_policy IS
    'removes the policy for a recipe, a failure type, a status; its rows have the next one then; returns false if there was none';
