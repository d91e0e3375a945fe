use std::sync::LazyLock;

use backlog_cleanup_report::counted;
use pgrx::spi::quote_literal;
use serde::Deserialize;

use crate::doctor;
use crate::extension::{self, schema};
use crate::history::run::WHOLE_AND_DONE;
use crate::postgres::error::Result;
use crate::postgres::now::one_now;
use crate::schedule::period_of_job;
use crate::status::alerts::measured::{Measured, Value, measured};
use crate::status::alerts::rule::Rule;
use crate::target::row::row;

/// Counts from when the target was made or renamed where no run has ended well since. `$2` the hours of a period, `$3` why, `$4` a fix, `$5` the
/// period in words.
static OVERDUE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT jsonb_build_object(
            'value', extract(epoch FROM now() - greatest(last, named_at)) / 3600 / $2,
            'sentence', concat_ws(': ',
                CASE WHEN last >= named_at
                     THEN format('the last regular run that ended well was %s days ago, on %s; the job has a period of %s', days,
                                 to_char(last AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC'), $5)
                     ELSE format('no regular run has ended well in the %s days since the target was made or renamed', days) END,
                $3),
            'fix', $4)
         FROM backlog_cleanup.target t,
              LATERAL (SELECT (SELECT finished_at FROM backlog_cleanup.run r
                               WHERE target = t.name AND finished_at <= clock_timestamp() AND {WHOLE_AND_DONE}
                               ORDER BY id DESC LIMIT 1)) ended (last),
              LATERAL (SELECT trim_scale(round(extract(epoch FROM now() - greatest(last, named_at)) / 86400, 1))) ago (days)
         WHERE t.name = $1"
    )
});

/// Periods of the job since a regular run of the whole target has ended well: whatever has become of the job.
pub fn no_successful_run(rule: &Rule) -> Result<Measured> {
    let hours = period_of_job(rule.target(), row(Some(rule.target()))?.run_between.as_ref())?;
    let words = if hours % 24 == 0 { counted((hours / 24).into(), "day") } else { counted(hours.into(), "hour") };
    let measure = |why: Option<&str>, fix: Option<&str>| {
        let arguments = [rule.target().into(), hours.into(), why.into(), fix.into(), words.as_str().into()];
        Measured::by(&OVERDUE, &arguments, "the target is gone")
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

/// The failed runs of each target of `$1`, and what the last has met. A run of the same rows that completes makes a failure good, and so does
/// one of everything. `$2` are runs that were interrupted.
static FAILED: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH failed AS (
        SELECT h.target, h.started_at, h.state, concat_ws(', at ', h.error_message, h.error_at) AS error
        FROM backlog_cleanup.history h LEFT JOIN backlog_cleanup.run f ON f.id = h.run_id
        WHERE h.target = ANY ($1) AND h.started_at > now() - interval '30 days'
          AND (h.state = 'failed' OR h.state = 'interrupted' AND (f.state <> 'running' OR f.id = ANY ($2)))
          AND NOT EXISTS (SELECT FROM backlog_cleanup.run r
                          WHERE r.target = h.target AND r.started_at > h.started_at AND r.started_at <= clock_timestamp()
                            AND ({WHOLE_AND_DONE}
                                 OR r.state = 'completed' AND r.mode = h.mode
                                    AND (r.recipe_id, r.failure_type, r.status)
                                        IS NOT DISTINCT FROM (f.recipe_id, f.failure_type, f.status)))
    )
    SELECT jsonb_build_object(
        'target', name, 'value', runs,
        'sentence', format('%s, of %s, %s%s',
                           CASE runs WHEN 1 THEN 'the last run' ELSE format('%s runs have not completed, and none since; the last one', runs) END,
                           to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC'),
                           CASE state WHEN 'failed' THEN 'failed' ELSE 'was interrupted' END, ': ' || nullif(left(error, 1000), '')))
    FROM unnest($1) AS t (name)
    CROSS JOIN LATERAL (SELECT count(*) FROM failed WHERE target = name) counted (runs)
    LEFT JOIN LATERAL (SELECT * FROM failed WHERE target = name ORDER BY started_at DESC LIMIT 1) last ON true"
    )
});

