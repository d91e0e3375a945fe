-- A name means whatever table has it, and another one tomorrow: whose right it was is remembered, and asked for by each run.
CREATE FUNCTION backlog_cleanup.remember_namer() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = CURRENT_USER) THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'INSERT'
       OR (NEW.throttle_query, NEW.search_path) IS DISTINCT FROM (OLD.throttle_query, OLD.search_path)
       OR NEW.generations_table <> OLD.generations_table
       OR NEW.recipes_table <> coalesce(OLD.recipes_table, '')
       OR NEW.users_table <> coalesce(OLD.users_table, '')
       OR NEW.ledger_table <> coalesce(OLD.ledger_table, '')
    THEN
        NEW.named_by := CURRENT_USER;
    ELSE
        NEW.named_by := OLD.named_by;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.remember_namer() IS
    'remembers who makes a target use tables, a search path or a throttle query';
REVOKE ALL ON FUNCTION backlog_cleanup.remember_namer() FROM PUBLIC;
CREATE TRIGGER remember_namer BEFORE INSERT OR UPDATE ON backlog_cleanup.target
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.remember_namer();
COMMENT ON TRIGGER remember_namer ON backlog_cleanup.target IS 'a target uses only tables of whoever named them';

-- Values are checked when they are written, by the code that a run checks them with; a dump is taken as it is, since a
-- table that it names may be gone.
CREATE FUNCTION backlog_cleanup.check_target() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    stranger regclass;
    owner    regrole;
BEGIN
    -- Whoever names a table lets runs remove its rows, read it and write to it as its owner.
    SELECT c.oid::regclass, c.relowner::regrole INTO stranger, owner
    FROM ROWS FROM (unnest(ARRAY[NEW.generations_table, NEW.recipes_table, NEW.users_table, NEW.ledger_table]),
                    unnest(ARRAY[OLD.generations_table, OLD.recipes_table, OLD.users_table, OLD.ledger_table]))
         AS written (is_now, was)
    JOIN pg_class c ON c.oid = to_regclass(written.is_now)
    WHERE (written.is_now IS DISTINCT FROM written.was
           -- These two are what runs as the owner of the target's table.
           OR written.is_now = NEW.generations_table
              AND (NEW.throttle_query, NEW.search_path) IS DISTINCT FROM (OLD.throttle_query, OLD.search_path))
      AND NOT pg_has_role(c.relowner, 'USAGE');
    IF FOUND THEN
        RAISE EXCEPTION 'must be owner of table "%" to make target "%" use it', stranger, NEW.name
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
COMMENT ON FUNCTION backlog_cleanup.check_target() IS
    'checks a written target and whose tables it names, and gives a new one the default policy';
REVOKE ALL ON FUNCTION backlog_cleanup.check_target() FROM PUBLIC;
CREATE TRIGGER check_target AFTER INSERT OR UPDATE ON backlog_cleanup.target
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.check_target();
COMMENT ON TRIGGER check_target ON backlog_cleanup.target IS
    'refuses a table, a column or a time zone that is not there, and tables of others';

REVOKE ALL ON FUNCTION backlog_cleanup_check(text) FROM PUBLIC;
COMMENT ON FUNCTION backlog_cleanup_check(text) IS
    'an error where a target names a table, a column or a time zone that cannot be used';
