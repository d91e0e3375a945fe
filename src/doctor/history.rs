use backlog_cleanup_report::Mode;
use pgrx::spi::quote_literal;

use crate::extension::schema;
use crate::history::books::{Balance, balance};
use crate::history::run::WHOLE_AND_DONE;
use crate::obstacles;
use crate::obstacles::problem::{Problem, Status, problems};
use crate::postgres::error::Result;
use crate::postgres::met::LOST;
use crate::schedule::{auto, period_of_job};
use crate::target::Target;

/// Compares the removed rows in the ledger with those in the history, over all targets that share the ledger.
pub fn ledger(target: &Target) -> Result<Vec<Problem>> {
    let Some(Balance { ledger, runs }) = balance(target)? else {
        return Ok(vec![Problem { status: Status::Ok, detail: "the target has no ledger".into(), fix: None }]);
    };
    if ledger == runs {
        return Ok(Vec::new());
    }
    let detail = format!(
        "the ledger has {ledger} removed rows, the history {runs}: find out which of them somebody has changed by hand"
    );
    Ok(vec![Problem { status: Status::Fail, detail, fix: None }])
}

/// The row of a run that removes a row.
pub fn ledger_row(target: &Target) -> Result<Vec<Problem>> {
    obstacles::ledger::ledger(target, Mode::Regular, 1)
}

const LAST_RUN: &str = "
    SELECT CASE last.state WHEN 'failed' THEN 'fail' ELSE 'warn' END,
           concat_ws(': ', format('run %s %s', last.id, CASE last.state WHEN 'failed' THEN 'has failed' ELSE 'was interrupted' END),
                     last.error || coalesce(', at ' || last.at, '')), NULL
    FROM (SELECT r.id, coalesce(p.state, r.state), to_jsonb(r) ->> 'error_message', to_jsonb(r) ->> 'error_at'
          FROM backlog_cleanup.run r LEFT JOIN backlog_cleanup.progress p ON p.run_id = r.id
          WHERE r.target = $1 ORDER BY r.id DESC LIMIT 1) last (id, state, error, at)
    WHERE last.state IN ('failed', 'interrupted')";

/// Finds a last run that has failed or was interrupted. The next one continues it.
pub fn last_run(target: &str) -> Result<Vec<Problem>> {
    problems(LAST_RUN, &[target.into()])
}

const KEPT_BACK: &str = "
    SELECT CASE WHEN kept_back_sqlstate = ANY ($2) THEN 'fail' ELSE 'warn' END,
           format('run %s has kept back %s row%s%s', id, kept_back, CASE WHEN kept_back > 1 THEN 's' END,
                  concat(': row ' || kept_back_row, ': ' || kept_back_message, ' (' || kept_back_sqlstate || ')')),
           NULL
    FROM (SELECT * FROM backlog_cleanup.run WHERE target = $1 AND finished_at IS NOT NULL ORDER BY id DESC LIMIT 1) last
    WHERE kept_back > 0";

/// The rows that the last run has kept back, and what the first of them met: data of the row are lost, at worst.
pub fn kept_back(target: &Target) -> Result<Vec<Problem>> {
    problems(KEPT_BACK, &[target.name.as_str().into(), LOST.map(str::to_owned).to_vec().into()])
}

fn sql_of_overdue() -> String {
    format!(
        "SELECT CASE WHEN last.finished_at IS NULL THEN 'warn' ELSE 'fail' END,
           CASE WHEN last.finished_at IS NULL THEN 'there was no regular run yet'
                ELSE format('the last regular run was on %s',
                            to_char(last.finished_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC')) END,
           $3
    FROM (SELECT max(finished_at) AS finished_at FROM backlog_cleanup.run r
          WHERE target = $1 AND finished_at <= clock_timestamp() AND {WHOLE_AND_DONE}) last
    WHERE coalesce(last.finished_at < now() - make_interval(hours => $2 + 1), true)"
    )
}

/// Checks that the last regular run without a selection is no older than the period of the job, plus an hour for the run itself.
pub fn overdue(target: &Target) -> Result<Vec<Problem>> {
    let moved = if auto::has_moved(&target.name)? { 24 } else { 0 };
    let hours = period_of_job(&target.name, target.run_between.as_ref())? + moved;
    let run = format!("SELECT {}.backlog_cleanup_failed_generations({})", schema()?, quote_literal(&target.name));
    problems(&sql_of_overdue(), &[target.name.as_str().into(), hours.into(), run.into()])
}
