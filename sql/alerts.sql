-- Alerts: rules that people edit, and what they have found.
CREATE TABLE backlog_cleanup.alert_rule (
    name       text PRIMARY KEY CONSTRAINT name_is_short CHECK (pg_catalog.char_length(name) OPERATOR(pg_catalog.<=) 100),
    kind       text NOT NULL
        CONSTRAINT kind_is_known
        CHECK (kind OPERATOR(pg_catalog.=) ANY (ARRAY[
            'rows_in_scope', 'failure_rate', 'failure_rate_factor', 'recipe_failures', 'no_successful_run', 'failed_runs',
            'nothing_removed', 'kept_back', 'books', 'history_size', 'dead_rows', 'table_size'])),
    target     text REFERENCES backlog_cleanup.target ON UPDATE CASCADE ON DELETE CASCADE,
    threshold  double precision NOT NULL
        CONSTRAINT threshold_is_finite_and_not_negative
        CHECK (threshold OPERATOR(pg_catalog.>=) double precision '0' AND threshold OPERATOR(pg_catalog.<) double precision 'Infinity'),
    resolve_at double precision
        CONSTRAINT resolve_at_is_from_0_to_threshold
        CHECK (resolve_at OPERATOR(pg_catalog.>=) double precision '0' AND resolve_at OPERATOR(pg_catalog.<=) threshold),
    within     interval,
    enabled    boolean NOT NULL DEFAULT true,
    note       text,
    CONSTRAINT threshold_is_a_percentage
        CHECK (kind OPERATOR(pg_catalog.<>) ALL (ARRAY['recipe_failures', 'dead_rows'])
               OR threshold OPERATOR(pg_catalog.<) double precision '100'),
    CONSTRAINT history_size_is_for_no_target CHECK (kind OPERATOR(pg_catalog.<>) 'history_size' OR target IS NULL),
    CONSTRAINT within_is_for_kinds_that_look_back_or_ahead
        CHECK ((within IS NOT NULL) OPERATOR(pg_catalog.=)
               (kind OPERATOR(pg_catalog.=) ANY (ARRAY[
                   'failure_rate', 'failure_rate_factor', 'recipe_failures', 'dead_rows', 'table_size']))),
    CONSTRAINT within_is_from_5_minutes_to_1_day
        CHECK (within OPERATOR(pg_catalog.>=) interval '5 minutes'
               AND within OPERATOR(pg_catalog.<=)
                   CASE WHEN kind OPERATOR(pg_catalog.=) 'table_size' THEN interval '10 years' ELSE interval '1 day' END)
);
COMMENT ON TABLE backlog_cleanup.alert_rule IS
    'when to alert: an alert opens when the value is above threshold, and resolves when it is at most resolve_at';
COMMENT ON COLUMN backlog_cleanup.alert_rule.name IS 'the rule''s name';
COMMENT ON COLUMN backlog_cleanup.alert_rule.kind IS
    'what is measured: rows_in_scope (rows), failure_rate (rows a minute), failure_rate_factor (times the usual of the hour), recipe_failures (percent of attempts), no_successful_run (periods of the job), failed_runs (in a row), nothing_removed (rows by which the backlog has grown), kept_back (rows), books (rows of difference), history_size (bytes), dead_rows (percent), table_size (bytes)';
COMMENT ON COLUMN backlog_cleanup.alert_rule.target IS
    'the target; NULL is every target that has no rule of this kind for itself, also none that is disabled';
COMMENT ON COLUMN backlog_cleanup.alert_rule.threshold IS 'an alert opens when the value is above this';
COMMENT ON COLUMN backlog_cleanup.alert_rule.resolve_at IS 'it resolves when the value is at most this; NULL is threshold';
COMMENT ON COLUMN backlog_cleanup.alert_rule.within IS
    'how long the rule looks back, or ahead (table_size); NULL for kinds that do neither';
COMMENT ON COLUMN backlog_cleanup.alert_rule.enabled IS 'false: an open alert of the rule resolves, and none opens';
COMMENT ON COLUMN backlog_cleanup.alert_rule.note IS 'for people';

