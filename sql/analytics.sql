-- What the samples and the history say: views in plain units, and the rates that alerts are measured by.
CREATE FUNCTION backlog_cleanup.rows_in_per_minute(target text, within interval) RETURNS double precision LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT sum(failed) / (sum(failed_seconds) / 60)
    FROM backlog_cleanup.sample s
    WHERE s.target = $1 AND grain = 'fine' AND sampled_at > now() - $2 AND failed IS NOT NULL
    HAVING sum(failed_seconds) >= extract(epoch FROM $2) / 2
$$;
COMMENT ON FUNCTION backlog_cleanup.rows_in_per_minute IS
    'rows that came into scope per minute, by the samples of the last so long; NULL if they cover less than half of it';

CREATE FUNCTION backlog_cleanup.usual_rows_in_per_minute(target text) RETURNS double precision LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY failed / (failed_seconds / 60))
    FROM backlog_cleanup.sample s
    WHERE s.target = $1 AND grain = 'hour' AND failed_seconds >= 1800
      AND sampled_at BETWEEN now() - interval '29 days' AND now() - interval '12 hours'
      AND extract(hour FROM sampled_at AT TIME ZONE 'UTC') = extract(hour FROM now() AT TIME ZONE 'UTC')
    HAVING count(*) >= 3
$$;
COMMENT ON FUNCTION backlog_cleanup.usual_rows_in_per_minute IS
    'the median of rows that came into scope per minute in this hour of the day, UTC, over 28 days; NULL before there are three';

CREATE VIEW backlog_cleanup.activity AS
    SELECT s.target, s.grain, s.sampled_at AS started_at, s.failed AS rows_in, s.removed AS rows_out,
           s.in_scope OPERATOR(pg_catalog.-) pg_catalog.lag(s.in_scope) OVER (PARTITION BY s.target, s.grain ORDER BY s.sampled_at) AS net,
           s.in_scope, s.table_bytes OPERATOR(pg_catalog.+) s.index_bytes AS bytes
    FROM backlog_cleanup.sample s
    WHERE s.grain OPERATOR(pg_catalog.<>) 'fine';
COMMENT ON VIEW backlog_cleanup.activity IS 'rows that came into scope and that runs removed, per hour and per day (UTC)';
COMMENT ON COLUMN backlog_cleanup.activity.target IS 'the target';
COMMENT ON COLUMN backlog_cleanup.activity.grain IS 'hour or day';
COMMENT ON COLUMN backlog_cleanup.activity.started_at IS 'start of the hour or the day';
COMMENT ON COLUMN backlog_cleanup.activity.rows_in IS 'rows that came into scope; NULL if they were not counted';
COMMENT ON COLUMN backlog_cleanup.activity.rows_out IS 'rows that runs removed';
COMMENT ON COLUMN backlog_cleanup.activity.net IS
    'change of the rows in scope, in rows; what is neither in nor out has been retried or changed by others';
COMMENT ON COLUMN backlog_cleanup.activity.in_scope IS 'rows in scope at its end';
COMMENT ON COLUMN backlog_cleanup.activity.bytes IS 'size of the table with its indexes at its end, in bytes';

