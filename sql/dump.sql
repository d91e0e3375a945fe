-- All configuration is rows: a dump carries them, and a restore puts them over those that CREATE EXTENSION has made.
CREATE FUNCTION backlog_cleanup.restoring() RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (SELECT count(*) = 2 FROM pg_settings
            WHERE (name, setting) IN (('xmloption', 'content'), ('check_function_bodies', 'off')) AND source = 'session')
       AND (SELECT rolsuper FROM pg_roles WHERE rolname = CURRENT_USER)
$$;
COMMENT ON FUNCTION backlog_cleanup.restoring() IS
    'whether a superuser restores a dump: pg_dump sets xmloption and check_function_bodies, and nobody else has a reason to set both';
REVOKE ALL ON FUNCTION backlog_cleanup.restoring() FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.target', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.policy', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.run', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.run_recipe', '');

CREATE FUNCTION backlog_cleanup.give_way_to_dump() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF backlog_cleanup.restoring() THEN
        DELETE FROM backlog_cleanup.target WHERE name = NEW.name;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.give_way_to_dump() IS 'makes way for the rows of a dump that is being restored';
REVOKE ALL ON FUNCTION backlog_cleanup.give_way_to_dump() FROM PUBLIC;
CREATE TRIGGER give_way_to_dump BEFORE INSERT ON backlog_cleanup.target
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.give_way_to_dump();
COMMENT ON TRIGGER give_way_to_dump ON backlog_cleanup.target IS 'a restored target replaces the one of that name';

CREATE FUNCTION backlog_cleanup.interrupt_restored() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF backlog_cleanup.restoring() THEN
        NEW.state := 'interrupted';
        NEW.waiting_for := NULL;
        NEW.finished_at := NEW.started_at;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.interrupt_restored() IS 'a run that was at work when a dump was taken is not at work where it is restored';
REVOKE ALL ON FUNCTION backlog_cleanup.interrupt_restored() FROM PUBLIC;
CREATE TRIGGER interrupt_restored BEFORE INSERT ON backlog_cleanup.run
    FOR EACH ROW WHEN (NEW.state OPERATOR(pg_catalog.=) 'running' AND NEW.started_at OPERATOR(pg_catalog.<) pg_catalog.now())
    EXECUTE FUNCTION backlog_cleanup.interrupt_restored();
COMMENT ON TRIGGER interrupt_restored ON backlog_cleanup.run IS 'a restored run is not running for ever';
