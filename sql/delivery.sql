-- The delivery of alerts by `backlog-cleanup serve`. Addresses and secrets are in the server's own file, not here.
CREATE TABLE backlog_cleanup.alert_channel (
    name            text PRIMARY KEY
        CONSTRAINT name_is_from_1_to_100_characters
        CHECK (pg_catalog.char_length(name) OPERATOR(pg_catalog.>=) 1 AND pg_catalog.char_length(name) OPERATOR(pg_catalog.<=) 100),
    kind            text NOT NULL
        CONSTRAINT kind_is_known
        CHECK (kind OPERATOR(pg_catalog.=) ANY (ARRAY['webhook', 'slack', 'alertmanager', 'pagerduty', 'mail'])),
    since           timestamptz NOT NULL DEFAULT pg_catalog.now(),
    leased_by       text
        CONSTRAINT leased_by_has_at_most_100_characters
        CHECK (pg_catalog.char_length(leased_by) OPERATOR(pg_catalog.<=) 100),
    leased_until    timestamptz,
    seen_at         timestamptz NOT NULL DEFAULT pg_catalog.now(),
    next_attempt_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    delivered_at    timestamptz,
    failures        integer NOT NULL DEFAULT 0,
    failing_since   timestamptz,
    last_error      text
        CONSTRAINT last_error_has_at_most_10000_characters
        CHECK (pg_catalog.char_length(last_error) OPERATOR(pg_catalog.<=) 10000),
    report_at       timestamptz
);
COMMENT ON TABLE backlog_cleanup.alert_channel IS
    'where servers deliver alerts: how that goes. Addresses and secrets are in the server''s own file';
COMMENT ON COLUMN backlog_cleanup.alert_channel.name IS 'its name in the server''s file';
COMMENT ON COLUMN backlog_cleanup.alert_channel.kind IS 'webhook, slack, alertmanager, pagerduty or mail';
COMMENT ON COLUMN backlog_cleanup.alert_channel.since IS 'when a server had it first; it is not told of alerts that had resolved before';
COMMENT ON COLUMN backlog_cleanup.alert_channel.leased_by IS 'the server that delivers now, so that no other does; NULL if none does';
COMMENT ON COLUMN backlog_cleanup.alert_channel.leased_until IS 'until then no other server delivers, even if that one has died';
COMMENT ON COLUMN backlog_cleanup.alert_channel.seen_at IS 'when a server last looked for something to deliver';
COMMENT ON COLUMN backlog_cleanup.alert_channel.next_attempt_at IS 'nothing is delivered before';
COMMENT ON COLUMN backlog_cleanup.alert_channel.delivered_at IS 'when it last took something, or NULL';
COMMENT ON COLUMN backlog_cleanup.alert_channel.failures IS 'attempts in a row that failed';
COMMENT ON COLUMN backlog_cleanup.alert_channel.failing_since IS 'when the first of them did, or NULL';
COMMENT ON COLUMN backlog_cleanup.alert_channel.last_error IS
    'why the last of them did; without failures, what is wrong with the channel all the same; or NULL';
COMMENT ON COLUMN backlog_cleanup.alert_channel.report_at IS 'when the next report is due; NULL without one';

CREATE TABLE backlog_cleanup.alert_delivery (
    channel      text NOT NULL REFERENCES backlog_cleanup.alert_channel ON UPDATE CASCADE ON DELETE CASCADE,
    alert        bigint NOT NULL REFERENCES backlog_cleanup.alert ON DELETE CASCADE,
    change       text NOT NULL
        CONSTRAINT change_is_known CHECK (change OPERATOR(pg_catalog.=) ANY (ARRAY['opened', 'acknowledged', 'resolved'])),
    message      uuid NOT NULL,
    begun_at     timestamptz NOT NULL DEFAULT pg_catalog.now(),
    attempts     integer NOT NULL DEFAULT 0,
    delivered_at timestamptz,
    refused      text
        CONSTRAINT refused_has_at_most_10000_characters
        CHECK (pg_catalog.char_length(refused) OPERATOR(pg_catalog.<=) 10000),
    PRIMARY KEY (channel, alert, change)
);
CREATE INDEX alert_delivery_alert_idx ON backlog_cleanup.alert_delivery (alert);
CREATE INDEX alert_delivery_message_idx ON backlog_cleanup.alert_delivery (message);
CREATE INDEX alert_delivery_is_under_way ON backlog_cleanup.alert_delivery (channel) WHERE delivered_at IS NULL AND refused IS NULL;
COMMENT ON TABLE backlog_cleanup.alert_delivery IS 'what each channel was told of each alert';
COMMENT ON COLUMN backlog_cleanup.alert_delivery.channel IS 'the channel';
COMMENT ON COLUMN backlog_cleanup.alert_delivery.alert IS 'the alert';
COMMENT ON COLUMN backlog_cleanup.alert_delivery.change IS 'opened, acknowledged or resolved';
COMMENT ON COLUMN backlog_cleanup.alert_delivery.message IS
    'the message that it is told in, with what else was due then; the receiver tells by it that it has had the message before';
COMMENT ON COLUMN backlog_cleanup.alert_delivery.begun_at IS 'when a server took it on';
COMMENT ON COLUMN backlog_cleanup.alert_delivery.attempts IS 'how often the message was sent, or tried to be';
COMMENT ON COLUMN backlog_cleanup.alert_delivery.delivered_at IS 'when the receiver took it, the last time if it is reminded; NULL before';
COMMENT ON COLUMN backlog_cleanup.alert_delivery.refused IS
    'why the receiver does not take this message, also not later; it is not sent again before a server starts or reads its file of channels again. Or NULL';

-- Whoever could write any time would end deliveries, and have the doctor say that all is well.
CREATE FUNCTION backlog_cleanup.check_times() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    column_name text;
    furthest    interval;
BEGIN
    SELECT bounds.column_name, bounds.furthest INTO column_name, furthest
    FROM (SELECT TG_ARGV[i], TG_ARGV[i + 1]::interval FROM generate_series(0, TG_NARGS - 1, 2) AS i) AS bounds (column_name, furthest)
    CROSS JOIN LATERAL (SELECT (to_jsonb(NEW) ->> bounds.column_name)::timestamptz, (to_jsonb(OLD) ->> bounds.column_name)::timestamptz)
        AS times (is_now, was)
    WHERE is_now IS DISTINCT FROM was AND NOT (isfinite(is_now) AND is_now <= clock_timestamp() + bounds.furthest)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '"%" of table "%" is not finite, or further ahead than %', column_name, TG_TABLE_NAME, furthest
            USING ERRCODE = 'invalid_parameter_value', COLUMN = column_name, HINT = 'SELECT now()';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.check_times IS
    'refuses times that no server that delivers alerts would write; its arguments are columns, and how far ahead each may be';
CREATE TRIGGER check_times BEFORE INSERT OR UPDATE ON backlog_cleanup.alert_channel
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.check_times(
        'since', '0', 'leased_until', '90 seconds', 'seen_at', '0', 'next_attempt_at', '5 minutes', 'delivered_at', '0',
        'failing_since', '0', 'report_at', '10 years');
COMMENT ON TRIGGER check_times ON backlog_cleanup.alert_channel IS 'nobody ends deliveries by a time that is far away';
CREATE TRIGGER check_times BEFORE INSERT OR UPDATE ON backlog_cleanup.alert_delivery
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.check_times('begun_at', '0', 'delivered_at', '0');
COMMENT ON TRIGGER check_times ON backlog_cleanup.alert_delivery IS 'what was told was told before';