CREATE VIEW backlog_cleanup.pace AS
    SELECT t.name AS target, last.in_scope, last.removable, day.rows_in_per_hour, day.rows_out_per_hour, runs.rows_per_second,
           -- What takes 1,000 years is no forecast.
           CASE WHEN takes.to_clear OPERATOR(pg_catalog.<) 31557600000 THEN pg_catalog.make_interval(secs => takes.to_clear) END AS time_to_clear,
           CASE WHEN takes.to_remove OPERATOR(pg_catalog.<) 31557600000 THEN pg_catalog.make_interval(secs => takes.to_remove) END AS time_to_remove
    FROM backlog_cleanup.target t
    LEFT JOIN LATERAL (
        SELECT s.in_scope, s.removable FROM backlog_cleanup.sample s
        WHERE s.target OPERATOR(pg_catalog.=) t.name AND s.grain OPERATOR(pg_catalog.=) 'fine' AND s.in_scope IS NOT NULL
        ORDER BY s.sampled_at DESC LIMIT 1) last ON true
    LEFT JOIN LATERAL (
        SELECT 3600 OPERATOR(pg_catalog.*) pg_catalog.sum(s.failed)::double precision
                    OPERATOR(pg_catalog./) pg_catalog.sum(s.failed_seconds) FILTER (WHERE s.failed_seconds OPERATOR(pg_catalog.>) 0) AS rows_in_per_hour,
               3600 OPERATOR(pg_catalog.*) pg_catalog.sum(s.removed)::double precision
                    OPERATOR(pg_catalog./) pg_catalog.sum(s.seconds) FILTER (WHERE s.seconds OPERATOR(pg_catalog.>) 0) AS rows_out_per_hour
        FROM backlog_cleanup.sample s
        WHERE s.target OPERATOR(pg_catalog.=) t.name AND s.grain OPERATOR(pg_catalog.=) 'fine'
          AND s.sampled_at OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '1 day')
        HAVING pg_catalog.sum(s.seconds) OPERATOR(pg_catalog.>=) 43200) day ON true
    LEFT JOIN LATERAL (
        SELECT r.removed OPERATOR(pg_catalog./) GREATEST(EXTRACT(epoch FROM (r.finished_at OPERATOR(pg_catalog.-) r.started_at)), 0.001)::double precision
               AS rows_per_second
        FROM backlog_cleanup.run r
        WHERE r.target OPERATOR(pg_catalog.=) t.name AND r.removed OPERATOR(pg_catalog.>) 0 AND r.finished_at IS NOT NULL
        ORDER BY r.id DESC LIMIT 1) runs ON true
    CROSS JOIN LATERAL (
        SELECT CASE WHEN day.rows_out_per_hour OPERATOR(pg_catalog.>) day.rows_in_per_hour THEN
                   3600 OPERATOR(pg_catalog.*) last.removable OPERATOR(pg_catalog./)
                   (day.rows_out_per_hour OPERATOR(pg_catalog.-) day.rows_in_per_hour) END AS to_clear,
               last.removable OPERATOR(pg_catalog./) runs.rows_per_second AS to_remove) takes;
COMMENT ON VIEW backlog_cleanup.pace IS 'how fast the backlog grows and goes, and when it is gone at this pace';
COMMENT ON COLUMN backlog_cleanup.pace.target IS 'the target';
COMMENT ON COLUMN backlog_cleanup.pace.in_scope IS 'rows in scope, by the last sample that counted them';
COMMENT ON COLUMN backlog_cleanup.pace.removable IS 'rows that a regular run would have removed then';
COMMENT ON COLUMN backlog_cleanup.pace.rows_in_per_hour IS
    'rows that came into scope per hour, over the last 24 hours; NULL before samples cover half of them';
COMMENT ON COLUMN backlog_cleanup.pace.rows_out_per_hour IS
    'rows that runs removed per hour, over the last 24 hours; NULL before samples cover half of them';
COMMENT ON COLUMN backlog_cleanup.pace.rows_per_second IS 'rows per second of the last run that removed any';
COMMENT ON COLUMN backlog_cleanup.pace.time_to_clear IS
    'how long until no row is removable, if rows come and go as in the last 24 hours; NULL if more come than go, or as many';
COMMENT ON COLUMN backlog_cleanup.pace.time_to_remove IS 'how long a run now takes at rows_per_second';

CREATE VIEW backlog_cleanup.size AS
    SELECT t.name AS target, last.sampled_at AS measured_at, last.bytes, week.bytes_per_day,
           CASE WHEN week.bytes_per_day IS NOT NULL THEN
               GREATEST(last.bytes::double precision OPERATOR(pg_catalog.+) (30 OPERATOR(pg_catalog.*) week.bytes_per_day), 0) END AS bytes_in_30_days
    FROM backlog_cleanup.target t
    JOIN LATERAL (
        SELECT s.sampled_at, s.table_bytes OPERATOR(pg_catalog.+) s.index_bytes AS bytes FROM backlog_cleanup.sample s
        WHERE s.target OPERATOR(pg_catalog.=) t.name AND s.grain OPERATOR(pg_catalog.=) 'fine' AND s.table_bytes IS NOT NULL
        ORDER BY s.sampled_at DESC LIMIT 1) last ON true
    LEFT JOIN LATERAL (
        SELECT 86400 OPERATOR(pg_catalog.*)
               pg_catalog.regr_slope((s.table_bytes OPERATOR(pg_catalog.+) s.index_bytes)::double precision,
                                     EXTRACT(epoch FROM s.sampled_at)::double precision) AS bytes_per_day
        FROM backlog_cleanup.sample s
        WHERE s.target OPERATOR(pg_catalog.=) t.name AND s.grain OPERATOR(pg_catalog.=) 'hour' AND s.table_bytes IS NOT NULL
          AND s.sampled_at OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '7 days')
        HAVING pg_catalog.max(s.sampled_at) OPERATOR(pg_catalog.-) pg_catalog.min(s.sampled_at) OPERATOR(pg_catalog.>=) interval '1 day') week ON true;
