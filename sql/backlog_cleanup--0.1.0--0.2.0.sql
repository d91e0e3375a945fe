-- 0.2.0 is faster, can ask a batched run to stop, and has what the companion asks for.
CREATE FUNCTION backlog_cleanup_stop(run_id bigint) RETURNS boolean
    LANGUAGE c /* Rust */ AS 'MODULE_PATHNAME', 'backlog_cleanup_stop_wrapper';
REVOKE ALL ON FUNCTION backlog_cleanup_stop(bigint) FROM PUBLIC;
COMMENT ON FUNCTION backlog_cleanup_stop(bigint) IS
    'asks a batched run to stop after the batch that it is at work on; false where it is over';
CREATE FUNCTION backlog_cleanup_failures(
    target text DEFAULT 'generations', since interval DEFAULT '2 days', types integer DEFAULT 8)
RETURNS TABLE (hour timestamptz, failure_type text, failed_count bigint)
STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'backlog_cleanup_failures_wrapper';
REVOKE ALL ON FUNCTION backlog_cleanup_failures(text, interval, integer) FROM PUBLIC;
COMMENT ON FUNCTION backlog_cleanup_failures(text, interval, integer) IS
    'the failed rows that are there by hour and failure type, oldest hour first';
ALTER TABLE backlog_cleanup.run_part ADD COLUMN places integer[], ADD COLUMN lsn pg_lsn;
ALTER TABLE backlog_cleanup.run_part ALTER COLUMN places SET STORAGE EXTERNAL;
COMMENT ON COLUMN backlog_cleanup.run_part.places IS 'the recipe of each position: its place in run_cutoff';
COMMENT ON COLUMN backlog_cleanup.run_part.lsn IS
    'where the write-ahead log was when the positions were read: what is on a page that is older is still what was read';

-- What all runs add up to. A run that is removed from the history stays in the sums, which never fall.
CREATE FUNCTION backlog_cleanup.duration_bound(seconds double precision) RETURNS double precision
    IMMUTABLE STRICT PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'duration_bound_wrapper';
COMMENT ON FUNCTION backlog_cleanup.duration_bound(double precision) IS
    'the lowest bound of the histogram of durations, in seconds, that is not below this one';
REVOKE ALL ON FUNCTION backlog_cleanup.duration_bound(double precision) FROM PUBLIC;

CREATE TABLE backlog_cleanup.forgotten (
    target        text NOT NULL,
    mode          text NOT NULL,
    state         text NOT NULL,
    seconds_up_to double precision NOT NULL,
    runs          bigint NOT NULL,
    removed       bigint NOT NULL,
    seconds       double precision NOT NULL,
    PRIMARY KEY (target, mode, state, seconds_up_to)
);
COMMENT ON TABLE backlog_cleanup.forgotten IS 'sums of the runs that have been removed from the history';
COMMENT ON COLUMN backlog_cleanup.forgotten.target IS 'the target''s name at that time';
COMMENT ON COLUMN backlog_cleanup.forgotten.mode IS 'regular or emergency';
COMMENT ON COLUMN backlog_cleanup.forgotten.state IS 'how they ended';
COMMENT ON COLUMN backlog_cleanup.forgotten.seconds_up_to IS 'how long each took at most; longer than the next lower bound';
COMMENT ON COLUMN backlog_cleanup.forgotten.runs IS 'how many they were';
COMMENT ON COLUMN backlog_cleanup.forgotten.removed IS 'rows removed';
COMMENT ON COLUMN backlog_cleanup.forgotten.seconds IS 'how long they took together';
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.forgotten', '');

CREATE FUNCTION backlog_cleanup.remember_run() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    took double precision := EXTRACT(epoch FROM coalesce(OLD.finished_at, OLD.started_at) - OLD.started_at)::double precision;
BEGIN
    INSERT INTO backlog_cleanup.forgotten AS f (target, mode, state, seconds_up_to, runs, removed, seconds)
    VALUES (OLD.target, OLD.mode, CASE OLD.state WHEN 'running' THEN 'interrupted' ELSE OLD.state END,
            backlog_cleanup.duration_bound(took), 1, OLD.removed, took)
    ON CONFLICT (target, mode, state, seconds_up_to) DO UPDATE
        SET runs = f.runs + excluded.runs, removed = f.removed + excluded.removed, seconds = f.seconds + excluded.seconds;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.remember_run() IS 'keeps the figures of a run that is removed from the history in the sums';
REVOKE ALL ON FUNCTION backlog_cleanup.remember_run() FROM PUBLIC;
CREATE TRIGGER remember_run AFTER DELETE ON backlog_cleanup.run
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.remember_run();
COMMENT ON TRIGGER remember_run ON backlog_cleanup.run IS 'the sums of all runs never fall';

CREATE VIEW backlog_cleanup.total AS
    SELECT target, mode, state, seconds_up_to,
           pg_catalog.sum(runs)::bigint AS runs, pg_catalog.sum(removed)::bigint AS removed, pg_catalog.sum(seconds) AS seconds
    FROM (SELECT r.target, r.mode, r.state, backlog_cleanup.duration_bound(took.seconds), 1, r.removed, took.seconds
          FROM backlog_cleanup.run r,
               LATERAL (SELECT EXTRACT(epoch FROM r.finished_at OPERATOR(pg_catalog.-) r.started_at)::double precision
                        AS seconds) took
          UNION ALL
          SELECT target, mode, state, seconds_up_to, runs, removed, seconds FROM backlog_cleanup.forgotten)
         ran (target, mode, state, seconds_up_to, runs, removed, seconds)
    GROUP BY target, mode, state, seconds_up_to;
COMMENT ON VIEW backlog_cleanup.total IS
    'what all runs add up to, those that have been removed from the history too: the sums never fall';