/// Runs that nobody does any more, although they are not over. A snapshot is older than the look at the locks of sessions: a run that has ended in
/// between seems to be such a one, until the next snapshot.
fn interrupted(targets: &[String]) -> Result<Vec<i64>> {
    const SEEM: &str = "
        SELECT array_agg(p.run_id) FROM backlog_cleanup.progress p JOIN backlog_cleanup.run r ON r.id = p.run_id
        WHERE p.target = ANY ($1) AND p.state = 'interrupted' AND r.state = 'running'";
    const ARE: &str = "SELECT array_agg(id) FROM backlog_cleanup.run WHERE id = ANY ($1) AND state = 'running'";
    extension::as_owner(|| {
        let Some(seem) = one_now::<Vec<i64>>(SEEM, &[targets.to_vec().into()])? else { return Ok(Vec::new()) };
        Ok(one_now::<Vec<i64>>(ARE, &[seem.into()])?.unwrap_or_default())
    })
}

#[derive(Deserialize)]
struct OfTarget {
    target: String,
    #[serde(flatten)]
    value: Value,
}

/// Runs that have failed or were interrupted, and that no other has made good, also those that have left nothing but a line in pg_cron's history.
pub fn failed_runs(rule: &Rule) -> Result<Measured> {
    if rule.failed_runs.get().is_none() {
        let targets = measured::<String>("SELECT to_jsonb(name) FROM backlog_cleanup.target", &[])?;
        let arguments = [targets.clone().into(), interrupted(&targets)?.into()];
        let failed = measured::<OfTarget>(&FAILED, &arguments)?;
        let _ = rule.failed_runs.set(failed.into_iter().map(|of| (of.target, of.value)).collect());
    }
    let found = rule.failed_runs.get().and_then(|failed| failed.get(rule.target()));
    let Some(value) = found else { return Ok(Measured::Unknown("the target is gone".into())) };
    // The hint of an error may be of anybody's code: nobody is to type it.
    let look = format!("SELECT * FROM {}.backlog_cleanup_doctor({})", schema()?, quote_literal(rule.target()));
    Ok(Measured::Known(vec![Value { fix: Some(look), ..value.clone() }]))
}

static NOTHING: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT jsonb_build_object(
        'value', CASE removed WHEN 0 THEN greatest(total_failed - before, 0) ELSE 0 END,
        'sentence', format('run %s has removed none of %s %s, %s more than the run before had left: %s', id,
                           to_char(total_failed, 'FM999,999,999,999,990'), $2, to_char(total_failed - before, 'FM999,999,999,999,990'),
                           coalesce(nullif(concat_ws(', ',
                               to_char(nullif(kept_back, 0), 'FM999,999,999,999,990') || ' could not be deleted',
                               to_char(nullif(held, 0), 'FM999,999,999,999,990') || ' are held by policies',
                               to_char(nullif(skipped, 0), 'FM999,999,999,999,990') || ' were locked by other sessions'), ''),
                               'none of them was removable yet')))
    FROM (SELECT *, lead(total_failed - removed) OVER (ORDER BY id DESC) AS before
          FROM (SELECT * FROM backlog_cleanup.run r WHERE target = $1 AND {WHOLE_AND_DONE} ORDER BY id DESC LIMIT 2) two
          LIMIT 1) last
    WHERE before IS NOT NULL"
    )
});

/// The rows by which the backlog had grown before a run that removed none of it.
pub fn nothing_removed(rule: &Rule) -> Result<Measured> {
    Measured::by(&NOTHING, &[rule.target().into(), rule.rows().into()], "there were no two regular runs yet")
}

/// A run of some rows says nothing of the others, unless it has kept back any.
static KEPT_BACK: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT jsonb_build_object(
        'value', kept_back,
        'sentence', format('run %s could not remove %s %s%s', id, to_char(kept_back, 'FM999,999,999,999,990'), $2,
                           concat(': row ' || kept_back_row, ': ' || left(kept_back_message, 1000), ' (' || kept_back_sqlstate || ')')))
    FROM backlog_cleanup.run r
    WHERE target = $1 AND finished_at IS NOT NULL
      AND (kept_back > 0 OR {WHOLE_AND_DONE}
           OR r.mode = 'emergency' AND r.state = 'completed' AND (r.recipe_id, r.failure_type, r.status) IS NOT DISTINCT FROM (NULL, NULL, NULL))
    ORDER BY id DESC LIMIT 1"
    )
});

/// The rows that the last run of everything has kept back, or one since.
pub fn kept_back(rule: &Rule) -> Result<Measured> {
    Measured::by(&KEPT_BACK, &[rule.target().into(), rule.rows().into()], "there was no run of everything yet")
}