COMMENT ON VIEW backlog_cleanup.size IS 'the size of each target''s table with its indexes, and its forecast';
COMMENT ON COLUMN backlog_cleanup.size.target IS 'the target';
COMMENT ON COLUMN backlog_cleanup.size.measured_at IS 'when it was measured';
COMMENT ON COLUMN backlog_cleanup.size.bytes IS 'the size then, in bytes';
COMMENT ON COLUMN backlog_cleanup.size.bytes_per_day IS
    'bytes by which it grows a day: the slope of a line through the hours of the last 7 days; NULL before there is a day of them';
COMMENT ON COLUMN backlog_cleanup.size.bytes_in_30_days IS 'the size in 30 days at this pace, in bytes';

CREATE VIEW backlog_cleanup.run_statistics AS
    SELECT r.target, r.mode, pg_catalog.count(*) AS runs,
           pg_catalog.count(*) FILTER (WHERE r.state OPERATOR(pg_catalog.=) ANY (ARRAY['completed', 'stopped'])) AS succeeded,
           100.0::double precision OPERATOR(pg_catalog.*)
               pg_catalog.count(*) FILTER (WHERE r.state OPERATOR(pg_catalog.=) ANY (ARRAY['completed', 'stopped']))
               OPERATOR(pg_catalog./) pg_catalog.count(*) AS success_percent,
           pg_catalog.percentile_cont(0.5) WITHIN GROUP (ORDER BY took.seconds) AS p50_seconds,
           pg_catalog.percentile_cont(0.95) WITHIN GROUP (ORDER BY took.seconds) AS p95_seconds,
           pg_catalog.max(took.seconds) AS max_seconds,
           pg_catalog.sum(r.removed)::bigint AS removed, pg_catalog.sum(r.kept_back)::bigint AS kept_back,
           pg_catalog.sum(r.wal_bytes)::bigint AS wal_bytes,
           pg_catalog.sum(r.removed)::double precision OPERATOR(pg_catalog.*)
               (SELECT CASE WHEN s.live_rows OPERATOR(pg_catalog.+) s.dead_rows OPERATOR(pg_catalog.>) 0
                            THEN (s.table_bytes OPERATOR(pg_catalog.+) s.index_bytes)::double precision
                                 OPERATOR(pg_catalog./) (s.live_rows OPERATOR(pg_catalog.+) s.dead_rows) END
                FROM backlog_cleanup.sample s
                WHERE s.target OPERATOR(pg_catalog.=) r.target AND s.grain OPERATOR(pg_catalog.=) 'fine' AND s.table_bytes IS NOT NULL
                ORDER BY s.sampled_at DESC LIMIT 1) AS freed_bytes
    FROM backlog_cleanup.history r,
         LATERAL (SELECT EXTRACT(epoch FROM (r.finished_at OPERATOR(pg_catalog.-) r.started_at))::double precision AS seconds) took
    WHERE r.started_at OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '30 days')
      AND r.state OPERATOR(pg_catalog.<>) 'running'
    GROUP BY r.target, r.mode;
COMMENT ON VIEW backlog_cleanup.run_statistics IS
    'how the runs of the last 30 days went, also those that only pg_cron knows of';