INSERT INTO backlog_cleanup.alert_rule (name, kind, threshold, resolve_at, within, note) VALUES
    ('rows in scope', 'rows_in_scope', 100000, 80000, NULL, 'more rows in scope than this'),
    ('failure rate', 'failure_rate', 60, 30, '15 minutes', 'more new rows in scope a minute than this'),
    ('unusual failure rate', 'failure_rate_factor', 5, 2, '15 minutes', 'so many times the usual of the hour, which is the median of the same hours'),
    ('recipe failures', 'recipe_failures', 90, 50, '1 hour', 'percent of at least 20 attempts of a recipe'),
    ('no successful run', 'no_successful_run', 2, NULL, NULL, 'periods of the job without a run that completed'),
    ('failed runs', 'failed_runs', 0, NULL, NULL, 'runs in a row that failed or were interrupted'),
    ('nothing removed', 'nothing_removed', 1000, 0, NULL, 'rows by which the backlog grew before a run that removed none'),
    ('rows kept back', 'kept_back', 0, NULL, NULL, 'rows that the last run could not remove'),
    ('books', 'books', 0, NULL, NULL, 'rows of difference between ledger and history'),
    ('history size', 'history_size', 1073741824, 858993459, NULL, 'bytes of the extension''s own tables'),
    ('dead rows', 'dead_rows', 30, 20, '1 hour', 'percent of the table''s rows that are dead, for so long'),
    ('table size', 'table_size', 107374182400, 96636764160, '14 days', 'bytes that the table with its indexes has by then at this pace');

CREATE TABLE backlog_cleanup.alert_measured (
    rule         text NOT NULL REFERENCES backlog_cleanup.alert_rule ON UPDATE CASCADE ON DELETE CASCADE,
    target       text NOT NULL REFERENCES backlog_cleanup.target ON UPDATE CASCADE ON DELETE CASCADE,
    measured_at  timestamptz,
    was_ended    boolean NOT NULL DEFAULT false,
    missed_since timestamptz,
    PRIMARY KEY (rule, target)
);
COMMENT ON TABLE backlog_cleanup.alert_measured IS 'when rules were measured that take too long for every tick, and whose turn has not come';
COMMENT ON COLUMN backlog_cleanup.alert_measured.rule IS 'the rule';
COMMENT ON COLUMN backlog_cleanup.alert_measured.target IS 'the target';
COMMENT ON COLUMN backlog_cleanup.alert_measured.measured_at IS 'the last time; NULL if that is not known';
COMMENT ON COLUMN backlog_cleanup.alert_measured.was_ended IS 'whether it took too long then, and was ended: the rule rests for an hour';
COMMENT ON COLUMN backlog_cleanup.alert_measured.missed_since IS 'since which tick others have taken all the time: the longer ago, the sooner its turn comes';

