//! What is wrong with a target and around it, and the statement that mends it. A file per theme; knows nothing of who asks.

mod access;
mod history;
mod index;
mod job;
mod others;
mod policy;
pub mod problem;
mod removal;
mod server;
mod used;
mod vacuum;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;

use crate::doctor::problem::{Problem, Status};
use crate::postgres::error::Result;
use crate::postgres::settings::{set_local, with_settings};
use crate::postgres::subtransaction::{briefly, sqlstate};
use crate::target::Target;
use crate::target::load::exists;

pub use index::references;

/// The checks of a target whose tables and columns are there: name, check, and the detail if nothing is wrong.
const OF_TARGET: [Check<Target>; 14] = [
    (
        "account",
        |target| target.account_exists().map(|()| Vec::new()),
        "the account is among the users, where there are any",
    ),
    ("policy", policy::default_policy, "its default policy is there and enabled"),
    ("index", index::partial, "the partial index is there and used"),
    ("references", index::references, "every column that references the table has an index"),
    ("triggers", removal::triggers, "a removal sets off no trigger and no rule"),
    ("deferred_constraints", removal::deferred_constraints, "no constraint on removals is deferred"),
    ("row_security", access::row_security, "no policy hides rows from the owners"),
    ("owner", access::owner, "the tables belong to ordinary roles"),
    ("others", others::code, "no code of others runs as the owners"),
    ("privileges", access::privileges, "the owners may do to their tables what a run does"),
    ("dead_rows", vacuum::dead_rows, "vacuum keeps up with the dead rows"),
    ("autovacuum", vacuum::autovacuum, "autovacuum looks after the table"),
    ("ledger", history::ledger, "the ledger equals the history"),
    ("overdue", history::overdue, "the last regular run is as recent as the schedule wants it"),
];

/// The checks of what is around it, whatever the target's state.
const AROUND: [Check<str>; 10] = [
    ("pg_cron", job::pg_cron, "pg_cron runs the jobs of this database"),
    ("job", job::job, "a job runs the target"),
    ("job_user", job::user, "the job's user exists and may run it"),
    ("job_time_zone", job::time_zone, "pg_cron reads schedules in UTC"),
    ("job_runs", job::runs, "the job's last runs succeeded"),
    ("workers", server::workers, "background workers are free"),
    ("transactions", vacuum::transactions, "no transaction is open for more than an hour"),
    ("replication_slots", vacuum::replication_slots, "no abandoned replication slot holds back vacuum"),
    ("access", access::access, "nobody has what no level has given"),
    ("version", server::version, "the extension, its library and the files on disk are of one version"),
];

/// How long a check waits for a lock: all of them together take less than a second.
const PATIENCE: &str = "50ms";
const LOCKS: &str = "SELECT pid, state, xact_start, query FROM pg_stat_activity \
                     WHERE pid IN (SELECT pid FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted)";

type Check<T> = (&'static str, fn(&T) -> Result<Vec<Problem>>, &'static str);

/// One row of the answer: check, status, detail, fix.
type Finding = (String, String, String, Option<String>);

/// Checks a target and what is around it, one row per check: `ok`, `warn` (it may hurt) or `fail` (it does), with the
/// statement that mends it. Reads only: works on a standby. Errors: 22004, 42704 (unknown target).
#[allow(clippy::type_complexity)] // pgrx reads the columns from the signature itself
#[pg_extern(stable)]
fn backlog_cleanup_doctor(
    target: default!(Option<&str>, "'generations'"),
) -> Result<
    TableIterator<
        'static,
        (name!(check_name, String), name!(status, String), name!(detail, String), name!(fix, Option<String>)),
    >,
> {
    let name = exists(target)?;
    let findings = with_settings(|| {
        set_local("lock_timeout", PATIENCE);
        let mut loaded = None;
        let mut findings = vec![examine("target", "its tables and columns are there", || {
            loaded = Some(Target::load(target)?);
            Ok(Vec::new())
        })];
        if let Some(target) = &loaded {
            let of_target = OF_TARGET.map(|(check, examiner, healthy)| examine(check, healthy, || examiner(target)));
            findings.extend(of_target);
        }
        findings.extend(AROUND.map(|(check, examiner, healthy)| examine(check, healthy, || examiner(&name))));
        findings
    });
    Ok(TableIterator::new(findings))
}

/// Makes one finding of all problems that a check finds. An error is one of them.
fn examine(check: &str, healthy: &str, work: impl FnOnce() -> Result<Vec<Problem>>) -> Finding {
    let found = match briefly(work) {
        Ok(found) => found,
        Err(caught) => match sqlstate(&caught) {
            PgSqlErrorCode::ERRCODE_QUERY_CANCELED | PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN => caught.rethrow(),
            PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => {
                let detail = "another session has locked what this check looks at".into();
                vec![Problem { status: Status::Warn, detail, fix: Some(LOCKS.into()) }]
            }
            _ => vec![fault(caught)],
        },
    };
    let status = found.iter().map(|problem| problem.status).max().unwrap_or(Status::Ok);
    let details: Vec<&str> = found.iter().map(|problem| problem.detail.as_str()).collect();
    let fixes: Vec<&str> = found.iter().filter_map(|problem| problem.fix.as_deref()).collect();
    (
        check.to_owned(),
        status.name().to_owned(),
        if found.is_empty() { healthy.to_owned() } else { details.join("; ") },
        (!fixes.is_empty()).then(|| fixes.join("; ")),
    )
}

/// An error as a problem; PostgreSQL's own hints are prose, and nothing to type.
fn fault(caught: CaughtError) -> Problem {
    let (detail, fix) = match caught {
        CaughtError::ErrorReport(failure) => (failure.message().to_owned(), failure.hint().map(str::to_owned)),
        CaughtError::PostgresError(failure) => (failure.message().to_owned(), None),
        panic => panic.rethrow(),
    };
    Problem { status: Status::Fail, detail, fix }
}