COMMENT ON COLUMN backlog_cleanup.run_statistics.target IS 'the target''s name at that time';
COMMENT ON COLUMN backlog_cleanup.run_statistics.mode IS 'regular or emergency';
COMMENT ON COLUMN backlog_cleanup.run_statistics.runs IS 'number of runs that have ended';
COMMENT ON COLUMN backlog_cleanup.run_statistics.succeeded IS 'those that completed, or stopped at a limit or on request';
COMMENT ON COLUMN backlog_cleanup.run_statistics.success_percent IS 'the same in percent';
COMMENT ON COLUMN backlog_cleanup.run_statistics.p50_seconds IS 'the median of their durations, in seconds';
COMMENT ON COLUMN backlog_cleanup.run_statistics.p95_seconds IS 'the duration that 95 % of them did not exceed, in seconds';
COMMENT ON COLUMN backlog_cleanup.run_statistics.max_seconds IS 'the longest duration, in seconds';
COMMENT ON COLUMN backlog_cleanup.run_statistics.removed IS 'rows removed';
COMMENT ON COLUMN backlog_cleanup.run_statistics.kept_back IS 'rows that could not go, once for each run';
COMMENT ON COLUMN backlog_cleanup.run_statistics.wal_bytes IS 'WAL that they wrote, in bytes; NULL if none has counted it';
COMMENT ON COLUMN backlog_cleanup.run_statistics.freed_bytes IS
    'bytes that the removed rows took in the table and its indexes, which VACUUM frees for new rows: at the mean size of a row, by the last sample';

CREATE VIEW backlog_cleanup.ranking AS
    SELECT counted.target, counted.what,
           pg_catalog.rank() OVER (PARTITION BY counted.target, counted.what ORDER BY counted.rows_in DESC) AS place,
           counted.name, counted.rows_in, counted.rows_in_before
    FROM (SELECT s.target, changed.what, changed.name,
                 COALESCE(pg_catalog.sum(changed.change) FILTER (WHERE s.sampled_at OPERATOR(pg_catalog.>) yesterday), 0)::bigint AS rows_in,
                 CASE WHEN before.is_known THEN
                     COALESCE(pg_catalog.sum(changed.change) FILTER (WHERE s.sampled_at OPERATOR(pg_catalog.<=) yesterday), 0)::bigint
                 END AS rows_in_before
          FROM backlog_cleanup.sample s
          LEFT JOIN (SELECT b.target, pg_catalog.sum(b.failed_seconds) OPERATOR(pg_catalog.>=) 77760 AS is_known
                     FROM backlog_cleanup.sample b
                     WHERE b.grain OPERATOR(pg_catalog.=) 'fine'
                       AND b.sampled_at OPERATOR(pg_catalog.<=) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '1 day')
                       AND b.sampled_at OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '2 days')
                     GROUP BY b.target) before ON before.target OPERATOR(pg_catalog.=) s.target,
               LATERAL (SELECT pg_catalog.now() OPERATOR(pg_catalog.-) interval '1 day' AS yesterday) since,
               LATERAL (SELECT 'recipe' AS what, r."recipeId" AS name, r.change
                        FROM pg_catalog.jsonb_to_recordset(s.recipes) AS r ("recipeId" text, change bigint)
                        UNION ALL
                        SELECT 'failure type', f."failureType", f.change
                        FROM pg_catalog.jsonb_to_recordset(s.failure_types) AS f ("failureType" text, change bigint)) changed
          WHERE s.grain OPERATOR(pg_catalog.=) 'fine'
            AND s.sampled_at OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '2 days')
          GROUP BY s.target, changed.what, changed.name, before.is_known) counted;
COMMENT ON VIEW backlog_cleanup.ranking IS
    'recipes and failure types by the rows that came into scope in the last 24 hours, as far as samples name them: 50 each';
COMMENT ON COLUMN backlog_cleanup.ranking.target IS 'the target';
COMMENT ON COLUMN backlog_cleanup.ranking.what IS 'recipe or failure type';
COMMENT ON COLUMN backlog_cleanup.ranking.place IS 'its place among those of the target, from 1: most rows first';
COMMENT ON COLUMN backlog_cleanup.ranking.name IS 'the recipe, as text, or the failure type; NULL is none';
COMMENT ON COLUMN backlog_cleanup.ranking.rows_in IS 'rows that came into scope in the last 24 hours';
COMMENT ON COLUMN backlog_cleanup.ranking.rows_in_before IS
    'rows that came into scope in the 24 hours before; NULL if samples cover less than nine tenths of them';
