use crate::postgres::error::Result;
use crate::status::alerts::measured::Measured;
use crate::status::alerts::rule::Rule;

const HISTORY: &str = "
    SELECT jsonb_build_object(
        'value', sum(bytes),
        'sentence', format('the extension''s own tables have %s (the limit is %s); the largest is backlog_cleanup.%s with %s',
                           pg_size_pretty(sum(bytes)), pg_size_pretty($1::numeric), (array_agg(relname ORDER BY bytes DESC))[1],
                           pg_size_pretty(max(bytes))),
        'fix', (SELECT format('UPDATE backlog_cleanup.retention SET max_age = %L WHERE what = %L', less.max_age, what)
                FROM backlog_cleanup.retention r
                CROSS JOIN LATERAL (SELECT CASE WHEN r.max_age IS NOT NULL THEN greatest(r.max_age / 2, interval '1 hour') ELSE interval '90 days' END) less (max_age)
                WHERE split_part(what, ' ', 1) = (array_agg(relname ORDER BY bytes DESC))[1] AND (less.max_age = r.max_age) IS NOT TRUE
                -- Of samples, those of which there are most.
                ORDER BY r.max_age IS NOT NULL,
                         r.max_age * CASE what WHEN 'sample fine' THEN 288 WHEN 'sample hour' THEN 24 ELSE 1 END DESC
                LIMIT 1))
    FROM (SELECT relname::text, pg_total_relation_size(oid) AS bytes FROM pg_class
          WHERE relnamespace = 'backlog_cleanup'::regnamespace AND relkind = 'r') own";

/// The bytes of the extension's own tables.
pub fn history_size(rule: &Rule) -> Result<Measured> {
    Measured::by(HISTORY, &[rule.threshold.into()], "there are no tables")
}

/// The least of the samples in the window: autovacuum is given that time. A table with few dead rows has none to speak of.
const DEAD_ROWS: &str = "
    SELECT jsonb_build_object(
        'value', share,
        'sentence', format('%s %% of the rows of %s are dead, and have been for %s minutes (the limit is %s %%)%s', round(share::numeric, 1),
                           name, round($3 / 60), $2,
                           (SELECT format(': run %s has removed %s', id, to_char(removed, 'FM999,999,999,999,990'))
                            FROM backlog_cleanup.run WHERE target = $1 AND removed > 0 ORDER BY id DESC LIMIT 1)),
        'fix', 'VACUUM (ANALYZE) ' || to_regclass(name))
    FROM (SELECT min(CASE WHEN dead_rows >= 10000 THEN 100.0 * dead_rows / (dead_rows + live_rows) ELSE 0 END)::float8 AS share
          FROM backlog_cleanup.sample
          WHERE target = $1 AND grain = 'fine' AND sampled_at >= now() - make_interval(secs => $3) AND dead_rows IS NOT NULL
          HAVING now() - min(sampled_at) >= make_interval(secs => $3) * 0.7) least,
         (SELECT generations_table AS name FROM backlog_cleanup.target WHERE name = $1) named";

/// The percentage of dead rows that the table has had for a while.
pub fn dead_rows(rule: &Rule) -> Result<Measured> {
    let arguments = [rule.target().into(), rule.threshold.into(), rule.within.into()];
    Measured::by(DEAD_ROWS, &arguments, "there are too few samples yet")
}

const TABLE_SIZE: &str = "
    SELECT jsonb_build_object(
        'value', bytes + coalesce(greatest(bytes_per_day, 0), 0) * $3 / 86400,
        'sentence', format('%s with its indexes has %s%s', generations_table, pg_size_pretty(bytes),
                           CASE WHEN bytes > $2 THEN format(', more than %s', pg_size_pretty($2::numeric))
                                WHEN bytes_per_day > 0 THEN
                                    format(' and grows by %s a day: it passes %s on %s', pg_size_pretty(bytes_per_day::numeric),
                                           pg_size_pretty($2::numeric),
                                           to_char((now() + make_interval(days => least(($2 - bytes) / bytes_per_day, 36500)::int))
                                                   AT TIME ZONE 'UTC', 'YYYY-MM-DD')) END))
    FROM backlog_cleanup.size JOIN backlog_cleanup.target t ON t.name = size.target
    WHERE size.target = $1";

/// The bytes that the table has, at this pace, at the end of the window.
pub fn table_size(rule: &Rule) -> Result<Measured> {
    let arguments = [rule.target().into(), rule.threshold.into(), rule.within.into()];
    Measured::by(TABLE_SIZE, &arguments, "there is no sample yet")
}