COMMENT ON COLUMN backlog_cleanup.total.target IS 'the target''s name at that time';
COMMENT ON COLUMN backlog_cleanup.total.mode IS 'regular or emergency';
COMMENT ON COLUMN backlog_cleanup.total.state IS 'how they ended; running, whose figures will still grow';
COMMENT ON COLUMN backlog_cleanup.total.seconds_up_to IS
    'how long each took at most, longer than the next lower bound; NULL while running';
COMMENT ON COLUMN backlog_cleanup.total.runs IS 'how many they are';
COMMENT ON COLUMN backlog_cleanup.total.removed IS 'rows removed';
COMMENT ON COLUMN backlog_cleanup.total.seconds IS 'how long they took together; NULL while running';

CREATE FUNCTION backlog_cleanup_books(target TEXT DEFAULT 'generations')
RETURNS TABLE (ledger bigint, runs bigint, difference bigint)
STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'backlog_cleanup_books_wrapper';
REVOKE ALL ON FUNCTION backlog_cleanup_books(text) FROM PUBLIC;
COMMENT ON FUNCTION backlog_cleanup_books(text) IS
    'the removed rows that the ledger has of the runs in the history, those that the runs have, and the difference, of all targets that share the ledger; no row without one';
CREATE FUNCTION backlog_cleanup_run_details(run_id bigint) RETURNS jsonb
STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'backlog_cleanup_run_details_wrapper';
REVOKE ALL ON FUNCTION backlog_cleanup_run_details(bigint) FROM PUBLIC;
COMMENT ON FUNCTION backlog_cleanup_run_details(bigint) IS
    'what a run of the history did per recipe, most removed first';

ALTER TABLE backlog_cleanup.target ADD COLUMN named_by name;
COMMENT ON COLUMN backlog_cleanup.target.named_by IS
    'the role that made the target use its tables, who must still be their owner; NULL is a superuser; kept by a trigger';
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

-- A session that has set xmloption alone restores nothing, and a run that starts in one that restores is at work.
-- Admins are given it again with the new functions: a GRANT in here would be taken for the extension's own, which no dump
-- carries.
DROP FUNCTION backlog_cleanup.restoring();
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
DROP TRIGGER give_way_to_dump ON backlog_cleanup.target;
DROP FUNCTION backlog_cleanup.give_way_to_dump();
-- A parallel restore may bring policies before their targets, or both at a time.
CREATE FUNCTION backlog_cleanup.give_way_to_dump() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT backlog_cleanup.restoring() THEN
        RETURN NEW;
    END IF;
    PERFORM pg_advisory_xact_lock('backlog_cleanup.target'::regclass::oid::bigint);
    -- The policies that CREATE EXTENSION has made, and not those that the dump has brought.
    DELETE FROM backlog_cleanup.policy
    WHERE target = NEW.name AND xmin = (SELECT e.xmin FROM pg_extension e WHERE e.extname = 'backlog_cleanup');
    UPDATE backlog_cleanup.target
    SET (name, generations_table, recipes_table, users_table, ledger_table, id_column, account_column, recipe_column,
         status_column, failed_at_column, failure_type_column, recipe_key_column, recipe_name_column, account,
         failed_status, completed_status, pending_status, processing_status, time_zone, search_path, batch_size,
         lock_timeout, max_share, max_rows_per_run, max_replica_lag, max_transaction_age, yield_to_autovacuum,
         max_wal_rate, throttle_query, named_by)
        = ROW (NEW.*)
    WHERE name = NEW.name;
    IF FOUND THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.give_way_to_dump() IS 'makes way for the targets of a dump that is being restored';
REVOKE ALL ON FUNCTION backlog_cleanup.give_way_to_dump() FROM PUBLIC;
CREATE TRIGGER give_way_to_dump BEFORE INSERT ON backlog_cleanup.target
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.give_way_to_dump();
COMMENT ON TRIGGER give_way_to_dump ON backlog_cleanup.target IS 'a restored target replaces the one of that name';

CREATE FUNCTION backlog_cleanup.give_way_to_dumped_policy() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT backlog_cleanup.restoring() THEN
        RETURN NEW;
    END IF;
    PERFORM pg_advisory_xact_lock('backlog_cleanup.target'::regclass::oid::bigint);
    PERFORM FROM backlog_cleanup.target WHERE name = NEW.target;
    IF NOT FOUND THEN
        INSERT INTO backlog_cleanup.target (name) VALUES (NEW.target);
    END IF;
    DELETE FROM backlog_cleanup.policy
    WHERE (target, recipe_id, failure_type) IS NOT DISTINCT FROM (NEW.target, NEW.recipe_id, NEW.failure_type);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.give_way_to_dumped_policy() IS
    'makes way for the policies of a dump that is being restored';
REVOKE ALL ON FUNCTION backlog_cleanup.give_way_to_dumped_policy() FROM PUBLIC;
CREATE TRIGGER give_way_to_dumped_policy BEFORE INSERT ON backlog_cleanup.policy
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.give_way_to_dumped_policy();
COMMENT ON TRIGGER give_way_to_dumped_policy ON backlog_cleanup.policy IS 'a restored policy replaces the one of its kind';

DROP TRIGGER interrupt_restored ON backlog_cleanup.run;
CREATE TRIGGER interrupt_restored BEFORE INSERT ON backlog_cleanup.run
    FOR EACH ROW WHEN (NEW.state OPERATOR(pg_catalog.=) 'running' AND NEW.started_at OPERATOR(pg_catalog.<) pg_catalog.now())
    EXECUTE FUNCTION backlog_cleanup.interrupt_restored();
COMMENT ON TRIGGER interrupt_restored ON backlog_cleanup.run IS 'a restored run is not running for ever';

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
