use crate::extension::schema;
use crate::postgres::error::Result;
use crate::status::alerts::measured::Measured;
use crate::status::alerts::rule::Rule;

/// A sample that is older says nothing of now.
const IN_SCOPE: &str = "
    SELECT jsonb_build_object(
        'value', in_scope,
        'sentence', format('%s %s are in scope (the limit is %s)', to_char(in_scope, 'FM999,999,999,999,990'), $3,
                           to_char($2, 'FM999,999,999,999,990'))
                    || CASE WHEN removable > 0 THEN format('; a run would remove %s of them', to_char(removable, 'FM999,999,999,999,990'))
                            WHEN removable = 0 THEN '; none of them can go yet' ELSE '' END,
        'fix', CASE WHEN removable > 0 OR removable IS NULL THEN format('CALL %s.backlog_cleanup_run(%L)', $4, $1) END)
    FROM (SELECT in_scope, removable FROM backlog_cleanup.sample
          WHERE target = $1 AND grain = 'fine' AND in_scope IS NOT NULL AND sampled_at > now() - interval '3 hours'
          ORDER BY sampled_at DESC LIMIT 1) last";

/// The rows in scope, by the last sample.
pub fn rows_in_scope(rule: &Rule) -> Result<Measured> {
    let arguments = [rule.target().into(), rule.threshold.into(), rule.rows().into(), schema()?.into()];
    Measured::by(IN_SCOPE, &arguments, "no sample of the last 3 hours has counted the rows")
}

const RATE: &str = "
    SELECT jsonb_build_object(
        'value', rate,
        'sentence', format('%s %s a minute have come into scope in the last %s minutes (the limit is %s)',
                           to_char(rate, 'FM999,999,990.0'), $4, round($3 / 60), $2))
    FROM backlog_cleanup.rows_in_per_minute($1, make_interval(secs => $3)) AS rate
    WHERE rate IS NOT NULL";

/// The new rows in scope a minute.
pub fn failure_rate(rule: &Rule) -> Result<Measured> {
    let arguments = [rule.target().into(), rule.threshold.into(), rule.within.into(), rule.rows().into()];
    Measured::by(RATE, &arguments, NO_RATE)
}

/// One row a minute is no flood, however quiet the hour usually is.
const FACTOR: &str = "
    SELECT jsonb_build_object(
        'value', rate / greatest(usual, 1),
        'sentence', format('%s %s a minute have come into scope in the last %s minutes, %s times the usual of this hour, %s (the limit is %s)',
                           to_char(rate, 'FM999,999,990.0'), $4, round($3 / 60), to_char(rate / greatest(usual, 1), 'FM999,990.0'),
                           to_char(usual, 'FM999,999,990.0'), $2))
    FROM backlog_cleanup.rows_in_per_minute($1, make_interval(secs => $3)) AS rate,
         backlog_cleanup.usual_rows_in_per_minute($1) AS usual
    WHERE rate IS NOT NULL AND usual IS NOT NULL";

/// The same as a multiple of what is usual for the hour.
pub fn failure_rate_factor(rule: &Rule) -> Result<Measured> {
    let arguments = [rule.target().into(), rule.threshold.into(), rule.within.into(), rule.rows().into()];
    Measured::by(FACTOR, &arguments, "no baseline yet: it takes this hour of three days, and two samples of now")
}

const NO_RATE: &str = "too few samples have counted the rows";
