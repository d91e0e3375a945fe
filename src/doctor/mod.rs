use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::error::{Result, spi};
use crate::postgres::owner::set_local;
use crate::postgres::subtransaction::{attempt, sqlstate};
use crate::rules::policy::Policy;
use crate::target::{self, Target, state};

mod access;
mod history;
mod index;
mod job;
mod others;
mod removal;
mod server;
mod vacuum;

pub use index::references;

/// What is looked at in a target whose tables and columns are there: name, question, and what a healthy one answers.
const OF_TARGET: [Check<Target>; 14] = [
    ("account", account, "the account is among the users, where there are any"),
    ("policy", policy, "its default policy is there and enabled"),
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

/// What is looked at around it, whatever the target's state.
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

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Ok,
    Warn,
    Fail,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "fail",
        }
    }
}

/// What is wrong, and the statement that mends it. With `Status::Ok` it is a remark.
pub struct Problem {
    status: Status,
    pub detail: String,
    pub fix: Option<String>,
}

/// One row of the answer: check, status, detail, fix.
type Finding = (String, String, String, Option<String>);

/// Looks at a target and what is around it, one row per check: `ok`, `warn` (it may hurt) or `fail` (it does), with the
/// statement to run. Reads only: works on a standby. Errors: 22004, 42704 (unknown target).
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
    let name = target::exists(target)?;
    let nest = unsafe { pg_sys::NewGUCNestLevel() };
    set_local("lock_timeout", PATIENCE);
    let mut loaded = None;
    let mut findings = vec![examine("target", "its tables and columns are there", || {
        loaded = Some(Target::load(target)?);
        Ok(Vec::new())
    })];
    if let Some(target) = &loaded {
        for (check, examiner, healthy) in OF_TARGET {
            findings.push(examine(check, healthy, || examiner(target)));
        }
    }
    for (check, examiner, healthy) in AROUND {
        findings.push(examine(check, healthy, || examiner(name)));
    }
    unsafe { pg_sys::AtEOXact_GUC(false, nest) };
    Ok(TableIterator::new(findings))
}

/// Makes one finding of all problems that a check has found. An error is one of them.
fn examine(check: &str, healthy: &str, work: impl FnOnce() -> Result<Vec<Problem>>) -> Finding {
    let found = match attempt(|| work().map(Some)) {
        Ok(found) => found.unwrap_or_default(),
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

/// The problems that a statement on catalogs and the extension's own tables finds: rows of `status, detail, fix text`.
fn problems(statement: &str, arguments: &[DatumWithOid]) -> Result<Vec<Problem>> {
    state(|| {
        Spi::connect(|client| {
            client
                .select(statement, None, arguments)?
                .map(|row| {
                    let status = match row.get::<&str>(1)? {
                        Some("ok") => Status::Ok,
                        Some("warn") => Status::Warn,
                        _ => Status::Fail,
                    };
                    Ok(Problem { status, detail: row.get(2)?.unwrap_or_default(), fix: row.get(3)? })
                })
                .collect::<spi::Result<_>>()
        })
        .map_err(spi)
    })
}

/// A statement on `used (oid)`: the tables of `$1` (`oid[]`), their partitions and children.
fn on_tables(statement: &str) -> String {
    format!(
        "WITH RECURSIVE used (oid) AS (
             SELECT unnest($1)
             UNION SELECT i.inhrelid FROM used JOIN pg_inherits i ON i.inhparent = used.oid
         )
         {statement}"
    )
}

/// All tables that a target names.
fn tables(target: &Target) -> Vec<pg_sys::Oid> {
    let Target { table, users, recipes, ledger, .. } = target;
    let others = [
        users.as_ref().map(|users| users.table.oid),
        recipes.as_ref().map(|recipes| recipes.table.oid),
        ledger.as_ref().map(|ledger| ledger.table.oid),
    ];
    std::iter::once(table.oid).chain(others.into_iter().flatten()).collect()
}

fn account(target: &Target) -> Result<Vec<Problem>> {
    target.account_exists().map(|()| Vec::new())
}

fn policy(target: &Target) -> Result<Vec<Problem>> {
    if Policy::of(target)?.is_enabled() {
        return Ok(Vec::new());
    }
    let detail = "its default policy is disabled: a regular run removes nothing".into();
    let enable = format!(
        "UPDATE backlog_cleanup.policy SET enabled = true \
         WHERE target = {} AND recipe_id IS NULL AND failure_type IS NULL",
        quote_literal(&target.name)
    );
    Ok(vec![Problem { status: Status::Warn, detail, fix: Some(enable) }])
}
