use backlog_cleanup_report::longest_gap;
use pgrx::spi::quote_literal;

use crate::doctor;
use crate::extension::schema;
use crate::postgres::error::Result;
use crate::schedule::job_of;
use crate::status::alerts::measured::Measured;
use crate::status::alerts::rule::Rule;

/// Counts from the first sample where no run has completed yet. `$2` the days of a period, `$3` why, `$4` a fix.
const OVERDUE: &str = "
    SELECT jsonb_build_object(
        'value', extract(epoch FROM now() - since) / 86400 / $2,
        'sentence', concat_ws(': ',
            CASE WHEN last IS NULL THEN format('no regular run has completed in the %s that are known here',
                                               trim_scale(round(extract(epoch FROM now() - since) / 86400, 1)) || ' days')
                 ELSE format('the last regular run that completed was %s days ago, on %s; the job has a period of %s',
                             trim_scale(round(extract(epoch FROM now() - since) / 86400, 1)),
                             to_char(last AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC'),
                             CASE $2 WHEN 1 THEN '1 day' ELSE $2 || ' days' END) END,
            $3),
        'fix', $4)
    FROM (SELECT max(finished_at) FROM backlog_cleanup.run
          WHERE target = $1 AND mode = 'regular' AND state = 'completed'
            AND recipe_id IS NULL AND failure_type IS NULL AND status IS NULL) completed (last),
         LATERAL (SELECT coalesce(last, (SELECT min(sampled_at) FROM backlog_cleanup.sample WHERE target = $1))) counted (since)
    WHERE since IS NOT NULL";

/// Periods of the job since a regular run of the whole target has completed: whatever has become of the job.
pub fn no_successful_run(rule: &Rule) -> Result<Measured> {
    let days = job_of(rule.target())?["schedule"].as_str().map_or(1, longest_gap);
    let measure = |why: Option<&str>, fix: Option<&str>| {
        let arguments = [rule.target().into(), days.into(), why.into(), fix.into()];
        Measured::by(OVERDUE, &arguments, "there is neither a run nor a sample of the target yet")
    };
    match measure(None, None)? {
        // Only then: what is wrong with the job takes longer to find.
        Measured::Known(values) if values.iter().any(|value| value.value > rule.resolve_at) => {
            let run = format!("CALL {}.backlog_cleanup_run({})", schema()?, quote_literal(rule.target()));
            match doctor::why_no_run(rule.target())? {
                Some(problem) => measure(Some(&problem.detail), Some(problem.fix.as_deref().unwrap_or(&run))),
                None => measure(None, Some(&run)),
            }
        }
        measured => Ok(measured),
    }
}

const FAILED: &str = "
    WITH ended AS (
        SELECT coalesce(max(started_at), now() - interval '30 days') AS completed_at
        FROM backlog_cleanup.run
        WHERE target = $1 AND state = 'completed' AND started_at > now() - interval '30 days'
    ), failed AS (
        SELECT run_id, started_at, state, concat_ws(', at ', error_message, error_at) AS error
        FROM backlog_cleanup.history, ended
        WHERE target = $1 AND state IN ('failed', 'interrupted') AND started_at > completed_at
    )
    SELECT jsonb_build_object(
        'value', runs,
        'sentence', format('%s, of %s, %s%s',
                           CASE runs WHEN 1 THEN 'the last run' ELSE format('%s runs in a row have not completed; the last one', runs) END,
                           to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC'),
                           CASE state WHEN 'failed' THEN 'failed' ELSE 'was interrupted' END, ': ' || nullif(left(error, 1000), '')))
    FROM (SELECT count(*) FROM failed) counted (runs)
    LEFT JOIN (SELECT * FROM failed ORDER BY started_at DESC LIMIT 1) last ON true";

/// Runs in a row that have failed or were interrupted, also those that have left nothing but a line in pg_cron's history.
pub fn failed_runs(rule: &Rule) -> Result<Measured> {
    let mut measured = Measured::by(FAILED, &[rule.target().into()], "the history cannot be read")?;
    if let Measured::Known(values) = &mut measured {
        // The hint of an error may be of anybody's code: nobody is to type it.
        let look = format!("SELECT * FROM {}.backlog_cleanup_doctor({})", schema()?, quote_literal(rule.target()));
        values.iter_mut().for_each(|value| value.fix = Some(look.clone()));
    }
    Ok(measured)
}

const NOTHING_REMOVED: &str = "
    SELECT jsonb_build_object(
        'value', CASE removed WHEN 0 THEN greatest(total_failed - before, 0) ELSE 0 END,
        'sentence', format('run %s has removed none of %s %s, %s more than the run before had: %s', id,
                           to_char(total_failed, 'FM999,999,999,999,990'), $2, to_char(total_failed - before, 'FM999,999,999,999,990'),
                           coalesce(nullif(concat_ws(', ',
                               to_char(nullif(kept_back, 0), 'FM999,999,999,999,990') || ' could not be deleted',
                               to_char(nullif(held, 0), 'FM999,999,999,999,990') || ' are held by policies',
                               to_char(nullif(skipped, 0), 'FM999,999,999,999,990') || ' were locked by other sessions'), ''),
                               'none of them was removable yet')))
    FROM (SELECT *, lead(total_failed) OVER (ORDER BY id DESC) AS before
          FROM (SELECT * FROM backlog_cleanup.run
                WHERE target = $1 AND mode = 'regular' AND state = 'completed'
                  AND recipe_id IS NULL AND failure_type IS NULL AND status IS NULL
                ORDER BY id DESC LIMIT 2) two
          LIMIT 1) last
    WHERE before IS NOT NULL";

/// The rows by which the backlog had grown before a run that removed none of it.
pub fn nothing_removed(rule: &Rule) -> Result<Measured> {
    Measured::by(NOTHING_REMOVED, &[rule.target().into(), rule.rows().into()], "there were no two regular runs yet")
}

const KEPT_BACK: &str = "
    SELECT jsonb_build_object(
        'value', kept_back,
        'sentence', format('run %s could not remove %s %s%s', id, to_char(kept_back, 'FM999,999,999,999,990'), $2,
                           concat(': row ' || kept_back_row, ': ' || left(kept_back_message, 1000), ' (' || kept_back_sqlstate || ')')))
    FROM backlog_cleanup.run WHERE target = $1 AND finished_at IS NOT NULL
    ORDER BY id DESC LIMIT 1";

/// The rows that the last run has kept back.
pub fn kept_back(rule: &Rule) -> Result<Measured> {
    Measured::by(KEPT_BACK, &[rule.target().into(), rule.rows().into()], "there was no run yet")
}
