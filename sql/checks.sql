-- Values are checked when they are written, by the code that a run checks them with; a dump is taken as it is, since a
-- table that it names may be gone.
CREATE FUNCTION backlog_cleanup.check_target() RETURNS trigger LANGUAGE plpgsql
-- A role that may write targets needs no privilege on what checks them.
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
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
COMMENT ON FUNCTION backlog_cleanup.check_target() IS 'checks a written target, and gives a new one the default policy';
REVOKE ALL ON FUNCTION backlog_cleanup.check_target() FROM PUBLIC;
CREATE TRIGGER check_target AFTER INSERT OR UPDATE ON backlog_cleanup.target
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.check_target();
COMMENT ON TRIGGER check_target ON backlog_cleanup.target IS 'refuses a table, a column or a time zone that is not there';

REVOKE ALL ON FUNCTION backlog_cleanup_check(text) FROM PUBLIC;
COMMENT ON FUNCTION backlog_cleanup_check(text) IS
    'an error where a target names a table, a column or a time zone that cannot be used';
