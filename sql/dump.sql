-- All configuration is rows: a dump carries them, and a restore replaces those that CREATE EXTENSION has made.
CREATE FUNCTION backlog_cleanup.restoring() RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (SELECT count(*) = 2 FROM pg_settings
            WHERE (name, setting) IN (('xmloption', 'content'), ('check_function_bodies', 'off')) AND source = 'session')
       AND (SELECT rolsuper FROM pg_roles WHERE rolname = CURRENT_USER)
$$;
COMMENT ON FUNCTION backlog_cleanup.restoring IS
    'whether a superuser restores a dump, which sets both xmloption and check_function_bodies';

SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.target', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.policy', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.run', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.run_recipe', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.run_failure', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.run_policy', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.run_status', '');
-- What a run that was at work has done: the next run sums it up.
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.run_cutoff', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.run_batch', '');

-- The rows that CREATE EXTENSION has made. One that somebody has changed is at another place; VACUUM FULL puts all of them elsewhere, in another
-- file. What cannot be found any more stays.
CREATE TABLE backlog_cleanup.as_created (
    relation oid NOT NULL,
    file     oid NOT NULL,
    place    tid NOT NULL,
    made     xid NOT NULL,
    command  cid NOT NULL,
    PRIMARY KEY (relation, place)
);
COMMENT ON TABLE backlog_cleanup.as_created IS
    'the rows of targets, policies and rules that CREATE EXTENSION has made: a dump that is restored replaces those that nobody has changed';
COMMENT ON COLUMN backlog_cleanup.as_created.relation IS 'the table';
COMMENT ON COLUMN backlog_cleanup.as_created.file IS 'the table''s file node then';
COMMENT ON COLUMN backlog_cleanup.as_created.place IS 'the row''s ctid';
COMMENT ON COLUMN backlog_cleanup.as_created.made IS 'the row''s xmin';
COMMENT ON COLUMN backlog_cleanup.as_created.command IS 'the row''s cmin';
CREATE FUNCTION backlog_cleanup.is_as_created(relation oid, place tid, made xid, command cid) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM backlog_cleanup.as_created
                   WHERE relation = $1 AND place = $2 AND made = $3 AND command = $4 AND file = pg_relation_filenode($1))
$$;
COMMENT ON FUNCTION backlog_cleanup.is_as_created IS
    'whether a row, of which these are the system columns, is one that CREATE EXTENSION has made and nobody has changed';

-- A parallel restore may bring policies before their targets, or both at the same time.
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
    DELETE FROM backlog_cleanup.policy p WHERE p.target = NEW.name AND backlog_cleanup.is_as_created(p.tableoid, p.ctid, p.xmin, p.cmin);
    -- The target that CREATE EXTENSION has made, which the dump need not have, unless it is in use.
    DELETE FROM backlog_cleanup.target t
    WHERE t.name <> NEW.name AND backlog_cleanup.is_as_created(t.tableoid, t.ctid, t.xmin, t.cmin)
      AND NOT EXISTS (SELECT FROM backlog_cleanup.policy p WHERE p.target = t.name AND NOT backlog_cleanup.is_as_created(p.tableoid, p.ctid, p.xmin, p.cmin))
      AND NOT EXISTS (SELECT FROM backlog_cleanup.run r WHERE r.target = t.name AND r.started_at >= t.named_at)
      -- What the dump has brought of it before.
      AND NOT EXISTS (SELECT FROM backlog_cleanup.alert_rule r WHERE r.target = t.name)
      AND NOT EXISTS (SELECT FROM backlog_cleanup.sample s WHERE s.target = t.name)
      AND NOT EXISTS (SELECT FROM backlog_cleanup.auto_schedule a WHERE a.target = t.name);
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
COMMENT ON FUNCTION backlog_cleanup.give_way_to_dump IS
    'replaces an existing target by the one of a dump that is being restored';
CREATE TRIGGER give_way_to_dump BEFORE INSERT ON backlog_cleanup.target
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.give_way_to_dump();
COMMENT ON TRIGGER give_way_to_dump ON backlog_cleanup.target IS 'a restored target replaces the one of the same name';

-- A parallel restore may bring what is of a target before the target, or both at the same time.
CREATE FUNCTION backlog_cleanup.await_dumped_target(awaited text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Not an advisory lock, which anybody can hold.
    LOCK TABLE backlog_cleanup.target IN SHARE ROW EXCLUSIVE MODE;
    -- Until the dump has brought it, or if that fails, it is of no table.
    INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table)
    SELECT awaited, 'not_restored', NULL, NULL, NULL
    WHERE awaited IS NOT NULL AND NOT EXISTS (SELECT FROM backlog_cleanup.target WHERE name = awaited);
END
$$;
COMMENT ON FUNCTION backlog_cleanup.await_dumped_target IS
    'makes a target that a dump that is being restored brings later; no other restore changes targets until the transaction ends';

CREATE FUNCTION backlog_cleanup.give_way_to_dumped_policy() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT backlog_cleanup.restoring() THEN
        RETURN NEW;
    END IF;
    PERFORM backlog_cleanup.await_dumped_target(NEW.target);
    DELETE FROM backlog_cleanup.policy
    WHERE (target, recipe_id, failure_type, status)
          IS NOT DISTINCT FROM (NEW.target, NEW.recipe_id, NEW.failure_type, NEW.status);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.give_way_to_dumped_policy IS
    'replaces an existing policy by the one of a dump that is being restored';
CREATE TRIGGER give_way_to_dumped_policy BEFORE INSERT ON backlog_cleanup.policy
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.give_way_to_dumped_policy();
COMMENT ON TRIGGER give_way_to_dumped_policy ON backlog_cleanup.policy IS
    'a restored policy replaces the one for the same recipe, failure type and status';

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
COMMENT ON FUNCTION backlog_cleanup.interrupt_restored IS
    'marks a restored run as interrupted if it was running when the dump was taken';
CREATE TRIGGER interrupt_restored BEFORE INSERT ON backlog_cleanup.run
    FOR EACH ROW WHEN (NEW.state OPERATOR(pg_catalog.=) 'running' AND NEW.started_at OPERATOR(pg_catalog.<) pg_catalog.now())
    EXECUTE FUNCTION backlog_cleanup.interrupt_restored();
COMMENT ON TRIGGER interrupt_restored ON backlog_cleanup.run IS 'a restored run is not running for ever';
