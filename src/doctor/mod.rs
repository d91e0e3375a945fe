//! Finds what is wrong with a target and its surroundings, with the statement that fixes it. One file per theme. Knows
//! nothing of its callers.

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

/// The checks that need the target's tables and columns: name, check, and the detail if nothing is wrong.
const OF_TARGET: [Check<Target>; 14] = [
    (
        "account",
        |target| target.account_exists().map(|()| Vec::new()),
        "the account is in the users table, if there is one",
    ),
    ("policy", policy::default_policy, "the default policy exists and is enabled"),
    ("index", index::partial, "the partial index exists and is used"),
    ("references", index::references, "every column that references the table has an index"),
    ("triggers", removal::triggers, "no trigger or rule fires for a removal"),
    ("deferred_constraints", removal::deferred_constraints, "no constraint on removals is deferred"),
    ("row_security", access::row_security, "row security is not forced on the owners"),
    ("owner", access::owner, "no table is owned by a superuser"),
    ("others", others::code, "no other role's code runs with the owners' privileges"),
    ("privileges", access::privileges, "the owners have the privileges that a run needs"),
    ("dead_rows", vacuum::dead_rows, "vacuum keeps up with the dead rows"),
    ("autovacuum", vacuum::autovacuum, "autovacuum is on for the table"),
    ("ledger", history::ledger, "the ledger matches the history"),
    ("overdue", history::overdue, "the last regular run is no older than the schedule allows"),
];

/// The checks of the surroundings. They run even if the target cannot be loaded.
const AROUND: [Check<str>; 10] = [
    ("pg_cron", job::pg_cron, "pg_cron runs the jobs of this database"),
    ("job", job::job, "a job runs the target"),
    ("job_user", job::user, "the job's user exists and may run it"),
    ("job_time_zone", job::time_zone, "pg_cron reads schedules in UTC"),
    ("job_runs", job::runs, "the job's last runs succeeded"),
    ("workers", server::workers, "background workers are free"),
    ("transactions", vacuum::transactions, "no transaction is open for more than an hour"),
    ("replication_slots", vacuum::replication_slots, "no abandoned replication slot holds back vacuum"),
    ("access", access::access, "no role has privileges beyond its level"),
    ("version", server::version, "the extension, its library and the files on disk have the same version"),
];

/// How long a check waits for a lock: short, so that all checks together take less than a second.
const PATIENCE: &str = "50ms";
const LOCKS: &str = "SELECT pid, state, xact_start, query FROM pg_stat_activity \
                     WHERE pid IN (SELECT pid FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted)";

type Check<T> = (&'static str, fn(&T) -> Result<Vec<Problem>>, &'static str);

/// One row of the answer: check, status, detail, fix.
type Finding = (String, String, String, Option<String>);

/// Checks a target and its surroundings, one row per check: `ok`, `warn` (it may do harm) or `fail` (it does), with the
/// statement that fixes it. Reads only: works on a standby. Errors: 22004, 42704 (unknown target).
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
        let mut findings = vec![examine("target", "its tables and columns exist", || {
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

/// Runs a check, and sums up its problems in one finding. An error counts as a problem.
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

/// Turns an error into a problem. PostgreSQL's own hints are dropped: they are prose, not statements to type.
fn fault(caught: CaughtError) -> Problem {
    let (detail, fix) = match caught {
        CaughtError::ErrorReport(failure) => {
            let lines = std::iter::once(failure.message()).chain(failure.detail().into_iter().flat_map(str::lines));
            (lines.collect::<Vec<_>>().join("; "), failure.hint().map(str::to_owned))
        }
        CaughtError::PostgresError(failure) => (failure.message().to_owned(), None),
        panic => panic.rethrow(),
    };
    Problem { status: Status::Fail, detail, fix }
}