CREATE TABLE backlog_cleanup.alert (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule            text NOT NULL,
    target          text,
    subject         text,
    opened_at       timestamptz NOT NULL DEFAULT pg_catalog.now(),
    resolved_at     timestamptz,
    value           double precision NOT NULL,
    threshold       double precision NOT NULL,
    sentence        text NOT NULL,
    fix             text,
    acknowledged_at timestamptz,
    acknowledged_by name,
    snoozed_until   timestamptz
        CONSTRAINT snoozed_until_is_finite CHECK (pg_catalog.isfinite(snoozed_until)),
    note            text
        CONSTRAINT note_has_at_most_10000_characters CHECK (pg_catalog.char_length(note) OPERATOR(pg_catalog.<=) 10000)
);
-- A name and a recipe may be longer than an index entry. Who chooses them could have two of a weaker hash be the same.
CREATE UNIQUE INDEX alert_is_open_once
    ON backlog_cleanup.alert (
        rule,
        pg_catalog.sha256(pg_catalog.decode(pg_catalog.replace(target, '\', '\\'), 'escape')),
        pg_catalog.sha256(pg_catalog.decode(pg_catalog.replace(subject, '\', '\\'), 'escape'))) NULLS NOT DISTINCT
    WHERE resolved_at IS NULL;
COMMENT ON TABLE backlog_cleanup.alert IS 'what rules have found: an alert opens once, stays open, and resolves once';
COMMENT ON COLUMN backlog_cleanup.alert.id IS 'the alert';
COMMENT ON COLUMN backlog_cleanup.alert.rule IS 'the rule''s name at that time';
COMMENT ON COLUMN backlog_cleanup.alert.target IS 'the target''s name at that time; NULL if it is about no target';
COMMENT ON COLUMN backlog_cleanup.alert.subject IS 'which recipe, as text, if the rule is about recipes; else NULL';
COMMENT ON COLUMN backlog_cleanup.alert.opened_at IS 'when it opened';
COMMENT ON COLUMN backlog_cleanup.alert.resolved_at IS 'when it resolved; NULL while it is open';
COMMENT ON COLUMN backlog_cleanup.alert.value IS 'the value, in the unit of the rule''s kind; the last above the threshold';
COMMENT ON COLUMN backlog_cleanup.alert.threshold IS 'the rule''s threshold then';
COMMENT ON COLUMN backlog_cleanup.alert.sentence IS 'what is wrong';
COMMENT ON COLUMN backlog_cleanup.alert.fix IS 'the statement that mends it; NULL if somebody has to decide';
COMMENT ON COLUMN backlog_cleanup.alert.acknowledged_at IS 'when somebody took it on, or NULL';
COMMENT ON COLUMN backlog_cleanup.alert.acknowledged_by IS 'the role that did';
COMMENT ON COLUMN backlog_cleanup.alert.snoozed_until IS
    'nobody is told of it before; an alert of the same rule, target and subject that opens before has it, too';
COMMENT ON COLUMN backlog_cleanup.alert.note IS 'what people have said of it';

-- Anybody who may connect can LISTEN: the payload has nothing that rows or errors say. It is shorter than 8,000 bytes.
CREATE FUNCTION backlog_cleanup.notify_alert() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    change text := CASE
        WHEN TG_OP = 'INSERT' THEN 'opened'
        WHEN NEW.resolved_at IS DISTINCT FROM OLD.resolved_at THEN 'resolved'
        WHEN NEW.acknowledged_at IS DISTINCT FROM OLD.acknowledged_at THEN 'acknowledged'
        WHEN NEW.snoozed_until IS DISTINCT FROM OLD.snoozed_until THEN 'snoozed' END;
BEGIN
    -- A queue that is full would fail the commit of whoever changes an alert. Who listens polls, too.
    IF change IS NOT NULL AND NOT backlog_cleanup.restoring() AND pg_notification_queue_usage() < 0.9 THEN
        PERFORM pg_notify('backlog_cleanup', jsonb_build_object(
            'alert', NEW.id, 'change', change, 'rule', NEW.rule, 'target', left(NEW.target, 200))::text);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.notify_alert IS 'tells the listeners of channel backlog_cleanup of a changed alert, as JSON';
CREATE TRIGGER notify_opened AFTER INSERT ON backlog_cleanup.alert
    FOR EACH ROW WHEN (NEW.resolved_at IS NULL) EXECUTE FUNCTION backlog_cleanup.notify_alert();
COMMENT ON TRIGGER notify_opened ON backlog_cleanup.alert IS 'NOTIFY when an alert opens';
CREATE TRIGGER notify_changed AFTER UPDATE ON backlog_cleanup.alert
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.notify_alert();
COMMENT ON TRIGGER notify_changed ON backlog_cleanup.alert IS
    'NOTIFY when an alert resolves, is acknowledged, or is snoozed';

-- The rules of a dump replace those that CREATE EXTENSION has made: also one that somebody has dropped stays dropped.
CREATE FUNCTION backlog_cleanup.give_way_to_dumped_rule() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF backlog_cleanup.restoring() THEN
        PERFORM backlog_cleanup.await_dumped_target(NEW.target);
        DELETE FROM backlog_cleanup.alert_rule r WHERE r.name = NEW.name OR backlog_cleanup.is_as_created(r.tableoid, r.ctid, r.xmin, r.cmin);
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.give_way_to_dumped_rule IS
    'replaces the rules that CREATE EXTENSION has made by those of a dump that is being restored';
CREATE TRIGGER give_way_to_dumped_rule BEFORE INSERT ON backlog_cleanup.alert_rule
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.give_way_to_dumped_rule();
COMMENT ON TRIGGER give_way_to_dumped_rule ON backlog_cleanup.alert_rule IS 'restored rules replace those that are there';

SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.alert_rule', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.alert', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.alert_id_seq', '');

CREATE FUNCTION backlog_cleanup.evaluate_alerts() RETURNS TABLE (rule text, target text, unknown text)
    LANGUAGE c AS 'MODULE_PATHNAME', 'evaluate_alerts_wrapper';
COMMENT ON FUNCTION backlog_cleanup.evaluate_alerts IS
    'a part of the tick: opens and resolves alerts; returns the rules whose value is not known now, and why';
